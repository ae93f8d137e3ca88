"""The parent's side of the password child: starts it, hands it what is sealed, takes keys from the shared pages.

Nexus sees a password only as the ciphertext it was sealed in. At most SESSION_LIMIT children wait at a time, and one
derivation runs at a time, whoever asks.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from dataclasses import dataclass
from typing import Final

import msgspec

from spike.lifecycle.refusal import Reason, RefusalError
from spike.memory.key_memory import KeyMemory
from spike.nexus.child import Child
from spike.nexus.password_child import (
    KEY_SIZE_BYTES,
    LIFE_S,
    Answer,
    Derive,
    FromSecret,
    Job,
    Open,
)

SESSION_LIMIT: Final = 4
READY_S: Final = 30
_LINE_LIMIT_BYTES: Final = 1 << 20


@dataclass(slots=True)
class PasswordSession:
    """One child and the two pages shared with it."""

    id: str
    actor: str
    public: bytes
    _child: Child
    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter
    _auth: KeyMemory
    _root: KeyMemory
    _derivation: asyncio.Lock
    _life_s: float

    async def derive(self, job: Derive) -> bytes:
        """Return the public key the password gives with the job's salt.

        Raises:
            RefusalError: WEAK_PASSWORD with the reason, or EXPIRED when the child is gone or the password was not
                sealed to it.
        """
        async with self._derivation:
            answer = await self._ask(job)
        match answer.answer:
            case "derived":
                return answer.public
            case "weak":
                raise RefusalError(
                    Reason.WEAK_PASSWORD,
                    f"the password is refused: {answer.message}",
                    answer.next_step,
                )
            case _:
                raise _expired()

    async def unlock(self, secret: KeyMemory, store_id: bytes, slot_id: bytes) -> bytes:
        """Return the public key that a slot secret (32 bytes, which stays the caller's) gives.

        Raises:
            RefusalError: EXPIRED when the child is gone.
        """
        with secret.view() as source, self._root.view() as target:
            target[:] = source
        answer = await self._ask(FromSecret(store_id=store_id, slot_id=slot_id))
        if answer.answer != "derived":
            raise _expired()
        return answer.public

    async def open(self, header: bytes, sealed: bytes, tag: bytes) -> KeyMemory:
        """Return the root key of a sealed copy, which is the caller's to wipe.

        Raises:
            RefusalError: PLANTED when the copy is not authentic, DAMAGED when it is and does not open.
        """
        answer = await self._ask(Open(header=header, sealed=sealed, tag_bytes=tag))
        match answer.answer:
            case "opened":
                return _taken(self._root)
            case "not-authentic":
                raise RefusalError(
                    Reason.PLANTED,
                    "the sealed root key in the slot is not authentic: it was changed, or planted",
                    "restore from another copy: spike restore --backup FILE",
                )
            case _:
                raise RefusalError(
                    Reason.DAMAGED,
                    "the sealed root key in the slot does not open",
                    "restore from another copy: spike restore --backup FILE",
                )

    def take_auth(self) -> KeyMemory:
        """Return the slot's backup-auth key as the child left it."""
        return _taken(self._auth)

    async def _ask(self, job: Job) -> Answer:
        try:
            # The child ends by itself before that; one that cannot must not hold the vault's lock for ever.
            async with asyncio.timeout(self._life_s):
                self._writer.write(msgspec.json.encode(job) + b"\n")
                await self._writer.drain()
                return await _read_answer(self._reader)
        except (OSError, asyncio.IncompleteReadError) as error:
            raise _expired() from error

    async def close(self) -> None:
        """End the child and wipe the shared pages. Idempotent."""
        self._writer.close()
        try:
            await self._child.end()
        finally:
            self._auth.wipe()
            self._root.wipe()


class PasswordDesk:
    """Hands out sessions and takes them back by their id."""

    def __init__(self, life_s: float = LIFE_S) -> None:
        self._life_s = life_s
        self._waiting: dict[str, tuple[PasswordSession, asyncio.TimerHandle]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._beginning = asyncio.Lock()
        self._derivation = asyncio.Lock()

    async def begin(self, actor: str) -> PasswordSession:
        """Start a child for `actor` (a SPIFFE ID), who alone can go on with it.

        One call takes two passwords at most, so of the same actor's only the newest one before stays beside it.

        Raises:
            RefusalError: BUSY when too many wait.
        """
        # One at a time: whoever is let in is counted before the next one.
        async with self._beginning:
            earlier = [s.id for s, _ in self._waiting.values() if s.actor == actor]
            for session_id in earlier[:-1]:
                self._expire(session_id)
            if len(self._waiting) >= SESSION_LIMIT:
                raise RefusalError(
                    Reason.BUSY, "too many passwords are awaited", "try again in two minutes"
                )
            session = await _start(actor, self._derivation, self._life_s)
            timer = asyncio.get_running_loop().call_later(self._life_s, self._expire, session.id)
            self._waiting[session.id] = (session, timer)
            return session

    async def begin_without_password(self, actor: str) -> PasswordSession:
        """Start a child that is to open a slot by its secret; it is the caller's to close.

        Raises:
            RefusalError: BUSY when it does not start.
        """
        return await _start(actor, self._derivation, self._life_s)

    def take(self, session_id: str, actor: str) -> PasswordSession:
        """Return the session, which is the caller's to close.

        Raises:
            RefusalError: EXPIRED when there is none of that id and actor.
        """
        held = self._waiting.get(session_id)
        if held is None or held[0].actor != actor:
            raise _expired()
        del self._waiting[session_id]
        held[1].cancel()
        return held[0]

    async def close(self) -> None:
        """End every child that waits."""
        for session_id in list(self._waiting):
            self._expire(session_id)
        await asyncio.gather(*self._closing)

    def _expire(self, session_id: str) -> None:
        held = self._waiting.pop(session_id, None)
        if held is not None:
            held[1].cancel()
            task = asyncio.ensure_future(held[0].close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


async def _start(actor: str, derivation: asyncio.Lock, life_s: float) -> PasswordSession:
    auth = KeyMemory.allocate_shareable(KEY_SIZE_BYTES)
    root = KeyMemory.allocate_shareable(KEY_SIZE_BYTES)
    ours, theirs = socket.socketpair()
    child: Child | None = None
    try:
        with theirs:
            descriptors = (theirs.fileno(), auth.descriptor(), root.descriptor())
            child = Child("spike.nexus.password_child", descriptors)
        reader, writer = await asyncio.open_connection(sock=ours, limit=_LINE_LIMIT_BYTES)
    except BaseException:
        ours.close()
        auth.wipe()
        root.wipe()
        if child is not None:
            await child.end()
        raise
    session = PasswordSession(
        secrets.token_hex(16), actor, b"", child, reader, writer, auth, root, derivation, life_s
    )
    try:
        async with asyncio.timeout(READY_S):
            session.public = (await _read_answer(reader)).public
    except (OSError, asyncio.IncompleteReadError) as error:
        await session.close()
        raise RefusalError(
            Reason.BUSY, "the process a password is opened in did not start", "try again"
        ) from error
    except BaseException:
        await session.close()
        raise
    return session


async def _read_answer(reader: asyncio.StreamReader) -> Answer:
    line = await reader.readuntil(b"\n")
    return msgspec.json.decode(line, type=Answer)


def _taken(shared: KeyMemory) -> KeyMemory:
    """Move a key from a shared page into memory of our own."""
    own = KeyMemory.allocate(shared.size_bytes)
    with shared.view() as source, own.view() as target:
        target[:] = source
        source[:] = bytes(len(source))
    return own


def _expired() -> RefusalError:
    return RefusalError(
        Reason.EXPIRED, "the password was sealed to a key that is no longer there", "run it again"
    )
