"""The stored form of a secret's metadata and of the values of one version. Both are sealed when
stored.

    metadata  [1, created, updated, max_versions, [[number, id, created, deleted or null], …]]
    values    [1, {"key": "value", …}]

Times are nanoseconds since 1970-01-01 UTC. See `spike.wire.canonical` for what "one form" means.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Final

import msgspec

from spike.error import FormatError
from spike.secret.version import SecretMeta, Version, VersionId, VersionNumber
from spike.wire.canonical import (
    ConfidentialStored,
    Stored,
    decode_canonical_untrusted,
    encode_canonical,
)
from spike.wire.go_time import UnixNs

META_FORMAT: Final = 1
VALUES_FORMAT: Final = 1

# Above any request body: JSON escapes can make the stored text of a body larger than the body was.
VALUES_LIMIT_BYTES: Final = 8 << 20
META_LIMIT_BYTES: Final = 8 << 20

_Moment = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Id = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
_Count = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]


class _StoredVersion(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    number: _Count
    id: _Id
    created_at: _Moment
    deleted_at: _Moment | None


class _StoredMeta(Stored, frozen=True):
    format: int
    created_at: _Moment
    updated_at: _Moment
    max_versions: _Count
    versions: list[_StoredVersion]


class _StoredValues(ConfidentialStored, frozen=True):
    format: int
    values: dict[str, str]


def encode_meta(meta: SecretMeta) -> bytes:
    """Return the stored form of metadata."""
    versions = [
        _StoredVersion(entry.number, entry.id, entry.created_at, entry.deleted_at)
        for entry in meta.versions
    ]
    return encode_canonical(
        _StoredMeta(META_FORMAT, meta.created_at, meta.updated_at, meta.max_versions, versions)
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
    versions = tuple(
        Version(
            VersionNumber(entry.number),
            VersionId(entry.id),
            UnixNs(entry.created_at),
            None if entry.deleted_at is None else UnixNs(entry.deleted_at),
        )
        for entry in stored.versions
    )
    if not versions or len(versions) > stored.max_versions:
        raise FormatError(f"the {thing} is damaged: it has no version, or too many")
    if any(later.number != earlier.number + 1 for earlier, later in pairwise(versions)):
        raise FormatError(f"the {thing} is damaged: its versions are not consecutive")
    if len({entry.id for entry in versions}) != len(versions):
        raise FormatError(f"the {thing} is damaged: two versions have one id")
    return SecretMeta(
        versions, stored.max_versions, UnixNs(stored.created_at), UnixNs(stored.updated_at)
    )


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
