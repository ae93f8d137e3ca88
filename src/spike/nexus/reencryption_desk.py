"""The parent's side of the child that re-encrypts: starts it, lends it the two keys, hands it batches.

The keys are lent in shared locked pages of their own, which are wiped when the child has ended.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Sequence
from typing import Final, Self

import msgspec

from spike.lifecycle.progress import Reason
from spike.lifecycle.ring import KeyRing
from spike.memory.key_memory import KeyMemory
from spike.nexus.child import Child
from spike.nexus.reencryption_child import (
    FRAME_LIMIT_BYTES,
    KEY_SIZE_BYTES,
    LENGTH,
    Batch,
    Begin,
    Done,
)
from spike.nexus.reencryption_seal import DamagedKeyError, Passage, ResealerLostError
from spike.storage.protocol import Kind, Record

READY_S: Final = 30
ANSWER_S: Final = 120
"""A batch takes milliseconds; a child that is silent for so long is stuck."""
_BUFFER_BYTES: Final = 16 << 20
"""Room for the answers to two batches: who asks takes them only when it has asked everything."""
_FRAME_BYTES: Final = 64 << 10
"""A frame of this size lies whole in the socket: the child finds the next one there when it has done with one."""


class ChildResealer:
    """One child, and the two pages shared with it."""

    def __init__(self, passage: Passage, child: Child, pages: tuple[KeyMemory, KeyMemory]) -> None:
        """Private: use `start`."""
        self._passage = passage
        self._child = child
        self._pages = pages
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._asking, self._hearing = asyncio.Lock(), asyncio.Lock()
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(Done)
        self._closing: asyncio.Task[None] | None = None

    @property
    def passage(self) -> Passage:
        """See Resealer."""
        return self._passage

    @classmethod
    async def start(cls, passage: Passage, ring: KeyRing) -> Self:
        """Start a child with the keys of a passage.

        Raises:
            ResealerLostError: it does not start.
            SettingError: no more memory can be locked.
            DamagedKeyError: a key is not the one its check value was made of.
        """
        pages: list[KeyMemory] = []
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                pages.append(_lent(ring.record(passage.before)))
                pages.append(_lent(ring.active_record.key))
                descriptors = (theirs.fileno(), *(page.descriptor() for page in pages))
                child = Child("spike.nexus.reencryption_child", descriptors)
        except BaseException:
            ours.close()
            for page in pages:
                page.wipe()
            raise
        started = cls(passage, child, (pages[0], pages[1]))
        try:
            await started._meet(ours)
        except BaseException:
            ours.close()
            await started.close()
            raise
        return started

    async def _meet(self, ours: socket.socket) -> None:
        self._reader, self._writer = await asyncio.open_connection(sock=ours, limit=_BUFFER_BYTES)
        (answer,) = await self._ask([Begin(self._passage)], READY_S)
        _require_sound(answer)

    async def reseal(self, kind: Kind, records: Sequence[Record]) -> Sequence[bytes | Reason]:
        """See Resealer. The next batch may be handed over while this one is in work: the child never waits for it.

        A cancelled call leaves an answer behind that nobody takes: the child must be closed then.
        """
        batches = [
            Batch(kind, [(it.id.key, it.id.version, it.blob) for it in part])
            for part in _parts(records)
        ]
        done: list[bytes | Reason] = []
        for each in await self._ask(batches, ANSWER_S):
            _require_sound(each)
            done += [each.failed.get(at, blob) for at, blob in enumerate(each.blobs)]
        if len(done) != len(records):
            raise ResealerLostError("the process that re-encrypts answered another question")
        return done

    async def _ask(self, questions: Sequence[Begin | Batch], patience_s: float) -> list[Done]:
        try:
            async with asyncio.timeout(patience_s):
                # Answers come in the order of the questions, and these locks are held in the order they were asked for.
                async with self._asking:
                    for question in questions:
                        raw = self._encoder.encode(question)
                        self._writer.write(LENGTH.pack(len(raw)) + raw)
                    await self._writer.drain()
                async with self._hearing:
                    return [self._decoder.decode(await self._answer()) for _ in questions]
        except (OSError, asyncio.IncompleteReadError, msgspec.DecodeError) as error:
            raise ResealerLostError("the process that re-encrypts has ended or is stuck") from error

    async def _answer(self) -> bytes:
        (length,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
        if length > FRAME_LIMIT_BYTES:
            raise ResealerLostError("the process that re-encrypts gave an impossible answer")
        return await self._reader.readexactly(length)

    async def close(self) -> None:
        """End the child, then wipe the shared pages. Idempotent; goes on to its end when it is cancelled."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        if hasattr(self, "_writer"):
            self._writer.close()
        try:
            await self._child.end()
        finally:
            for page in self._pages:
                page.wipe()


def _parts(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """Give the records in parts of about a frame each."""
    begin = size_bytes = 0
    for end, record in enumerate(records, 1):
        size_bytes += len(record.blob)
        if size_bytes >= _FRAME_BYTES or end == len(records):
            yield records[begin:end]
            begin, size_bytes = end, 0


def _lent(key: KeyMemory) -> KeyMemory:
    """Return a copy of a key in a shared locked page."""
    page = KeyMemory.allocate_shareable(KEY_SIZE_BYTES)
    with key.view() as source, page.view() as target:
        target[:] = source
    return page


def _require_sound(done: Done) -> None:
    if done.damaged:
        raise DamagedKeyError(
            f"a key, as lent for re-encryption, is not what it was: {done.damaged}"
        )
