"""How fast a system backup is made and restored, what it takes of memory, and what it costs the reads beside it.

    PYTHONPATH=test:. .venv/bin/python -m bench.system_backup [--records N] [--seconds S] [--rate R]

Real processes on loopback: Nexus on SQLite with N secrets of 1 KiB (and a tenth of that first, for memory must not grow
with the store), `spike system-backup create` beside a load client that reads one secret over four kept connections at
half of what it reaches alone, and `spike restore --from` on an empty machine. Reads are measured second by second, in
turn alone and beside a backup, and the medians compared: a machine that others use as well is never as quiet in one
minute as in the next. The peak of memory is what the kernel says of each process (VmHWM), less what it had held before.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from bench.load import CannotBuildError, Credential, Figures, built, run
from bench.read import READ_TARGET, request
from bench.recovery import fill
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from process_kit import BIN, PASSWORD, RESTORE, Installation
from spike.client.setting import ClientSetting
from spike.spiffe.workload_source import fetch_material

RECORDS = 20_000
CONNECTIONS = 4
PATH = "tenants/t500/database"


def credential_of(spike: Installation) -> Credential:
    """Return what the load client needs, from the installation's own Workload API."""
    setting = ClientSetting.from_environment(spike.environment)
    material = fetch_material(setting.socket, setting.source_timeout_s)
    who = Credential.empty()
    key = load_der_private_key(material.private_key.der(), password=None)
    os.write(who.key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    for each in material.svid.chain:
        os.write(who.certificate, each.public_bytes(Encoding.PEM))
    for bundle in material.bundles.values():
        for each in bundle.authorities:
            os.write(who.authority, each.public_bytes(Encoding.PEM))
    return who


def memory_kib(process: int, name: str) -> int:
    """Return a line of /proc/PID/status in KiB."""
    for line in Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise LookupError(name)


def furnished(spike: Installation, count: int) -> None:
    """Give a store its secrets, past the wire: they are never opened here."""
    spike.init()
    spike.client.put_secret(PATH, {"user": "web", "password": "x" * 1000})
    spike.stop_nexus()
    fill(spike.store, count)
    spike.start_nexus()
    spike.restore()


def timed(command: list[str], spike: Installation, stdin: bytes = b"") -> tuple[float, int]:
    """Run a command of Pilot; return its seconds and its peak of memory in KiB."""
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=dict(spike.environment),
    )
    assert process.stdin is not None
    process.stdin.write(stdin)
    process.stdin.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise AssertionError(f"{command} failed: {process.returncode}")
    return time.perf_counter() - began, usage.ru_maxrss


def create(spike: Installation, file: Path) -> tuple[float, int, int]:
    """Make a system backup; return its seconds, Pilot's peak, and how much Nexus grew, in KiB."""
    assert spike.nexus is not None
    process = spike.nexus.pid
    Path(f"/proc/{process}/clear_refs").write_text("5", encoding="ascii")  # VmHWM begins anew
    before = memory_kib(process, "VmRSS")
    seconds, peak = timed([str(BIN / "spike"), "system-backup", "create", str(file)], spike)
    return seconds, peak, memory_kib(process, "VmHWM") - before


@contextmanager
def being_made(spike: Installation, file: Path) -> Iterator[None]:
    """Have a system backup made meanwhile, from its first part on; it never gets to its end."""
    command = [str(BIN / "spike"), "system-backup", "create", str(file)]
    part = file.with_name(f"{file.name}.part")
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=dict(spike.environment),
    )
    try:
        while not (part.exists() and part.stat().st_size):
            time.sleep(0.01)
        yield
        if process.poll() is not None:
            raise AssertionError("the backup was made too soon: take more records")
    finally:
        process.terminate()
        process.wait()


def beside(
    spike: Installation, program: Path, file: Path, seconds: int, asked_rate: float
) -> dict[str, float]:
    """Measure reads alone and beside a backup."""
    who, asked = credential_of(spike), request(READ_TARGET)

    def reads(rate: float) -> Figures:
        found = run(
            program, spike.port, who, asked, connections=CONNECTIONS, seconds=1.0, rate=rate
        )
        if found.errors:
            raise AssertionError(found)
        return found

    reads(0)  # warm
    rate = asked_rate or max(reads(0).rps for _ in range(3)) / 2
    alone, meanwhile = list[Figures](), list[Figures]()
    for _ in range(seconds):
        alone.append(reads(rate))
        with being_made(spike, file):
            reads(rate)  # what follows a change of the keyring (the export is noted in it) ends
            meanwhile.append(reads(rate))
    alone_ms, beside_ms = (median(each.p99_ms for each in those) for those in (alone, meanwhile))
    return {
        "reads/s": rate,
        "read alone, p50 ms": median(each.p50_ms for each in alone),
        "read alone, p99 ms": alone_ms,
        "read beside, p50 ms": median(each.p50_ms for each in meanwhile),
        "read beside, p99 ms": beside_ms,
        "read beside against alone, p99": beside_ms / alone_ms,
    }


def measure(program: Path, records: int, seconds: int, rate: float) -> dict[str, float]:
    """Return the figures by name."""
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as kept:
        for count in (records // 10, records):
            file = Path(kept) / f"{count}.system-backup"
            with tempfile.TemporaryDirectory() as directory, Installation(Path(directory)) as spike:
                furnished(spike, count)
                took, pilot, grew = create(spike, file)
                found |= {
                    f"{count} secrets, created records/s": 2 * count / took,
                    f"{count} secrets, file MiB": file.stat().st_size / (1 << 20),
                    f"{count} secrets, Nexus grew MiB": grew / 1024,
                    f"{count} secrets, Pilot's peak MiB": pilot / 1024,
                }
                if count == records:
                    found |= beside(spike, program, Path(directory) / "again", seconds, rate)
        with tempfile.TemporaryDirectory() as directory, Installation(Path(directory)) as spike:
            command = [
                *(str(BIN / "spike-authority"), "run", "--id", RESTORE, "--"),
                *(str(BIN / "spike"), "restore", "--from", str(file)),
                *("--password-stdin", "--yes"),
            ]
            took, _ = timed(command, spike, PASSWORD)
            found[f"{records} secrets, restored records/s"] = 2 * records / took
    return {name: round(value, 3 if value < 100 else 0) for name, value in found.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--format", choices=("human", "json"), default="human")
    parser.add_argument("--records", type=int, default=RECORDS)
    parser.add_argument("--seconds", type=int, default=9)
    parser.add_argument("--rate", type=float, default=0.0, help="reads/s; 0: half of the most")
    options = parser.parse_args()
    try:
        with built() as program:
            found = measure(program, options.records, options.seconds, options.rate)
    except CannotBuildError as error:
        print(f"skipped: {error}", file=sys.stderr)
        return
    if options.format == "json":
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:38} {value:10}")


if __name__ == "__main__":
    main()
