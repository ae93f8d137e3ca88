"""The shape of each message on the wire, spelled from the contract; calls; error codes; what is never printed."""

from __future__ import annotations

import pytest

from spike.error import (
    FenceError,
    FormatError,
    InputError,
    NotFoundError,
    NotReadyError,
    OpenError,
    RefusedError,
    SpikeError,
    StoreConflictError,
    StoreCorruptError,
    StoreUnavailableError,
    WipedError,
)
from spike.wire import (
    backup,
    cipher,
    drill,
    go_json,
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
from spike.wire.call import CALLS, call_at
from spike.wire.code import ErrorCode, code_for_status, code_of
from spike.wire.go_time import UnixNs, go_time
from spike.wire.message import ConfidentialMessage, Empty, ErrorAnswer, Message

T0 = go_time(UnixNs(0))
T1 = go_time(UnixNs(1_500_000_000))

ANSWERS: list[tuple[Message, str]] = [
    (Empty(), "{}"),
    (ErrorAnswer("api_not_found"), '{"err":"api_not_found"}'),
    (secret.SecretGetAnswer({"k": "v"}), '{"data":{"k":"v"}}'),
    (secret.SecretGetAnswer({}), '{"data":{}}'),
    (secret.SecretListAnswer([]), '{"keys":[]}'),
    (
        secret.SecretMetadataAnswer(
            {1: secret.SecretVersionInfo(T0, 1, T1), 12: secret.SecretVersionInfo(T1, 12, None)},
            secret.SecretMetadataInfo(12, 12, T0, T1, 10),
        ),
        (
            '{"versions":{"1":{"createdTime":"1970-01-01T00:00:00Z","version":1,'
            '"deletedTime":"1970-01-01T00:00:01.5Z"},'
            '"12":{"createdTime":"1970-01-01T00:00:01.5Z","version":12,"deletedTime":null}},'
            '"metadata":{"currentVersion":12,"oldestVersion":12,"createdTime":"1970-01-01T00:00:00Z",'
            '"updatedTime":"1970-01-01T00:00:01.5Z","maxVersions":10}}'
        ),
    ),
    (
        secret.SecretGetManyAnswer([secret.SecretGetAnswer({"k": "v"}), None]),
        '{"items":[{"data":{"k":"v"}},null]}',
    ),
    (
        policy.PolicyGetAnswer("n", "^spiffe://a$", "^p$", ["read"], T0, T1),
        (
            '{"name":"n","spiffiedPattern":"^spiffe://a$","pathPattern":"^p$","permissions":["read"],'
            '"createdAt":"1970-01-01T00:00:00Z","updatedAt":"1970-01-01T00:00:01.5Z","id":""}'
        ),
    ),
    (
        policy.PolicyListAnswer([policy.PolicyListItem("n")]),
        '{"policies":[{"name":"n","id":""}]}',
    ),
    (
        cipher.CipherEncryptAnswer(1, b"\0" * 12, b"\1\2"),
        '{"version":1,"nonce":"AAAAAAAAAAAAAAAA","ciphertext":"AQI="}',
    ),
    (cipher.CipherDecryptAnswer(b"\0\1"), '{"plaintext":"AAE="}'),
    (cipher.CipherDecryptAnswer(b""), '{"plaintext":""}'),
    (operator.RecoverAnswer({1: [1, 2], 2: [3]}), '{"shards":{"1":[1,2],"2":[3]}}'),
    (operator.ShardRestoreAnswer(1, 1, False), '{"collected":1,"remaining":1,"restored":false}'),
    (own.PasswordBeginAnswer("s", b"\0\1"), '{"session":"s","publicKey":"AAE="}'),
    (own.StatusAnswer(ready=True), '{"ready":true}'),
    (own.StatusAnswer(ready=False), '{"ready":false}'),
    (
        rotation.KeyRotateAnswer("i", True, [rotation.RotationCheck("disk", "ok", "900 MiB")]),
        '{"id":"i","started":true,"checks":[{"name":"disk","result":"ok","detail":"900 MiB"}]}',
    ),
    (
        rotation.KeyRotateAnswer(
            "", False, [rotation.RotationCheck("disk", "fail", "full", "make room")], ["all of it"]
        ),
        (
            '{"id":"","started":false,"checks":[{"name":"disk","result":"fail","detail":"full",'
            '"nextStep":"make room"}],"exposure":["all of it"]}'
        ),
    ),
    (rotation.KeyRotationAnswer(), '{"rotation":null}'),
    (
        key.KeyStatusAnswer(
            rotation=rotation.Rotation(
                *("i", "rotation", "full", "re-encrypting", T0, "spiffe://a/b", "why", 1),
                *(rotation.Succession(1, 2), rotation.Succession(3, 4), rotation.Succession(5, 6)),
                flipped_at=T1,
                progress=rotation.RotationProgress(3, 9, 2, 0, 0, 0, 1, 100, 5),
            )
        ),
        (
            '{"rotation":{"id":"i","kind":"rotation","scope":"full","phase":"re-encrypting",'
            '"startedAt":"1970-01-01T00:00:00Z","startedBy":"spiffe://a/b","reason":"why","attempt":1,'
            '"root":{"before":1,"after":2},"record":{"before":3,"after":4},"cipher":{"before":5,"after":6},'
            '"flippedAt":"1970-01-01T00:00:01.5Z","progress":{"scanned":3,"expected":9,"reEncrypted":2,'
            '"alreadyCurrent":0,"skipped":0,"vanished":0,"failed":1,"sizeBytes":100,"ratePerS":5}}}'
        ),
    ),
]


@pytest.mark.parametrize(("message", "text"), ANSWERS)
def test_an_answer_is_written_as_the_contract_spells_it_and_read_back(
    message: Message, text: str
) -> None:
    assert go_json.encode(message).decode() == text
    assert go_json.decode_answer_untrusted(type(message), text.encode()) == message


REQUESTS: list[tuple[str, str, str, Message]] = [
    (
        "/v1/store/secrets",
        "",
        '{"path":"a","values":{"k":"v"}}',
        secret.SecretPutRequest("a", {"k": "v"}),
    ),
    ("/v1/store/secrets", "get", '{"path":"a"}', secret.SecretGetRequest("a")),
    (
        "/v1/store/secrets",
        "delete",
        '{"path":"a","versions":null}',
        secret.SecretVersionsRequest("a"),
    ),
    (
        "/v1/store/secrets",
        "undelete",
        '{"path":"a","versions":[0]}',
        secret.SecretVersionsRequest("a", [0]),
    ),
    ("/v1/store/secrets", "list", "{}", Empty()),
    (
        "/v1/store/secrets",
        "get-many",
        '{"items":[{"path":"a"},{"path":"b","version":2}]}',
        secret.SecretGetManyRequest([secret.SecretItem("a"), secret.SecretItem("b", 2)]),
    ),
    (
        "/v1/store/secrets/metadata",
        "get",
        '{"path":"a","version":1}',
        secret.SecretGetRequest("a", 1),
    ),
    (
        "/v1/acl/policy",
        "",
        '{"name":"n","spiffeidPattern":"s","pathPattern":"p","permissions":["read"]}',
        policy.PolicyPutRequest("n", "s", "p", ["read"]),
    ),
    ("/v1/acl/policy", "get", '{"id":"n"}', policy.PolicyNameRequest("n")),
    ("/v1/acl/policy", "delete", '{"id":"n"}', policy.PolicyNameRequest("n")),
    (
        "/v1/acl/policy",
        "list",
        '{"spiffeidPattern":"","pathPattern":"p"}',
        policy.PolicyListRequest("", "p"),
    ),
    ("/v1/cipher/encrypt", "", '{"plaintext":"AAE="}', cipher.CipherEncryptRequest(b"\0\1")),
    (
        "/v1/cipher/decrypt",
        "",
        '{"version":1,"nonce":"AAE=","ciphertext":"AA==","algorithm":"AES-GCM"}',
        cipher.CipherDecryptRequest(1, b"\0\1", b"\0", "AES-GCM"),
    ),
    (
        "/v1/bootstrap/verify",
        "",
        '{"nonce":"AAE=","ciphertext":"AA=="}',
        operator.BootstrapVerifyRequest(b"\0\1", b"\0"),
    ),
    ("/v1/operator/recover", "", '{"onlyFirst":true}', operator.RecoverRequest(True)),
    (
        "/v1/operator/restore",
        "",
        '{"id":1,"shard":[1,2],"setId":"s","acceptOlderStore":true,"preview":true}',
        operator.ShardRestoreRequest(1, [1, 2], "s", accept_older_store=True, preview=True),
    ),
    (
        "/v1/operator/restore",
        "password",
        '{"session":"s","sealedPassword":"AA=="}',
        own.PasswordRestoreRequest("s", b"\0"),
    ),
    (
        "/v1/operator/restore",
        "file",
        '{"session":"s","sealedPassword":"AA==","backup":"AQ=="}',
        own.FileRestoreRequest("s", b"\0", backup=b"\1"),
    ),
    ("/v1/operator/password", "begin", "{}", Empty()),
    ("/v1/keeper", "refresh", "{}", Empty()),
    ("/v1/keeper", "rehearse", "{}", Empty()),
    (
        "/v1/operator/shard",
        "check",
        '{"id":1,"setId":"s","digest":"d"}',
        operator.ShardCheckRequest(1, "s", "d"),
    ),
    (
        "/v1/drill",
        "",
        '{"session":"s","sealedPassword":"AA==","slotName":"n","full":true}',
        drill.DrillBeginRequest("s", b"\0", "n", True),
    ),
    ("/v1/drill", "report", "{}", Empty()),
    (
        "/v1/drill",
        "record",
        '{"name":"n","outcome":"failed","note":"t"}',
        drill.DrillRecordRequest("n", "failed", "t"),
    ),
    (
        "/v1/keeper",
        "reshape",
        '{"shares":2,"threshold":2,"peers":["https://k1.example.org"]}',
        own.KeeperReshapeRequest(2, 2, ["https://k1.example.org"]),
    ),
    ("/v1/key", "list", "{}", Empty()),
    ("/v1/key", "history", '{"limit":5}', key.KeyHistoryRequest(5)),
    ("/v1/key", "verify", '{"stop":true}', key.KeyVerifyRequest(True)),
    ("/v1/key", "status", '{"findingsAfter":7}', key.KeyStatusRequest(7)),
    (
        "/v1/system-backup",
        "create",
        '{"place":"p"}',
        system_backup.SystemBackupCreateRequest("p"),
    ),
    (
        "/v1/system-backup",
        "read",
        '{"session":"s","part":2}',
        system_backup.SystemBackupReadRequest("s", 2),
    ),
    ("/v1/backup", "export", '{"place":"p"}', backup.BackupExportRequest("p")),
    (
        "/v1/backup",
        "verify",
        '{"slot":"n","session":"s","sealedPassword":"AA=="}',
        backup.BackupVerifyRequest("n", "s", b"\0"),
    ),
    ("/v1/backup/slot", "list", "{}", Empty()),
    (
        "/v1/backup/slot",
        "add",
        (
            '{"slot":"n","session":"s","sealedPassword":"AA==","existingSlot":"o","existingSession":"t",'
            '"existingPassword":"AQ==","noRotate":true}'
        ),
        backup.SlotPasswordRequest("n", "s", b"\0", "o", "t", b"\x01", True),
    ),
    (
        "/v1/backup/slot",
        "change",
        '{"slot":"n","session":"s","sealedPassword":"AA=="}',
        backup.SlotPasswordRequest("n", "s", b"\0"),
    ),
    (
        "/v1/backup/slot",
        "remove",
        (
            '{"slot":"n","existingSlot":"o","existingSession":"t","existingPassword":"AQ==",'
            '"noRotate":true}'
        ),
        backup.SlotRemoveRequest("n", "o", "t", b"\x01", True),
    ),
    (
        "/v1/system-backup",
        "receive",
        '{"confirm":"c","part":2,"data":"AA==","last":true}',
        system_backup.SystemBackupReceiveRequest("c", 2, b"\0", True),
    ),
    (
        "/v1/operator/restore",
        "system-backup",
        (
            '{"session":"s","sealedPassword":"AA==","slotName":"n","anchor":"AQ==","backup":"Ag==",'
            '"manifest":"Aw==","acceptOlderStore":true,"setAside":true}'
        ),
        system_backup.SystemRestoreRequest("s", b"\0", "n", b"\x01", b"\x02", b"\x03", True, True),
    ),
    ("/v1/operator/restore", "undo", "{}", Empty()),
    (
        "/v1/operator/factory-reset",
        "",
        '{"phrase":"p","storeId":"i"}',
        reset.FactoryResetRequest("p", "i"),
    ),
    ("/v1/key", "schedule-get", "{}", Empty()),
    ("/v1/key", "note", '{"id":"i","text":"t"}', report.KeyNoteRequest("i", "t")),
    ("/v1/key", "report", '{"id":"i"}', report.KeyReportRequest("i")),
    (
        "/v1/key",
        "cipher-oldest",
        '{"oldest":2,"confirm":true}',
        key.KeyCipherOldestRequest(2, True),
    ),
    (
        "/v1/cipher/rewrap",
        "",
        '{"version":1,"nonce":"AA==","ciphertext":"AQ=="}',
        cipher.CipherDecryptRequest(1, b"\0", b"\x01"),
    ),
    (
        "/v1/key",
        "schedule-set",
        '{"recordDays":30,"windows":[{"days":["sun"],"begin":"01:00","end":"05:00"}],"reset":true}',
        schedule.KeyScheduleSetRequest(
            record_days=30, windows=[schedule.ScheduleWindow(["sun"], "01:00", "05:00")], reset=True
        ),
    ),
    ("/v1/key", "rotate", '{"windowS":null}', rotation.KeyRotateRequest()),
    (
        "/v1/key",
        "rotate",
        (
            '{"scope":"full","reason":"r","windowS":0,"maxRate":9,"leaked":["root"],"without":["1"],'
            '"withoutKeepers":true,"force":true,"dryRun":true}'
        ),
        rotation.KeyRotateRequest("full", "r", 0, 9, ["root"], ["1"], True, True, True),
    ),
    ("/v1/key", "pause", "{}", Empty()),
    ("/v1/key", "resume", "{}", Empty()),
    ("/v1/key", "pace", '{"maxRate":9}', rotation.KeyPaceRequest(9)),
    ("/v1/key", "abort", '{"reason":"r"}', rotation.KeyReasonRequest("r")),
    ("/v1/key", "rollback", '{"reason":"r"}', rotation.KeyReasonRequest("r")),
    ("/v1/key", "finalize", "{}", Empty()),
    (
        "/v1/operator/init",
        "",
        '{"session":"s","sealedPassword":"AA==","slotName":"n"}',
        own.InitRequest("s", b"\0", "n"),
    ),
    ("/v1/operator/status", "", "{}", Empty()),
]


@pytest.mark.parametrize(("path", "action", "body", "message"), REQUESTS)
def test_each_call_reads_the_request_the_contract_spells(
    path: str, action: str, body: str, message: Message
) -> None:
    call = call_at(path, action)
    assert call is not None
    assert go_json.decode_untrusted(call.request, body.encode()) == message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"id":1,"shard":[1,2]}', operator.ShardRestoreRequest(1, [1, 2])),
        ('{"id":1,"shard":null}', operator.ShardRestoreRequest(1, None)),
        ('{"ID":1}', operator.ShardRestoreRequest(1, None)),
    ],
)
def test_a_shard_is_an_array_of_integers(body: str, message: Message) -> None:
    assert go_json.decode_untrusted(operator.ShardRestoreRequest, body.encode()) == message


def test_every_call_is_spelled_out_here() -> None:
    assert {(path, action) for path, action, _, _ in REQUESTS} == {
        (call.path, call.action) for call in CALLS
    }


def test_a_call_is_found_by_exact_path_and_action_alone() -> None:
    assert call_at("/v1/store/secrets", "get") is not None
    for path, action in [
        ("/v1/store/secrets/", "get"),
        ("/v1/store/secrets", "GET"),
        ("/v1/store/secrets", "read"),
        ("/v1/store/secrets/metadata", ""),
        ("/V1/store/secrets", "get"),
        ("", ""),
    ]:
        assert call_at(path, action) is None


def test_the_target_of_a_call_names_its_action_unless_it_is_the_default() -> None:
    targets = {call.target for call in CALLS}
    assert {"/v1/store/secrets", "/v1/store/secrets?action=get"} <= targets
    assert len(targets) == len(CALLS)


def test_what_may_be_called_before_there_is_a_root_key() -> None:
    early = {call.target for call in CALLS if not call.needs_root_key}
    assert early == {
        "/v1/operator/recover",
        "/v1/operator/restore",
        "/v1/operator/restore?action=password",
        "/v1/operator/restore?action=file",
        "/v1/operator/restore?action=system-backup",
        "/v1/operator/restore?action=undo",
        "/v1/operator/factory-reset",
        "/v1/system-backup?action=receive",
        "/v1/operator/password?action=begin",
        "/v1/operator/init",
        "/v1/operator/status",
    }


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (InputError("x"), 400, "api_bad_request"),
        (RefusedError("x"), 400, "api_bad_request"),
        (NotFoundError("x"), 404, "api_not_found"),
        (NotReadyError("x"), 503, "state_not_ready"),
        (StoreUnavailableError("x"), 503, "state_not_ready"),
        (StoreConflictError("x"), 500, "api_internal_error"),
        (FenceError("x"), 500, "api_internal_error"),
        (StoreCorruptError("x"), 500, "api_internal_error"),
        (OpenError("x"), 500, "api_internal_error"),
        (FormatError("x"), 500, "api_internal_error"),
        (WipedError("x"), 500, "api_internal_error"),
        (SpikeError("x"), 500, "api_internal_error"),
        (ValueError("x"), 500, "api_internal_error"),
    ],
)
def test_an_error_is_told_by_whose_fault_it_is(error: Exception, status: int, text: str) -> None:
    code = code_of(error)
    assert (code.status, code.text) == (status, text)


def test_each_status_a_go_client_understands_has_its_code() -> None:
    assert [code_for_status(status) for status in (400, 401, 404, 500, 503)] == [
        ErrorCode.BAD_REQUEST,
        ErrorCode.UNAUTHORIZED,
        ErrorCode.NOT_FOUND,
        ErrorCode.INTERNAL,
        ErrorCode.NOT_READY,
    ]
    assert code_for_status(200) is None
    assert code_for_status(403) is None


CONFIDENTIAL: list[ConfidentialMessage] = [
    secret.SecretPutRequest("hunter2", {"hunter2": "hunter2"}),
    secret.SecretGetAnswer({"k": "hunter2"}),
    secret.SecretGetManyAnswer([secret.SecretGetAnswer({"k": "hunter2"})]),
    cipher.CipherEncryptRequest(b"hunter2", "hunter2"),
    cipher.CipherDecryptAnswer(b"hunter2"),
    operator.RecoverAnswer({1: [7] * 32}),
    operator.ShardRestoreRequest(1, [7] * 32),
    own.InitRequest("hunter2", b"hunter2", "hunter2"),
    own.PasswordRestoreRequest("hunter2", b"hunter2"),
    own.FileRestoreRequest("hunter2", b"hunter2", backup=b"hunter2"),
]


@pytest.mark.parametrize("message", CONFIDENTIAL, ids=lambda message: type(message).__name__)
def test_a_message_that_holds_a_secret_shows_its_type_and_nothing_else(
    message: ConfidentialMessage,
) -> None:
    shown = f"{message!r} {message} {message.__rich_repr__()}"
    assert "hunter2" not in shown
    assert "7" not in shown
    assert type(message).__name__ in shown
