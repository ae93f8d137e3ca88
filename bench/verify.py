"""How fast a verification goes, and what it costs the reads beside it. Run it alone.

    .venv/bin/python -m bench.verify [--format human|json] [--seconds S]

A Nexus on SQLite holds 20,000 secrets of 1 KiB. The same blobs are opened in a bare loop (no store, no decoding, no
accounts), then read from the store page by page and opened, then verified by `spike key verify`'s own job, in turns:
records per second, and the ratio to the bare loop. Then a load client of another process reads one secret over four
kept connections as fast as it can, alone and with the job beside it: milliseconds, and how fast the job still goes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sys
import tempfile
import time
from pathlib import Path

import uvloop
from bench.load import CannotBuildError, Credential, Figures, built, run
from bench.read import PATH, READ_TARGET, fill, request

from nexus_kit import SUPERUSER, RunningNexus, running
from spike.nexus.sealed import SealedStore
from spike.secret.encoding import encode_meta, encode_values
from spike.secret.version import SecretMeta, Version, VersionId, VersionNumber
from spike.storage.protocol import MUST_NOT_EXIST, SECRET, SECRET_META, Change, Record, RecordId
from spike.wire.go_time import UnixNs

SECRETS, ROUNDS = 20_000, 3
CONNECTIONS = 4


async def _fill(sealed: SealedStore) -> None:
    values, now = encode_values({"password": "x" * 1000}), UnixNs(1)
    changes: list[Change] = []
    for number in range(SECRETS):
        path, version_id = f"tenants/t{number:06d}/database", VersionId(secrets.token_hex(16))
        meta = SecretMeta((Version(VersionNumber(1), version_id, now, None),), 10, now, now)
        changes.append(sealed.put(RecordId(SECRET, path, version_id), values, MUST_NOT_EXIST))
        changes.append(sealed.put(RecordId(SECRET_META, path), encode_meta(meta), MUST_NOT_EXIST))
        if len(changes) >= 4_000:
            await sealed.apply(changes)
            changes.clear()
    if changes:
        await sealed.apply(changes)


async def _all(nexus: RunningNexus) -> list[Record]:
    found: list[Record] = []
    for kind in (SECRET, SECRET_META):
        after = None
        while True:
            page = await nexus.store.scan(kind, "", after, 1_000)
            found += page.items
            after = page.after
            if after is None:
                break
    return found


def _bare(sealed: SealedStore, records: list[Record]) -> float:
    began = time.perf_counter()
    for record in records:
        sealed.open(record)
    return len(records) / (time.perf_counter() - began)


async def _paged(nexus: RunningNexus) -> float:
    sealed, began, count = nexus.vault.opened.sealed, time.perf_counter(), 0
    for kind in (SECRET, SECRET_META):
        async for _ in sealed.scan(kind):
            count += 1
    return count / (time.perf_counter() - began)


async def _verified(nexus: RunningNexus) -> float:
    began = time.perf_counter()
    run, _ = nexus.verifier.start("the benchmark")
    await nexus.verifier.ended()
    if run.tally.good != run.expected:
        raise AssertionError(run)
    return run.tally.scanned / (time.perf_counter() - began)


async def _reads(nexus: RunningNexus, program: Path, seconds: float) -> Figures:
    """Read one secret again and again from another process, over one connection."""
    who = Credential.empty()
    fill(who, nexus.ca, SUPERUSER)
    port, asked = nexus.server.port, request(READ_TARGET)
    return await asyncio.to_thread(
        run, program, port, who, asked, connections=CONNECTIONS, seconds=seconds
    )


async def _beside(nexus: RunningNexus, program: Path, seconds: float) -> dict[str, float]:
    """Measure reads alone and with the job, which is begun again as long as they go on."""
    await nexus.vault.opened.secrets.put(PATH, {"user": "web", "password": "x" * 1000})
    await _reads(nexus, program, 0.5)  # warm
    alone = await _reads(nexus, program, seconds)
    scanned, began = 0, time.perf_counter()
    reads = asyncio.create_task(_reads(nexus, program, seconds))
    while not reads.done():
        job, _ = nexus.verifier.start("the benchmark")
        ended = asyncio.create_task(nexus.verifier.ended())
        await asyncio.wait({reads, ended}, return_when=asyncio.FIRST_COMPLETED)
        scanned += job.tally.scanned
        if reads.done():
            await nexus.verifier.close()
        await ended
    rate = scanned / (time.perf_counter() - began)
    beside = await reads
    if alone.errors or beside.errors:
        raise AssertionError((alone, beside))
    return {
        "read alone, reads/s": alone.rps,
        "read alone, p50 ms": alone.p50_ms,
        "read alone, p99 ms": alone.p99_ms,
        "read beside, reads/s": beside.rps,
        "read beside, p50 ms": beside.p50_ms,
        "read beside, p99 ms": beside.p99_ms,
        "verified beside, records/s": rate,
    }


async def _measure(program: Path, seconds: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as directory:
        async with running(Path(directory) / "data") as nexus:
            await _fill(nexus.vault.opened.sealed)
            records, best = await _all(nexus), dict.fromkeys(("bare", "paged", "verified"), 0.0)
            for _ in range(ROUNDS):
                best["bare"] = max(best["bare"], _bare(nexus.vault.opened.sealed, records))
                best["paged"] = max(best["paged"], await _paged(nexus))
                best["verified"] = max(best["verified"], await _verified(nexus))
            del records
            found = {
                "opened in a bare loop records/s": best["bare"],
                "read and opened records/s": best["paged"],
                "verified records/s": best["verified"],
                "verified against the bare loop": best["verified"] / best["bare"],
                **await _beside(nexus, program, seconds),
            }
    return {name: round(value, 3 if value < 100 else 0) for name, value in found.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--format", choices=("human", "json"), default="human")
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    try:
        with built() as program:
            found = uvloop.run(_measure(program, options.seconds))
    except CannotBuildError as error:
        print(f"skipped: {error}", file=sys.stderr)
        return
    if options.format == "json":
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:34} {value:10}")


if __name__ == "__main__":
    main()
