"""What was tried against the server from outside and got further than it should have."""

from __future__ import annotations

import asyncio
import ctypes
import socket
import ssl

from server_kit import Echo, running

_ENOUGH = 250_000
_UPDATE_REQUESTED = 1


class _Connection(ctypes.Structure):
    """The beginning of CPython's `PySSLSocket`: the standard library cannot ask for a KeyUpdate."""

    _fields_ = (
        ("count", ctypes.c_ssize_t),
        ("kind", ctypes.c_void_p),
        ("socket", ctypes.c_void_p),
        ("ssl", ctypes.c_void_p),
    )


def _ask_for_updates(port: int, context: ssl.SSLContext) -> int:
    """Ask for KeyUpdates and read no answer; return how many went out before the server hung up."""
    library = ctypes.CDLL(getattr(ssl, "_ssl").__file__)  # noqa: B009  mypy's doing
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.connect(("127.0.0.1", port))
    with context.wrap_socket(plain) as wire:
        inner = getattr(wire, "_sslobj")  # noqa: B009  mypy's doing
        pointer = ctypes.c_void_p(_Connection.from_address(id(inner)).ssl)
        for number in range(_ENOUGH):
            if library.SSL_key_update(pointer, _UPDATE_REQUESTED) != 1:
                return number
            if library.SSL_do_handshake(pointer) != 1:
                return number
    return _ENOUGH


async def test_key_updates_whose_answers_nobody_reads_end_the_connection() -> None:
    async with running(Echo()) as site:
        asked = await asyncio.to_thread(_ask_for_updates, site.server.port, site.context())
        # The kernel's buffers take some before the first one waits in ours.
        assert 1_000 < asked < _ENOUGH
        assert await site.lives()
