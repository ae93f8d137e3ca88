"""Room for a system backup in a store: it is empty, or set aside, or was left by a restore that was killed.

A restore puts a mark into the empty store before anything else, and takes it away in the write that brings the keyring.
So records without a keyring are known for what they are: with the mark copies out of a file, without it the only ones.
"""

from __future__ import annotations

import secrets
from typing import Final

import msgspec

from spike.error import InputError
from spike.lifecycle.refusal import Reason, RefusalError
from spike.nexus.vault import KEYRING_ID
from spike.storage.ability import CanErase, CanSetAside
from spike.storage.protocol import (
    CHANGE_LIMIT,
    MUST_NOT_EXIST,
    PAGE_LIMIT,
    Delete,
    Kind,
    Put,
    Record,
    RecordId,
    Store,
)

MARK_ID: Final = RecordId(Kind("restore"), "current")
ASIDE: Final = "set-aside"
UNDONE: Final = "undone"


class Mark(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which file is being restored into this store."""

    store_id: str
    digest: str


async def is_unfinished(store: Store) -> bool:
    """Return whether all that the store holds was left by a restore that did not end."""
    return await store.get(MARK_ID) is not None and await store.get(KEYRING_ID) is None


async def require_room(store: Store, *, set_aside: bool) -> None:
    """Return if a system backup can be restored into the store.

    Raises:
        RefusalError: STORE_NOT_EMPTY; UNSUPPORTED, the engine sets nothing aside.
    """
    if not await store.census() or await is_unfinished(store):
        return
    if not set_aside:
        raise RefusalError(
            Reason.STORE_NOT_EMPTY,
            "the store holds records, and they are not overwritten",
            "restore into an empty data directory, or keep the present state beside the new one: --set-aside",
        )
    if not isinstance(store, CanSetAside):
        raise RefusalError(
            Reason.UNSUPPORTED,
            "this storage engine sets nothing aside",
            "restore into an empty store",
        )


async def make_room(store: Store, mark: Mark, at: str, *, set_aside: bool) -> str:
    """Leave the store empty but for the mark. Return the name under which what was there is aside, or "".

    Raises:
        RefusalError: as `require_room`.
        StoreError: the store failed; what was there is there, or aside.
    """
    await require_room(store, set_aside=set_aside)
    aside = ""
    if await is_unfinished(store):
        await _erase(store)
    elif await store.census():
        assert isinstance(store, CanSetAside)
        aside = name_at(ASIDE, at)
        await store.set_aside(aside)
    await store.put(Put(MARK_ID, msgspec.json.encode(mark), 0, MUST_NOT_EXIST), fence=None)
    return aside


def name_at(prefix: str, at: str) -> str:
    """Return a name for what is set aside at a moment; names sort by moment, and none comes twice."""
    compact = at.replace(":", "").replace("-", "")
    return f"{prefix}-{compact}-{secrets.token_hex(3)}"


async def newest_aside(store: Store) -> str | None:
    """Return the name of what was set aside last by a restore, or None."""
    if not isinstance(store, CanSetAside):
        return None
    names = [name for name in await store.asides() if name.startswith(f"{ASIDE}-")]
    return max(names, default=None)


async def was_undone(store: Store) -> bool:
    """Return whether something is aside that was in force until a restore was undone."""
    if not isinstance(store, CanSetAside):
        return False
    return any(name.startswith(f"{UNDONE}-") for name in await store.asides())


async def bring_back(store: Store, name: str, at: str) -> str:
    """Put what is aside back. Return the name under which the present state is aside then, or "" if it was nothing.

    Raises:
        StoreError: it could not be moved.
    """
    if not isinstance(store, CanSetAside):
        raise InputError("this storage engine sets nothing aside")
    is_nothing = not await store.census() or await is_unfinished(store)
    present_as = None if is_nothing else name_at(UNDONE, at)
    await store.bring_back(name, present_as)
    return present_as or ""


async def _erase(store: Store) -> None:
    """Drop what a killed restore has left; the mark last, so that it is known until the end."""
    if isinstance(store, CanErase):
        await store.erase()
        return
    for kind in sorted({kind for kind, _ in await store.census()} - {MARK_ID.kind}):
        while records := (await store.scan(kind, "", None, min(PAGE_LIMIT, CHANGE_LIMIT))).items:
            await store.apply([Delete(each.id, each.revision) for each in records], fence=None)
    mark: Record | None = await store.get(MARK_ID)
    if mark is not None:
        await store.delete(Delete(MARK_ID, mark.revision), fence=None)
