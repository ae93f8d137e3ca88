"""What a backup place holds of another lineage of the same store: kept beside, put back by an undo, never overwritten.

spike-STORE.key-backup, spike-STORE.anchor                      of the lineage in force
spike-STORE.LINEAGE.key-backup, spike-STORE.LINEAGE.anchor      of another one, as it was found
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from spike.error import FormatError, StoreUnavailableError
from spike.lifecycle import anchor, backup
from spike.nexus.place import Place

_KINDS: Final = ("key-backup", "anchor")


async def keep_foreign(place: Place, store_id: str, lineage: str) -> None:
    """Keep beside what the place holds of any lineage but this one. Idempotent.

    Raises:
        StoreUnavailableError: it could not be; what is there was not touched.
    """
    await place.reach.call(_keep_foreign, place.directory, store_id, lineage)


async def put_back(place: Place, store_id: str, lineage: str) -> bool:
    """Put back what is kept of a lineage, in the place of another one's, which is kept then. Idempotent.

    Return whether there was anything to do.

    Raises:
        StoreUnavailableError: it could not be done whole; it can be done again.
    """
    return await place.reach.call(_put_back, place.directory, store_id, lineage)


async def require_own(place: Place, store_id: str, anchor_raw: bytes) -> None:
    """Return if the place may be written to by the lineage of an anchor.

    It may not where a later lineage of the same store has written: then another machine was brought up from a backup,
    and what it needs to come back lies here. That is its word alone, and costs no more than a place.

    Raises:
        StoreUnavailableError: such a lineage has.
    """
    ours = anchor.decode_untrusted(anchor_raw)
    raw = await place.reach.call(place.read_anchor, store_id)
    if raw is None:
        return
    try:
        theirs = anchor.decode_untrusted(raw)
    except FormatError:
        return
    if theirs.lineage != ours.lineage and theirs.epoch > ours.epoch:
        raise StoreUnavailableError(
            f"the backup place {place.directory} belongs to lineage {theirs.lineage} of this store, at epoch "
            f"{theirs.epoch}; this is lineage {ours.lineage}, at epoch {ours.epoch}: another machine was brought up",
            "stop this machine, or give it a backup place of its own",
        )


def lineage_of_untrusted(kind: str, raw: bytes) -> str | None:
    """Return the lineage that a file of a place names, or None where it cannot be read."""
    try:
        if kind == "anchor":
            return anchor.decode_untrusted(raw).lineage
        return backup.decode_untrusted(raw).keyring.hint.lineage
    except FormatError:
        return None


def _keep_foreign(directory: Path, store_id: str, lineage: str) -> None:
    for kind in _KINDS:
        present = directory / f"spike-{store_id}.{kind}"
        found = _lineage(kind, present)
        if found in (None, lineage):
            continue
        kept = directory / f"spike-{store_id}.{found}.{kind}"
        try:
            beside = kept.with_name(kept.name + ".new")
            beside.unlink(missing_ok=True)
            shutil.copyfile(present, beside, follow_symlinks=False)
            beside.chmod(0o600)
            _sync(beside)
            beside.replace(kept)
            _sync(directory)
        except OSError as error:
            raise _failed(directory, error) from error


def _put_back(directory: Path, store_id: str, lineage: str) -> bool:
    did = False
    for kind in _KINDS:
        present = directory / f"spike-{store_id}.{kind}"
        kept = directory / f"spike-{store_id}.{lineage}.{kind}"
        if _lineage(kind, kept) != lineage:
            continue
        _keep_foreign(directory, store_id, lineage)
        try:
            kept.replace(present)
            _sync(directory)
        except OSError as error:
            raise _failed(directory, error) from error
        did = True
    return did


def _lineage(kind: str, path: Path) -> str | None:
    try:
        # Without waiting: a pipe planted here would hold a restore up for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:  # noqa: PTH123  (a descriptor, not a path)
            return lineage_of_untrusted(kind, file.read(backup.LIMIT_BYTES + 1))
    except OSError:
        return None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failed(directory: Path, error: OSError) -> StoreUnavailableError:
    return StoreUnavailableError(
        f"the backup place {directory} cannot be written: {error.strerror}", "look at that disk"
    )
