"""Every route × every role × every outsider, over real TLS sockets; expectations are the contract spelled out."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio

from nexus_kit import (
    BOOTSTRAP,
    KEEPER,
    LITE,
    NEXUS,
    RECOVER,
    RESTORE,
    SUPERUSER,
    WORKLOAD,
    RunningNexus,
    running,
)
from spiffe_kit import Ca, Issued, foreign_context
from spike.wire.call import CALLS, AnyCall

READER = "spiffe://spike.ist/workload/reader"
OPERATOR = "spiffe://spike.ist/workload/operator"
CIPHERER = "spiffe://spike.ist/workload/cipherer"
PARTNER = "spiffe://partner.example/workload/web"

# Who gets past authorization. A policy gives READER read and list on ^open/ and on the secret list, and
# OPERATOR write, read and list on the access control path, CIPHERER execute on the cipher path. Get-many answers
# whoever may read any path at all.
MAY = {
    "secret put": {SUPERUSER},
    "secret get": {SUPERUSER, READER},
    "secret get-many": {SUPERUSER, READER, OPERATOR},
    "secret delete": {SUPERUSER},
    "secret undelete": {SUPERUSER},
    "secret list": {SUPERUSER, READER},
    "secret metadata get": {SUPERUSER, READER},
    "policy put": {SUPERUSER, OPERATOR},
    "policy get": {SUPERUSER, OPERATOR},
    "policy delete": {SUPERUSER, OPERATOR},
    "policy list": {SUPERUSER, OPERATOR},
    "cipher encrypt": {SUPERUSER, LITE, CIPHERER},
    "cipher decrypt": {SUPERUSER, LITE, CIPHERER},
    "cipher rewrap": {SUPERUSER, LITE, CIPHERER},
    "bootstrap verify": {BOOTSTRAP},
    "operator recover": {RECOVER},
    "operator restore": {RESTORE},
    "operator restore by password": {RESTORE},
    "operator restore by file": {RESTORE},
    "operator password begin": {SUPERUSER, RESTORE, RECOVER},
    "operator init": {SUPERUSER},
    "operator status": {"everyone"},
    "keeper refresh": {SUPERUSER},
    "keeper reshape": {SUPERUSER},
    "keeper rehearse": {SUPERUSER},
    "operator check-shard": {SUPERUSER, RECOVER},
    "backup slot list": {SUPERUSER, RECOVER},
    "backup slot add": {SUPERUSER, RECOVER},
    "backup slot change": {SUPERUSER, RECOVER},
    "backup slot remove": {SUPERUSER, RECOVER},
    "backup verify": {SUPERUSER},
    "backup export": {SUPERUSER},
    "drill begin": {SUPERUSER},
    "drill report": {SUPERUSER},
    "drill record": {SUPERUSER},
    "key list": {SUPERUSER},
    "key history": {SUPERUSER},
    "key verify": {SUPERUSER},
    "key status": {SUPERUSER},
    "key schedule get": {SUPERUSER},
    "key note": {SUPERUSER},
    "key report": {SUPERUSER},
    "key schedule set": {SUPERUSER},
    "key cipher-oldest": {SUPERUSER},
    "system-backup create": {SUPERUSER},
    "system-backup read": {SUPERUSER},
    "system-backup receive": {RESTORE},
    "operator restore by system backup": {RESTORE},
    "operator restore undo": {RESTORE},
    "operator factory-reset": {SUPERUSER},
    "key rotate": {SUPERUSER},
    "key pause": {SUPERUSER},
    "key resume": {SUPERUSER},
    "key pace": {SUPERUSER},
    "key abort": {SUPERUSER},
    "key rollback": {SUPERUSER},
    "key finalize": {SUPERUSER},
}
IDENTITIES = [
    SUPERUSER,
    RESTORE,
    RECOVER,
    KEEPER,
    NEXUS,
    BOOTSTRAP,
    LITE,
    WORKLOAD,
    READER,
    OPERATOR,
    CIPHERER,
    PARTNER,
]
MALFORMED = b"malformed"
# Roles that no policy can ever let in, not even the catch-all on ^all/.
NEVER_BY_POLICY = {KEEPER, NEXUS, BOOTSTRAP, LITE}


def policy(name: str, who: str, where: str, *permissions: str) -> dict[str, object]:
    return {
        "name": name,
        "spiffeidPattern": who,
        "pathPattern": where,
        "permissions": list(permissions),
    }


@pytest.fixture(scope="module")
def partner() -> Ca:
    return Ca("partner.example")


@pytest_asyncio.fixture
async def nexus(partner: Ca) -> AsyncIterator[RunningNexus]:
    async with running(federated=(partner,)) as started:
        for each in (
            policy("reader", f"^{READER}$", "^open/", "read"),
            policy("lister", f"^{READER}$", "^spike/system/secret$", "list"),
            policy("operator", f"^{OPERATOR}$", "^spike/system/acl$", "read", "write", "list"),
            policy("cipherer", f"^{CIPHERER}$", "^spike/system/cipher/exec$", "execute"),
        ):
            assert await started.call(SUPERUSER, "/v1/acl/policy", each) == (200, {})
        yield started


def message_of(call: AnyCall) -> dict[str, object]:
    if "many" in call.name:
        return {"items": [{"path": "open/x"}]}
    return {"path": "open/x", "id": "none", "name": "none"}


def is_denied(call: AnyCall, identity: str, body: bytes) -> bool:
    may = MAY[call.name]
    if "everyone" in may or identity in may:
        return False
    # Who has the permission on some path is parsed before the path decides; a stranger's body never is.
    return not (
        body == MALFORMED
        and identity == OPERATOR
        and call.path.startswith("/v1/store/secrets")
        and call.action != "list"
    )


def test_the_expectations_name_every_call() -> None:
    assert set(MAY) == {call.name for call in CALLS}


async def test_every_route_lets_in_whom_the_contract_names_and_nobody_else(
    nexus: RunningNexus, partner: Ca
) -> None:
    for identity in IDENTITIES:
        ca = partner if identity == PARTNER else nexus.ca
        context = nexus.context_of(identity, ca)
        for call in CALLS:
            message = json.dumps(message_of(call)).encode()
            for body in (message, MALFORMED):
                status, _ = await nexus.send(context, "POST", call.target, body)
                denied = is_denied(call, identity, body)
                assert (status == 401) == denied, f"{identity} {call.name} {body!r} gave {status}"


async def test_a_catch_all_policy_opens_nothing_to_keepers_nexus_bootstrap_and_lite(
    nexus: RunningNexus,
) -> None:
    all_on_all = policy("all", "^spiffe://.*$", "^all/", "super")
    assert await nexus.call(SUPERUSER, "/v1/acl/policy", all_on_all) == (200, {})
    await nexus.call(SUPERUSER, "/v1/store/secrets", {"path": "all/x", "values": {"k": "v"}})
    for identity in (WORKLOAD, RESTORE, RECOVER, *NEVER_BY_POLICY):
        status, _ = await nexus.call(identity, "/v1/store/secrets?action=get", {"path": "all/x"})
        assert status == (401 if identity in NEVER_BY_POLICY else 200), identity


def outsiders(home: Ca, partner: Ca) -> dict[str, Issued | None]:
    """Everybody who must not even finish a handshake."""
    stranger = Ca("spike.ist")
    return {
        "no certificate at all": None,
        "an SVID of an unknown trust domain": Ca("unknown.example").svid(
            "spiffe://unknown.example/x"
        ),
        "another authority that says it is ours": stranger.svid(SUPERUSER),
        "a federated domain's SVID that claims ours": partner.svid(SUPERUSER),
        "an expired SVID": home.svid(SUPERUSER, lifetime=timedelta(seconds=-1)),
        "an SVID that is not valid yet": home.svid(
            SUPERUSER, starts=timedelta(hours=1), lifetime=timedelta(hours=2)
        ),
        "a certificate of two identities": home.svid(SUPERUSER, uris=[SUPERUSER, WORKLOAD]),
        "a certificate without an identity": home.svid(SUPERUSER, uris=[]),
        "a certificate that could sign others": home.svid(SUPERUSER, key_cert_sign=True),
        "a CA certificate as a leaf": home.svid(SUPERUSER, ca=True),
        "no SPIFFE ID but another URI": home.svid(SUPERUSER, uris=["https://spike.ist/x"]),
    }


OUTSIDERS = list(outsiders(Ca("spike.ist"), Ca("partner.example")))


@pytest.mark.parametrize("who", OUTSIDERS)
async def test_an_outsider_is_refused_before_a_byte_of_http(
    nexus: RunningNexus, partner: Ca, who: str
) -> None:
    issued = outsiders(nexus.ca, partner)[who]
    context = foreign_context(issued, nexus.ca)
    for call in CALLS:
        got_answer = await asyncio.to_thread(_answered, nexus.server.port, context, call.target)
        assert not got_answer, f"{who} got an answer to {call.name}"
    assert (await nexus.call(SUPERUSER, "/v1/operator/status"))[0] == 200


def _answered(port: int, context: ssl.SSLContext, target: str) -> bool:
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=10)
    with contextlib.closing(connection):
        try:
            connection.request("POST", target, b"{}", {"Content-Type": "application/json"})
            connection.getresponse()
        except (ssl.SSLError, ConnectionError, http.client.RemoteDisconnected):
            return False
    return True


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
async def test_nothing_of_a_strangers_body_is_awaited(nexus: RunningNexus, call: AnyCall) -> None:
    if MAY[call.name] == {"everyone"}:
        return
    head = (
        f"POST {call.target} HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
        "Content-Length: 60000\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", nexus.server.port, ssl=nexus.context_of(WORKLOAD)
    )
    try:
        writer.write(head.encode())
        line = await asyncio.wait_for(reader.readline(), 10)
    finally:
        writer.close()
    assert line.split()[1] == b"401"
