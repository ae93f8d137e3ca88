"""Slots over real TLS sockets, with the real child: added, changed, removed, by whom, and what still opens after it."""

from __future__ import annotations

import asyncio
import base64
import unicodedata
from pathlib import Path
from typing import Any

from lifecycle_kit import ADMIN
from lost_kit import PASSWORD, SECRETS, put
from nexus_kit import RECOVER, RESTORE, SUPERUSER, WORKLOAD, RunningNexus, running
from slot_kit import ALICE, OTHER, SLOT, ask, give_slot, refused, shown, wait_a_minute
from spike.lifecycle import keyring
from spike.lifecycle.keyring import KeyPurpose
from spike.lifecycle.state import State
from spike.storage.protocol import Kind


class Held:
    """Where a Nexus lives."""

    def __init__(self, directory: Path) -> None:
        self.data = directory / "data"
        self.place = directory / "backup"

    def running(self, *, born: bool = False) -> Any:
        password = PASSWORD if born else None
        return running(self.data, place=self.place, born=born, password=password)

    @property
    def backup(self) -> bytes:
        (path,) = self.place.glob("*.key-backup")
        return path.read_bytes()


async def opens(held: Held, slot: str, password: bytes, backup: bytes | None = None) -> bool:
    """Tell whether a password brings back what was lost; what it must not, it does not."""
    async with held.running() as nexus:
        status, told = await nexus.restore(password, slot=slot, backup=backup)
        if status != 200:
            assert told["err"] in ("refused_wrong_password", "refused_unknown_slot"), told
            return False
        assert await nexus.call(SUPERUSER, f"{SECRETS}?action=get", {"path": "a"}) == (
            200,
            {"data": {"k": "1"}},
        )
        return True


async def test_a_slot_more_opens_everything_from_the_store_and_from_each_backup(
    tmp_path: Path,
) -> None:
    held = Held(tmp_path)
    async with held.running(born=True) as nexus:
        await put(nexus, "a", "1")
        epoch = nexus.vault.opened.document.epoch
        status, told = await ask(nexus, "add", "alice", ALICE)
        assert status == 200, told
        assert (told["slot"], told["epoch"]) == ("alice", epoch + 1)
        assert [copy["state"] for copy in told["copies"]] == ["good", "good"]
        assert base64.b64decode(told["anchor"]) == nexus.vault.opened.anchor_raw()
        assert "rotationDue" not in told or not told["rotationDue"]
    assert await opens(held, "alice", ALICE)
    assert await opens(held, "alice", ALICE, held.backup)
    assert await opens(held, "admin", PASSWORD)
    assert not await opens(held, "alice", PASSWORD)


async def test_it_is_told_who_opened_a_slot_last(tmp_path: Path) -> None:
    held = Held(tmp_path)

    async def told(nexus: RunningNexus) -> dict[str, str]:
        _, status = await nexus.call(SUPERUSER, "/v1/operator/status")
        _, listed = await nexus.call(SUPERUSER, "/v1/backup/slot?action=list")
        found = [{s["name"]: s["lastVerifiedBy"] for s in a["slots"]} for a in (status, listed)]
        assert found[0] == found[1]
        return found[0]

    async with held.running(born=True) as nexus:
        assert (await ask(nexus, "add", "alice", ALICE))[0] == 200
        # Who made a slot opened it then.
        assert await told(nexus) == {"admin": ADMIN, "alice": RECOVER}
        asked = {"slot": "alice", **await nexus.seal(SUPERUSER, ALICE)}
        assert (await nexus.call(SUPERUSER, "/v1/backup?action=verify", asked))[0] == 200
        assert await told(nexus) == {"admin": ADMIN, "alice": SUPERUSER}
    async with held.running() as nexus:
        assert (await nexus.restore(PASSWORD))[0] == 200
        assert await told(nexus) == {"admin": RESTORE, "alice": SUPERUSER}
        assert (await ask(nexus, "change", "alice", OTHER, noRotate=True))[0] == 200
        assert await told(nexus) == {"admin": RESTORE, "alice": RECOVER}


async def test_a_changed_password_opens_and_the_old_one_opens_old_copies_alone(
    tmp_path: Path,
) -> None:
    held = Held(tmp_path)
    async with held.running(born=True) as nexus:
        await put(nexus, "a", "1")
        await give_slot(nexus, "alice", ALICE)
        old = nexus.vault.opened.document
        status, told = await ask(nexus, "change", "alice", OTHER)
        assert status == 200, told
        assert "old copies still open" in told["rotationDue"]
        now = nexus.vault.opened.document
        before, after = old.slot_named("alice"), now.slot_named("alice")
        assert before is not None
        assert after is not None
        assert before.id == after.id
        assert before.salt != after.salt
        keys = [k for k in now.keys if k.slot == after.id]
        assert [(k.number, k.state, bool(k.wrapped)) for k in keys] == [
            (1, State.DESTROYED, False),
            (2, State.ACTIVE, True),
        ]
        assert nexus.vault.opened.ring.mismatches() == ()
        _, listed = await nexus.call(SUPERUSER, f"{SLOT}?action=list")
        assert [(r["slot"], r["kind"], r["generation"]) for r in listed["retired"]] == [
            ("alice", "password", 1)
        ]
        assert listed["passwordNeeded"] is True
        _, seen = await nexus.call(SUPERUSER, "/v1/operator/status")
        assert seen["backup"]["retired"] == listed["retired"]
    assert await opens(held, "alice", OTHER)
    assert not await opens(held, "alice", ALICE)


async def test_a_removed_slot_opens_nothing_new_and_its_key_is_destroyed(tmp_path: Path) -> None:
    held = Held(tmp_path)
    async with held.running(born=True) as nexus:
        await put(nexus, "a", "1")
        await give_slot(nexus, "alice", ALICE)
        status, told = await ask(nexus, "remove", "admin", noRotate=True)
        assert status == 200, told
        assert not told.get("rotationDue")
        document = nexus.vault.opened.document
        assert [slot.name for slot in document.slots] == ["alice"]
        states = [k.state for k in document.keys if k.purpose is KeyPurpose.BACKUP_AUTH]
        assert sorted(states) == [State.ACTIVE, State.DESTROYED]
        assert [each.name for each in document.retired] == ["admin"]
        await refused(nexus, "last_slot", "remove", "alice")
        await refused(nexus, "unknown_slot", "remove", "admin")
        history = await nexus.call(SUPERUSER, "/v1/key?action=history", {"limit": 10})
        assert [e["kind"] for e in history[1]["events"]][-2:] == ["slot-add", "slot-remove"]
    assert await opens(held, "alice", ALICE)
    assert not await opens(held, "admin", PASSWORD)


async def test_the_superuser_needs_an_existing_slots_password_in_the_same_request(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, password=PASSWORD) as nexus:
        for action, new in (("add", ALICE), ("change", ALICE), ("remove", None)):
            said = await refused(nexus, "password_needed", action, "admin", new, who=SUPERUSER)
            assert "existing slot's password" in said
        await refused(
            nexus, "wrong_password", "add", "alice", ALICE, who=SUPERUSER, existing=("admin", OTHER)
        )
        # The delay after a wrong one is the slot's, whoever asks.
        wait_a_minute(nexus, "admin")
        await refused(
            nexus, "too_soon", "add", "alice", ALICE, who=SUPERUSER, existing=("admin", PASSWORD)
        )
        nexus.restores.note_right(nexus.vault.opened.document.slots[0].id)
        status, told = await ask(
            nexus, "add", "alice", ALICE, who=SUPERUSER, existing=("admin", PASSWORD)
        )
        assert status == 200, told
        status, told = await ask(
            nexus, "change", "admin", OTHER, who=SUPERUSER, existing=("admin", PASSWORD)
        )
        assert status == 200, told
        status, told = await ask(nexus, "remove", "alice", who=SUPERUSER, existing=("alice", ALICE))
        assert status == 200, told
        for action in ("list", "add", "change", "remove"):
            for stranger in (WORKLOAD, RESTORE):
                answer = await nexus.call(stranger, f"{SLOT}?action={action}", {"slot": "admin"})
                assert answer == (401, {"err": "access_unauthorized"})


async def test_another_identitys_sealed_password_shows_nothing(tmp_path: Path) -> None:
    """A superuser cannot show a password that somebody else has sealed for his own call."""
    async with running(tmp_path, password=PASSWORD) as nexus:
        asked = {"slot": "alice", **await shown(nexus, RECOVER, PASSWORD)}
        asked |= await nexus.seal(SUPERUSER, ALICE)
        status, told = await nexus.call(SUPERUSER, f"{SLOT}?action=add", asked)
        assert (status, told["err"]) == (400, "refused_expired")


async def test_what_is_wrong_with_a_new_password_or_name_is_said(tmp_path: Path) -> None:
    async with running(tmp_path, password=PASSWORD) as nexus:
        said = await refused(nexus, "weak_password", "add", "alice", b"password1234567")
        assert "common" in said or "guess" in said
        said = await refused(nexus, "weak_password", "add", "alice", b"alice alice alice")
        assert await refused(nexus, "slot_exists", "add", "admin", ALICE)
        assert await refused(nexus, "unknown_slot", "change", "nobody", ALICE)
        said = await refused(nexus, "weak_password", "change", "admin", PASSWORD)
        assert "already" in said
        status, _ = await ask(nexus, "add", "no/name", ALICE)
        assert status == 400


async def test_composed_and_decomposed_forms_are_one_password(tmp_path: Path) -> None:
    said = "Ängste vergüten 7 Flöße übermütig"
    composed, decomposed = (
        unicodedata.normalize("NFC", said).encode(),
        unicodedata.normalize("NFD", said).encode(),
    )
    assert composed != decomposed
    held = Held(tmp_path)
    async with held.running(born=True) as nexus:
        await put(nexus, "a", "1")
        assert (await ask(nexus, "add", "alice", decomposed))[0] == 200
        said_of_it = await refused(nexus, "weak_password", "change", "alice", composed)
        assert "already" in said_of_it
    assert await opens(held, "alice", composed)
    assert await opens(held, "alice", decomposed)


async def test_no_slot_changes_while_a_lifecycle_operation_or_a_fault_is_there(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, password=PASSWORD) as nexus:
        await give_slot(nexus, "alice", ALICE)
        with nexus.vault.opened.ring.active_cipher.key.view() as view:
            view[0] ^= 1
        said = await refused(nexus, "unhealthy", "add", "bob", OTHER)
        assert "cipher 1" in said
        with nexus.vault.opened.ring.active_cipher.key.view() as view:
            view[0] ^= 1
        assert (await ask(nexus, "add", "bob", OTHER))[0] == 200


async def test_passwords_stand_nowhere_and_two_changes_at_once_do_not_mix(tmp_path: Path) -> None:
    async with running(tmp_path, password=PASSWORD) as nexus:
        first = {"slot": "alice", **await nexus.seal(RECOVER, ALICE)}
        second = {"slot": "bob", **await shown(nexus, SUPERUSER, PASSWORD)}
        second |= await nexus.seal(SUPERUSER, OTHER)
        answers = await asyncio.gather(
            nexus.call(RECOVER, f"{SLOT}?action=add", first),
            nexus.call(SUPERUSER, f"{SLOT}?action=add", second),
        )
        assert [status for status, _ in answers] == [200, 200], answers
        names = [slot.name for slot in nexus.vault.opened.document.slots]
        assert sorted(names) == ["admin", "alice", "bob"]
        keyring.decode_untrusted(nexus.vault.opened.keyring_raw)
        census = await nexus.store.census()
        assert census[(Kind("keyring"), 1)] == 1
    everything = await asyncio.to_thread(contents, tmp_path)
    assert not any(password in everything for password in (PASSWORD, ALICE, OTHER))


def contents(directory: Path) -> bytes:
    """Return every byte of every file."""
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())
