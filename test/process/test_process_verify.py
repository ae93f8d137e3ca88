"""`spike key` against a shipped Nexus: what a person sees, what a script reads, and Ctrl-C in the middle."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

from process_kit import BIN, Installation, eventually


def test_keys_and_their_history_are_told_and_everything_stored_is_verified(tmp_path: Path) -> None:
    with Installation(tmp_path) as made:
        made.init()
        for number in range(30):
            made.client.put_secret(f"tenant/{number % 10}", {"k": f"v{number}"})
        listed = made.spike("key", "list")
        assert listed.returncode == 0
        told = listed.stdout.decode().splitlines()
        assert [line.split(" ", 1)[0] for line in told] == [
            *("root", "record", "cipher", "audit", "backup-auth")
        ]
        assert all(" 1: active since 20" in line for line in told)
        assert all("wrapped under root 1" in line for line in told[1:])

        history = made.spike("key", "history", "--format", "json")
        assert history.returncode == 0
        read = json.loads(history.stdout)
        assert [event["kind"] for event in read["events"]] == ["init"]
        assert read["breaks"] == []

        nothing_yet = made.spike("key", "verify", "--watch")
        assert nothing_yet.returncode == 1
        assert b"no verification has run" in nothing_yet.stderr

        verified = made.spike("key", "verify")
        assert verified.returncode == 0, verified.stderr
        assert verified.stdout.startswith(b"GOOD: ")
        assert b"  secret under generation 1: 30\n" in verified.stdout

        lines = made.spike("key", "verify", "--watch", "--format", "json").stdout.splitlines()
        last = json.loads(lines[-1])
        assert last["state"] == "good"
        assert last["scanned"] == last["good"] + last["vanished"] + last["bad"]
        assert "Verified: good, " in made.spike("status").stdout.decode()


def test_ctrl_c_leaves_the_verification_running_and_says_how_to_look_again(tmp_path: Path) -> None:
    with Installation(tmp_path) as made:
        made.init()
        for number in range(300):
            made.client.put_secret(f"tenant/{number}", {"k": "v" * 60_000})
        pilot = subprocess.Popen(
            [str(BIN / "spike"), "key", "verify", "--format", "json"],
            env=dict(made.environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert pilot.stdout is not None
        assert pilot.stderr is not None
        with pilot.stdout, pilot.stderr:
            first = json.loads(pilot.stdout.readline())
            pilot.send_signal(signal.SIGINT)
            said = pilot.stderr.read().decode()
            assert pilot.wait(30) in (0, 1)
        # It may have been quicker than the signal; then there was nothing to leave.
        assert pilot.returncode == 0 or f"Verification {first['id']} goes on in Nexus" in said
        eventually(
            "it ended by itself",
            lambda: getattr(made.client.get_verification(), "state", "") == "good",
        )
        assert made.spike("key", "verify", "--watch").returncode == 0
