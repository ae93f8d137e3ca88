"""The authorization table: one row for each call, and the only place that makes a Grant.

Rules (wire contract, sections 2 and 7):

* A call without a row does not exist: a test holds rows and calls equal.
* Operator and bootstrap calls and our own are allowed by role alone, never by a policy.
* Every other call is allowed to the superuser, or to whoever a policy gives the permission on the path.
* Lite workloads may make the cipher calls, by their role. They are denied all secret and policy calls, whatever the
  policies say.
* Keepers, Nexus and bootstrap are denied all of these. They are parts of SPIKE, run on other machines by other
  people, and none of their work needs a secret; a broad pattern such as `^spiffe://spike\\.ist/.*$` must not make each
  Keeper a reader of everything.
* Recover and restore roles have no right of their own beyond their one call; a policy may name them.
* A denial wins over every right, should an ID have several roles.

Two stages. A secret's path stands in the body, but no body of a stranger is to be parsed:

1. `authorize`, before the body is parsed. `Denied` ends the request with 401, whatever the body is: so a
   malformed body of somebody without any right gives 401, never 400. `Grant`: no path is needed. `NeedsPath`:
   the superuser, or somebody whom some policy allows the permission on some path.
2. `NeedsPath.decide`, with the path just parsed, before anything else of the request is validated and before
   the store is asked: so who is denied a path learns nothing about it, not even whether it is there.

Get-many takes one decision for each of its items.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from enum import Enum
from typing import Final, assert_never

from spike.policy.compiled import Candidates, CompiledPolicies
from spike.policy.role import Role
from spike.policy.rule import ACL_PATH, CIPHER_PATH, SECRET_PATH, Permission
from spike.spiffe.id import SpiffeId
from spike.wire import call
from spike.wire.call import AnyCall, CallName


@dataclass(frozen=True, slots=True)
class ByRole:
    """Allowed to these roles and never by a policy."""

    roles: frozenset[Role]


@dataclass(frozen=True, slots=True)
class OnKnownPath:
    """Allowed to these roles, or by a policy with this permission on this path."""

    permission: Permission
    path: str
    roles: frozenset[Role] = frozenset({Role.SUPERUSER})


@dataclass(frozen=True, slots=True)
class OnPathOfBody:
    """Allowed to the superuser, or by a policy with this permission on each path in the body."""

    permission: Permission


@dataclass(frozen=True, slots=True)
class ForAnyone:
    """Allowed to every verified ID; all of the answer is for these roles, the rest learn readiness."""

    all_of_it: frozenset[Role]


@dataclass(frozen=True, slots=True)
class ByRoleOrPassword:
    """Allowed to these roles as they are, and to others only together with an existing slot's password.

    The password stands in the request: the handler opens the slot before it does anything.
    """

    roles: frozenset[Role]
    with_password: frozenset[Role]


Rule = ByRole | ByRoleOrPassword | OnKnownPath | OnPathOfBody | ForAnyone

_SUPERUSER: Final = frozenset({Role.SUPERUSER})
_RECOVER: Final = frozenset({Role.RECOVER})
_RESTORE: Final = frozenset({Role.RESTORE})
_BOOTSTRAP: Final = frozenset({Role.BOOTSTRAP})
_CIPHER: Final = frozenset({Role.SUPERUSER, Role.LITE_WORKLOAD})

# Roles that no policy can let in, and that have the rights of a row only if it names them; the module docstring says
# why.
_NEVER_BY_POLICY: Final = frozenset({Role.LITE_WORKLOAD, Role.KEEPER, Role.NEXUS, Role.BOOTSTRAP})

TABLE: Final[Mapping[CallName, Rule]] = {
    call.SECRET_PUT.name: OnPathOfBody(Permission.WRITE),
    call.SECRET_DELETE.name: OnPathOfBody(Permission.WRITE),
    call.SECRET_UNDELETE.name: OnPathOfBody(Permission.WRITE),
    call.SECRET_GET.name: OnPathOfBody(Permission.READ),
    call.SECRET_GET_MANY.name: OnPathOfBody(Permission.READ),
    call.SECRET_METADATA_GET.name: OnPathOfBody(Permission.READ),
    call.SECRET_LIST.name: OnKnownPath(Permission.LIST, SECRET_PATH),
    call.POLICY_PUT.name: OnKnownPath(Permission.WRITE, ACL_PATH),
    call.POLICY_DELETE.name: OnKnownPath(Permission.WRITE, ACL_PATH),
    call.POLICY_GET.name: OnKnownPath(Permission.READ, ACL_PATH),
    call.POLICY_LIST.name: OnKnownPath(Permission.LIST, ACL_PATH),
    call.CIPHER_ENCRYPT.name: OnKnownPath(Permission.EXECUTE, CIPHER_PATH, _CIPHER),
    call.CIPHER_DECRYPT.name: OnKnownPath(Permission.EXECUTE, CIPHER_PATH, _CIPHER),
    call.CIPHER_REWRAP.name: OnKnownPath(Permission.EXECUTE, CIPHER_PATH, _CIPHER),
    call.BOOTSTRAP_VERIFY.name: ByRole(_BOOTSTRAP),
    call.OPERATOR_RECOVER.name: ByRole(_RECOVER),
    call.OPERATOR_CHECK_SHARD.name: ByRole(_SUPERUSER | _RECOVER),
    call.OPERATOR_RESTORE.name: ByRole(_RESTORE),
    call.OPERATOR_RESTORE_PASSWORD.name: ByRole(_RESTORE),
    call.OPERATOR_RESTORE_FILE.name: ByRole(_RESTORE),
    # A password is given for an init, for a restore or for a slot, each with a role of its own.
    call.OPERATOR_PASSWORD_BEGIN.name: ByRole(_SUPERUSER | _RESTORE | _RECOVER),
    call.OPERATOR_INIT.name: ByRole(_SUPERUSER),
    call.KEEPER_REFRESH.name: ByRole(_SUPERUSER),
    call.KEEPER_RESHAPE.name: ByRole(_SUPERUSER),
    call.KEEPER_REHEARSE.name: ByRole(_SUPERUSER),
    call.DRILL_BEGIN.name: ByRole(_SUPERUSER),
    call.DRILL_REPORT.name: ByRole(_SUPERUSER),
    call.DRILL_RECORD.name: ByRole(_SUPERUSER),
    call.KEY_LIST.name: ByRole(_SUPERUSER),
    call.KEY_HISTORY.name: ByRole(_SUPERUSER),
    call.KEY_VERIFY.name: ByRole(_SUPERUSER),
    call.KEY_STATUS.name: ByRole(_SUPERUSER),
    call.SYSTEM_BACKUP_CREATE.name: ByRole(_SUPERUSER),
    call.SYSTEM_BACKUP_READ.name: ByRole(_SUPERUSER),
    call.KEY_CIPHER_OLDEST.name: ByRole(_SUPERUSER),
    call.KEY_NOTE.name: ByRole(_SUPERUSER),
    call.KEY_REPORT.name: ByRole(_SUPERUSER),
    call.KEY_SCHEDULE_GET.name: ByRole(_SUPERUSER),
    call.KEY_SCHEDULE_SET.name: ByRole(_SUPERUSER),
    call.SLOT_LIST.name: ByRoleOrPassword(_RECOVER, with_password=_SUPERUSER),
    # A stolen superuser identity alone must not be enough to take the root key away.
    call.SLOT_ADD.name: ByRoleOrPassword(_RECOVER, with_password=_SUPERUSER),
    call.SLOT_CHANGE.name: ByRoleOrPassword(_RECOVER, with_password=_SUPERUSER),
    call.SLOT_REMOVE.name: ByRoleOrPassword(_RECOVER, with_password=_SUPERUSER),
    call.BACKUP_VERIFY.name: ByRole(_SUPERUSER),
    call.BACKUP_EXPORT.name: ByRole(_SUPERUSER),
    call.SYSTEM_BACKUP_RECEIVE.name: ByRole(_RESTORE),
    call.OPERATOR_RESTORE_SYSTEM.name: ByRole(_RESTORE),
    call.OPERATOR_RESTORE_UNDO.name: ByRole(_RESTORE),
    call.OPERATOR_FACTORY_RESET.name: ByRole(_SUPERUSER),
    call.KEY_ROTATE.name: ByRole(_SUPERUSER),
    call.KEY_PAUSE.name: ByRole(_SUPERUSER),
    call.KEY_RESUME.name: ByRole(_SUPERUSER),
    call.KEY_PACE.name: ByRole(_SUPERUSER),
    call.KEY_ABORT.name: ByRole(_SUPERUSER),
    call.KEY_ROLLBACK.name: ByRole(_SUPERUSER),
    call.KEY_FINALIZE.name: ByRole(_SUPERUSER),
    call.OPERATOR_STATUS.name: ForAnyone(all_of_it=_SUPERUSER),
}


class Extent(Enum):
    """How much a grant is for: all, all once a password has been shown, or readiness alone."""

    ALL = "all"
    WITH_PASSWORD = "with an existing slot's password"  # noqa: S105  (what else it takes)
    READINESS = "readiness"


class DenialReason(Enum):
    """Why a caller was denied: for the log and the audit trail, never for the caller."""

    WRONG_ROLE = "the call is for other roles"
    EXCLUDED_ROLE = "no policy can let this role in"
    NO_POLICY = "no policy gives this identity the permission on any path"
    PATH_NOT_ALLOWED = "no policy gives this identity the permission on this path"
    UNKNOWN_CALL = "the call has no row in the authorization table"


@dataclass(frozen=True, slots=True)
class Denied:
    """The answer is 401, whatever the reason."""

    reason: DenialReason


# Whoever holds it can make grants. Nothing outside this module may.
_SEAL: Final = object()


@dataclass(frozen=True, slots=True)
class Grant:
    """Proof that `peer` may make this call on this resource. The first parameter of every handler.

    `resource` is the path decided on, or empty where there is none. Only this module can make one.
    """

    peer: SpiffeId
    call: CallName
    resource: str
    extent: Extent
    seal: InitVar[object]

    def __post_init__(self, seal: object) -> None:
        if seal is not _SEAL:
            raise TypeError("a Grant is made by spike.policy.access alone")


@dataclass(frozen=True, slots=True)
class NeedsPath:
    """Stage 1 is passed; each path still needs a decision. Only this module can make one."""

    peer: SpiffeId
    call: CallName
    seal: InitVar[object]
    _policies: CompiledPolicies
    _candidates: Candidates | None  # None: the superuser, who needs no policy

    def __post_init__(self, seal: object) -> None:
        if seal is not _SEAL:
            raise TypeError("a NeedsPath is made by spike.policy.access alone")

    def decide(self, path: str) -> Grant | Denied:
        """Decide on one path of the body, which may be any text: it is not validated yet."""
        if self._candidates is None or self._policies.allows(self._candidates, path):
            return Grant(self.peer, self.call, path, Extent.ALL, _SEAL)
        return Denied(DenialReason.PATH_NOT_ALLOWED)


def authorize(
    wanted: AnyCall, peer: SpiffeId, roles: frozenset[Role], policies: CompiledPolicies
) -> Grant | NeedsPath | Denied:
    """Decide before the body is parsed; `roles` are those of `peer` (`RoleMap.roles_of`)."""
    rule = TABLE.get(wanted.name)
    match rule:
        case None:
            return Denied(DenialReason.UNKNOWN_CALL)
        case ForAnyone(all_of_it=all_of_it):
            extent = Extent.ALL if roles & all_of_it else Extent.READINESS
            return Grant(peer, wanted.name, "", extent, _SEAL)
        case ByRole(roles=allowed):
            if roles & allowed:
                return Grant(peer, wanted.name, "", Extent.ALL, _SEAL)
            return Denied(DenialReason.WRONG_ROLE)
        case ByRoleOrPassword(roles=allowed, with_password=others):
            if roles & (allowed | others):
                extent = Extent.ALL if roles & allowed else Extent.WITH_PASSWORD
                return Grant(peer, wanted.name, "", extent, _SEAL)
            return Denied(DenialReason.WRONG_ROLE)
        case OnKnownPath() | OnPathOfBody():
            return _by_policy(rule, wanted, peer, roles, policies)
        case _:
            assert_never(rule)


def _by_policy(
    rule: OnKnownPath | OnPathOfBody,
    wanted: AnyCall,
    peer: SpiffeId,
    roles: frozenset[Role],
    policies: CompiledPolicies,
) -> Grant | NeedsPath | Denied:
    without_policy = rule.roles if isinstance(rule, OnKnownPath) else _SUPERUSER
    if roles & _NEVER_BY_POLICY - without_policy:
        return Denied(DenialReason.EXCLUDED_ROLE)
    candidates = None
    if not roles & without_policy:
        candidates = policies.candidates(peer, rule.permission)
        if not candidates:
            return Denied(DenialReason.NO_POLICY)
    needs_path = NeedsPath(peer, wanted.name, _SEAL, policies, candidates)
    match rule:
        case OnKnownPath(path=path):
            return needs_path.decide(path)
        case OnPathOfBody():
            return needs_path
        case _:
            assert_never(rule)
