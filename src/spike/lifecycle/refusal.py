"""Why an operation on keys was refused: a closed list, so that every refusal has a name an operator can look up."""

from __future__ import annotations

from enum import StrEnum

from spike.error import RefusedError


class Reason(StrEnum):
    """The name of a refusal; it travels on the wire of our own calls as `refused_<name>`."""

    ALREADY_INITIALIZED = "already_initialized"
    ALREADY_OPEN = "already_open"
    NOT_INITIALIZED = "not_initialized"
    STORE_NOT_EMPTY = "store_not_empty"
    WEAK_PASSWORD = "weak_password"  # noqa: S105  (the name of a refusal)
    WRONG_PASSWORD = "wrong_password"  # noqa: S105  (the name of a refusal)
    WRONG_SHARD = "wrong_shard"
    SHARDS_EXIST = "shards_exist"
    UNKNOWN_SLOT = "unknown_slot"
    SLOT_EXISTS = "slot_exists"
    LAST_SLOT = "last_slot"
    PASSWORD_NEEDED = "password_needed"  # noqa: S105  (the name of a refusal)
    UNHEALTHY = "unhealthy"
    DAMAGED = "damaged"
    NEWER_FORMAT = "newer_format"
    PLANTED = "planted"
    FOREIGN = "foreign"
    OLD = "old"
    PENDING = "pending"
    STALE_STORE = "stale_store"
    EXPIRED = "expired"
    KEY_EXPIRED = "key_expired"
    KEEPER = "keeper"
    BUSY = "busy"
    ROTATION = "rotation"
    PREFLIGHT = "preflight"
    SCHEDULE = "schedule"
    REMARK = "remark"
    UNKNOWN_ROTATION = "unknown_rotation"
    CIPHER_GENERATION = "cipher_generation"
    TOO_SOON = "too_soon"
    UNSUPPORTED = "unsupported"
    NOTHING_ASIDE = "nothing_aside"


class RefusalError(RefusedError):
    """A refusal with its name. Nothing was changed."""

    def __init__(self, reason: Reason, message: str, next_step: str = "") -> None:
        super().__init__(message, next_step)
        self.reason = reason
