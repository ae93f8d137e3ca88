"""How long keys may be used, and how much they were: no task has to run for a key that is too old to be refused."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from around_kit import eventually
from clock_kit import clocked
from lifecycle_kit import AT
from nexus_kit import SUPERUSER, RunningNexus, running
from spike.error import StoreUnavailableError
from spike.lifecycle.keyring import KeyPurpose, Keyring
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.ring import KeyName, KeyRing, check_of, wrap
from spike.lifecycle.schedule import Schedule
from spike.memory.key_memory import KeyMemory
from spike.nexus.usage_book import USAGE_ID, UsageBook
from spike.storage.memory import MemoryStore
from spike.storage.protocol import MUST_NOT_EXIST, Change, Put, Revision

SECRETS = "/v1/store/secrets"
NOT_READY = (503, {"err": "state_not_ready"})


async def put(nexus: RunningNexus, path: str = "a") -> tuple[int, object]:
    return await nexus.call(SUPERUSER, SECRETS, {"path": path, "values": {"k": "v"}})


async def get(nexus: RunningNexus, path: str = "a") -> int:
    return (await nexus.call(SUPERUSER, f"{SECRETS}?action=get", {"path": path}))[0]


async def stops(nexus: RunningNexus) -> list[str]:
    _, status = await nexus.call(SUPERUSER, "/v1/operator/status")
    return [*status["stops"]]


async def test_an_expired_record_key_seals_nothing_more_and_reads_go_on(tmp_path: Path) -> None:
    async with running(tmp_path, born_at=AT) as nexus:
        clocks = clocked(nexus)
        clocks.pass_days(179.9)
        assert (await put(nexus))[0] == 200
        assert await stops(nexus) == []
        clocks.pass_days(0.2)
        assert await put(nexus) == NOT_READY
        assert await get(nexus) == 200
        told = await stops(nexus)
        assert [reason.split(" key")[0] for reason in told] == ["the record", "the cipher"]
        assert "twice its interval" in told[0]
        assert "reads go on" in told[0]


async def test_every_write_is_refused_and_policies_too(tmp_path: Path) -> None:
    policy = {
        "name": "p", "spiffeidPattern": "^spiffe://x/y$", "pathPattern": "^a$", "permissions": ["read"],
    }  # fmt: skip
    async with running(tmp_path, born_at=AT) as nexus:
        clocks = clocked(nexus)
        assert (await put(nexus))[0] == 200
        clocks.pass_days(181)
        assert await nexus.call(SUPERUSER, "/v1/acl/policy", policy) == NOT_READY
        for action in ("delete", "undelete"):
            target = f"{SECRETS}?action={action}"
            assert await nexus.call(SUPERUSER, target, {"path": "a"}) == NOT_READY


async def test_an_expired_cipher_key_encrypts_nothing_more_and_decrypts_on(tmp_path: Path) -> None:
    plaintext = {"plaintext": base64.b64encode(b"x").decode()}
    async with running(tmp_path, born_at=AT) as nexus:
        clocks = clocked(nexus)
        status, sealed = await nexus.call(SUPERUSER, "/v1/cipher/encrypt", plaintext)
        assert status == 200
        clocks.pass_days(181)
        assert await nexus.call(SUPERUSER, "/v1/cipher/encrypt", plaintext) == NOT_READY
        assert (await nexus.call(SUPERUSER, "/v1/cipher/decrypt", sealed))[0] == 200


async def test_a_longer_interval_ends_the_refusal_at_once(tmp_path: Path) -> None:
    async with running(tmp_path, born_at=AT) as nexus:
        clocks = clocked(nexus)
        clocks.pass_days(181)
        assert await put(nexus) == NOT_READY
        await nexus.vault.change(lambda ring: ring.replaced(later(ring.document, record_days=100)))
        assert (await put(nexus))[0] == 200


def later(document: Keyring, record_days: int = 90, root_days: int = 365) -> Keyring:
    schedule = Schedule(record_days=record_days, root_days=root_days)
    return msgspec.structs.replace(document, revision=document.revision + 1, schedule=schedule)


async def test_an_expired_root_key_wraps_no_more_keys_and_everything_else_goes_on(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, born_at=AT) as nexus:
        clocks = clocked(nexus)
        await nexus.vault.change(lambda ring: ring.replaced(later(ring.document, record_days=0)))
        clocks.pass_days(731)
        assert (await put(nexus))[0] == 200
        assert [reason.split(" key")[0] for reason in await stops(nexus)] == ["the root"]
        with pytest.raises(RefusalError) as refused:
            await nexus.vault.change(with_one_more_key)
        assert refused.value.reason is Reason.KEY_EXPIRED
        assert len(nexus.vault.opened.document.keys) == 4
        # A change that wraps nothing is made.
        await nexus.vault.change(lambda ring: ring.replaced(later(ring.document, root_days=400)))
        await nexus.vault.change(with_one_more_key)
        assert len(nexus.vault.opened.document.keys) == 5


def with_one_more_key(ring: KeyRing) -> KeyRing:
    document = ring.document
    name = KeyName(KeyPurpose.CIPHER, "", 2)
    old = document.active_key(KeyPurpose.CIPHER)
    key = KeyMemory.generate()
    made = msgspec.structs.replace(
        old,
        number=2,
        check=check_of(document.store_id, name, key),
        wrapped=wrap(ring.root, 1, document.store_id, name, key),
        history=old.history[:1],
    )
    following = msgspec.structs.replace(
        document, revision=document.revision + 1, keys=(*document.keys, made)
    )
    return ring.changed(following, {name: key})


@pytest.mark.parametrize("days", [400.0, -400.0])
async def test_a_clock_that_jumps_expires_nothing(tmp_path: Path, days: float) -> None:
    async with running(tmp_path, born_at=AT) as nexus:
        clocks = clocked(nexus)
        clocks.jump(days)
        assert (await put(nexus))[0] == 200
        assert await stops(nexus) == []
        assert "jumped" in nexus.vault.life.belief(nexus.vault.opened.document).fault


async def test_a_clock_that_jumped_and_came_back_expires_a_key_on_its_day(tmp_path: Path) -> None:
    async with running(tmp_path, born_at=AT) as nexus:
        clocks = clocked(nexus)
        clocks.jump(400)
        clocks.pass_days(10)
        clocks.jump(-400)
        assert (await put(nexus))[0] == 200
        clocks.pass_days(171)
        assert await put(nexus) == NOT_READY


async def test_after_a_long_pause_nothing_expires_for_a_day(tmp_path: Path) -> None:
    async with running(tmp_path, born_at=AT) as nexus:
        clocks = clocked(nexus, days=400)
        assert (await put(nexus))[0] == 200
        clocks.pass_days(1.1)
        assert await put(nexus) == NOT_READY


async def test_a_nexus_that_is_started_again_and_again_gets_no_day_more(tmp_path: Path) -> None:
    async with running(tmp_path, born_at=AT) as nexus:
        clocked(nexus, days=179.9)
        await UsageBook(nexus.vault).flush()
        clocked(nexus, days=180.1)  # started again: no more than a day since Nexus ran
        assert (await put(nexus))[0] == 200
        await UsageBook(nexus.vault).flush()
        assert await put(nexus, "b") == NOT_READY


async def test_what_is_sealed_is_counted_by_generation_and_added_up(tmp_path: Path) -> None:
    plaintext = {"plaintext": base64.b64encode(b"x").decode()}
    async with running(tmp_path, born_at=AT) as nexus:
        book = UsageBook(nexus.vault)
        before = (await book.now()).of(KeyPurpose.RECORD, 1)
        assert before is not None
        for number in range(5):
            assert (await put(nexus, f"p{number}"))[0] == 200
        await nexus.call(SUPERUSER, "/v1/cipher/encrypt", plaintext)
        now = await book.now()
        assert now.of(KeyPurpose.RECORD, 1) == before + 10  # a version and the metadata each
        assert now.of(KeyPurpose.CIPHER, 1) == 1
        await book.flush()
        assert not nexus.vault.seal_count
        # The record that holds the sum is one more, and counting comes to rest.
        assert (await book.now()).of(KeyPurpose.RECORD, 1) == before + 11
        revision = await nexus.vault.opened.sealed.head(USAGE_ID)
        await book.flush()
        assert await nexus.vault.opened.sealed.head(USAGE_ID) == revision


async def test_use_is_told_once_an_hour_also_where_nothing_is_sealed(tmp_path: Path) -> None:
    async with running(tmp_path, born_at=AT) as nexus:
        clocks = clocked(nexus)
        book = UsageBook(nexus.vault)
        await book.flush()
        first = await nexus.vault.opened.sealed.head(USAGE_ID)
        clocks.pass_days(0.9 / 24)
        await book.flush()
        assert await nexus.vault.opened.sealed.head(USAGE_ID) == first
        clocks.pass_days(0.2 / 24)
        await book.flush()
        assert await nexus.vault.opened.sealed.head(USAGE_ID) != first


async def test_several_nexus_add_to_one_sum(tmp_path: Path) -> None:
    async with running(tmp_path, born_at=AT) as nexus:
        one, two = UsageBook(nexus.vault), UsageBook(nexus.vault)
        count = nexus.vault.seal_count
        count.record.clear()
        await one.flush()
        base = (await one.now()).of(KeyPurpose.RECORD, 1)
        assert base is not None
        count.record[1] += 40
        await one.flush()
        count.record[1] += 2
        await two.flush()
        assert (await one.now()).of(KeyPurpose.RECORD, 1) == base + 44


async def test_a_usage_record_that_is_damaged_is_begun_anew(tmp_path: Path) -> None:
    async with running(tmp_path, born_at=AT) as nexus:
        book = UsageBook(nexus.vault)
        await nexus.vault.store.apply([Put(USAGE_ID, b"no record", 1, MUST_NOT_EXIST)], fence=None)
        assert (await put(nexus))[0] == 200
        await book.flush()
        used = (await book.now()).of(KeyPurpose.RECORD, 1)
        assert used is not None
        assert used >= 3


class FullStore(MemoryStore):
    """Takes no write while its disk is full."""

    is_full = False

    async def apply(self, changes: Sequence[Change], *, fence: int | None) -> tuple[Revision, ...]:
        if self.is_full:
            raise StoreUnavailableError("the disk is full")
        return await super().apply(changes, fence=fence)


async def test_what_cannot_be_added_is_counted_again() -> None:
    store = FullStore()
    async with running(store=store) as nexus:
        book = UsageBook(nexus.vault)
        assert (await put(nexus))[0] == 200
        before = (await book.now()).of(KeyPurpose.RECORD, 1)
        store.is_full = True
        await book.try_flush()
        store.is_full = False
        assert before is not None
        kept = (await book.now()).of(KeyPurpose.RECORD, 1)
        assert kept == before + 1  # the seal of the sum that was not written is one, too


async def test_a_verification_finds_the_usage_record_good(tmp_path: Path) -> None:
    async with running(tmp_path, born_at=AT) as nexus:
        await UsageBook(nexus.vault).flush()
        run, _ = nexus.verifier.start("a test")
        await eventually(lambda: not run.is_running)
        assert run.tally.bad_total == 0
        assert run.tally.census["usage", 1] == 1
