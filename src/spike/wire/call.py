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


_SECRETS: Final = "/v1/store/secrets"
_METADATA: Final = "/v1/store/secrets/metadata"
_POLICY: Final = "/v1/acl/policy"

SECRET_PUT: Final = Call(CallName("secret put"), _SECRETS, "", secret.SecretPutRequest, Empty)
SECRET_GET: Final = Call(
    CallName("secret get"), _SECRETS, "get", secret.SecretGetRequest, secret.SecretGetAnswer
)
SECRET_GET_MANY: Final = Call(
    CallName("secret get-many"),
    _SECRETS,
    "get-many",
    secret.SecretGetManyRequest,
    secret.SecretGetManyAnswer,
)
SECRET_DELETE: Final = Call(
    CallName("secret delete"), _SECRETS, "delete", secret.SecretVersionsRequest, Empty
)
SECRET_UNDELETE: Final = Call(
    CallName("secret undelete"), _SECRETS, "undelete", secret.SecretVersionsRequest, Empty
)
SECRET_LIST: Final = Call(CallName("secret list"), _SECRETS, "list", Empty, secret.SecretListAnswer)
SECRET_METADATA_GET: Final = Call(
    CallName("secret metadata get"),
    _METADATA,
    "get",
    secret.SecretGetRequest,
    secret.SecretMetadataAnswer,
)

POLICY_PUT: Final = Call(CallName("policy put"), _POLICY, "", policy.PolicyPutRequest, Empty)
POLICY_GET: Final = Call(
    CallName("policy get"), _POLICY, "get", policy.PolicyNameRequest, policy.PolicyGetAnswer
)
POLICY_DELETE: Final = Call(
    CallName("policy delete"), _POLICY, "delete", policy.PolicyNameRequest, Empty
)
POLICY_LIST: Final = Call(
    CallName("policy list"), _POLICY, "list", policy.PolicyListRequest, policy.PolicyListAnswer
)

CIPHER_ENCRYPT: Final = Call(
    CallName("cipher encrypt"),
    "/v1/cipher/encrypt",
    "",
    cipher.CipherEncryptRequest,
    cipher.CipherEncryptAnswer,
)
CIPHER_DECRYPT: Final = Call(
    CallName("cipher decrypt"),
    "/v1/cipher/decrypt",
    "",
    cipher.CipherDecryptRequest,
    cipher.CipherDecryptAnswer,
)

CIPHER_REWRAP: Final = Call(
    CallName("cipher rewrap"),
    "/v1/cipher/rewrap",
    "",
    cipher.CipherDecryptRequest,
    cipher.CipherRewrapAnswer,
)

# Go's answer to this call has a hash of the plain text. Ours is always a refusal.
BOOTSTRAP_VERIFY: Final = Call(
    CallName("bootstrap verify"),
    "/v1/bootstrap/verify",
    "",
    operator.BootstrapVerifyRequest,
    Empty,
)
OPERATOR_RECOVER: Final = Call(
    CallName("operator recover"),
    "/v1/operator/recover",
    "",
    operator.RecoverRequest,
    operator.RecoverAnswer,
    needs_root_key=False,
)
OPERATOR_CHECK_SHARD: Final = Call(
    CallName("operator check-shard"),
    "/v1/operator/shard",
    "check",
    operator.ShardCheckRequest,
    operator.ShardCheckAnswer,
)
OPERATOR_RESTORE: Final = Call(
    CallName("operator restore"),
    "/v1/operator/restore",
    "",
    operator.ShardRestoreRequest,
    operator.ShardRestoreAnswer,
    needs_root_key=False,
)
OPERATOR_RESTORE_PASSWORD: Final = Call(
    CallName("operator restore by password"),
    "/v1/operator/restore",
    "password",
    own.PasswordRestoreRequest,
    own.RestoreAnswer,
    needs_root_key=False,
)
OPERATOR_RESTORE_FILE: Final = Call(
    CallName("operator restore by file"),
    "/v1/operator/restore",
    "file",
    own.FileRestoreRequest,
    own.RestoreAnswer,
    needs_root_key=False,
)
OPERATOR_PASSWORD_BEGIN: Final = Call(
    CallName("operator password begin"),
    "/v1/operator/password",
    "begin",
    Empty,
    own.PasswordBeginAnswer,
    needs_root_key=False,
)
OPERATOR_INIT: Final = Call(
    CallName("operator init"),
    "/v1/operator/init",
    "",
    own.InitRequest,
    own.InitAnswer,
    needs_root_key=False,
)
OPERATOR_STATUS: Final = Call(
    CallName("operator status"),
    "/v1/operator/status",
    "",
    Empty,
    own.StatusAnswer,
    needs_root_key=False,
)

KEEPER_REFRESH: Final = Call(
    CallName("keeper refresh"), "/v1/keeper", "refresh", Empty, own.KeeperRefreshAnswer
)

KEEPER_RESHAPE: Final = Call(
    CallName("keeper reshape"),
    "/v1/keeper",
    "reshape",
    own.KeeperReshapeRequest,
    own.KeeperReshapeAnswer,
)

KEEPER_REHEARSE: Final = Call(
    CallName("keeper rehearse"), "/v1/keeper", "rehearse", Empty, own.Rehearsal
)

_SLOT: Final = "/v1/backup/slot"
_BACKUP: Final = "/v1/backup"

SLOT_LIST: Final = Call(CallName("backup slot list"), _SLOT, "list", Empty, backup.SlotListAnswer)
SLOT_ADD: Final = Call(
    CallName("backup slot add"), _SLOT, "add", backup.SlotPasswordRequest, backup.SlotAnswer
)
SLOT_CHANGE: Final = Call(
    CallName("backup slot change"), _SLOT, "change", backup.SlotPasswordRequest, backup.SlotAnswer
)
SLOT_REMOVE: Final = Call(
    CallName("backup slot remove"), _SLOT, "remove", backup.SlotRemoveRequest, backup.SlotAnswer
)
BACKUP_VERIFY: Final = Call(
    CallName("backup verify"),
    _BACKUP,
    "verify",
    backup.BackupVerifyRequest,
    backup.BackupVerifyAnswer,
)
BACKUP_EXPORT: Final = Call(
    CallName("backup export"),
    _BACKUP,
    "export",
    backup.BackupExportRequest,
    backup.BackupExportAnswer,
)

_KEY: Final = "/v1/key"

KEY_LIST: Final = Call(CallName("key list"), _KEY, "list", Empty, key.KeyListAnswer)
KEY_HISTORY: Final = Call(
    CallName("key history"), _KEY, "history", key.KeyHistoryRequest, key.KeyHistoryAnswer
)
KEY_VERIFY: Final = Call(
    CallName("key verify"), _KEY, "verify", key.KeyVerifyRequest, key.KeyVerifyAnswer
)
KEY_STATUS: Final = Call(
    CallName("key status"), _KEY, "status", key.KeyStatusRequest, key.KeyStatusAnswer
)
KEY_ROTATE: Final = Call(
    CallName("key rotate"), _KEY, "rotate", rotation.KeyRotateRequest, rotation.KeyRotateAnswer
)
KEY_PAUSE: Final = Call(CallName("key pause"), _KEY, "pause", Empty, rotation.KeyRotationAnswer)
KEY_RESUME: Final = Call(CallName("key resume"), _KEY, "resume", Empty, rotation.KeyRotationAnswer)
KEY_PACE: Final = Call(
    CallName("key pace"), _KEY, "pace", rotation.KeyPaceRequest, rotation.KeyRotationAnswer
)
KEY_ABORT: Final = Call(
    CallName("key abort"), _KEY, "abort", rotation.KeyReasonRequest, rotation.KeyRotationAnswer
)
KEY_ROLLBACK: Final = Call(
    CallName("key rollback"), _KEY, "rollback", rotation.KeyReasonRequest, rotation.KeyRotateAnswer
)
KEY_FINALIZE: Final = Call(
    CallName("key finalize"), _KEY, "finalize", Empty, rotation.KeyRotationAnswer
)

_SYSTEM_BACKUP: Final = "/v1/system-backup"

SYSTEM_BACKUP_CREATE: Final = Call(
    CallName("system-backup create"),
    _SYSTEM_BACKUP,
    "create",
    system_backup.SystemBackupCreateRequest,
    system_backup.SystemBackupCreateAnswer,
)
SYSTEM_BACKUP_READ: Final = Call(
    CallName("system-backup read"),
    _SYSTEM_BACKUP,
    "read",
    system_backup.SystemBackupReadRequest,
    system_backup.SystemBackupReadAnswer,
)
KEY_CIPHER_OLDEST: Final = Call(
    CallName("key cipher-oldest"),
    _KEY,
    "cipher-oldest",
    key.KeyCipherOldestRequest,
    key.KeyCipherOldestAnswer,
)
KEY_NOTE: Final = Call(
    CallName("key note"), _KEY, "note", report.KeyNoteRequest, report.KeyNoteAnswer
)
KEY_REPORT: Final = Call(
    CallName("key report"), _KEY, "report", report.KeyReportRequest, report.KeyReportAnswer
)
KEY_SCHEDULE_GET: Final = Call(
    CallName("key schedule get"), _KEY, "schedule-get", Empty, schedule.ScheduleAnswer
)
KEY_SCHEDULE_SET: Final = Call(
    CallName("key schedule set"),
    _KEY,
    "schedule-set",
    schedule.KeyScheduleSetRequest,
    schedule.ScheduleAnswer,
)

SYSTEM_BACKUP_RECEIVE: Final = Call(
    CallName("system-backup receive"),
    _SYSTEM_BACKUP,
    "receive",
    system_backup.SystemBackupReceiveRequest,
    system_backup.SystemBackupReceiveAnswer,
    needs_root_key=False,
)
OPERATOR_RESTORE_SYSTEM: Final = Call(
    CallName("operator restore by system backup"),
    "/v1/operator/restore",
    "system-backup",
    system_backup.SystemRestoreRequest,
    own.RestoreAnswer,
    needs_root_key=False,
)
OPERATOR_RESTORE_UNDO: Final = Call(
    CallName("operator restore undo"),
    "/v1/operator/restore",
    "undo",
    Empty,
    system_backup.RestoreUndoAnswer,
    needs_root_key=False,
)

OPERATOR_FACTORY_RESET: Final = Call(
    CallName("operator factory-reset"),
    "/v1/operator/factory-reset",
    "",
    reset.FactoryResetRequest,
    reset.FactoryResetAnswer,
    needs_root_key=False,
)

_DRILL: Final = "/v1/drill"

DRILL_BEGIN: Final = Call(CallName("drill begin"), _DRILL, "", drill.DrillBeginRequest, drill.Drill)
DRILL_REPORT: Final = Call(
    CallName("drill report"), _DRILL, "report", Empty, drill.DrillReportAnswer
)
DRILL_RECORD: Final = Call(
    CallName("drill record"), _DRILL, "record", drill.DrillRecordRequest, Empty
)

AnyCall = Call[Any, Any]

CALLS: Final[tuple[AnyCall, ...]] = (
    SECRET_PUT,
    SECRET_GET,
    SECRET_GET_MANY,
    SECRET_DELETE,
    SECRET_UNDELETE,
    SECRET_LIST,
    SECRET_METADATA_GET,
    POLICY_PUT,
    POLICY_GET,
    POLICY_DELETE,
    POLICY_LIST,
    CIPHER_ENCRYPT,
    CIPHER_DECRYPT,
    CIPHER_REWRAP,
    BOOTSTRAP_VERIFY,
    OPERATOR_RECOVER,
    OPERATOR_CHECK_SHARD,
    OPERATOR_RESTORE,
    OPERATOR_RESTORE_PASSWORD,
    OPERATOR_RESTORE_FILE,
    OPERATOR_PASSWORD_BEGIN,
    OPERATOR_INIT,
    OPERATOR_STATUS,
    KEEPER_REFRESH,
    KEEPER_RESHAPE,
    KEEPER_REHEARSE,
    SLOT_LIST,
    SLOT_ADD,
    SLOT_CHANGE,
    SLOT_REMOVE,
    BACKUP_VERIFY,
    BACKUP_EXPORT,
    KEY_LIST,
    KEY_HISTORY,
    KEY_VERIFY,
    KEY_STATUS,
    SYSTEM_BACKUP_CREATE,
    SYSTEM_BACKUP_READ,
    KEY_CIPHER_OLDEST,
    KEY_NOTE,
    KEY_REPORT,
    KEY_SCHEDULE_GET,
    KEY_SCHEDULE_SET,
    SYSTEM_BACKUP_RECEIVE,
    OPERATOR_RESTORE_SYSTEM,
    OPERATOR_RESTORE_UNDO,
    OPERATOR_FACTORY_RESET,
    DRILL_BEGIN,
    DRILL_REPORT,
    DRILL_RECORD,
    KEY_ROTATE,
    KEY_PAUSE,
    KEY_RESUME,
    KEY_PACE,
    KEY_ABORT,
    KEY_ROLLBACK,
    KEY_FINALIZE,
)

_BY_TARGET: Final = {(call.path, call.action): call for call in CALLS}


def call_at(path: str, action: str) -> AnyCall | None:
    """Return the call at this exact path and action; None where there is none, which is a 400."""
    return _BY_TARGET.get((path, action))
