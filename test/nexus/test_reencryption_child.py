"""The process that re-encrypts: what it seals is right or not given out, and its keys go with it."""

from __future__ import annotations

import asyncio
import os
import socket
import threading

import msgspec
import pytest

from nexus_kit import running
from reencryption_kit import everything, flip, furnish, one, under, walk_of
from spike.crypto.record import generation_of_untrusted, open_untrusted, seal
from spike.lifecycle.keyring import KeyPurpose
from spike.lifecycle.progress import Reason
from spike.lifecycle.ring import KeyName, check_of
from spike.memory.key_memory import KeyMemory
from spike.nexus import reencryption_seal
from spike.nexus.reencryption_child import LENGTH, Batch, Begin, Done, serve
from spike.nexus.reencryption_desk import ChildResealer
from spike.nexus.reencryption_seal import KeyPair, Passage, damaged, passage_of, resealed
from spike.nexus.sealed import record_context
from spike.storage.protocol import SECRET, SetFence

STORE = "0c" * 16
NAME = ("secret", "a/path", "0a" * 16)


@pytest.fixture
def keys() -> KeyPair:
    return KeyPair(KeyMemory.generate(), KeyMemory.generate())


@pytest.fixture
def passage(keys: KeyPair) -> Passage:
    old = check_of(STORE, KeyName(KeyPurpose.RECORD, "", 3), keys.old)
    new = check_of(STORE, KeyName(KeyPurpose.RECORD, "", 4), keys.new)
    return Passage(STORE, 3, 4, old, new)


def old_blob(keys: KeyPair, plaintext: bytes = b"value") -> bytes:
    return seal(keys.old, 3, record_context(bytes.fromhex(STORE), *NAME), plaintext)


@pytest.mark.parametrize("size_bytes", [0, 1, 16 * 1024 - 1, 16 * 1024, 100_000])
def test_a_record_of_any_size_goes_over(keys: KeyPair, size_bytes: int) -> None:
    plaintext = os.urandom(size_bytes)
    found = resealed(keys, 4, bytes.fromhex(STORE), NAME, old_blob(keys, plaintext))
    assert isinstance(found, bytes)
    assert generation_of_untrusted(found) == 4
    context = record_context(bytes.fromhex(STORE), *NAME)
    assert open_untrusted(keys.new, context, found) == plaintext


def test_what_would_not_open_to_the_same_is_not_given_out(
    keys: KeyPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(*args: object, **options: object) -> bytes:
        blob = bytearray(seal(*args, **options))  # type: ignore[arg-type]
        blob[-1] ^= 1
        return bytes(blob)

    def other(key: KeyMemory, after: int, context: object, plaintext: bytes) -> bytes:
        return seal(key, after, context, plaintext + b"x")  # type: ignore[arg-type]

    for wrong in (faulty, other):
        monkeypatch.setattr(reencryption_seal, "seal", wrong)
        found = resealed(keys, 4, bytes.fromhex(STORE), NAME, old_blob(keys))
        assert found is Reason.UNCONFIRMED


async def test_a_record_that_is_not_confirmed_stays_under_the_old_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running() as nexus:
        await furnish(nexus, 5)
        bad = await one(nexus.store, SECRET, 2)
        await flip(nexus.vault)

        def faulty(key: KeyMemory, after: int, context: object, plaintext: bytes) -> bytes:
            blob = bytearray(seal(key, after, context, plaintext))  # type: ignore[arg-type]
            blob[-1] ^= getattr(context, "version", "") == bad.id.version
            return bytes(blob)

        monkeypatch.setattr(reencryption_seal, "seal", faulty)
        progress = await walk_of(nexus.vault).run()
        assert [(each.key, each.reason) for each in progress.named] == [
            (bad.id.key, Reason.UNCONFIRMED)
        ]
        assert await nexus.store.get(bad.id) == bad
        assert (await under(nexus.store))[1] == 1


class Served:
    """The child's loop on a thread, with the other end of its socket."""

    def __init__(self, keys: KeyPair) -> None:
        self._ours, theirs = socket.socketpair()
        self._thread = threading.Thread(target=self._run, args=(theirs, keys))
        self._thread.start()

    @staticmethod
    def _run(theirs: socket.socket, keys: KeyPair) -> None:
        with theirs:
            serve(theirs, keys)

    def ask(self, question: Begin | Batch) -> Done:
        raw = msgspec.msgpack.encode(question)
        self._ours.sendall(LENGTH.pack(len(raw)) + raw)
        with self._ours.makefile("rb") as file:
            (length,) = LENGTH.unpack(file.read(LENGTH.size))
            return msgspec.msgpack.decode(file.read(length), type=Done)

    def close(self) -> None:
        self._ours.close()
        self._thread.join(30)
        assert not self._thread.is_alive(), "it outlives whoever asked it"


def test_a_key_that_is_damaged_on_the_way_gives_nothing_out(
    keys: KeyPair, passage: Passage
) -> None:
    served = Served(keys)
    try:
        assert served.ask(Begin(passage)) == Done()
        batch = Batch("secret", [(*NAME[1:], old_blob(keys))])
        assert len(served.ask(batch).blobs) == 1
        with keys.new.view() as view:
            view[0] ^= 1
        assert served.ask(batch) == Done(damaged="record 4")
        with keys.new.view() as view, keys.old.view() as other:
            view[0] ^= 1
            other[31] ^= 1
        assert served.ask(batch) == Done(damaged="record 3")
    finally:
        served.close()


def test_keys_that_are_not_the_ones_named_are_told_at_the_beginning(
    keys: KeyPair, passage: Passage
) -> None:
    swapped = KeyPair(keys.new, keys.old)
    assert damaged(passage, keys) == ""
    served = Served(swapped)
    try:
        assert served.ask(Begin(passage)) == Done(damaged="record 3")
    finally:
        served.close()


async def test_the_lent_keys_are_wiped_and_the_child_is_gone_when_it_is_closed() -> None:
    async with running() as nexus:
        await furnish(nexus, 3)
        await flip(nexus.vault)
        ring = nexus.vault.opened.ring
        passage = passage_of(ring.document, 1)
        assert passage is not None
        child = await ChildResealer.start(passage, ring)
        pages, process = child._pages, child._child
        assert not process.is_gone
        records = [it for it in await everything(nexus.store) if it.id.kind == SECRET]
        assert len(await child.reseal(SECRET, records)) == len(records)
        await child.close()
        assert all(page.wiped for page in pages)
        assert process.is_gone
        # The ring's own keys are still there: only copies were lent.
        for record in records:
            assert nexus.vault.opened.sealed.open(record)


async def test_batches_asked_for_at_once_get_each_its_own_answer() -> None:
    async with running() as nexus:
        await furnish(nexus, 30)
        await flip(nexus.vault)
        ring = nexus.vault.opened.ring
        passage = passage_of(ring.document, 1)
        assert passage is not None
        child = await ChildResealer.start(passage, ring)
        try:
            records = [it for it in await everything(nexus.store) if it.id.kind == SECRET]
            parts = [records[:1], records[1:20], records[20:]]
            answers = await asyncio.gather(*(child.reseal(SECRET, part) for part in parts))
        finally:
            await child.close()
        context = [
            record_context(bytes.fromhex(passage.store_id), it.id.kind, it.id.key, it.id.version)
            for it in records
        ]
        flat = [blob for answer in answers for blob in answer]
        for record, place, blob in zip(records, context, flat, strict=True):
            assert isinstance(blob, bytes)
            new = open_untrusted(ring.active_record.key, place, blob)
            assert new == nexus.vault.opened.sealed.open(record)


async def test_a_fence_that_somebody_else_has_raised_is_waited_for_and_told() -> None:
    async with running() as nexus:
        await furnish(nexus, 3)
        await flip(nexus.vault)
        before = await under(nexus.store)
        epoch = nexus.vault.opened.document.epoch
        await nexus.store.apply([SetFence(epoch + 5)], fence=None)
        walk = walk_of(nexus.vault)
        task = asyncio.create_task(walk.run())
        while not walk.trouble:  # noqa: ASYNC110  what waits tells nobody
            await asyncio.sleep(0)
        assert "epoch" in walk.trouble
        assert await under(nexus.store) == before
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
