"""The control socket: what the owner of Authority may ask, and the answers.

Bytes are read with a limit, one request at a time per connection; what is malformed gets a clear
answer. Descriptors that come with a request are closed here, except the pidfd of a grant.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from dataclasses import dataclass
from typing import Final

from spike.authority.admission import Admission, Limit
from spike.authority.desk import Desk
from spike.authority.grant import LauncherNumber
from spike.authority.process import ProcessHandle, attest
from spike.client.control import (
    REQUEST_LIMIT_BYTES,
    Answer,
    Fault,
    decode_request_untrusted,
    encode_line,
)
from spike.error import (
    InputError,
    NotFoundError,
    SettingError,
    SpikeError,
)

# Launchers keep a connection each.
CONNECTION_LIMIT: Final = Limit(of_user=256, of_all=512)
ANSWER_TIMEOUT_S: Final = 10.0
REFUSAL_TIMEOUT_S: Final = 1.0

_PIECE_BYTES: Final = 64 * 1024
# One is the most a request may bring; a few more are taken to be closed and complained about.
_DESCRIPTOR_LIMIT: Final = 4

_log = logging.getLogger(__name__)


class ControlServer:
    """Takes connections of the owner and root from a listening socket."""

    def __init__(self, desk: Desk, owner_uid: int) -> None:
        self._desk = desk
        self._owner_uid = owner_uid
        self._admission = Admission(CONNECTION_LIMIT)
        self._conversations: set[asyncio.Task[None]] = set()

    async def serve(self, listener: socket.socket) -> None:
        """Take connections until cancelled; then hang up on all."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    connection, _ = await loop.sock_accept(listener)
                except OSError as error:
                    # Out of descriptors, for one: others will be closed.
                    _log.warning("a control connection was not taken: %s", error.strerror)
                    await asyncio.sleep(0.1)
                    continue
                task = loop.create_task(self._converse(connection))
                self._conversations.add(task)
                task.add_done_callback(self._conversations.discard)
        finally:
            for task in self._conversations:
                task.cancel()
            await asyncio.gather(*self._conversations, return_exceptions=True)

    async def _converse(self, connection: socket.socket) -> None:
        with connection:
            connection.setblocking(False)
            try:
                caller = attest(connection)
            except OSError:
                return
            if caller.process is not None:
                caller.process.close()
            if caller.uid not in {0, self._owner_uid}:
                _log.warning("uid %d may not use the control socket", caller.uid)
                await _refuse(
                    connection, Fault("denied", "only Authority's owner and root may ask")
                )
                return
            with self._admission.place(caller.uid) as entered:
                if not entered:
                    await _refuse(connection, Fault("denied", "too many control connections"))
                    return
                launcher = self._desk.office.open_launcher()
                try:
                    await self._answer_all(connection, launcher)
                except (OSError, TimeoutError) as error:
                    _log.info("a control connection broke: %s", type(error).__name__)
                finally:
                    self._desk.office.close_launcher(launcher)

    async def _answer_all(self, connection: socket.socket, launcher: LauncherNumber) -> None:
        reader = _LineReader(connection)
        try:
            while (line := await reader.next()) is not None:
                await _send(connection, self._answer(line, launcher))
        except InputError as error:
            # The end of this request cannot be found, so no other can be read.
            await _refuse(connection, Fault("input", error.message))
        finally:
            reader.close()

    def _answer(self, line: _Line, launcher: LauncherNumber) -> Answer:
        process: ProcessHandle | None = None
        try:
            process = line.take_process()
            request = decode_request_untrusted(line.content)
            return self._desk.answer(request, process, launcher)
        except SpikeError as error:
            if process is not None:
                process.close()
            return _fault_of(error)
        except Exception:  # noqa: BLE001  a fault of ours must not end the others' identities
            if process is not None:
                process.close()
            _log.exception("a control request failed")
            return Fault("setting", "Authority failed at this request", "look at its log")
        finally:
            line.close()


def _fault_of(error: SpikeError) -> Fault:
    match error:
        case NotFoundError():
            return Fault("not-found", error.message, error.next_step)
        case SettingError():
            return Fault("setting", error.message, error.next_step)
        case _:
            return Fault("input", error.message, error.next_step)


async def _send(connection: socket.socket, answer: Answer) -> None:
    async with asyncio.timeout(ANSWER_TIMEOUT_S):
        await asyncio.get_running_loop().sock_sendall(connection, encode_line(answer))


async def _refuse(connection: socket.socket, fault: Fault) -> None:
    """Say why nothing more is read, and give the other side a moment to take it.

    Closing while something unread has come makes the kernel throw away the answer too.
    """
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError, TimeoutError):
        await _send(connection, fault)
        connection.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(REFUSAL_TIMEOUT_S):
            while await loop.sock_recv(connection, _PIECE_BYTES):
                pass


@dataclass(slots=True)
class _Line:
    """One request and the descriptors that came with it."""

    content: bytes
    descriptors: list[int]

    def take_process(self) -> ProcessHandle | None:
        """Return the process whose pidfd came with the line, if any.

        Raises:
            InputError: more than one descriptor, or one that is no pidfd of a living process.
        """
        if not self.descriptors:
            return None
        if len(self.descriptors) > 1:
            raise InputError("a request comes with one descriptor at most")
        process = ProcessHandle(self.descriptors[0])
        self.descriptors.clear()
        return process

    def close(self) -> None:
        """Close what was not taken."""
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors.clear()


class _LineReader:
    """Reads requests from a socket, with their descriptors."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._read = bytearray()
        self._descriptors: list[int] = []

    async def next(self) -> _Line | None:
        """Return the next request, or None when the other side has hung up.

        Raises:
            InputError: a request has more than 160 KiB, or more descriptors than any may have.
            OSError: the connection broke.
        """
        while (end := self._read.find(b"\n")) < 0:
            if len(self._read) > REQUEST_LIMIT_BYTES:
                raise InputError(f"a request has at most {REQUEST_LIMIT_BYTES} bytes")
            if not await self._receive():
                return None
        line = _Line(bytes(self._read[:end]), self._descriptors)
        del self._read[: end + 1]
        self._descriptors = []
        return line

    def close(self) -> None:
        """Close descriptors of a request that never ended."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []

    async def _receive(self) -> bool:
        await _readable(self._connection)
        try:
            piece, descriptors, flags, _ = socket.recv_fds(
                self._connection, _PIECE_BYTES, _DESCRIPTOR_LIMIT, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return True
        self._descriptors += descriptors
        if flags & socket.MSG_CTRUNC or len(self._descriptors) > _DESCRIPTOR_LIMIT:
            raise InputError("a request comes with one descriptor at most")
        self._read += piece
        return bool(piece)


async def _readable(connection: socket.socket) -> None:
    """Wait until there is something to read; asyncio itself cannot receive descriptors."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(connection.fileno(), wake)
    try:
        await ready
    finally:
        loop.remove_reader(connection.fileno())
