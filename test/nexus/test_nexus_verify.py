"""Verification: each way a record can be bad is named, by kind and path, and the pass goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from nexus_kit import KEEPER, RECOVER, RESTORE, SUPERUSER, WORKLOAD, RunningNexus, running
from spike.crypto.record import RecordContext, seal
from spike.lifecycle.chain import decode_entry_untrusted
from spike.lifecycle.history import Entry, record_key
from spike.nexus.policy_book import ACCESS_LIST_ID
from spike.nexus.vault import KEYRING_ID
from spike.storage.protocol import (
    HISTORY,
    MUST_NOT_EXIST,
    POLICY,
    SECRET,
    SECRET_META,
    Delete,
    Kind,
    Put,
    Record,
    RecordId,
)

KEY = "/v1/key"
PATHS = 12
VERSIONS = 3
EVENTS = 4


@pytest_asyncio.fixture
async def nexus(nexus: RunningNexus) -> RunningNexus:
    """A Nexus with secrets of several versions, one of them deleted, three policies and some history."""
    await furnish(nexus)
    return nexus


async def furnish(nexus: RunningNexus) -> None:
    secrets = nexus.vault.opened.secrets
    for number in range(PATHS):
        for version in range(VERSIONS):
            await secrets.put(f"tenant/{number:02d}", {"k": f"v{version}"})
    await secrets.delete("tenant/03", [1, 2])
    for name in ("one", "two", "three"):
        policy = {"name": name, "spiffeidPattern": "^spiffe://a/b$", "pathPattern": "^x"}
        policy |= {"permissions": ["read"]}  # type: ignore[dict-item]
        assert (await nexus.call(SUPERUSER, "/v1/acl/policy", policy))[0] == 200
    for sequence in range(2, EVENTS + 1):
        await add_event(nexus, sequence)


async def add_event(nexus: RunningNexus, sequence: int) -> None:
    """Write an event the way every change of keys does."""
    vault = nexus.vault
    document = vault.opened.document
    event = msgspec.structs.replace(
        decode_entry_untrusted(await plain(nexus, HISTORY, record_key(1))).event, sequence=sequence
    )
    later = msgspec.structs.replace(
        document,
        revision=document.revision + 1,
        next_event=document.next_event + 1,
        outbox=(*document.outbox, event),
    )
    await vault.advance(vault.opened.ring.replaced(later))


async def plain(nexus: RunningNexus, kind: Kind, key: str, version: str = "") -> bytes:
    found = await nexus.vault.opened.sealed.read(RecordId(kind, key, version))
    assert found is not None
    return found.plaintext


async def verified(nexus: RunningNexus) -> dict[str, Any]:
    """Run a verification by the calls and return how it ended, with every finding."""
    status, begun = await nexus.call(SUPERUSER, f"{KEY}?action=verify")
    assert status == 200
    findings: list[Any] = []
    while True:
        _, told = await nexus.call(
            SUPERUSER, f"{KEY}?action=status", {"findingsAfter": len(findings)}
        )
        run = told["verification"]
        assert run["id"] == begun["verification"]["id"]
        findings += run.get("findings", [])
        if run["state"] != "running" and len(findings) == run.get("findingsTotal", 0):
            assert run["scanned"] == run["good"] + run["bad"] + run["vanished"]
            assert run["bad"] == sum(run.get("badByReason", {}).values())
            return {**run, "findings": findings}


def named(run: dict[str, Any]) -> set[tuple[str, str, str]]:
    return {(each["kind"], each["key"], each["reason"]) for each in run["findings"]}


async def fetched(nexus: RunningNexus, kind: Kind, key: str, number: int = 0) -> Record:
    """Read a row past Nexus; of a kind with versions the so-many-th."""
    page = await nexus.store.scan(kind, key, None, 100)
    return [each for each in page.items if each.id.key == key][number]


async def overwrite(nexus: RunningNexus, record: Record, blob: bytes, generation: int = 1) -> None:
    await nexus.store.put(Put(record.id, blob, generation, record.revision), fence=None)


async def remove(nexus: RunningNexus, record: Record) -> None:
    await nexus.store.delete(Delete(record.id, record.revision), fence=None)


async def plant(nexus: RunningNexus, record_id: RecordId, blob: bytes, generation: int = 1) -> None:
    await nexus.store.put(Put(record_id, blob, generation, MUST_NOT_EXIST), fence=None)


async def reseal(nexus: RunningNexus, kind: Kind, key: str, plaintext: bytes) -> None:
    """Write what only somebody with the key could write."""
    record = await fetched(nexus, kind, key)
    await nexus.store.apply(
        [nexus.vault.opened.sealed.put(record.id, plaintext, record.revision)], fence=None
    )


async def flip_a_bit_of_a_version(nexus: RunningNexus) -> None:
    record = await fetched(nexus, SECRET, "tenant/05", 1)
    blob = bytearray(record.blob)
    blob[-1] ^= 1
    await overwrite(nexus, record, bytes(blob))


async def flip_a_bit_of_metadata(nexus: RunningNexus) -> None:
    record = await fetched(nexus, SECRET_META, "tenant/05")
    blob = bytearray(record.blob)
    blob[40] ^= 1
    await overwrite(nexus, record, bytes(blob))


async def move_a_version_to_another_path(nexus: RunningNexus) -> None:
    here, there = (
        await fetched(nexus, SECRET, "tenant/05"),
        await fetched(nexus, SECRET, "tenant/06"),
    )
    await overwrite(nexus, there, here.blob)


async def move_metadata_to_another_path(nexus: RunningNexus) -> None:
    here = await fetched(nexus, SECRET_META, "tenant/05")
    await plant(nexus, RecordId(SECRET_META, "tenant/99"), here.blob)


async def say_another_generation_in_the_row(nexus: RunningNexus) -> None:
    record = await fetched(nexus, SECRET, "tenant/05")
    await overwrite(nexus, record, record.blob, generation=2)


async def put_a_record_under_an_unknown_key(nexus: RunningNexus) -> None:
    record = await fetched(nexus, SECRET, "tenant/05")
    ring = nexus.vault.opened.ring
    context = RecordContext(bytes.fromhex(ring.document.store_id), SECRET, *_name(record), "value")
    await overwrite(nexus, record, seal(ring.active_record.key, 7, context, b'[1,{"k":"v"}]'), 7)


def _name(record: Record) -> tuple[str, str]:
    return record.id.key, record.id.version


async def put_no_record_at_all(nexus: RunningNexus) -> None:
    await overwrite(nexus, await fetched(nexus, SECRET, "tenant/05"), b"x" * 100)


async def seal_what_is_no_secret(nexus: RunningNexus) -> None:
    await reseal(nexus, SECRET, "tenant/05", b'[1,{"k":1}]')


async def remove_a_version(nexus: RunningNexus) -> None:
    await remove(nexus, await fetched(nexus, SECRET, "tenant/05", 2))


async def remove_a_deleted_version(nexus: RunningNexus) -> None:
    meta = await nexus.vault.opened.secrets.meta("tenant/03")
    (record,) = [
        each
        for each in (await nexus.store.scan(SECRET, "tenant/03", None, 10)).items
        if each.id.version == meta.versions[0].id
    ]
    await remove(nexus, record)


async def put_old_metadata_back(nexus: RunningNexus) -> None:
    old = await fetched(nexus, SECRET_META, "tenant/05")
    await nexus.vault.opened.secrets.put("tenant/05", {"k": "newest"})
    await overwrite(nexus, await fetched(nexus, SECRET_META, "tenant/05"), old.blob)


async def remove_metadata(nexus: RunningNexus) -> None:
    await remove(nexus, await fetched(nexus, SECRET_META, "tenant/05"))


async def put_a_removed_policy_back(nexus: RunningNexus) -> None:
    old = await fetched(nexus, POLICY, "two")
    assert (await nexus.call(SUPERUSER, "/v1/acl/policy?action=delete", {"id": "two"}))[0] == 200
    await plant(nexus, old.id, old.blob)


async def put_an_older_policy_back(nexus: RunningNexus) -> None:
    old = await fetched(nexus, POLICY, "two")
    policy = {"name": "two", "spiffeidPattern": "^spiffe://a/c$", "pathPattern": "^x"}
    policy |= {"permissions": ["read"]}  # type: ignore[dict-item]
    assert (await nexus.call(SUPERUSER, "/v1/acl/policy", policy))[0] == 200
    await overwrite(nexus, await fetched(nexus, POLICY, "two"), old.blob)


async def remove_a_policy(nexus: RunningNexus) -> None:
    await remove(nexus, await fetched(nexus, POLICY, "two"))


async def put_an_older_access_list_back(nexus: RunningNexus) -> None:
    old = await nexus.store.get(ACCESS_LIST_ID)
    assert old is not None
    assert (await nexus.call(SUPERUSER, "/v1/acl/policy?action=delete", {"id": "two"}))[0] == 200
    now = await nexus.store.get(ACCESS_LIST_ID)
    assert now is not None
    await overwrite(nexus, now, old.blob)


async def remove_the_access_list(nexus: RunningNexus) -> None:
    now = await nexus.store.get(ACCESS_LIST_ID)
    assert now is not None
    await remove(nexus, now)


async def flip_a_bit_of_the_keyring(nexus: RunningNexus) -> None:
    record = await nexus.store.get(KEYRING_ID)
    assert record is not None
    await overwrite(nexus, record, record.blob[:-1] + b"x")


async def remove_a_history_entry(nexus: RunningNexus) -> None:
    await remove(nexus, await fetched(nexus, HISTORY, record_key(2)))


async def remove_the_last_history_entry(nexus: RunningNexus) -> None:
    await remove(nexus, await fetched(nexus, HISTORY, record_key(EVENTS)))


async def change_a_history_entry(nexus: RunningNexus) -> None:
    entry = decode_entry_untrusted(await plain(nexus, HISTORY, record_key(2)))
    event = msgspec.structs.replace(entry.event, actor="spiffe://somebody/else")
    changed = msgspec.json.encode(msgspec.structs.replace(entry, event=event))
    await reseal(nexus, HISTORY, record_key(2), changed)


async def change_the_last_history_entry(nexus: RunningNexus) -> None:
    entry = decode_entry_untrusted(await plain(nexus, HISTORY, record_key(EVENTS)))
    event = msgspec.structs.replace(entry.event, actor="spiffe://somebody/else")
    changed = msgspec.json.encode(msgspec.structs.replace(entry, event=event))
    await reseal(nexus, HISTORY, record_key(EVENTS), changed)


async def swap_two_history_entries(nexus: RunningNexus) -> None:
    two, three = [await fetched(nexus, HISTORY, record_key(n)) for n in (2, 3)]
    await overwrite(nexus, two, three.blob)
    await overwrite(nexus, three, two.blob)


async def reorder_two_history_entries_with_the_key(nexus: RunningNexus) -> None:
    two, three = [await plain(nexus, HISTORY, record_key(n)) for n in (2, 3)]
    await reseal(nexus, HISTORY, record_key(2), three)
    await reseal(nexus, HISTORY, record_key(3), two)


async def plant_a_history_entry_behind_the_end(nexus: RunningNexus) -> None:
    entry = Entry(1, "", decode_entry_untrusted(await plain(nexus, HISTORY, record_key(1))).event)
    record_id = RecordId(HISTORY, record_key(10**15))
    change = nexus.vault.opened.sealed.put(record_id, msgspec.json.encode(entry), MUST_NOT_EXIST)
    await nexus.store.apply([change], fence=None)


async def plant_a_history_entry_without_a_number(nexus: RunningNexus) -> None:
    await plant(nexus, RecordId(HISTORY, "first"), b"x" * 100)


async def plant_an_unknown_kind(nexus: RunningNexus) -> None:
    await plant(nexus, RecordId(Kind("strange"), "a"), b"x")


@dataclass(frozen=True)
class Bad:
    """Something done to the store, and the findings it must give; no other."""

    act: Callable[[RunningNexus], Awaitable[None]]
    findings: set[tuple[str, str, str]]
    extra: int = 0


SECOND, THIRD, LAST = record_key(2), record_key(3), record_key(EVENTS)
BAD = [
    Bad(flip_a_bit_of_a_version, {("secret", "tenant/05", "does-not-open")}),
    Bad(flip_a_bit_of_metadata, {("secret-meta", "tenant/05", "does-not-open")}),
    Bad(move_a_version_to_another_path, {("secret", "tenant/06", "does-not-open")}),
    Bad(move_metadata_to_another_path, {("secret-meta", "tenant/99", "does-not-open")}),
    Bad(say_another_generation_in_the_row, {("secret", "tenant/05", "mislabeled")}),
    Bad(put_a_record_under_an_unknown_key, {("secret", "tenant/05", "no-key")}),
    Bad(put_no_record_at_all, {("secret", "tenant/05", "malformed")}),
    Bad(seal_what_is_no_secret, {("secret", "tenant/05", "malformed")}),
    Bad(remove_a_version, {("secret", "tenant/05", "missing")}),
    Bad(remove_a_deleted_version, {("secret", "tenant/03", "missing")}),
    Bad(put_old_metadata_back, {("secret", "tenant/05", "orphan")}),
    Bad(remove_metadata, {("secret", "tenant/05", "orphan")}, extra=VERSIONS - 1),
    Bad(put_a_removed_policy_back, {("policy", "two", "unlisted")}),
    Bad(put_an_older_policy_back, {("policy", "two", "differing")}),
    Bad(remove_a_policy, {("policy", "two", "missing")}),
    Bad(
        put_an_older_access_list_back,
        {("access-list", "current", "not-in-force"), ("policy", "two", "missing")},
    ),
    Bad(remove_the_access_list, {("access-list", "current", "missing")}),
    Bad(flip_a_bit_of_the_keyring, {("keyring", "current", "not-in-force")}),
    Bad(remove_a_history_entry, {("history", SECOND, "missing")}),
    Bad(remove_the_last_history_entry, {("history", LAST, "missing")}),
    Bad(change_a_history_entry, {("history", THIRD, "broken-chain")}),
    Bad(change_the_last_history_entry, {("history", LAST, "broken-chain")}),
    Bad(
        swap_two_history_entries,
        {("history", SECOND, "does-not-open"), ("history", THIRD, "does-not-open")},
    ),
    Bad(
        reorder_two_history_entries_with_the_key,
        {("history", key, "broken-chain") for key in (SECOND, THIRD, record_key(4))},
    ),
    Bad(plant_a_history_entry_behind_the_end, {("history", record_key(10**15), "orphan")}),
    Bad(plant_a_history_entry_without_a_number, {("history", "first", "malformed")}),
    Bad(plant_an_unknown_kind, {("strange", "", "unknown-kind")}),
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.act.__name__)
async def test_what_is_bad_is_named_and_nothing_else_is(nexus: RunningNexus, bad: Bad) -> None:
    await bad.act(nexus)
    run = await verified(nexus)
    assert named(run) == bad.findings
    assert run["state"] == "bad"
    assert run["bad"] == len(bad.findings) + bad.extra
    assert run["good"] >= PATHS * VERSIONS - VERSIONS, "the pass went on"


async def test_a_sound_store_is_good_to_the_last_record(nexus: RunningNexus) -> None:
    run = await verified(nexus)
    stored = sum((await nexus.store.census()).values())
    wrapped = len(nexus.vault.opened.document.keys)
    assert run["state"] == "good"
    assert run["findings"] == []
    assert run["scanned"] == run["expected"] == run["good"] == stored + wrapped


async def test_the_census_counts_each_kind_under_the_generation_its_blobs_name(
    nexus: RunningNexus,
) -> None:
    await say_another_generation_in_the_row(nexus)
    run = await verified(nexus)
    told = {(line["kind"], line["generation"]): line["records"] for line in run["census"]}
    assert told == {
        ("access-list", 1): 1,
        ("history", 1): EVENTS,
        ("policy", 1): 3,
        ("secret", 1): PATHS * VERSIONS,
        ("secret-meta", 1): PATHS,
        ("wrapped-key", 1): len(nexus.vault.opened.document.keys),
    }


async def test_generations_that_no_keyring_names_are_one_line_of_the_census(
    nexus: RunningNexus,
) -> None:
    good = await fetched(nexus, SECRET, "tenant/05")
    for number in range(20):
        blob = good.blob[:2] + (1000 + number).to_bytes(4, "big") + good.blob[6:]
        await plant(nexus, RecordId(SECRET, "zz", f"{number:032x}"), blob, 1000 + number)
    run = await verified(nexus)
    told = {(line["kind"], line["generation"]): line["records"] for line in run["census"]}
    assert told["secret", 0] == 20
    assert run["badByReason"] == {"no-key": 20}


async def test_a_wrong_key_in_memory_is_no_fault_of_the_records(
    nexus: RunningNexus,
) -> None:
    # One key in memory is not what it was: every record looks bad, and is not.
    key = nexus.vault.opened.ring.active_record.key
    with key.view() as view:
        view[0] ^= 1
    run = await verified(nexus)
    assert run["state"] == "failed"
    assert "keys in memory are not what they were: record 1" in run["detail"]
    with key.view() as view:
        view[0] ^= 1
    assert (await verified(nexus))["state"] == "good"


async def test_history_tells_the_newest_events_and_where_the_chain_is_broken(
    nexus: RunningNexus,
) -> None:
    status, told = await nexus.call(SUPERUSER, f"{KEY}?action=history", {"limit": 2})
    assert status == 200
    assert (told["total"], told["breaks"]) == (EVENTS, [])
    assert [event["sequence"] for event in told["events"]] == [EVENTS - 1, EVENTS]
    await remove_a_history_entry(nexus)
    _, told = await nexus.call(SUPERUSER, f"{KEY}?action=history", {"limit": 2})
    assert [(each["sequence"], each["detail"]) for each in told["breaks"]] == [
        (2, "missing: the history has a gap here")
    ]
    assert (await nexus.call(SUPERUSER, f"{KEY}?action=history", {"limit": 1001}))[0] == 400


async def test_a_verification_runs_once_and_is_joined_and_stopped(nexus: RunningNexus) -> None:
    first, begun = nexus.verifier.start("somebody")
    second, again = nexus.verifier.start("somebody else")
    assert (begun, again) == (True, False)
    assert first is second
    status, told = await nexus.call(SUPERUSER, f"{KEY}?action=verify", {"stop": True})
    assert status == 200
    assert told["verification"]["state"] in ("stopped", "good")
    third, begun = nexus.verifier.start("somebody")
    assert begun
    assert third.id != first.id
    await nexus.verifier.close()
    assert (third.outcome, third.detail) == ("stopped", "Nexus was stopped")
    _, told = await nexus.call(SUPERUSER, "/v1/operator/status")
    assert told["verification"]["state"] == "stopped"
    assert told["verification"]["startedBy"] == "somebody"


async def test_there_is_nothing_to_tell_before_the_first_one() -> None:
    async with running() as nexus:
        assert await nexus.call(SUPERUSER, f"{KEY}?action=status") == (200, {})
        assert (await nexus.call(SUPERUSER, f"{KEY}?action=verify", {"stop": True}))[0] == 404
        assert "verification" not in (await nexus.call(SUPERUSER, "/v1/operator/status"))[1]


@pytest.mark.parametrize("who", [WORKLOAD, RESTORE, RECOVER, KEEPER])
async def test_nobody_but_a_superuser_sees_keys_or_begins_a_verification(who: str) -> None:
    async with running() as nexus:
        everything = {"name": "all", "spiffeidPattern": "^spiffe://.*$", "pathPattern": "^.*$"}
        everything |= {"permissions": ["super"]}  # type: ignore[dict-item]
        assert (await nexus.call(SUPERUSER, "/v1/acl/policy", everything))[0] == 200
        for action in ("list", "history", "verify", "status"):
            assert (await nexus.call(who, f"{KEY}?action={action}"))[0] == 401
        assert nexus.verifier.last is None


async def test_a_store_that_fails_on_the_way_ends_it_as_failed_and_says_so(
    nexus: RunningNexus,
) -> None:
    run, _ = nexus.verifier.start("somebody")
    await asyncio.sleep(0)
    await nexus.store.close()
    await nexus.verifier.ended()
    assert (run.outcome, run.detail) == ("failed", "the store is closed")
