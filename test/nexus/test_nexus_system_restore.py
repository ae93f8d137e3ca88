"""A store brought up from a system backup: all of it or nothing, as another life, and never over what is there."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from keyring_step_kit import incoming_for, plan, to_flip
from killer_kit import NEXUS, Dead, MortalStore, Victim
from lifecycle_kit import copy_of
from nexus_kit import RESTORE, SUPERUSER, RunningNexus, running
from size import record
from spike.lifecycle import restore as rules
from spike.lifecycle.keyring import KeyPurpose
from spike.lifecycle.refusal import RefusalError
from spike.lifecycle.rotation import prepared
from spike.lifecycle.rotation_plan import numbers_of
from spike.lifecycle.system_restore import LINEAGE_LEAP
from spike.memory.key_memory import KeyMemory
from spike.nexus import system_backup_desk
from spike.nexus.examination import Asked, SystemAsked, Tried
from spike.nexus.opened import Phase
from spike.nexus.restore_undo import undo
from spike.nexus.store_room import MARK_ID, is_unfinished
from spike.storage.memory import MemoryStore
from spike.storage.protocol import KEYRING, RecordId
from system_backup_kit import parsed

PASSWORD = b"zebra lamp orbit cactus 71 violin"
SECRETS = 30
PART_BYTES = 16_000


class Made(NamedTuple):
    """A system backup of thirty secrets and a policy, in many frames, and the root key of its moment."""

    raw: bytes
    root: KeyMemory


@pytest.fixture(scope="module")
def whole() -> Iterator[Made]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(system_backup_desk, "PART_BYTES", 10_000)
        found = asyncio.run(_made())
    yield found
    found.root.wipe()


@pytest.fixture(scope="module")
def made(whole: Made) -> bytes:
    return whole.raw


async def _made() -> Made:
    async with running(password=PASSWORD) as nexus:
        for number in range(SECRETS):
            asked: dict[str, object] = {
                "path": f"a/{number}",
                "values": {"k": f"{number} " + "x" * 2000},
            }
            assert (await nexus.call(SUPERUSER, "/v1/store/secrets", asked))[0] == 200
        policy = {
            "name": "web",
            "spiffeidPattern": "^spiffe://spike\\.ist/workload/web$",
            "pathPattern": "^a/",
            "permissions": ["read"],
        }
        assert (await nexus.call(SUPERUSER, "/v1/acl/policy", policy))[0] == 200
        return Made(await created(nexus), copy_of(nexus.vault.opened.ring.root))


async def created(nexus: RunningNexus) -> bytes:
    status, begun = await nexus.call(SUPERUSER, "/v1/system-backup?action=create")
    assert status == 200
    pieces: list[bytes] = []
    while True:
        asked = {"session": begun["session"], "part": len(pieces)}
        status, answer = await nexus.call(SUPERUSER, "/v1/system-backup?action=read", asked)
        assert status == 200, answer
        pieces.append(base64.b64decode(answer["data"]))
        if answer["last"]:
            return b"".join(pieces)


async def previewed(
    nexus: RunningNexus, raw: bytes, *, set_aside: bool = False, accept: bool = False
) -> tuple[int, Any]:
    summary, _ = parsed(raw)
    asked = {
        **await nexus.seal(RESTORE, PASSWORD),
        "backup": base64.b64encode(summary.backup_raw).decode(),
        "manifest": base64.b64encode(summary.manifest.raw).decode(),
        "setAside": set_aside,
        "acceptOlderStore": accept,
    }
    return await nexus.call(RESTORE, "/v1/operator/restore?action=system-backup", asked)


async def sent(nexus: RunningNexus, raw: bytes, confirm: str) -> tuple[int, Any]:
    """Send the file in parts; return the last answer, or the first that is none."""
    pieces = [raw[at : at + PART_BYTES] for at in range(0, len(raw), PART_BYTES)]
    answer: tuple[int, Any] = (0, None)
    for part, piece in enumerate(pieces):
        answer = await send(nexus, confirm, part, piece, last=part == len(pieces) - 1)
        if answer[0] != 200:
            return answer
    return answer


async def send(
    nexus: RunningNexus, confirm: str, part: int, piece: bytes, *, last: bool = False
) -> tuple[int, Any]:
    asked = {
        "confirm": confirm,
        "part": part,
        "data": base64.b64encode(piece).decode(),
        "last": last,
    }
    return await nexus.call(RESTORE, "/v1/system-backup?action=receive", asked)


async def restored(nexus: RunningNexus, raw: bytes, *, set_aside: bool = False) -> Any:
    status, preview = await previewed(nexus, raw, set_aside=set_aside)
    assert status == 200, preview
    status, answer = await sent(nexus, raw, preview["confirm"])
    assert status == 200, answer
    assert answer["restored"]
    return answer


async def require_all(nexus: RunningNexus) -> None:
    asked = {"items": [{"path": f"a/{number}"} for number in range(SECRETS)]}
    web = "spiffe://spike.ist/workload/web"
    status, answer = await nexus.call(web, "/v1/store/secrets?action=get-many", asked)
    assert status == 200
    found = [item["data"]["k"].split()[0] for item in answer["items"]]
    assert found == [str(number) for number in range(SECRETS)]


async def opened_with(
    nexus: RunningNexus, root: KeyMemory, raw: bytes | None, *, accept: bool = False
) -> str:
    """Preview a restore with a root key at hand, as a slot would give it; return the token of its confirmation.

    Of a system backup with `raw`, of what the store holds without.
    """
    system = None
    if raw is not None:
        summary, _ = parsed(raw)
        system = SystemAsked(summary.manifest.raw, set_aside=True)
    backup = None if raw is None else summary.backup_raw
    asked = Asked(backup, (), RESTORE, accept_older=accept, system=system)
    async with nexus.vault.lock:
        stored = await nexus.restores.stored_for(asked)
        candidate = rules.choose(None if stored is None else stored.blob, asked.backup)
        tried = Tried(candidate, rules.choose_slot(candidate.held, ""), stored)
        found = await nexus.restores.examined(copy_of(root), tried, asked)
        return nexus.restores.hold(found).token


async def received(
    nexus: RunningNexus, root: KeyMemory, raw: bytes, *, accept: bool = False
) -> None:
    token = await opened_with(nexus, root, raw, accept=accept)
    pieces = [raw[at : at + PART_BYTES] for at in range(0, len(raw), PART_BYTES)]
    for part, piece in enumerate(pieces):
        await nexus.arrivals.receive(RESTORE, token, part, piece, part == len(pieces) - 1)


async def opened_again(nexus: RunningNexus, root: KeyMemory) -> None:
    await nexus.restores.complete(await opened_with(nexus, root, None), RESTORE)


async def test_a_whole_store_comes_up_as_another_life_of_it(made: bytes, tmp_path: Path) -> None:
    place = tmp_path / "place"
    before = parsed(made)[0].manifest.hint
    async with running(tmp_path / "data", place=place, born=False) as nexus:
        answer = await restored(nexus, made)
        await require_all(nexus)
        document = nexus.vault.opened.document
        assert document.store_id == before.store_id
        assert document.lineage == answer["lineage"] != before.lineage
        assert "new lineage" in document.rotation_due, "fresh keys are due"
        assert document.epoch == before.epoch + LINEAGE_LEAP
        assert (await nexus.store.health()).fence == document.epoch
        assert document.share_sets == ()
        assert await nexus.store.get(MARK_ID) is None
        nexus.verifier.start("a test")
        await nexus.verifier.ended()
        assert nexus.verifier.last is not None
        assert nexus.verifier.last.outcome == "good"
    async with running(tmp_path / "data", place=place, born=False) as nexus:
        # The password opens the new lineage's own copy.
        status, _ = await nexus.restore(PASSWORD)
        assert status == 200
        await require_all(nexus)


async def in_the_middle(nexus: RunningNexus, *, is_flipped: bool) -> None:
    """Bring a Nexus into the middle of a rotation: before its flip, or with records under two generations."""
    vault = nexus.vault
    ring, asked = vault.opened.ring, plan()
    if is_flipped:
        await vault.advance(to_flip(ring, asked))
        return
    incoming = incoming_for(ring, asked)
    numbers = numbers_of(ring.document, asked)
    document = prepared(ring, asked, numbers, incoming, vault.moment())
    await vault.advance(ring.replaced(document))


@pytest.mark.parametrize("is_flipped", [False, True], ids=["before the flip", "re-encrypting"])
async def test_a_backup_from_the_middle_of_a_rotation_goes_on_from_there(is_flipped: bool) -> None:
    secret = "/v1/store/secrets"
    async with running(password=PASSWORD) as nexus:
        for path in ("old", "new"):
            if path == "new":
                await in_the_middle(nexus, is_flipped=is_flipped)
            asked = {"path": path, "values": {"k": path}}
            assert (await nexus.call(SUPERUSER, secret, asked))[0] == 200
        rotation = nexus.vault.opened.document.rotation
        assert rotation is not None
        raw = await created(nexus)
    summary, _ = parsed(raw)
    generations = {
        line.generation for line in summary.manifest.hint.census if line.kind == "secret"
    }
    assert generations == ({1, 2} if is_flipped else {1})
    async with running(store=MemoryStore(), born=False) as nexus:
        await restored(nexus, raw)
        document = nexus.vault.opened.document
        assert document.rotation == rotation
        assert document.active_key(KeyPurpose.RECORD).number == max(generations)
        for path in ("old", "new"):
            status, answer = await nexus.call(SUPERUSER, secret + "?action=get", {"path": path})
            assert (status, answer["data"]) == (200, {"k": path})


async def test_a_preview_changes_nothing_and_another_file_is_not_taken_for_it(
    made: bytes,
) -> None:
    store = MortalStore()
    store.killer.aim(None)
    async with running(store=store, born=False) as nexus:
        status, preview = await previewed(nexus, made)
        assert (status, preview["restored"]) == (200, False)
        assert not store.killer.steps
        changed = bytearray(made)
        changed[len(made) // 2] ^= 1
        status, answer = await sent(nexus, bytes(changed), preview["confirm"])
        assert (status, answer["err"]) == (400, "refused_damaged")
        assert await nexus.vault.phase() is Phase.UNINITIALIZED
        status, answer = await sent(nexus, made, preview["confirm"])
        assert (status, answer["err"]) == (400, "refused_expired")
        await restored(nexus, made)
        await require_all(nexus)


async def test_a_file_cut_short_or_extended_brings_nothing_up(made: bytes) -> None:
    async with running(store=MemoryStore(), born=False) as nexus:
        for wrong in (made[:-100], made + b"\0" * 10):
            _, preview = await previewed(nexus, made)
            status, answer = await sent(nexus, wrong, preview["confirm"])
            assert (status, answer["err"]) == (400, "refused_damaged")
            assert not nexus.vault.is_open
        # What was left is no store, and cannot become one by an init.
        assert await is_unfinished(nexus.store)
        sealed = await nexus.seal(SUPERUSER, PASSWORD)
        status, answer = await nexus.call(
            SUPERUSER, "/v1/operator/init", {**sealed, "slotName": "admin"}
        )
        assert (status, answer["err"]) == (400, "refused_store_not_empty")


async def test_a_manifest_of_another_file_is_refused(made: bytes) -> None:
    async with running(password=PASSWORD) as other:
        foreign = await created(other)
    mine, theirs = parsed(made)[0], parsed(foreign)[0]
    async with running(store=MemoryStore(), born=False) as nexus:
        for backup, manifest in (
            (mine.backup_raw, theirs.manifest.raw),
            (mine.backup_raw, mine.manifest.raw.replace(b'"records":', b'"records":1', 1)),
        ):
            asked = {
                **await nexus.seal(RESTORE, PASSWORD),
                "backup": base64.b64encode(backup).decode(),
                "manifest": base64.b64encode(manifest).decode(),
            }
            target = "/v1/operator/restore?action=system-backup"
            status, answer = await nexus.call(RESTORE, target, asked)
            assert (status, answer["err"]) == (400, "refused_planted")


async def test_what_a_store_holds_is_set_aside_only_when_that_was_said_and_comes_back(
    made: bytes, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    data = tmp_path / "data"
    async with running(data, place=place, password=PASSWORD) as nexus:
        asked = {"path": "own", "values": {"k": "v"}}
        assert (await nexus.call(SUPERUSER, "/v1/store/secrets", asked))[0] == 200
    async with running(data, place=place, born=False) as nexus:
        assert await nexus.vault.phase() is Phase.LOCKED
        status, answer = await previewed(nexus, made)
        assert (status, answer["err"]) == (400, "refused_store_not_empty")
        answer = await restored(nexus, made, set_aside=True)
        await require_all(nexus)
        assert answer["aside"].startswith("set-aside-")
        aside = data / "aside" / answer["aside"]
        assert aside.stat().st_mode & 0o777 == 0o700
        assert (aside / "store.sqlite").stat().st_mode & 0o777 == 0o600
        target = "/v1/operator/restore?action=undo"
        status, answer = await nexus.call(RESTORE, target)
        assert (status, answer["state"]) == (200, "locked")
        assert answer["aside"].startswith("undone-")
        assert (await nexus.restore(PASSWORD))[0] == 200
        status, answer = await nexus.call(
            SUPERUSER, "/v1/store/secrets?action=get", {"path": "own"}
        )
        assert (status, answer["data"]) == (200, {"k": "v"})
        lineage = nexus.vault.opened.document.lineage
        status, answer = await nexus.call(RESTORE, target)
        assert (status, answer["lineage"], answer.get("aside", "")) == (200, lineage, "")
        assert nexus.vault.is_open, (
            "who did not hear the first answer hears it again; nothing else is done"
        )


async def test_the_old_machine_finds_a_foreign_lineage_and_opens_no_more(
    made: bytes, tmp_path: Path
) -> None:
    """Both share a backup place: what the new machine has written there stops the old one."""
    place, old = tmp_path / "place", MemoryStore()
    async with running(store=old, place=place, password=PASSWORD) as first:
        raw = await created(first)
        store_id = first.vault.opened.document.store_id
    (place / f"spike-{store_id}.anchor").unlink()
    async with running(store=MemoryStore(), place=place, born=False) as second:
        lineage = (await restored(second, raw))["lineage"]
        kept = [path.name for path in place.iterdir()]
        first_lineage = parsed(raw)[0].manifest.hint.lineage
        assert f"spike-{store_id}.{first_lineage}.key-backup" in kept
    async with running(store=old, place=place, born=False) as back:
        status, answer = await back.restore(PASSWORD)
        assert (status, answer["err"]) == (400, "refused_foreign")
        assert lineage in answer["message"]
        assert not back.vault.is_open


async def test_a_machine_that_never_stopped_overwrites_nothing_of_the_new_lineage(
    made: bytes, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    async with running(store=MemoryStore(), place=place, password=PASSWORD) as first:
        raw = await created(first)
        store_id = first.vault.opened.document.store_id
        async with running(store=MemoryStore(), place=tmp_path / "other", born=False) as second:
            await restored(second, raw)
            lineage = second.vault.opened.document.lineage
            for kind in ("anchor", "key-backup"):
                theirs = tmp_path / "other" / f"spike-{store_id}.{kind}"
                (place / theirs.name).write_bytes(theirs.read_bytes())
        await first.vault.renew_places()
        assert lineage in first.vault.places[0].fault
        assert lineage.encode() in (place / f"spike-{store_id}.anchor").read_bytes()
        asked = {"path": "late", "values": {"k": "v"}}
        assert (await first.call(SUPERUSER, "/v1/store/secrets", asked))[0] == 503


@contextlib.asynccontextmanager
async def after(store: MortalStore) -> AsyncIterator[RunningNexus]:
    """The next process, which finds what the last one has left."""
    store.killer.rest()
    async with running(store=store, born=False) as nexus:
        yield nexus


async def attempt(store: MortalStore, whole: Made, kill_at: int, victim: Victim) -> bool:
    """Restore in a process that dies at a write; return whether it did."""
    store.killer.rest()
    try:
        async with running(store=store, born=False) as nexus:
            store.killer.aim(kill_at, victim)
            await received(nexus, whole.root, whole.raw)
    except Dead:
        return True
    return False


@pytest.mark.parametrize("victim", NEXUS, ids=["before", "after"])
async def test_killed_at_any_write_the_same_command_completes_it(
    whole: Made, victim: Victim
) -> None:
    steps = 0
    while True:
        store = MortalStore()
        if not await attempt(store, whole, steps, victim):
            break
        steps += 1
        async with after(store) as nexus:
            if await nexus.vault.phase() is Phase.UNINITIALIZED:
                await received(nexus, whole.root, whole.raw)
            else:  # the keyring was written: the store is whole, and opens as any other
                await opened_again(nexus, whole.root)
            await require_all(nexus)
            assert await nexus.store.get(MARK_ID) is None
    assert steps > 8, store.killer.steps
    record(
        "a restore from a system backup killed at a write", steps, "completed by the same command"
    )


async def old_state() -> tuple[MortalStore, KeyMemory]:
    """Return a store with a secret of its own, as its process has left it."""
    store = MortalStore()
    async with running(store=store) as nexus:
        asked = {"path": "own", "values": {"k": "v"}}
        assert (await nexus.call(SUPERUSER, "/v1/store/secrets", asked))[0] == 200
        return store, copy_of(nexus.vault.opened.ring.root)


async def require_own(nexus: RunningNexus, root: KeyMemory) -> None:
    await opened_again(nexus, root)
    root.wipe()
    target = "/v1/store/secrets?action=get"
    status, answer = await nexus.call(SUPERUSER, target, {"path": "own"})
    assert (status, answer["data"]) == (200, {"k": "v"})


@pytest.mark.parametrize("victim", NEXUS, ids=["before", "after"])
@pytest.mark.parametrize("kill_at", [0, 1, 2])
async def test_killed_at_any_step_of_setting_aside_the_old_state_is_whole(
    whole: Made, kill_at: int, victim: Victim
) -> None:
    store, root = await old_state()
    assert await attempt(store, whole, kill_at, victim)
    async with after(store) as nexus:
        if await nexus.store.get(RecordId(KEYRING, "current")) is None:
            await undo(nexus.keepers, nexus.rotation_loop, RESTORE)
        else:
            assert (kill_at, victim) == (0, Victim.NEXUS_BEFORE)
        await require_own(nexus, root)


@pytest.mark.parametrize("victim", NEXUS, ids=["before", "after"])
@pytest.mark.parametrize("kill_at", [0, 1])
async def test_a_killed_undo_is_completed_by_the_same_command(
    whole: Made, kill_at: int, victim: Victim
) -> None:
    store, root = await old_state()
    async with after(store) as nexus:
        await received(nexus, whole.root, whole.raw)
        store.killer.aim(kill_at, victim)
        with pytest.raises(Dead):
            await undo(nexus.keepers, nexus.rotation_loop, RESTORE)
    async with after(store) as nexus:
        if (kill_at, victim) != (1, Victim.NEXUS_AFTER):
            await undo(nexus.keepers, nexus.rotation_loop, RESTORE)
        again = await undo(nexus.keepers, nexus.rotation_loop, RESTORE)
        assert (again.phase, again.aside) == (Phase.LOCKED, "")
        await require_own(nexus, root)


async def test_where_no_restore_was_made_there_is_nothing_to_undo() -> None:
    async with running() as nexus:
        with pytest.raises(RefusalError, match="no restore has set anything aside"):
            await undo(nexus.keepers, nexus.rotation_loop, RESTORE)
        assert nexus.vault.is_open
