"""Init and restore over real TLS sockets, with the real password child, against every trick of a storage writer."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

import lifecycle_kit
from lost_kit import PASSWORD, SECRETS, Lost, anchor_now, lose, put
from nexus_kit import RESTORE, SUPERUSER, WORKLOAD, RunningNexus, running
from spike.lifecycle import anchor, backup, keyring
from spike.lifecycle.keyring import Keyring
from spike.lifecycle.slot import seal_root
from spike.memory.key_memory import KeyMemory
from spike.nexus.vault import KEYRING_ID
from spike.storage.protocol import MUST_NOT_EXIST, Delete, Kind, Put, Record, RecordId, Store


async def got(nexus: RunningNexus, path: str) -> object:
    return await nexus.call(SUPERUSER, f"{SECRETS}?action=get", {"path": path})


async def stored(store: Store) -> dict[RecordId, bytes]:
    """Return every record of a store: what must not change when a restore is refused."""
    found: dict[RecordId, bytes] = {}
    for kind, _ in await store.census():
        page = await store.scan(kind, "", None, 1000)
        found |= {record.id: record.blob for record in page.items}
    return found


async def overwrite(store: Store, record: Record, blob: bytes) -> None:
    await store.apply([Put(record.id, blob, record.generation, record.revision)], fence=None)


async def keyring_of(store: Store) -> Record:
    record = await store.get(KEYRING_ID)
    assert record is not None
    return record


@pytest.fixture
def lost(tmp_path: Path) -> Lost:
    return lose(tmp_path)


async def test_init_makes_one_root_key_once_and_proves_its_backup(tmp_path: Path) -> None:
    async with running(tmp_path / "data", place=tmp_path / "backup", born=False) as nexus:
        asked = await nexus.seal(SUPERUSER, b"short")
        status, told = await nexus.call(
            SUPERUSER, "/v1/operator/init", {**asked, "slotName": "ada"}
        )
        assert (status, told["err"]) == (400, "refused_weak_password")
        assert await nexus.store.census() == {}
        asked = await nexus.seal(SUPERUSER, PASSWORD)
        status, told = await nexus.call(
            SUPERUSER, "/v1/operator/init", {**asked, "slotName": "ada"}
        )
        assert (status, told["generation"], told["epoch"], told["slot"]) == (200, 1, 1, "ada")
        assert [place["state"] for place in told["backupPlaces"]] == ["current"]
        document = nexus.vault.opened.document
        assert told["storeId"] == document.store_id
        assert document.slots[0].argon2 == "$argon2id$v=19$m=262144,t=3,p=4"
        await put(nexus, "a", "1")
        asked = await nexus.seal(SUPERUSER, PASSWORD)
        status, told = await nexus.call(
            SUPERUSER, "/v1/operator/init", {**asked, "slotName": "ada"}
        )
        assert (status, told["err"]) == (400, "refused_already_initialized")
        assert nexus.vault.opened.document is document
    async with running(tmp_path / "data", place=tmp_path / "backup", born=False) as nexus:
        status, told = await nexus.restore(PASSWORD, slot="ada")
        assert (status, told["restored"]) == (200, True)
        assert await got(nexus, "a") == (200, {"data": {"k": "1"}})


async def test_only_the_superuser_may_initialize_and_only_the_restore_role_may_restore(
    lost: Lost,
) -> None:
    denied = (401, {"err": "access_unauthorized"})
    async with running(lost.data, place=lost.place, born=False) as nexus:
        assert await nexus.call(RESTORE, "/v1/operator/init") == denied
        assert await nexus.call(WORKLOAD, "/v1/operator/password?action=begin") == denied
        for action in ("password", "file"):
            for caller in (SUPERUSER, WORKLOAD):
                target = f"/v1/operator/restore?action={action}"
                assert await nexus.call(caller, target) == denied


async def test_the_password_brings_back_what_was_lost(lost: Lost) -> None:
    async with running(lost.data, place=lost.place, born=False) as nexus:
        assert await got(nexus, "a") == (503, {"err": "state_not_ready"})
        status, told = await nexus.restore(PASSWORD, anchor=lost.anchor)
        assert (status, told["restored"]) == (200, True)
        assert await got(nexus, "a") == (200, {"data": {"k": "1"}})
        asked = {"path": "a"}
        assert (await nexus.call(WORKLOAD, f"{SECRETS}?action=get", asked))[0] == 200
        assert nexus.vault.opened.document.epoch == 2
        history = await nexus.store.scan(Kind("history"), "", None, 10)
        assert len(history.items) == 2
        asked = await nexus.seal(RESTORE, PASSWORD)
        status, told = await nexus.call(RESTORE, "/v1/operator/restore?action=password", asked)
        assert (status, told["err"]) == (400, "refused_already_open")


async def test_a_wrong_password_changes_nothing_and_delays_the_next_attempt(lost: Lost) -> None:
    async with running(lost.data, place=lost.place, born=False) as nexus:
        before = await stored(nexus.store)
        status, told = await nexus.restore(PASSWORD + b"!")
        assert (status, told["err"]) == (400, "refused_wrong_password")
        status, told = await nexus.restore(PASSWORD + b"!")
        assert (status, told["err"]) == (400, "refused_too_soon")
        assert await stored(nexus.store) == before


async def test_a_preview_alone_restores_nothing_and_belongs_to_who_asked(lost: Lost) -> None:
    other = RESTORE + "/other"
    target = "/v1/operator/restore?action=password"
    async with running(lost.data, place=lost.place, born=False) as nexus:
        asked = await nexus.seal(RESTORE, PASSWORD)
        status, told = await nexus.call(other, target, asked)
        assert (status, told["err"]) == (400, "refused_expired")
        status, told = await nexus.call(RESTORE, target, asked)
        assert (status, told["restored"], told["preview"]["slot"]) == (200, False, "admin")
        assert not nexus.vault.is_open
        for caller, token in ((other, told["confirm"]), (RESTORE, "0" * 32)):
            status, refused = await nexus.call(caller, target, {"confirm": token})
            assert (status, refused["err"]) == (400, "refused_expired")
        assert not nexus.vault.is_open
        assert (await nexus.call(RESTORE, target, {"confirm": told["confirm"]}))[0] == 200
        status, refused = await nexus.call(RESTORE, target, {"confirm": told["confirm"]})
        assert (status, refused["err"]) == (400, "refused_already_open")


async def refused(nexus: RunningNexus, name: str, **given: bytes) -> None:
    """Try a restore that must be refused by this name, and leave the store as it was."""
    before = await stored(nexus.store)
    status, told = await nexus.restore(PASSWORD, **given)  # type: ignore[arg-type]  # bytes by name
    assert (status, told["err"]) == (400, f"refused_{name}"), told
    assert told["message"]
    assert await stored(nexus.store) == before
    assert not nexus.vault.is_open


Tamper = Callable[[Keyring], Keyring]


def slot_added(held: Keyring) -> Keyring:
    intruder = lifecycle_kit.born("intruder").ring.document
    return msgspec.structs.replace(
        held, slots=(*held.slots, *intruder.slots), keys=(*held.keys, intruder.keys[3])
    )


def root_planted(held: Keyring) -> Keyring:
    """Another root key, sealed to the real public key, with a MAC under a guessed key."""
    slot = held.slots[0]
    with KeyMemory.generate() as planted, KeyMemory.generate() as guessed:
        forged = seal_root(
            planted,
            store_id=held.store_id,
            lineage=held.lineage,
            slot=slot,
            auth=guessed,
            generation=1,
            check=held.roots[0].check,
            sealed_at=lifecycle_kit.AT,
        )
    return msgspec.structs.replace(held, slots=(msgspec.structs.replace(slot, roots=(forged,)),))


def public_swapped(held: Keyring) -> Keyring:
    other = lifecycle_kit.born().ring.document.slots[0]
    slot = msgspec.structs.replace(held.slots[0], public=other.public)
    return msgspec.structs.replace(held, slots=(slot,))


def salt_changed(held: Keyring) -> Keyring:
    return msgspec.structs.replace(
        held, slots=(msgspec.structs.replace(held.slots[0], salt=b"\1" * 16),)
    )


def revision_raised(held: Keyring) -> Keyring:
    return msgspec.structs.replace(held, revision=held.revision + 100)


@pytest.mark.parametrize(
    "tamper", [slot_added, root_planted, public_swapped, salt_changed, revision_raised]
)
async def test_a_changed_keyring_is_refused_and_the_backup_place_has_the_true_one(
    lost: Lost, tamper: Tamper
) -> None:
    async with running(lost.data, place=lost.place, born=False) as nexus:
        record = await keyring_of(nexus.store)
        head, _, tail = record.blob.split(b"\n", 2)
        body = msgspec.json.encode(tamper(keyring.decode_untrusted(record.blob).hint))
        await overwrite(nexus.store, record, b"\n".join([head, body, tail]))
        await refused(nexus, "planted")
    async with running(lost.data, place=lost.place, born=False) as nexus:
        status, _ = await nexus.restore(PASSWORD, backup=lost.backup_path.read_bytes())
        assert status == 200
        assert await got(nexus, "b") == (200, {"data": {"k": "2"}})
        kept = await nexus.store.scan(Kind("keyring"), "replaced-", None, 10)
        assert len(kept.items) == 1, "the keyring that was not authentic is kept aside"


async def test_a_whole_store_of_the_intruders_own_is_refused(lost: Lost) -> None:
    """Root key planted with a matching backup: everything fits, but it was sealed to another password."""
    intruder = lifecycle_kit.born(password=b"the intruder's own password 12345")
    async with running(lost.data, place=lost.place, born=False) as nexus:
        record = await keyring_of(nexus.store)
        await overwrite(nexus.store, record, intruder.raw)
        await refused(nexus, "wrong_password", anchor=lost.anchor)


async def test_a_damaged_keyring_is_named_and_a_backup_takes_its_place(lost: Lost) -> None:
    async with running(lost.data, born=False) as nexus:  # no backup place is configured
        record = await keyring_of(nexus.store)
        await overwrite(nexus.store, record, record.blob[:-100])
        await refused(nexus, "damaged")
        status, _ = await nexus.restore(PASSWORD, backup=lost.backup_path.read_bytes())
        assert status == 200
        assert await got(nexus, "a") == (200, {"data": {"k": "1"}})


async def test_a_lost_keyring_does_not_make_the_store_new(lost: Lost) -> None:
    async with running(lost.data, born=False) as nexus:
        record = await keyring_of(nexus.store)
        await nexus.store.apply([Delete(record.id, record.revision)], fence=None)
        asked = await nexus.seal(SUPERUSER, PASSWORD)
        status, told = await nexus.call(SUPERUSER, "/v1/operator/init", {**asked, "slotName": "x"})
        assert (status, told["err"]) == (400, "refused_store_not_empty")
        await refused(nexus, "not_initialized")
        assert (await nexus.restore(PASSWORD, backup=lost.backup_path.read_bytes()))[0] == 200


@pytest.mark.parametrize("how", ["gone", "damaged"])
async def test_a_keyring_that_is_lost_is_the_newest_one_of_the_backup_places(
    lost: Lost, how: str
) -> None:
    """Nothing is handed in; an older copy and a stranger's file lie beside."""
    other = lost.place / f"spike-{lost.store_id}.key-backup.old"
    other.write_bytes(lost.backup_path.read_bytes())
    await restored_once(lost)
    async with running(lost.data, place=lost.place, born=False) as nexus:
        record = await keyring_of(nexus.store)
        if how == "gone":
            await nexus.store.apply([Delete(record.id, record.revision)], fence=None)
        else:
            await overwrite(nexus.store, record, record.blob[:-100])
        asked = await nexus.seal(RESTORE, PASSWORD)
        target = "/v1/operator/restore?action=password"
        status, told = await nexus.call(RESTORE, target, asked)
        assert status == 200, told
        assert any(str(lost.backup_path) in remark for remark in told["remarks"])
        assert told["preview"]["epoch"] == 2
        assert (await nexus.call(RESTORE, target, {"confirm": told["confirm"]}))[0] == 200
        assert await got(nexus, "a") == (200, {"data": {"k": "1"}})


async def test_of_two_stores_backups_in_one_place_none_is_chosen(
    lost: Lost, tmp_path: Path
) -> None:
    born = lifecycle_kit.born()
    document, root = born.ring.document, born.ring.root
    anchor_raw = anchor.encode(anchor.anchor_of(document, 0), root)
    raw = backup.encode(born.raw, anchor_raw, lifecycle_kit.AT, document, root)
    (lost.place / f"spike-{document.store_id}.key-backup").write_bytes(raw)
    async with running(lost.data, place=lost.place, born=False) as nexus:
        record = await keyring_of(nexus.store)
        await nexus.store.apply([Delete(record.id, record.revision)], fence=None)
        await refused(nexus, "foreign")
        assert (await nexus.restore(PASSWORD, backup=lost.backup_path.read_bytes()))[0] == 200


async def restored_once(lost: Lost) -> bytes:
    """Restore, which is an epoch; return the keyring of the day before."""
    async with running(lost.data, place=lost.place, born=False) as nexus:
        yesterday = (await keyring_of(nexus.store)).blob
        assert (await nexus.restore(PASSWORD))[0] == 200
        lost.anchor = await anchor_now(nexus)
    return yesterday


async def test_yesterdays_keyring_is_refused_by_what_the_backup_place_has_seen(lost: Lost) -> None:
    yesterday = await restored_once(lost)
    async with running(lost.data, place=lost.place, born=False) as nexus:
        await overwrite(nexus.store, await keyring_of(nexus.store), yesterday)
        await refused(nexus, "stale_store")


async def test_yesterdays_keyring_is_refused_by_what_pilot_has_seen(lost: Lost) -> None:
    yesterday = await restored_once(lost)
    lost.empty_places()
    async with running(lost.data, place=lost.place, born=False) as nexus:
        await overwrite(nexus.store, await keyring_of(nexus.store), yesterday)
        await refused(nexus, "stale_store", anchor=lost.anchor)


async def test_an_old_copy_of_the_whole_store_is_refused_after_a_right_was_revoked(
    lost: Lost, tmp_path: Path
) -> None:
    old = tmp_path / "old"
    shutil.copytree(lost.data, old)
    async with running(lost.data, place=lost.place, born=False) as nexus:
        assert (await nexus.restore(PASSWORD))[0] == 200
        await nexus.call(SUPERUSER, "/v1/acl/policy?action=delete", {"id": "web"})
    async with running(old, place=lost.place, born=False) as nexus:
        await refused(nexus, "stale_store")


async def test_an_old_access_list_alone_is_refused(lost: Lost) -> None:
    access_list = RecordId(Kind("access-list"), "current")
    async with running(lost.data, place=lost.place, born=False) as nexus:
        assert (await nexus.restore(PASSWORD))[0] == 200
        old = await nexus.store.get(access_list)
        row = await nexus.store.get(RecordId(Kind("policy"), "web"))
        assert old is not None
        assert row is not None
        await nexus.call(SUPERUSER, "/v1/acl/policy?action=delete", {"id": "web"})
        new = await nexus.store.get(access_list)
        assert new is not None
        await overwrite(nexus.store, new, old.blob)
        denied = (401, {"err": "access_unauthorized"})
        assert await nexus.call(WORKLOAD, f"{SECRETS}?action=get", {"path": "a"}) == denied
        policy = {
            "name": "p",
            "spiffeidPattern": f"^{WORKLOAD}$",
            "pathPattern": "^b$",
            "permissions": ["read"],
        }
        assert (await nexus.call(SUPERUSER, "/v1/acl/policy", policy))[0] == 500
    async with running(lost.data, place=lost.place, born=False) as nexus:
        await refused(nexus, "stale_store")


async def test_a_policy_row_put_back_or_planted_does_not_count(lost: Lost) -> None:
    async with running(lost.data, place=lost.place, born=False) as nexus:
        assert (await nexus.restore(PASSWORD))[0] == 200
        row = await nexus.store.get(RecordId(Kind("policy"), "web"))
        assert row is not None
        await nexus.call(SUPERUSER, "/v1/acl/policy?action=delete", {"id": "web"})
        put_back = Put(row.id, row.blob, row.generation, MUST_NOT_EXIST)
        await nexus.store.apply([put_back], fence=None)
    async with running(lost.data, place=lost.place, born=False) as nexus:
        assert (await nexus.restore(PASSWORD))[0] == 200
        assert await nexus.call(SUPERUSER, "/v1/acl/policy?action=list") == (200, {"policies": []})
        denied = (401, {"err": "access_unauthorized"})
        assert await nexus.call(WORKLOAD, f"{SECRETS}?action=get", {"path": "a"}) == denied


async def test_a_backup_of_another_store_is_foreign(lost: Lost, tmp_path: Path) -> None:
    other = lifecycle_kit.born(password=PASSWORD)
    document, root = other.ring.document, other.ring.root
    statement = anchor.encode(anchor.anchor_of(document, 0), root)
    foreign = backup.encode(other.raw, statement, lifecycle_kit.AT, document, root)
    async with running(lost.data, place=lost.place, born=False) as nexus:
        await refused(nexus, "foreign", backup=foreign)


async def test_an_old_backup_is_refused(lost: Lost) -> None:
    old = lost.backup_path.read_bytes()
    await restored_once(lost)
    async with running(lost.data, place=lost.place, born=False) as nexus:
        await refused(nexus, "old", backup=old)
        assert (await nexus.restore(PASSWORD, backup=lost.backup_path.read_bytes()))[0] == 200


@pytest.mark.parametrize("change", ["cut", "extended", "flipped", "newer", "empty"])
async def test_a_damaged_or_newer_backup_is_named(lost: Lost, change: str) -> None:
    raw = lost.backup_path.read_bytes()
    name, bad = {
        "cut": ("damaged", raw[:-1]),
        "extended": ("damaged", raw + b"\n"),
        "flipped": ("planted", raw.replace(b'"written_at":"2', b'"written_at":"3')),
        "newer": ("newer_format", raw.replace(b"spike-backup 1", b"spike-backup 3")),
        "empty": ("damaged", b"\n"),
    }[change]
    async with running(lost.data, place=lost.place, born=False) as nexus:
        await refused(nexus, name, backup=bad)


async def test_the_largest_backup_there_can_be_gets_in_whatever_the_limit_of_bodies_is(
    lost: Lost,
) -> None:
    """The shards' way too. That it is named as damaged shows that it was read whole."""
    largest = lost.backup_path.read_bytes().ljust(backup.LIMIT_BYTES, b"x")
    async with running(lost.data, place=lost.place, born=False, body_limit_bytes=4096) as nexus:
        await refused(nexus, "damaged", backup=largest)
        await refused(nexus, "damaged", backup=largest + b"x")
        shard = {"id": 1, "shard": [1] * 32, "backup": base64.b64encode(largest).decode()}
        status, told = await nexus.call(RESTORE, "/v1/operator/restore", shard)
        assert (status, told["err"]) == (400, "refused_damaged")
        # A call without a backup keeps to the setting.
        long = {"path": "a", "values": {"k": "v" * 4096}}
        assert (await nexus.restore(PASSWORD))[0] == 200
        assert (await nexus.call(SUPERUSER, "/v1/store/secrets", long))[0] == 400


@pytest.mark.parametrize("kind", ["secret", "secret-meta", "policy"])
async def test_records_of_another_store_are_refused(lost: Lost, tmp_path: Path, kind: str) -> None:
    """The same paths and names, taken over byte for byte from a store with another root key."""
    async with running(tmp_path / "other", place=tmp_path / "elsewhere") as other:
        await put(other, "a", "9")
        await put(other, "b", "9")
        policy = {
            "name": "web",
            "spiffeidPattern": f"^{WORKLOAD}$",
            "pathPattern": ".",
            "permissions": ["read"],
        }
        await other.call(SUPERUSER, "/v1/acl/policy", {**policy, "pathPattern": "^b$"})
        rows = (await other.store.scan(Kind(kind), "", None, 10)).items
    async with running(lost.data, place=lost.place, born=False) as nexus:
        for own in (await nexus.store.scan(Kind(kind), "", None, 10)).items:
            await overwrite(nexus.store, own, rows[0].blob)
        await refused(nexus, "foreign")


async def test_rows_moved_between_paths_and_versions_do_not_open(tmp_path: Path) -> None:
    async with running(tmp_path / "data", place=tmp_path / "backup") as nexus:
        for path in ("a", "b"):
            await put(nexus, path, path)
            await put(nexus, path, path + "2")
        for kind in ("secret", "secret-meta"):
            rows = (await nexus.store.scan(Kind(kind), "", None, 10)).items
            first, second, *_ = rows
            await overwrite(nexus.store, first, second.blob)
            answers = [
                await nexus.call(SUPERUSER, f"{SECRETS}?action=get", {"path": p, "version": v})
                for p in ("a", "b")
                for v in (1, 2)
            ]
            assert (500, {"err": "api_internal_error"}) in answers
            for status, told in answers:
                assert status == 500 or told["data"]["k"][0] in "ab"
            assert not any(
                told.get("data", {}).get("k", p)[0] != p
                for (status, told), p in zip(answers, "aabb", strict=True)
            ), "no answer holds another path's value"
