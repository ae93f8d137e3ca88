"""The wire contract, line by line, over real TLS sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from nexus_kit import BOOTSTRAP, RESTORE, SUPERUSER, WORKLOAD, RunningNexus, running

SECRETS = "/v1/store/secrets"
METADATA = "/v1/store/secrets/metadata?action=get"
POLICY = "/v1/acl/policy"
BAD = (400, {"err": "api_bad_request"})
DENIED = (401, {"err": "access_unauthorized"})
MISSING = (404, {"err": "api_not_found"})


@pytest_asyncio.fixture
async def nexus() -> AsyncIterator[RunningNexus]:
    async with running() as started:
        yield started


async def put(nexus: RunningNexus, path: str, **values: str) -> None:
    assert await nexus.call(SUPERUSER, SECRETS, {"path": path, "values": values}) == (200, {})


async def test_what_is_put_is_got(nexus: RunningNexus) -> None:
    await put(nexus, "tenant/acme/db", user="acme", password="s3cret ☃ \u0000")
    assert await nexus.call(SUPERUSER, f"{SECRETS}?action=get", {"path": "tenant/acme/db"}) == (
        200,
        {"data": {"user": "acme", "password": "s3cret ☃ \u0000"}},
    )


async def test_each_put_is_a_version_and_ten_are_kept(nexus: RunningNexus) -> None:
    for number in range(1, 13):
        await put(nexus, "a", n=str(number))
    _, told = await nexus.call(SUPERUSER, METADATA, {"path": "a"})
    assert list(told["versions"]) == [str(number) for number in range(3, 13)]
    assert told["metadata"]["currentVersion"] == 12
    assert told["metadata"]["oldestVersion"] == 3
    assert told["metadata"]["maxVersions"] == 10
    assert (
        await nexus.call(SUPERUSER, f"{SECRETS}?action=get", {"path": "a", "version": 2}) == MISSING
    )
    assert await nexus.call(SUPERUSER, f"{SECRETS}?action=get", {"path": "a", "version": 3}) == (
        200,
        {"data": {"n": "3"}},
    )


async def test_a_pruned_version_is_really_erased(nexus: RunningNexus) -> None:
    for number in range(13):
        await put(nexus, "a", n=str(number))
    census = await nexus.store.census()
    assert sum(count for (kind, _), count in census.items() if kind == "secret") == 10


async def test_delete_is_soft_and_undelete_takes_it_back(nexus: RunningNexus) -> None:
    for number in (1, 2, 3):
        await put(nexus, "a", n=str(number))

    async def current() -> object:
        return await nexus.call(SUPERUSER, f"{SECRETS}?action=get", {"path": "a"})

    assert await nexus.call(SUPERUSER, f"{SECRETS}?action=delete", {"path": "a"}) == (200, {})
    assert await current() == (200, {"data": {"n": "2"}})
    asked = {"path": "a", "versions": [1, 2, 99]}
    assert await nexus.call(SUPERUSER, f"{SECRETS}?action=delete", asked) == (200, {})
    assert await current() == MISSING
    assert await nexus.call(SUPERUSER, f"{SECRETS}?action=list") == (200, {"keys": ["a"]})
    assert await nexus.call(SUPERUSER, f"{SECRETS}?action=undelete", {"path": "a"}) == (200, {})
    assert await current() == (200, {"data": {"n": "3"}})
    asked = {"path": "a", "versions": [3]}
    assert await nexus.call(SUPERUSER, f"{SECRETS}?action=undelete", asked) == MISSING
    await put(nexus, "a", n="4")
    assert await current() == (200, {"data": {"n": "4"}})


async def test_a_version_that_is_not_there_or_deleted_and_nothing_current_are_404(
    nexus: RunningNexus,
) -> None:
    for number in (1, 2, 3):
        await put(nexus, "a", n=str(number))
    change = f"{SECRETS}?action=delete"
    assert await nexus.call(SUPERUSER, change, {"path": "a", "versions": [2, 77]}) == (200, {})
    for version in (2, 4, 77, -1):
        asked = {"path": "a", "version": version}
        assert await nexus.call(SUPERUSER, f"{SECRETS}?action=get", asked) == MISSING
        assert await nexus.call(SUPERUSER, METADATA, asked) == MISSING
    # 0 among the numbers is the current one.
    assert await nexus.call(SUPERUSER, change, {"path": "a", "versions": [1, 0]}) == (200, {})
    for current in ({}, {"version": 0}, {"version": None}):
        nothing = {"path": "a", **current}
        assert await nexus.call(SUPERUSER, f"{SECRETS}?action=get", nothing) == MISSING
        assert await nexus.call(SUPERUSER, METADATA, nothing) == MISSING
    change = f"{SECRETS}?action=undelete"
    assert await nexus.call(SUPERUSER, change, {"path": "a", "versions": [1]}) == (200, {})
    _, told = await nexus.call(SUPERUSER, METADATA, {"path": "a"})
    assert told["metadata"]["currentVersion"] == 1
    assert told["versions"]["1"]["deletedTime"] is None
    assert told["versions"]["2"]["deletedTime"].endswith("Z")
    assert set(told["versions"]["3"]) == {"createdTime", "version", "deletedTime"}
    assert set(told["metadata"]) == {
        *("currentVersion", "oldestVersion", "createdTime", "updatedTime", "maxVersions")
    }
    # A number above the current one becomes current.
    assert await nexus.call(SUPERUSER, change, {"path": "a", "versions": [3]}) == (200, {})
    _, told = await nexus.call(SUPERUSER, METADATA, {"path": "a"})
    assert told["metadata"]["currentVersion"] == 3


@pytest.mark.parametrize("action", ["get", "delete", "undelete"])
async def test_an_unknown_path_is_404(nexus: RunningNexus, action: str) -> None:
    assert await nexus.call(SUPERUSER, f"{SECRETS}?action={action}", {"path": "no"}) == MISSING
    assert await nexus.call(SUPERUSER, METADATA, {"path": "no"}) == MISSING


async def test_the_list_is_in_the_order_of_bytes(nexus: RunningNexus) -> None:
    for path in ("b", "a/b", "a", "Z", "a.b", "(x)"):
        await put(nexus, path, k="v")
    _, told = await nexus.call(SUPERUSER, f"{SECRETS}?action=list")
    assert told == {"keys": ["(x)", "Z", "a", "a.b", "a/b", "b"]}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"path":""}',
        b'{"path":"a b","values":{}}',
        b'{"path":1,"values":{}}',
        b'{"path":"a","values":{"bad key\\n":"v"}}',
        b'{"path":"a","values":{"k":1}}',
        b'{"path":"a","values":{}} x',
        b'{"path":"' + b"a" * 501 + b'","values":{}}',
        b'{"path":"a\\n","values":{}}',
        b"\xff\xfe",
        b'{"path":"a","values":{"k":"\\ud800"}}',
    ],
)
async def test_a_bad_put_is_400_and_writes_nothing(nexus: RunningNexus, raw: bytes) -> None:
    assert await nexus.call(SUPERUSER, SECRETS, raw=raw) == BAD
    assert await nexus.call(SUPERUSER, f"{SECRETS}?action=list") == (200, {"keys": []})


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", SECRETS),
        ("PUT", SECRETS),
        ("POST", "/"),
        ("POST", "/v1/store/secrets/"),
        ("POST", "/v1//store/secrets"),
        ("POST", "/v1/store/secrets?action=nothing"),
        ("POST", "/v1/store/secrets?action=GET"),
        ("POST", "/v1/store/secrets?action=nothing&action=get"),
        ("POST", "/v1/keeper"),
    ],
)
async def test_any_other_method_path_or_action_is_400(
    nexus: RunningNexus, method: str, target: str
) -> None:
    assert await nexus.request(SUPERUSER, method, target, b"{}") == BAD


async def test_the_first_action_counts_and_others_are_ignored(nexus: RunningNexus) -> None:
    await put(nexus, "a", k="v")
    target = f"{SECRETS}?x=1&action=get&action=delete"
    assert await nexus.call(SUPERUSER, target, {"path": "a"}) == (200, {"data": {"k": "v"}})


async def test_field_names_match_without_regard_to_case(nexus: RunningNexus) -> None:
    raw = b'{"PATH":"a","Values":{"k":"v"},"extra":[1]}'
    assert await nexus.call(SUPERUSER, SECRETS, raw=raw) == (200, {})


async def test_get_many_answers_null_for_what_is_not_there_or_not_allowed(
    nexus: RunningNexus,
) -> None:
    for path in ("web/a", "web/b", "other"):
        await put(nexus, path, k=path)
    policy = {
        "name": "web",
        "spiffeidPattern": f"^{WORKLOAD}$",
        "pathPattern": "^web/",
        "permissions": ["read"],
    }
    assert await nexus.call(SUPERUSER, POLICY, policy) == (200, {})
    asked = {"items": [{"path": p} for p in ("web/b", "other", "web/none", "web/a")]}
    assert await nexus.call(WORKLOAD, f"{SECRETS}?action=get-many", asked) == (
        200,
        {"items": [{"data": {"k": "web/b"}}, None, None, {"data": {"k": "web/a"}}]},
    )
    asked = {"items": [{"path": "web/a"}] * 1001}
    assert await nexus.call(WORKLOAD, f"{SECRETS}?action=get-many", asked) == BAD


async def test_a_policy_lives_as_the_contract_says(nexus: RunningNexus) -> None:
    policy = {
        "name": "web reader",
        "spiffeidPattern": f"^{WORKLOAD}$",
        "pathPattern": "^web/",
        "permissions": ["read", "list"],
    }
    assert await nexus.call(SUPERUSER, POLICY, policy) == (200, {})
    status, first = await nexus.call(SUPERUSER, f"{POLICY}?action=get", {"id": "web reader"})
    assert status == 200
    assert first["spiffiedPattern"] == policy["spiffeidPattern"]
    assert first["id"] == ""
    assert first["createdAt"] == first["updatedAt"]
    assert await nexus.call(SUPERUSER, POLICY, {**policy, "permissions": ["write"]}) == (200, {})
    _, second = await nexus.call(SUPERUSER, f"{POLICY}?action=get", {"id": "web reader"})
    assert second["createdAt"] == first["createdAt"]
    assert second["updatedAt"] != first["updatedAt"]
    assert second["permissions"] == ["write"]
    listed = {"policies": [{"id": "", "name": "web reader"}]}

    async def found(**asked: str) -> object:
        return (await nexus.call(SUPERUSER, f"{POLICY}?action=list", asked))[1]

    assert await found() == listed
    assert await found(spiffeidPattern=f"^{WORKLOAD}$", pathPattern="no") == listed
    assert await found(pathPattern="^web/") == listed
    assert await found(pathPattern="^web") == {"policies": []}
    assert await nexus.call(SUPERUSER, f"{POLICY}?action=delete", {"id": "web reader"}) == (200, {})
    for action in ("get", "delete"):
        asked = {"id": "web reader"}
        assert await nexus.call(SUPERUSER, f"{POLICY}?action={action}", asked) == MISSING


@pytest.mark.parametrize(
    "change",
    [
        {"name": "no\nname"},
        {"spiffeidPattern": "web"},
        {"pathPattern": "(" * 3},
        {"permissions": []},
        {"permissions": ["read", "own"]},
        {"pathPattern": "acl"},
        {"pathPattern": "^spike/system/acl$", "spiffeidPattern": WORKLOAD},
    ],
)
async def test_a_bad_policy_is_400(nexus: RunningNexus, change: dict[str, object]) -> None:
    policy = {
        "name": "p",
        "spiffeidPattern": f"^{WORKLOAD}$",
        "pathPattern": "^web/",
        "permissions": ["read"],
    }
    assert await nexus.call(SUPERUSER, POLICY, {**policy, **change}) == BAD
    assert await nexus.call(SUPERUSER, f"{POLICY}?action=list") == (200, {"policies": []})


async def test_who_may_not_see_a_path_cannot_tell_whether_it_exists(nexus: RunningNexus) -> None:
    await put(nexus, "web/a", k="v")
    await put(nexus, "hidden", k="v")
    policy = {
        "name": "web",
        "spiffeidPattern": f"^{WORKLOAD}$",
        "pathPattern": "^web/",
        "permissions": ["read"],
    }
    await nexus.call(SUPERUSER, POLICY, policy)
    for path in ("hidden", "missing", "", "bad path", "a" * 600):
        assert await nexus.call(WORKLOAD, f"{SECRETS}?action=get", {"path": path}) == DENIED
    assert await nexus.call(WORKLOAD, f"{SECRETS}?action=get", {"path": "web/none"}) == MISSING


async def test_before_there_is_a_root_key_only_our_own_calls_are_answered() -> None:
    async with running(born=False) as nexus:
        not_ready = (503, {"err": "state_not_ready"})
        for target in (SECRETS, POLICY, METADATA, "/v1/bootstrap/verify", "/nothing"):
            assert await nexus.call(SUPERUSER, target) == not_ready
        assert await nexus.call(WORKLOAD, "/v1/operator/status") == (200, {"ready": False})
        status, told = await nexus.call(SUPERUSER, "/v1/operator/status")
        assert (status, told["state"]) == (200, "uninitialized")


async def test_a_workload_learns_of_the_status_only_whether_it_is_ready(
    nexus: RunningNexus,
) -> None:
    for caller in (WORKLOAD, RESTORE):
        assert await nexus.call(caller, "/v1/operator/status") == (200, {"ready": True})
    _, told = await nexus.call(SUPERUSER, "/v1/operator/status")
    assert told["state"] == "open"
    assert told["slots"][0]["name"] == "admin"


async def test_bootstrap_verify_checks_role_and_form_and_then_refuses(nexus: RunningNexus) -> None:
    target, good = "/v1/bootstrap/verify", {"nonce": "AAAAAAAAAAAAAAAA", "ciphertext": "AA=="}
    assert await nexus.call(SUPERUSER, target, good) == DENIED
    assert await nexus.call(BOOTSTRAP, target, {"nonce": "AA=="}) == BAD
    assert await nexus.call(BOOTSTRAP, target, good) == BAD


async def test_two_writers_on_one_path_never_lose_an_update(nexus: RunningNexus) -> None:
    await asyncio.gather(*(put(nexus, "a", n=str(number)) for number in range(8)))
    _, told = await nexus.call(SUPERUSER, METADATA, {"path": "a"})
    assert told["metadata"]["currentVersion"] == 8
    values = set()
    for version in range(1, 9):
        asked = {"path": "a", "version": version}
        _, got = await nexus.call(SUPERUSER, f"{SECRETS}?action=get", asked)
        values.add(got["data"]["n"])
    assert values == {str(number) for number in range(8)}
