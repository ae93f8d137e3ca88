"""What to do about a call that was refused or denied. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from spike.policy.role import DEFAULT_ROOT, Role
from spike.wire import call as calls
from spike.wire.call import AnyCall


@dataclass(frozen=True, slots=True)
class Advice:
    """The next step where the request is refused, and where the identity is not allowed the call."""

    refused: str
    denied: str


_USUALLY_REFUSED: Final = "check names, paths, patterns and sizes; the server's log has the detail"
_LITE: Final = "; a Nexus in lite mode serves neither secrets nor policies"
_SIZE: Final = "encrypt less at once: Nexus has a limit, 64 KiB unless its settings say otherwise"
_NO_POLICY: Final = "use an identity with the right role, or have an administrator create a policy"

_CIPHER: Final = frozenset(
    {calls.CIPHER_ENCRYPT.name, calls.CIPHER_DECRYPT.name, calls.CIPHER_REWRAP.name}
)
_STORED: Final = frozenset(
    each.name
    for each in (
        calls.SECRET_PUT,
        calls.SECRET_GET,
        calls.SECRET_GET_MANY,
        calls.SECRET_DELETE,
        calls.SECRET_UNDELETE,
        calls.SECRET_LIST,
        calls.SECRET_METADATA_GET,
        calls.POLICY_PUT,
        calls.POLICY_GET,
        calls.POLICY_DELETE,
        calls.POLICY_LIST,
    )
)
_ROLES: Final = {
    calls.OPERATOR_RECOVER.name: (Role.RECOVER,),
    calls.OPERATOR_CHECK_SHARD.name: (Role.SUPERUSER, Role.RECOVER),
    calls.OPERATOR_RESTORE.name: (Role.RESTORE,),
    calls.OPERATOR_RESTORE_PASSWORD.name: (Role.RESTORE,),
    calls.OPERATOR_RESTORE_FILE.name: (Role.RESTORE,),
    calls.OPERATOR_RESTORE_SYSTEM.name: (Role.RESTORE,),
    calls.OPERATOR_RESTORE_UNDO.name: (Role.RESTORE,),
    calls.SYSTEM_BACKUP_RECEIVE.name: (Role.RESTORE,),
    calls.OPERATOR_PASSWORD_BEGIN.name: (Role.SUPERUSER, Role.RESTORE, Role.RECOVER),
    calls.SLOT_LIST.name: (Role.SUPERUSER, Role.RECOVER),
    calls.SLOT_ADD.name: (Role.SUPERUSER, Role.RECOVER),
    calls.SLOT_CHANGE.name: (Role.SUPERUSER, Role.RECOVER),
    calls.SLOT_REMOVE.name: (Role.SUPERUSER, Role.RECOVER),
    calls.BOOTSTRAP_VERIFY.name: (Role.BOOTSTRAP,),
}


def roles_for(call: AnyCall) -> tuple[Role, ...]:
    """Return the roles of which a call takes one; none for a call that a policy can allow."""
    if call.name in _STORED | _CIPHER:
        return ()
    return _ROLES.get(call.name, (Role.SUPERUSER,))


def advice_for(call: AnyCall, *, raw: bool = False) -> Advice:
    """Return what to do about a call; `raw`: it was made in its raw form."""
    return Advice(_refused(call, raw), _denied(call))


def _refused(call: AnyCall, raw: bool) -> str:
    if call.name == calls.CIPHER_ENCRYPT.name:
        return _SIZE if raw else f"{_SIZE}; and name no algorithm but AES-256-GCM"
    if call.name in (calls.CIPHER_DECRYPT.name, calls.CIPHER_REWRAP.name):
        return (
            "give exactly what encrypt gave, to the Nexus of the same store; it may also be too old: the server's log "
            "has the detail"
        )
    return _USUALLY_REFUSED + (_LITE if call.name in _STORED else "")


def _denied(call: AnyCall) -> str:
    roles = roles_for(call)
    if not roles:
        return _NO_POLICY
    names = " or ".join(role.name.lower() for role in roles)
    paths = " or ".join(f"spiffe://{DEFAULT_ROOT}/{role.base_path}" for role in roles)
    return (
        f"this takes the {names} role, which no policy gives: spike-authority run --id {paths} -- COMMAND; or, with "
        "SPIRE, a registration entry for that ID under your trust root"
    )
