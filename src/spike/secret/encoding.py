"""The stored form of a secret's metadata and of the values of one version. Both are sealed when
stored.

    metadata  [1, created, updated, max_versions, [[number, id, created, deleted or null], …]]
    values    [1, {"key": "value", …}]

Times are nanoseconds since 1970-01-01 UTC. See `spike.wire.canonical` for what "one form" means.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final

import msgspec

from spike.error import FormatError
from spike.secret.version import SecretMeta, Version
from spike.wire.canonical import (
    ConfidentialStored,
    Stored,
    decode_canonical_untrusted,
    encode_canonical,
)
from spike.wire.go_time import StoredMoment

META_FORMAT: Final = 1
VALUES_FORMAT: Final = 1

# Above any request body: JSON escapes can make the stored text of a body larger than the body was.
VALUES_LIMIT_BYTES: Final = 8 << 20
META_LIMIT_BYTES: Final = 8 << 20

_ID_LENGTH: Final = 32
_HEX: Final = re.compile(r"[0-9a-f]+")
_Count = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]


class _StoredMeta(Stored, frozen=True):
    format: int
    created_at: StoredMoment
    updated_at: StoredMoment
    max_versions: _Count
    versions: tuple[Version, ...]


class _StoredValues(ConfidentialStored, frozen=True):
    format: int
    values: dict[str, str]


def encode_meta(meta: SecretMeta) -> bytes:
    """Return the stored form of metadata."""
    return encode_canonical(
        _StoredMeta(META_FORMAT, meta.created_at, meta.updated_at, meta.max_versions, meta.versions)
    )


def decode_meta_untrusted(raw: bytes) -> SecretMeta:
    """Read metadata.

    Raises:
        NewerFormatError: they are in the format of a newer SPIKE.
        FormatError: they are damaged.
    """
    thing = "secret metadata"
    stored = decode_canonical_untrusted(raw, _StoredMeta, thing, META_FORMAT, META_LIMIT_BYTES)
    if stored.format != META_FORMAT:
        raise FormatError(f"the {thing} is damaged: no format {stored.format} ever was")
    _check_versions(stored.versions, stored.max_versions, thing)
    return SecretMeta(stored.versions, stored.max_versions, stored.created_at, stored.updated_at)


def _check_versions(versions: tuple[Version, ...], max_versions: int, thing: str) -> None:
    if not 1 <= len(versions) <= max_versions:
        raise FormatError(f"the {thing} is damaged: it has no version, or too many")
    first = versions[0].number
    if [entry.number for entry in versions] != [*range(first, first + len(versions))]:
        raise FormatError(f"the {thing} is damaged: its versions are not consecutive")
    ids = {entry.id for entry in versions}
    if len(ids) != len(versions):
        raise FormatError(f"the {thing} is damaged: two versions have one id")
    # One pattern over all of them: one for each would take longer than all the rest.
    if {len(entry) for entry in ids} != {_ID_LENGTH} or not _HEX.fullmatch("".join(ids)):
        raise FormatError(f"the {thing} is damaged: the id of a version is malformed")


def encode_values(values: Mapping[str, str]) -> bytes:
    """Return the stored form of the values of one version."""
    return encode_canonical(_StoredValues(VALUES_FORMAT, dict(values)))


def decode_values_untrusted(raw: bytes) -> dict[str, str]:
    """Read the values of one version.

    Raises:
        NewerFormatError: they are in the format of a newer SPIKE.
        FormatError: they are damaged. The message repeats nothing of them.
    """
    thing = "secret"
    stored = decode_canonical_untrusted(
        raw, _StoredValues, thing, VALUES_FORMAT, VALUES_LIMIT_BYTES
    )
    if stored.format != VALUES_FORMAT:
        raise FormatError(f"the {thing} is damaged: no format {stored.format} ever was")
    return stored.values
