"""The rules of a secret's versions: put, delete, undelete, resolve. Pure; the wire contract,
section 4.

1. Put makes version 1, or the highest number there is plus one, and makes it current.
2. At most `max_versions` versions are kept; a put above that prunes the lowest. The number is fixed
   when the secret is created.
3. Delete is soft. An empty list, and 0 in a list, mean the current version; a number that is
   unknown, pruned or already deleted is ignored.
4. Undelete takes the same list. With no current version, empty and 0 mean the highest deleted one.
5. The current version is the highest that lives, or 0: so deleting it falls back to the next lower
   one, and undeleting a higher one makes that current.

Rule 5 makes "current" a consequence, not a field that could disagree: the same holds for "oldest",
the lowest that lives, or 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass, replace
from typing import Annotated, Final, NewType

import msgspec
from msgspec.structs import replace as changed_struct

from spike.wire.go_time import StoredMoment, UnixNs

VersionNumber = NewType("VersionNumber", int)

# Random, part of what the version is sealed under: a row of an earlier life of the same path and
# number does not open. 32 lower-case hexadecimal digits.
VersionId = NewType("VersionId", str)

NO_VERSION: Final = VersionNumber(0)


class Version(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One version; `deleted_at` is None while it lives.

    Of the kind that msgspec reads directly, because each read of a secret reads all its versions; the
    order of the fields is that of the stored form.
    """

    number: Annotated[VersionNumber, msgspec.Meta(ge=1, le=2**63 - 1)]
    id: VersionId
    created_at: StoredMoment
    deleted_at: StoredMoment | None


@dataclass(frozen=True, slots=True)
class SecretMeta:
    """All of a secret but its values. `versions` are in ascending order of number, at least one."""

    versions: tuple[Version, ...]
    max_versions: int
    created_at: UnixNs
    updated_at: UnixNs

    @property
    def current(self) -> VersionNumber:
        """The highest version that lives, or 0."""
        return _first_live(reversed(self.versions))

    @property
    def oldest(self) -> VersionNumber:
        """The lowest version that lives, or 0."""
        return _first_live(self.versions)

    @property
    def highest(self) -> VersionNumber:
        """The highest version kept, deleted or not."""
        return self.versions[-1].number


@dataclass(frozen=True, slots=True)
class PutResult:
    """The metadata after a put, the version to seal the values under, and those to erase."""

    meta: SecretMeta
    version: Version
    pruned: tuple[VersionId, ...]


def put(
    meta: SecretMeta | None, version_id: VersionId, now: UnixNs, max_versions: int
) -> PutResult:
    """Add a version; `meta` is None for a path that is not there yet.

    `max_versions` (at least 1) counts only then. The values of `pruned` are to be erased from the
    store once the new metadata are durable, never before: until then the old metadata point to
    them.
    """
    if meta is None:
        first = Version(VersionNumber(1), version_id, now, None)
        return PutResult(SecretMeta((first,), max_versions, now, now), first, ())
    new = Version(VersionNumber(meta.highest + 1), version_id, now, None)
    every = (*meta.versions, new)
    kept = every[-meta.max_versions :]
    pruned = tuple(entry.id for entry in every[: -meta.max_versions])
    return PutResult(replace(meta, versions=kept, updated_at=now), new, pruned)


def delete(meta: SecretMeta, versions: Iterable[int], now: UnixNs) -> SecretMeta:
    """Delete versions softly. Returns `meta` itself when there was nothing to delete."""
    wanted = _resolved(versions, meta.current)
    if not any(entry.number in wanted and entry.deleted_at is None for entry in meta.versions):
        return meta
    changed = tuple(
        changed_struct(entry, deleted_at=now)
        if entry.number in wanted and entry.deleted_at is None
        else entry
        for entry in meta.versions
    )
    return replace(meta, versions=changed, updated_at=now)


@dataclass(frozen=True, slots=True)
class NothingUndeleted:
    """None of the versions named was there and deleted. The caller is told 404."""


def undelete(
    meta: SecretMeta, versions: Iterable[int], now: UnixNs
) -> SecretMeta | NothingUndeleted:
    """Bring deleted versions back."""
    standing_for_current = meta.current or _highest_deleted(meta)
    wanted = _resolved(versions, standing_for_current)
    if not any(entry.number in wanted and entry.deleted_at is not None for entry in meta.versions):
        return NothingUndeleted()
    changed = tuple(
        changed_struct(entry, deleted_at=None) if entry.number in wanted else entry
        for entry in meta.versions
    )
    return replace(meta, versions=changed, updated_at=now)


@dataclass(frozen=True, slots=True)
class NotFound:
    """No such version, or a deleted one, or nothing current. The caller is not told which."""


def resolve(meta: SecretMeta, version: int) -> VersionId | NotFound:
    """Return the id of a version that lives; 0 = the current one."""
    for entry in reversed(meta.versions):
        if entry.deleted_at is None and version in {entry.number, NO_VERSION}:
            return entry.id
    return NotFound()


def _first_live(versions: Iterable[Version]) -> VersionNumber:
    for entry in versions:
        if entry.deleted_at is None:
            return entry.number
    return NO_VERSION


def _resolved(versions: Iterable[int], current: VersionNumber) -> Set[int]:
    numbers = set(versions) or {NO_VERSION}
    # 0 is the number of no version, so it may stay when it stands for nothing.
    return {number or current for number in numbers}


def _highest_deleted(meta: SecretMeta) -> VersionNumber:
    deleted = (entry.number for entry in meta.versions if entry.deleted_at is not None)
    return max(deleted, default=NO_VERSION)
