"""What happens around the recoveries of a runbook: what is lost, cut off, put back or made."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

from around_rotation_kit import Around
from process_kit import PASSWORD, Installation, eventually, free_port

RECOVER = "spiffe://spike.ist/spike/pilot/role/recover"
PASSWORDS = {
    "password.txt": PASSWORD,
    "new-password.txt": b"wicker plume 41 glacier dune hatch",
    "alice.txt": b"quartz ember 8 lantern moss fjord",
    "first-password.txt": b"velvet anchor 93 maple siren crumb",
}


class AroundRecovery(Around):
    """An installation, what happens to it, and the directory `kept` that its pages are followed in."""

    def __init__(self, made: Installation, kept: Path) -> None:
        super().__init__(made)
        self._kept = kept
        self._copy = made.directory / "copy"
        self._newest = made.directory / "newest"
        for name, password in PASSWORDS.items():
            (kept / name).touch(mode=0o600)
            (kept / name).write_bytes(password)

    def happen(self, what: str) -> None:
        """Let happen what a page says."""
        word, *which = what.split()
        indexes = [int(each) for each in which]
        known: dict[str, Callable[[], object]] = {
            "kill-nexus": self.made.kill_nexus,
            "kill-keeper": lambda: self.made.kill_keeper(indexes[0]),
            "start-keepers": lambda: self._start_keepers(indexes),
            "cut-off-keepers": self._cut_off_keepers,
            "reach-keepers": self._reach_keepers,
            "lose-memory": self._lose_memory,
            "hand-out-shards": self._hand_out_shards,
            "spoil-shard": self._spoil_shard,
            "second-slot": self._second_slot,
            "lose-keyring": self._lose_keyring,
            "put-old-copy-back": self._put_old_copy_back,
            "put-newest-copy-back": self._put_newest_copy_back,
            "lay-out-keepers": self._lay_out_keepers,
            "restart-nexus-as-printed": self._restart_as_printed,
            "rotation-follows": lambda: self._until("verified"),
        }
        if word in known:
            known[word]()
        else:
            super().happen(what)

    def _start_keepers(self, indexes: list[int]) -> None:
        for index in indexes:
            self.made.start_keeper(index)
        self.made.wait_for_keepers(*indexes)

    def _locked(self, told: str) -> None:
        """Wait until Nexus, locked, says what it waits for."""
        eventually(
            f"Nexus says: {told}", lambda: told in (self.made.client.get_status().recovery or "")
        )

    def _cut_off_keepers(self) -> None:
        """Two Keepers are out of reach while Nexus starts again; they keep what they hold."""
        self._signal_keepers(signal.SIGSTOP)
        self.made.kill_nexus()
        self.made.start_nexus()
        self._locked("Keeper 2: ")

    def _reach_keepers(self) -> None:
        self._signal_keepers(signal.SIGCONT)
        self.made.wait_until_open()
        self.made.wait_for_keepers()

    def _signal_keepers(self, number: signal.Signals) -> None:
        for index in (1, 2):
            os.kill(self.made.keeper[index].pid, number)

    def _lose_memory(self) -> None:
        """Everything restarts at once."""
        self.made.kill_nexus()
        for index in self.made.keeper_port:
            self.made.kill_keeper(index)
            self.made.start_keeper(index)
        self.made.start_nexus()
        self._locked("Keeper 3: it holds no share")

    def _hand_out_shards(self) -> None:
        shutil.rmtree(self._kept / "shard", ignore_errors=True)
        arguments = ("operator", "recover", "--yes", "--dir", str(self._kept / "shard"))
        done = self.made.spike(*arguments, identity=RECOVER)
        assert done.returncode == 0, done.stderr.decode()

    def _spoil_shard(self) -> None:
        """Somebody has copied the second shard by hand, with one wrong character."""
        text = (self._kept / "shard" / "spike.recovery.2.txt").read_text().strip()
        (self._kept / "spoiled.txt").write_text(text[:-1] + ("0" if text[-1] != "0" else "1"))

    def _second_slot(self) -> None:
        """Alice has a slot, if she has none yet."""
        slots = self.made.client.get_status().slots or ()
        if any(slot.name == "alice" for slot in slots):
            return
        new = str(self._kept / "alice.txt")
        arguments = ("backup", "slot", "add", "alice", "--password-file", new)
        done = self.made.spike(*arguments, identity=RECOVER)
        assert done.returncode == 0, done.stderr.decode()

    def _lose_keyring(self) -> None:
        self.made.kill_nexus()
        with self._database() as database:
            assert database.execute("DELETE FROM record WHERE kind = 'keyring'").rowcount == 1
        database.close()
        self.made.start_nexus()

    def _put_old_copy_back(self) -> None:
        """Somebody puts back a copy that was made before the Keepers got new shares."""
        if not self._copy.exists():
            self._make_copy()
        self.made.kill_nexus()
        self.made.store.rename(self._newest)
        shutil.copytree(self._copy, self.made.store)
        self.made.start_nexus()
        self._locked("old copy")

    def _make_copy(self) -> None:
        (path,) = self.made.store.glob("*.sqlite")
        self._copy.mkdir(mode=0o700)
        (self._copy / path.name).touch(mode=0o600)
        target = sqlite3.connect(self._copy / path.name)
        with self._database() as database:
            database.backup(target)
        target.close()
        database.close()
        self.made.client.refresh_keepers()

    def _put_newest_copy_back(self) -> None:
        self.made.kill_nexus()
        shutil.rmtree(self.made.store)
        self._newest.rename(self.made.store)
        self.made.start_nexus()
        self.made.wait_until_open()
        self.made.wait_for_keepers()

    def _lay_out_keepers(self) -> None:
        """A fourth Keeper waits to take the place of the third."""
        self.made.keeper_port[4] = free_port()
        self.made.start_keeper(4)
        for name, indexes in (("peers.txt", (1, 2, 4)), ("old-peers.txt", (1, 2, 3))):
            peers = (f"{self.made.keeper_url(i)}#{self.made.keeper_id(i)}" for i in indexes)
            (self._kept / name).write_text(",".join(peers) + "\n")

    def _restart_as_printed(self) -> None:
        self.made.kill_nexus()
        peers = (self._kept / "peers.txt").read_text().strip()
        self.made.start_nexus(SPIKE_NEXUS_KEEPER_PEERS=peers, SPIKE_NEXUS_SHAMIR_SHARES="3")
        self.made.wait_until_open()
        eventually(
            "all three are current", lambda: set(self.made.keeper_states().values()) == {"current"}
        )
