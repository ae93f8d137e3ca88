"""A rotation in a whole Nexus: requests go on, everything is sealed again, the old keys end; and the way back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import rotating_kit
from around_kit import eventually
from nexus_kit import SUPERUSER, running
from rotating_kit import asked, decrypt, encrypt, generations, get, put, rotated, until
from spike.lifecycle.keyring import KeyPurpose, Phase, Scope
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.state import State
from spike.nexus.performer import Performer


async def test_everything_is_under_the_new_keys_and_reads_as_before(tmp_path: Path) -> None:
    place = tmp_path / "place"
    async with running(tmp_path / "data", place=place, performer=Performer()) as nexus:
        for number in range(5):
            await put(nexus, f"a/{number}", f"first {number}")
            await put(nexus, f"a/{number}", f"second {number}")
        blob = await encrypt(nexus, b"for others")
        view = await rotated(nexus)
        assert view.phase == Phase.VERIFIED
        assert await generations(nexus) == {2}
        for number in range(5):
            assert await get(nexus, f"a/{number}", 1) == f"first {number}"
            assert await get(nexus, f"a/{number}") == f"second {number}"
        assert await decrypt(nexus, blob) == b"for others"
        assert nexus.vault.opened.document.active_root.number == 2
        await nexus.rotations.finalize(SUPERUSER)
        view = await until(nexus, "finalized")
        document = nexus.vault.opened.document
        assert [root.state for root in document.roots] == [State.DESTROYED, State.ACTIVE]
        assert await get(nexus, "a/1") == "second 1"
        assert await decrypt(nexus, blob) == b"for others"
        assert not list(place.glob("*.pending"))


async def test_a_rollback_brings_the_old_keys_back_and_loses_nothing(tmp_path: Path) -> None:
    async with running(tmp_path / "data", place=tmp_path / "p", performer=Performer()) as nexus:
        await put(nexus, "a", "before")
        await rotated(nexus)
        await put(nexus, "b", "meanwhile")
        blob = await encrypt(nexus, b"meanwhile")
        await nexus.rotations.rollback("a test", SUPERUSER)
        await until(nexus, "finalized")
        document = nexus.vault.opened.document
        assert document.active_root.number == 1
        assert document.active_key(KeyPurpose.RECORD).number == 1
        assert document.roots[1].state is State.DESTROYED
        assert await generations(nexus) == {1}
        assert await get(nexus, "a") == "before"
        assert await get(nexus, "b") == "meanwhile"
        assert await decrypt(nexus, blob) == b"meanwhile"


async def test_a_rollback_tells_first_what_it_means(tmp_path: Path) -> None:
    async with running(tmp_path / "data", place=tmp_path / "p", performer=Performer()) as nexus:
        await put(nexus, "a", "before")
        view = await rotated(nexus)
        since, sealed, meaning = view.impact
        assert view.flipped_at in since
        assert view.progress is not None
        assert sealed.startswith(f"{view.progress.re_encrypted} records")
        assert "destroys the new root and record key" in meaning


@pytest.mark.parametrize("scope", [Scope.ROOT_ONLY, Scope.DATA_ONLY])
async def test_half_a_rotation(tmp_path: Path, scope: Scope) -> None:
    async with running(tmp_path / "data", performer=Performer()) as nexus:
        await put(nexus, "a", "value")
        await rotated(nexus, asked(scope, window_s=0))
        await until(nexus, "finalized")
        document = nexus.vault.opened.document
        assert document.active_root.number == (1 if scope is Scope.DATA_ONLY else 2)
        assert await generations(nexus) == {2 if scope is Scope.DATA_ONLY else 1}
        assert await get(nexus, "a") == "value"


async def test_an_emergency_has_no_window_and_leaves_no_way_back(tmp_path: Path) -> None:
    async with running(tmp_path / "data", place=tmp_path / "p", performer=Performer()) as nexus:
        await put(nexus, "a", "value")
        await nexus.rotations.start(rotating_kit.emergency(), SUPERUSER)
        await until(nexus, "finalized")
        document = nexus.vault.opened.document
        assert document.roots[0].state is State.DESTROYED
        assert State.COMPROMISED in {step.state for step in document.roots[0].history}
        assert document.active_key(KeyPurpose.AUDIT).number == 2
        assert document.slots[0].renew
        assert await get(nexus, "a") == "value"
        status, told = await nexus.call(SUPERUSER, "/v1/key?action=history", {"limit": 100})
        assert status == 200
        (exposed,) = [each for each in told["events"] if each["kind"] == "rotation-exposed"]
        assert "root key 1 has been active since" in exposed["detail"]["1"]


async def test_twenty_starts_at_once_are_one_rotation(tmp_path: Path) -> None:
    async with running(tmp_path / "data", performer=Performer()) as nexus:
        await put(nexus, "a", "value")
        started = await asyncio.gather(
            *(nexus.rotations.start(asked(), SUPERUSER) for _ in range(20))
        )
        assert len({each.id for each in started}) == 1
        assert sum(each.started for each in started) == 1
        await until(nexus, Phase.VERIFIED)
        assert len(nexus.vault.opened.document.roots) == 2


async def test_another_kind_is_refused_while_one_runs(tmp_path: Path) -> None:
    async with running(tmp_path / "data", performer=Performer()) as nexus:
        first = await nexus.rotations.start(asked(), SUPERUSER)
        with pytest.raises(RefusalError, match=first.id) as caught:
            await nexus.rotations.start(asked(Scope.ROOT_ONLY), SUPERUSER)
        assert caught.value.reason in (Reason.PREFLIGHT, Reason.BUSY)
        await until(nexus, Phase.VERIFIED)


async def test_four_rotations_back_to_back(tmp_path: Path) -> None:
    async with running(tmp_path / "data", place=tmp_path / "p", performer=Performer()) as nexus:
        await put(nexus, "a", "value")
        for number in range(2, 6):
            await rotated(nexus, asked(window_s=0))
            await until(nexus, "finalized")
            assert nexus.vault.opened.document.active_root.number == number
            assert await get(nexus, "a") == "value"
        assert await generations(nexus) == {5}


async def test_a_dry_run_changes_no_byte(tmp_path: Path) -> None:
    def everything() -> dict[str, bytes]:
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        return {str(path): path.read_bytes() for path in files if "-shm" not in path.name}

    async with running(tmp_path / "data", place=tmp_path / "p") as nexus:
        await put(nexus, "a", "value")
        before = everything()
        checks = await nexus.rotations.check(asked(), SUPERUSER)
        assert everything() == before
        assert {check.result for check in checks} <= {"ok", "warn"}
        assert {check.name for check in checks} >= {"storage", "keepers", "backup", "disk", "clock"}


async def test_a_planned_rotation_wants_its_backup_place(tmp_path: Path) -> None:
    place = tmp_path / "p"
    async with running(tmp_path / "data", place=place, performer=Performer()) as nexus:
        for file in place.glob("*.key-backup"):
            file.write_bytes(b"spoilt")
        with pytest.raises(RefusalError, match="backup") as caught:
            await nexus.rotations.start(asked(), SUPERUSER)
        assert caught.value.reason is Reason.PREFLIGHT
        assert nexus.vault.opened.document.rotation is None


async def test_the_checks_before_it_and_behind_it_are_told_by_name(tmp_path: Path) -> None:
    async with running(tmp_path / "data", place=tmp_path / "p", performer=Performer()) as nexus:
        await put(nexus, "a", "value")
        await rotated(nexus, asked(window_s=0))
        await until(nexus, "finalized")
        await eventually(lambda: not nexus.rotations.is_busy)
        status, told = await nexus.call(SUPERUSER, "/v1/key?action=history", {"limit": 100})
        assert status == 200, told
        checked = [each["detail"] for each in told["events"] if each["kind"] == "rotation-checked"]
        assert [each["when"] for each in checked] == ["before", "after"]
        for each in checked:
            results = {name: text for name, text in each.items() if name not in ("id", "when")}
            assert {"storage", "backup"} <= set(results)
            assert all(text.startswith(("ok", "warn")) for text in results.values()), results


@pytest.mark.parametrize("phase", [Phase.RE_ENCRYPTING, Phase.VERIFIED])
async def test_what_an_emergency_replaced_is_over_wherever_it_is_told_of(
    tmp_path: Path, phase: Phase
) -> None:
    async with running(tmp_path / "data", place=tmp_path / "p", performer=Performer()) as nexus:
        await put(nexus, "a", "value")
        rate = 1 if phase is Phase.RE_ENCRYPTING else 0
        if rate:
            for number in range(20):
                await put(nexus, f"a/{number}", "value")
        first = await nexus.rotations.start(asked(max_rate=rate), SUPERUSER)
        await until(nexus, phase)
        second = await nexus.rotations.start(rotating_kit.emergency(), SUPERUSER)
        flipped = await rotating_kit.seen(nexus, lambda view: bool(view.flipped_at))
        assert (flipped.id, flipped.replaces) == (second.id, first.id)
        await until(nexus, "finalized")

        async def told(action: str, **message: object) -> dict[str, Any]:
            status, answer = await nexus.call(SUPERUSER, f"/v1/key?action={action}", message)
            assert status == 200, answer
            return dict(answer)

        events = (await told("history", limit=100))["events"]
        (end,) = [e for e in events if e["kind"] == "rotation-superseded"]
        assert (end["detail"]["id"], end["detail"]["by"]) == (first.id, second.id)
        assert end["detail"]["phase"] == phase
        report = (await told("report", id=first.id))["report"]
        assert report["outcome"].startswith(f"superseded by emergency {second.id}; ")
        assert report["destroyed"] == "root 1, record 1"
        assert (report["endedAt"], report["missing"]) == (end["at"], [])
        keys = (await told("list"))["keys"]
        (old,) = [k for k in keys if (k["purpose"], k["generation"]) == ("root", 1)]
        why = f"rotation {second.id}, which superseded rotation {first.id}"
        assert old["transitions"][-1]["reason"] == why
        assert (await told("status"))["rotation"]["replaces"] == first.id


async def test_what_was_rolled_back_has_its_end_in_the_history(tmp_path: Path) -> None:
    async with running(tmp_path / "data", place=tmp_path / "p", performer=Performer()) as nexus:
        await put(nexus, "a", "value")
        first = await rotated(nexus)
        back = await nexus.rotations.rollback("a test", SUPERUSER)
        await until(nexus, "finalized")
        status, told = await nexus.call(SUPERUSER, "/v1/key?action=report", {"id": first.id})
        assert status == 200
        outcome = told["report"]["outcome"]
        assert outcome == (
            f"rolled back by {back.id}; its old keys then: root 1 active, record 1 active, cipher 1 active"
        )
        ends = [s["what"] for s in told["report"]["steps"] if s["what"] == "rolled-back"]
        assert ends == ["rolled-back"]
