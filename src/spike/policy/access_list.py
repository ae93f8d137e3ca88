"""The access list: which policies count (key hierarchy, section 1).

One sealed record lists every right with a digest of its stored form. What is not in it, or differs from
it, does not count: whoever can write the store cannot bring a revoked right back by putting an old row
back. The generation grows with each change; the anchor, which lies outside the store, names it, so that an
old list put back as a whole is noticed too.

    [1, generation, {"policy": {name: [revision, digest in hexadecimal], …}}]

A kind stands there only if it has a right, so that another kind changes no list that does not use it.

A right's revision is the list's generation when the right was written: it is never used twice, also
not by a right of the same name after its removal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Final, NamedTuple, NewType

import msgspec

from spike.error import FormatError
from spike.wire.canonical import Stored, decode_canonical_untrusted, encode_canonical

ACCESS_LIST_FORMAT: Final = 1
ACCESS_LIST_LIMIT_BYTES: Final = 16 << 20

AccessGeneration = NewType("AccessGeneration", int)


class RightKind(StrEnum):
    """What can be listed. Named administrators will be another kind."""

    POLICY = "policy"


class Right(NamedTuple):
    """The name of one right."""

    kind: RightKind
    name: str


class Entry(NamedTuple):
    """What the list says of one right; `digest` is SHA-256, 32 bytes."""

    revision: AccessGeneration
    digest: bytes


@dataclass(frozen=True, slots=True)
class AccessList:
    """Every right that counts. Generation 0 with no entry is the list of a store not yet written to."""

    generation: AccessGeneration
    entries: Mapping[Right, Entry]


EMPTY: Final = AccessList(AccessGeneration(0), MappingProxyType({}))


def add(listed: AccessList, right: Right, stored: bytes) -> AccessList:
    """Return the next list, in which `right` has the stored form `stored`; an older one is replaced."""
    generation = AccessGeneration(listed.generation + 1)
    entry = Entry(generation, _digest(stored))
    return AccessList(generation, MappingProxyType({**listed.entries, right: entry}))


def remove(listed: AccessList, right: Right) -> AccessList:
    """Return the next list, without `right`.

    Raises:
        KeyError: it is not listed. Whoever removes a right has looked it up before.
    """
    entries = dict(listed.entries)
    del entries[right]
    return AccessList(AccessGeneration(listed.generation + 1), MappingProxyType(entries))


def raised(listed: AccessList, generation: AccessGeneration) -> AccessList:
    """Return the same rights as a list of a later generation.

    Raises:
        ValueError: it is not later.
    """
    if generation <= listed.generation:
        raise ValueError("the generation of an access list only grows")
    return AccessList(generation, listed.entries)


@dataclass(frozen=True, slots=True)
class Confirmed:
    """What was found in the store, held against the list. Only `counting` may be used.

    `unlisted`: stored, but not in the list. `differing`: stored in another form than listed. `missing`:
    listed, but not stored.
    """

    counting: Mapping[str, bytes]
    unlisted: tuple[str, ...]
    differing: tuple[str, ...]
    missing: tuple[str, ...]


def confirm(listed: AccessList, kind: RightKind, stored: Mapping[str, bytes]) -> Confirmed:
    """Hold every stored right of a kind, by name, against the list."""
    expected = {
        right.name: entry.digest for right, entry in listed.entries.items() if right.kind == kind
    }
    counting, differing = {}, []
    for name in sorted(stored.keys() & expected.keys()):
        if _digest(stored[name]) == expected[name]:
            counting[name] = stored[name]
        else:
            differing.append(name)
    return Confirmed(
        counting,
        tuple(sorted(stored.keys() - expected.keys())),
        tuple(differing),
        tuple(sorted(expected.keys() - stored.keys())),
    )


def is_listed(listed: AccessList, right: Right, stored: bytes) -> bool:
    """Return whether one right counts in this stored form."""
    entry = listed.entries.get(right)
    return entry is not None and entry.digest == _digest(stored)


_Count = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
_Generation = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_HexDigest = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]


class _StoredEntry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    revision: _Count
    digest: _HexDigest


class _StoredList(Stored, frozen=True):
    format: int
    generation: _Generation
    rights: dict[RightKind, dict[str, _StoredEntry]]


def encode_access_list(listed: AccessList) -> bytes:
    """Return the stored form of the list."""
    rights: dict[RightKind, dict[str, _StoredEntry]] = {}
    for right, entry in listed.entries.items():
        named = rights.setdefault(right.kind, {})
        named[right.name] = _StoredEntry(entry.revision, entry.digest.hex())
    return encode_canonical(_StoredList(ACCESS_LIST_FORMAT, listed.generation, rights))


def decode_access_list_untrusted(raw: bytes) -> AccessList:
    """Read an access list.

    Raises:
        NewerFormatError: it is in the format of a newer SPIKE.
        FormatError: it is damaged.
    """
    thing = "access list"
    stored = decode_canonical_untrusted(
        raw, _StoredList, thing, ACCESS_LIST_FORMAT, ACCESS_LIST_LIMIT_BYTES
    )
    if stored.format != ACCESS_LIST_FORMAT:
        raise FormatError(f"the {thing} is damaged: no format {stored.format} ever was")
    if not all(stored.rights.values()):
        raise FormatError(f"the {thing} is damaged: it has a kind of right without a right")
    entries = {
        Right(kind, name): Entry(AccessGeneration(entry.revision), bytes.fromhex(entry.digest))
        for kind, named in stored.rights.items()
        for name, entry in named.items()
    }
    revisions = [entry.revision for entry in entries.values()]
    if len(set(revisions)) != len(revisions) or max(revisions, default=0) > stored.generation:
        raise FormatError(f"the {thing} is damaged: a revision stands twice, or is none of its own")
    return AccessList(AccessGeneration(stored.generation), MappingProxyType(entries))


def _digest(stored: bytes) -> bytes:
    return hashlib.sha256(stored).digest()
