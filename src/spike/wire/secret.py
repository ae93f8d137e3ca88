"""Messages of `/v1/store/secrets` and `/v1/store/secrets/metadata`."""

from __future__ import annotations

import msgspec

from spike.wire.message import ConfidentialMessage, GoInt, GoTime, Message


class SecretPutRequest(ConfidentialMessage, frozen=True):
    """Write a new version."""

    path: str = ""
    values: dict[str, str] = msgspec.field(default_factory=dict)


class SecretGetRequest(Message, frozen=True):
    """Read a version; 0 = the current one. Also the request of metadata get."""

    path: str = ""
    version: GoInt = 0


class SecretGetAnswer(ConfidentialMessage, frozen=True):
    """The values of one version."""

    data: dict[str, str]


class SecretVersionsRequest(Message, frozen=True):
    """Delete or undelete versions; empty, or 0 in it, = the current one."""

    path: str = ""
    versions: list[GoInt] = msgspec.field(default_factory=list)


class SecretListAnswer(Message, frozen=True):
    """Every path, sorted by bytes, also those whose versions are all deleted."""

    keys: list[str]


class SecretVersionInfo(Message, frozen=True):
    """One version. `deleted_time` is always present, null while the version lives."""

    created_time: GoTime
    version: GoInt
    deleted_time: GoTime | None


class SecretMetadataInfo(Message, frozen=True):
    """What holds for all versions of a secret; `current_version` is 0 when all are deleted."""

    current_version: GoInt
    oldest_version: GoInt
    created_time: GoTime
    updated_time: GoTime
    max_versions: GoInt


class SecretMetadataAnswer(Message, frozen=True):
    """The life of a secret without its values; the keys are version numbers."""

    versions: dict[GoInt, SecretVersionInfo]
    metadata: SecretMetadataInfo


class SecretItem(Message, frozen=True):
    """One item of get-many."""

    path: str = ""
    version: GoInt = 0


class SecretGetManyRequest(Message, frozen=True):
    """Read up to 1,000 secrets at once."""

    items: list[SecretItem] = msgspec.field(default_factory=list)


class SecretGetManyAnswer(ConfidentialMessage, frozen=True):
    """One entry for each item, in their order; null where there is nothing the caller may see."""

    items: list[SecretGetAnswer | None]
