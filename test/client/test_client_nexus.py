"""The client against a server that speaks the wire contract, and what each answer means."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from pilot_kit import ROLES, Site, SmallNexus, site
from spiffe_kit import material
from spike.client import NexusClient
from spike.client.advice import advice_for, roles_for
from spike.client.answer import error_of, result_of
from spike.client.nexus import PasswordFor
from spike.client.pool import KEPT_LIMIT, Pool, Reply
from spike.client.setting import ClientSetting
from spike.error import (
    AnswerError,
    DeniedError,
    InputError,
    NotFoundError,
    NotReadyError,
    SpikeError,
)
from spike.lifecycle.refusal import Reason, RefusalError
from spike.policy.access import TABLE, ByRole, ByRoleOrPassword, ForAnyone
from spike.policy.role import Role
from spike.server import Response
from spike.spiffe.source import HeldSource
from spike.wire.call import (
    CALLS,
    CIPHER_ENCRYPT,
    OPERATOR_RESTORE,
    POLICY_LIST,
    SECRET_GET,
    SECRET_LIST,
    AnyCall,
)

RESTORING = advice_for(OPERATOR_RESTORE)
PASSWORD = b"seven otters juggle turnips"


@pytest.fixture(scope="module")
def made() -> Iterator[Site[SmallNexus]]:
    with site(SmallNexus()) as made, client(made, "superuser") as nexus:
        nexus.init(PasswordFor(bytearray(PASSWORD), "admin"))
        yield made


def client(made: Site[SmallNexus], role: str) -> NexusClient:
    """A client like `from_environment` makes, without its own connection to the Workload API."""
    setting = ClientSetting.from_environment(made.environment(role))
    source = HeldSource(material(made.ca.svid(ROLES[role]), made.ca))
    return NexusClient(Pool(setting.address, source, setting.is_nexus))


def test_a_secret_s_life_through_the_client(made: Site[SmallNexus]) -> None:
    with client(made, "superuser") as nexus:
        nexus.put_secret("life/a", {"k": "one"})
        nexus.put_secret("life/a", {"k": "two"})
        assert nexus.get_secret("life/a") == {"k": "two"}
        assert nexus.get_secret("life/a", 1) == {"k": "one"}
        nexus.delete_secret("life/a", [2])
        assert nexus.get_secret("life/a") == {"k": "one"}
        assert nexus.get_secret_metadata("life/a").metadata.current_version == 1
        nexus.undelete_secret("life/a", [2])
        assert "life/a" in nexus.list_secrets()
        assert nexus.get_secrets(["life/a", "life/none"]) == [{"k": "one"}, None]
        nexus.put_policy("p", "^spiffe://spike.ist/x$", "^life/", ["read"])
        assert nexus.get_policy("p").permissions == ["read"]
        assert nexus.list_policies() == ["p"]
        nexus.delete_policy("p")
        with pytest.raises(NotFoundError):
            nexus.delete_policy("p")


def test_many_threads_share_a_few_connections(made: Site[SmallNexus]) -> None:
    with client(made, "superuser") as nexus:
        nexus.put_secret("thread/a", {"k": "v"})
        begin = threading.Barrier(16)

        def work(_: int) -> list[dict[str, str]]:
            begin.wait(30)
            return [nexus.get_secret("thread/a") for _ in range(10)]

        with ThreadPoolExecutor(16) as pool:
            assert list(pool.map(work, range(16))) == [[{"k": "v"}] * 10] * 16
        nexus.get_status()
        assert made.nexus.server is not None
        assert made.nexus.server.connections <= 2 * KEPT_LIMIT


def test_the_password_is_on_the_wire_only_sealed_and_each_time_otherwise(
    made: Site[SmallNexus],
) -> None:
    made.nexus.lose_memory()
    with client(made, "restore") as nexus:
        for _ in range(2):
            entered = PasswordFor(bytearray(PASSWORD))
            preview = nexus.preview_restore(entered, b"", None)
        assert preview.confirm
        assert nexus.confirm_restore(preview.confirm).restored
    encodings = (PASSWORD, base64.b64encode(PASSWORD), PASSWORD.hex().encode())
    for body in made.nexus.bodies:
        assert not any(each in body for each in encodings)
    assert len(set(made.nexus.sealed)) == len(made.nexus.sealed) >= 3


def test_a_password_does_not_show_in_a_repr() -> None:
    assert "otters" not in repr(PasswordFor(bytearray(PASSWORD), "admin"))


def test_a_write_that_got_a_503_is_not_repeated(made: Site[SmallNexus]) -> None:
    with client(made, "superuser") as nexus:
        before = len(made.nexus.targets)
        made.nexus.answers.append(Response(503, b'{"err":"state_not_ready"}'))
        with pytest.raises(NotReadyError):
            nexus.put_secret("a/b", {"k": "v"})
        assert made.nexus.targets[before:] == ["/v1/store/secrets"]


def test_a_client_from_the_environment_follows_its_identity(made: Site[SmallNexus]) -> None:
    with NexusClient.from_environment(made.environment("superuser")) as nexus:
        assert nexus.get_status().state == "open"
    nexus.close()


def test_who_gets_no_identity_is_told_within_the_time_out(made: Site[SmallNexus]) -> None:
    api = made.apis["workload"]
    api.denies = True
    environment = {**made.environment("workload"), "SPIKE_SPIFFE_SOURCE_TIMEOUT": "300ms"}
    try:
        with pytest.raises(SpikeError, match="no identity for this process") as said:
            NexusClient.from_environment(environment)
        assert said.value.next_step
    finally:
        api.denies = False


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, b'{"err":"api_bad_request"}', InputError),
        (401, b'{"err":"access_unauthorized"}', DeniedError),
        (404, b'{"err":"api_not_found"}', NotFoundError),
        (503, b'{"err":"state_not_ready"}', NotReadyError),
        (500, b'{"err":"api_internal_error"}', AnswerError),
        (413, b"", InputError),
        (302, b"", AnswerError),
        (400, b"<html>", InputError),
        (400, b'{"err":"refused_flying"}', InputError),
        (400, b'{"err":"refused_wrong_password","message":"no","nextStep":"again"}', RefusalError),
    ],
)
def test_each_status_is_an_error_that_says_what_failed_and_what_to_do(
    status: int, body: bytes, kind: type[SpikeError]
) -> None:
    error = error_of(Reply(status, body), "get a/b", advice_for(SECRET_GET))
    assert type(error) is kind
    assert error.message.startswith("get a/b ")
    assert error.next_step


@pytest.mark.parametrize("reason", Reason)
def test_each_refusal_has_words_even_when_the_server_sends_its_name_alone(reason: Reason) -> None:
    error = error_of(Reply(400, b'{"err":"refused_%b"}' % reason.encode()), "restore", RESTORING)
    assert isinstance(error, RefusalError)
    assert error.reason is reason
    assert len(error.message) > len("restore was refused: ")


def test_the_server_s_own_words_of_a_refusal_come_first() -> None:
    body = b'{"err":"refused_too_soon","message":"wait","nextStep":"try again in 3 s"}'
    error = error_of(Reply(400, body), "restore", RESTORING)
    assert (error.message, error.next_step) == ("restore was refused: wait", "try again in 3 s")


@pytest.mark.parametrize("body", [b"", b"[]", b'{"keys":1}', b'{"keys":["a"]', b"\xff"])
def test_an_answer_that_cannot_be_read_is_the_server_s_fault(body: bytes) -> None:
    with pytest.raises(AnswerError, match="list secrets failed"):
        result_of(SECRET_LIST, Reply(200, body), "list secrets")


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
def test_who_is_denied_is_told_of_a_policy_only_where_one_can_help(call: AnyCall) -> None:
    error = error_of(Reply(401, b""), "it", advice_for(call))
    match TABLE[call.name]:
        case ByRole() | ByRoleOrPassword() as rule:
            roles = rule.roles | (
                rule.with_password if isinstance(rule, ByRoleOrPassword) else frozenset()
            )
            assert frozenset(roles_for(call)) == roles
            assert "create a policy" not in error.next_step
            assert "spike-authority run --id spiffe://spike.ist/" in error.next_step
            assert all(role.base_path in error.next_step for role in roles)
        case ForAnyone():
            assert roles_for(call) == (Role.SUPERUSER,)
        case _:
            assert roles_for(call) == ()
            assert "create a policy" in error.next_step


def test_a_refused_request_is_told_what_of_it_may_be_wrong() -> None:
    refused = Reply(400, b"")
    for call in (SECRET_GET, POLICY_LIST):
        assert "lite mode" in error_of(refused, "it", advice_for(call)).next_step
    assert "lite" not in error_of(refused, "it", RESTORING).next_step
    assert "algorithm" in error_of(refused, "it", advice_for(CIPHER_ENCRYPT)).next_step
    assert (
        "algorithm" not in error_of(refused, "it", advice_for(CIPHER_ENCRYPT, raw=True)).next_step
    )
