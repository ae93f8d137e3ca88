"""The calls of Nexus: path, action, request and answer of each. One list, for servers and clients.

Every call is a POST, chosen by its exact path and the first value of the query parameter `action`
(absent or empty = the default action). The authorization table in `spike.policy.access` has one row
for each of these calls; a test holds the two equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Generic, NewType, TypeVar

from spike.wire import (
    backup,
    cipher,
    drill,
    key,
    operator,
    own,
    policy,
    report,
    reset,
    rotation,
    schedule,
    secret,
    system_backup,
)
from spike.wire.message import Empty, Message

CallName = NewType("CallName", str)
Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)


@dataclass(frozen=True, slots=True)
class Call(Generic[Q, A]):
    """One call. While there is no root key, one that `needs_root_key` gets 503."""

    name: CallName
    path: str
    action: str
    request: type[Q]
    answer: type[A]
    needs_root_key: bool = True

    @property
    def target(self) -> str:
        """What stands in the request line: the path, with the action unless it is the default."""
        return f"{self.path}?action={self.action}" if self.action else self.path


AnyCall = Call[Any, Any]


def _call(name: str, path: str, action: str, request: type[Q], answer: type[A]) -> Call[Q, A]:
    return Call(CallName(name), path, action, request, answer)


def _early(name: str, path: str, action: str, request: type[Q], answer: type[A]) -> Call[Q, A]:
    """Return a call that is answered while there is no root key, too."""
    return Call(CallName(name), path, action, request, answer, needs_root_key=False)


_SECRETS: Final = "/v1/store/secrets"
_METADATA: Final = "/v1/store/secrets/metadata"

SECRET_PUT: Final = _call("secret put", _SECRETS, "", secret.SecretPutRequest, Empty)
SECRET_GET: Final = _call(
    "secret get", _SECRETS, "get", secret.SecretGetRequest, secret.SecretGetAnswer
)
SECRET_GET_MANY: Final = _call(
    "secret get-many", _SECRETS, "get-many", secret.SecretGetManyRequest, secret.SecretGetManyAnswer
)
SECRET_DELETE: Final = _call(
    "secret delete", _SECRETS, "delete", secret.SecretVersionsRequest, Empty
)
SECRET_UNDELETE: Final = _call(
    "secret undelete", _SECRETS, "undelete", secret.SecretVersionsRequest, Empty
)
SECRET_LIST: Final = _call("secret list", _SECRETS, "list", Empty, secret.SecretListAnswer)
SECRET_METADATA_GET: Final = _call(
    "secret metadata get", _METADATA, "get", secret.SecretGetRequest, secret.SecretMetadataAnswer
)

_POLICY: Final = "/v1/acl/policy"

POLICY_PUT: Final = _call("policy put", _POLICY, "", policy.PolicyPutRequest, Empty)
POLICY_GET: Final = _call(
    "policy get", _POLICY, "get", policy.PolicyNameRequest, policy.PolicyGetAnswer
)
POLICY_DELETE: Final = _call("policy delete", _POLICY, "delete", policy.PolicyNameRequest, Empty)
POLICY_LIST: Final = _call(
    "policy list", _POLICY, "list", policy.PolicyListRequest, policy.PolicyListAnswer
)

CIPHER_ENCRYPT: Final = _call(
    "cipher encrypt",
    "/v1/cipher/encrypt",
    "",
    cipher.CipherEncryptRequest,
    cipher.CipherEncryptAnswer,
)
CIPHER_DECRYPT: Final = _call(
    "cipher decrypt",
    "/v1/cipher/decrypt",
    "",
    cipher.CipherDecryptRequest,
    cipher.CipherDecryptAnswer,
)
CIPHER_REWRAP: Final = _call(
    "cipher rewrap", "/v1/cipher/rewrap", "", cipher.CipherDecryptRequest, cipher.CipherRewrapAnswer
)

_RESTORE: Final = "/v1/operator/restore"

# Go's answer to this call has a hash of the plain text. Ours is always a refusal.
BOOTSTRAP_VERIFY: Final = _call(
    "bootstrap verify", "/v1/bootstrap/verify", "", operator.BootstrapVerifyRequest, Empty
)
OPERATOR_RECOVER: Final = _early(
    "operator recover", "/v1/operator/recover", "", operator.RecoverRequest, operator.RecoverAnswer
)
OPERATOR_CHECK_SHARD: Final = _call(
    "operator check-shard",
    "/v1/operator/shard",
    "check",
    operator.ShardCheckRequest,
    operator.ShardCheckAnswer,
)
OPERATOR_RESTORE: Final = _early(
    "operator restore", _RESTORE, "", operator.ShardRestoreRequest, operator.ShardRestoreAnswer
)
OPERATOR_RESTORE_PASSWORD: Final = _early(
    "operator restore by password",
    _RESTORE,
    "password",
    own.PasswordRestoreRequest,
    own.RestoreAnswer,
)
OPERATOR_RESTORE_FILE: Final = _early(
    "operator restore by file", _RESTORE, "file", own.FileRestoreRequest, own.RestoreAnswer
)
OPERATOR_RESTORE_SYSTEM: Final = _early(
    "operator restore by system backup",
    _RESTORE,
    "system-backup",
    system_backup.SystemRestoreRequest,
    own.RestoreAnswer,
)
OPERATOR_RESTORE_UNDO: Final = _early(
    "operator restore undo", _RESTORE, "undo", Empty, system_backup.RestoreUndoAnswer
)
OPERATOR_PASSWORD_BEGIN: Final = _early(
    "operator password begin", "/v1/operator/password", "begin", Empty, own.PasswordBeginAnswer
)
OPERATOR_INIT: Final = _early(
    "operator init", "/v1/operator/init", "", own.InitRequest, own.InitAnswer
)
OPERATOR_STATUS: Final = _early(
    "operator status", "/v1/operator/status", "", Empty, own.StatusAnswer
)
OPERATOR_FACTORY_RESET: Final = _early(
    "operator factory-reset",
    "/v1/operator/factory-reset",
    "",
    reset.FactoryResetRequest,
    reset.FactoryResetAnswer,
)

_KEEPER: Final = "/v1/keeper"

KEEPER_REFRESH: Final = _call("keeper refresh", _KEEPER, "refresh", Empty, own.KeeperRefreshAnswer)
KEEPER_RESHAPE: Final = _call(
    "keeper reshape", _KEEPER, "reshape", own.KeeperReshapeRequest, own.KeeperReshapeAnswer
)
KEEPER_REHEARSE: Final = _call("keeper rehearse", _KEEPER, "rehearse", Empty, own.Rehearsal)

_SLOT: Final = "/v1/backup/slot"
_BACKUP: Final = "/v1/backup"
_SYSTEM_BACKUP: Final = "/v1/system-backup"

SLOT_LIST: Final = _call("backup slot list", _SLOT, "list", Empty, backup.SlotListAnswer)
SLOT_ADD: Final = _call(
    "backup slot add", _SLOT, "add", backup.SlotPasswordRequest, backup.SlotAnswer
)
SLOT_CHANGE: Final = _call(
    "backup slot change", _SLOT, "change", backup.SlotPasswordRequest, backup.SlotAnswer
)
SLOT_REMOVE: Final = _call(
    "backup slot remove", _SLOT, "remove", backup.SlotRemoveRequest, backup.SlotAnswer
)
BACKUP_VERIFY: Final = _call(
    "backup verify", _BACKUP, "verify", backup.BackupVerifyRequest, backup.BackupVerifyAnswer
)
BACKUP_EXPORT: Final = _call(
    "backup export", _BACKUP, "export", backup.BackupExportRequest, backup.BackupExportAnswer
)
SYSTEM_BACKUP_CREATE: Final = _call(
    "system-backup create",
    _SYSTEM_BACKUP,
    "create",
    system_backup.SystemBackupCreateRequest,
    system_backup.SystemBackupCreateAnswer,
)
SYSTEM_BACKUP_READ: Final = _call(
    "system-backup read",
    _SYSTEM_BACKUP,
    "read",
    system_backup.SystemBackupReadRequest,
    system_backup.SystemBackupReadAnswer,
)
SYSTEM_BACKUP_RECEIVE: Final = _early(
    "system-backup receive",
    _SYSTEM_BACKUP,
    "receive",
    system_backup.SystemBackupReceiveRequest,
    system_backup.SystemBackupReceiveAnswer,
)

_KEY: Final = "/v1/key"

KEY_LIST: Final = _call("key list", _KEY, "list", Empty, key.KeyListAnswer)
KEY_HISTORY: Final = _call(
    "key history", _KEY, "history", key.KeyHistoryRequest, key.KeyHistoryAnswer
)
KEY_VERIFY: Final = _call("key verify", _KEY, "verify", key.KeyVerifyRequest, key.KeyVerifyAnswer)
KEY_STATUS: Final = _call("key status", _KEY, "status", key.KeyStatusRequest, key.KeyStatusAnswer)
KEY_CIPHER_OLDEST: Final = _call(
    "key cipher-oldest",
    _KEY,
    "cipher-oldest",
    key.KeyCipherOldestRequest,
    key.KeyCipherOldestAnswer,
)
KEY_NOTE: Final = _call("key note", _KEY, "note", report.KeyNoteRequest, report.KeyNoteAnswer)
KEY_REPORT: Final = _call(
    "key report", _KEY, "report", report.KeyReportRequest, report.KeyReportAnswer
)
KEY_SCHEDULE_GET: Final = _call(
    "key schedule get", _KEY, "schedule-get", Empty, schedule.ScheduleAnswer
)
KEY_SCHEDULE_SET: Final = _call(
    "key schedule set",
    _KEY,
    "schedule-set",
    schedule.KeyScheduleSetRequest,
    schedule.ScheduleAnswer,
)
KEY_ROTATE: Final = _call(
    "key rotate", _KEY, "rotate", rotation.KeyRotateRequest, rotation.KeyRotateAnswer
)
KEY_PAUSE: Final = _call("key pause", _KEY, "pause", Empty, rotation.KeyRotationAnswer)
KEY_RESUME: Final = _call("key resume", _KEY, "resume", Empty, rotation.KeyRotationAnswer)
KEY_PACE: Final = _call(
    "key pace", _KEY, "pace", rotation.KeyPaceRequest, rotation.KeyRotationAnswer
)
KEY_ABORT: Final = _call(
    "key abort", _KEY, "abort", rotation.KeyReasonRequest, rotation.KeyRotationAnswer
)
KEY_ROLLBACK: Final = _call(
    "key rollback", _KEY, "rollback", rotation.KeyReasonRequest, rotation.KeyRotateAnswer
)
KEY_FINALIZE: Final = _call("key finalize", _KEY, "finalize", Empty, rotation.KeyRotationAnswer)

_DRILL: Final = "/v1/drill"

DRILL_BEGIN: Final = _call("drill begin", _DRILL, "", drill.DrillBeginRequest, drill.Drill)
DRILL_REPORT: Final = _call("drill report", _DRILL, "report", Empty, drill.DrillReportAnswer)
DRILL_RECORD: Final = _call("drill record", _DRILL, "record", drill.DrillRecordRequest, Empty)

# Every call above is in the list: none can be left out of it.
CALLS: Final[tuple[AnyCall, ...]] = tuple(
    each for each in globals().values() if isinstance(each, Call)
)

_BY_TARGET: Final = {(call.path, call.action): call for call in CALLS}


def call_at(path: str, action: str) -> AnyCall | None:
    """Return the call at this exact path and action; None where there is none, which is a 400."""
    return _BY_TARGET.get((path, action))
