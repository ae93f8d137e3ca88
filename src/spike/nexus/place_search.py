"""A store with records and without a keyring that can be read: the newest key backup of the places is tried.

Which of several copies is the newest is a hint here. The root key authenticates the one that is taken, the anchors say
whether the store had been further, and the records whether they belong to it (spike.nexus.examination).
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Final, NamedTuple

from spike.error import FormatError, StoreUnavailableError
from spike.lifecycle import backup
from spike.lifecycle import restore as rules
from spike.lifecycle.refusal import Reason, RefusalError
from spike.nexus.examination import Asked
from spike.nexus.vault import Vault
from spike.storage.protocol import Record

_NAME: Final = re.compile(r"spike-[0-9a-f]{32}\.key-backup")


class _Found(NamedTuple):
    age: tuple[int, int]
    store_id: str
    path: Path
    raw: bytes


async def with_newest(vault: Vault, stored: Record | None, asked: Asked) -> Asked:
    """Return what is asked, with the newest key backup of the places where the store's keyring is lost.

    As it was where the keyring can be read, a backup was handed in, no record waits for a key, or no place has one.

    Raises:
        RefusalError: FOREIGN, the places hold key backups of several stores: a person has to name one.
    """
    if asked.backup is not None or asked.system is not None or _is_readable(stored):
        return asked
    if not await vault.store.census():
        return asked
    found = await _in_places(vault)
    if not found:
        return asked
    if len({each.store_id for each in found}) > 1:
        paths = ", ".join(str(each.path) for each in found)
        raise RefusalError(
            Reason.FOREIGN,
            f"the store's keyring is lost, and the backup places hold key backups of several stores: {paths}",
            "name the one of this store: spike restore --backup FILE",
        )
    newest = max(found)
    lost = "holds no keyring" if stored is None else "holds a keyring that cannot be read"
    remark = f"the store {lost}; this is the newest key backup of the backup places, {newest.path}"
    return dataclasses.replace(asked, backup=newest.raw, remarks=(*asked.remarks, remark))


def _is_readable(stored: Record | None) -> bool:
    if stored is None:
        return False
    try:
        rules.read_stored(stored.blob)
    except RefusalError as refusal:
        return refusal.reason is Reason.NEWER_FORMAT  # it is there, and another version reads it
    return True


async def _in_places(vault: Vault) -> list[_Found]:
    found: list[_Found] = []
    for state in vault.places:
        try:
            found += await state.place.reach.call(_read_all, state.place.directory)
        except StoreUnavailableError:
            continue  # spike status names a place that does not answer
    return found


def _read_all(directory: Path) -> list[_Found]:
    found = []
    for path in sorted(directory.iterdir()):
        if not _NAME.fullmatch(path.name) or path.is_symlink() or not path.is_file():
            continue
        try:
            with path.open("rb") as file:
                raw = file.read(backup.LIMIT_BYTES + 1)
            hint = backup.decode_untrusted(raw).keyring.hint
        except (OSError, FormatError):
            continue
        found.append(_Found(hint.age, hint.store_id, path, raw))
    return found
