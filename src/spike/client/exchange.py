"""One HTTP exchange over a connection of its own, on an event loop: POST, read the answer, hang up."""

from __future__ import annotations

import asyncio
import ssl
from typing import Final

import httptools

from spike.client.pool import Reply
from spike.client.setting import Address
from spike.error import FormatError

_READ_BYTES: Final = 16 * 1024
_HEAD_LIMIT_BYTES: Final = 16 * 1024


async def post(
    address: Address, context: ssl.SSLContext, target: str, body: bytes, limit_bytes: int
) -> Reply:
    """Send `body` as JSON and return the answer, however long that takes: the caller sets a deadline.

    Raises:
        OSError: no connection, or it broke; also every error of TLS, and a peer that is refused.
        FormatError: the answer is not HTTP/1.1, has no length, or a body of more than `limit_bytes`.
    """
    reader, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
    try:
        writer.write(_head(address, target, len(body)) + body)
        await writer.drain()
        framing = ReplyFraming(limit_bytes)
        while (reply := framing.reply) is None:
            part = await reader.read(_READ_BYTES)
            if not part:
                raise ConnectionAbortedError("the connection ended before the answer did")
            framing.feed_untrusted(part)
        return reply
    finally:
        # Not close(): that would wait for the peer to agree.
        writer.transport.abort()


def _head(address: Address, target: str, length: int) -> bytes:
    host = str(address).removeprefix("https://")
    return (
        f"POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\nConnection: close\r\n\r\n"
    ).encode("ascii")


class ReplyFraming:
    """Reads one HTTP answer out of bytes; what comes after it is let be."""

    def __init__(self, limit_bytes: int) -> None:
        self.reply: Reply | None = None
        self._limit_bytes = limit_bytes
        self._parser = httptools.HttpResponseParser(self)
        self._body = bytearray()
        self._silent_bytes = 0

    def feed_untrusted(self, data: bytes) -> None:
        """Read what has come; `reply` is there once it is whole.

        Raises:
            FormatError: it is no HTTP/1.1 answer, or larger than allowed. Nothing more may be fed.
        """
        # What the parser swallows without a word it may be collecting: a header, a chunk's extension.
        self._silent_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if self.reply is not None:
                return
            if isinstance(error.__context__, FormatError):
                raise error.__context__ from None
            raise FormatError("the answer is not HTTP/1.1") from None
        if self.reply is None and self._silent_bytes > _HEAD_LIMIT_BYTES:
            raise FormatError(f"the answer's head has more than {_HEAD_LIMIT_BYTES} bytes")

    # What follows is called by httptools, by these names.

    def on_header(self, name: bytes, value: bytes) -> None:
        """Refuse a body that announces itself as too large."""
        if name.lower() == b"content-length" and not _fits(value, self._limit_bytes):
            raise FormatError(f"the answer has more than {self._limit_bytes} bytes")

    def on_body(self, part: bytes) -> None:
        """Collect the body up to its limit."""
        if self.reply is not None:
            return
        self._silent_bytes = 0
        self._body += part
        if len(self._body) > self._limit_bytes:
            raise FormatError(f"the answer has more than {self._limit_bytes} bytes")

    def on_message_complete(self) -> None:
        """Keep the first answer; a second one nobody asked for."""
        if self.reply is None:
            self.reply = Reply(self._parser.get_status_code(), bytes(self._body))


def _fits(value: bytes, limit_bytes: int) -> bool:
    digits = value.strip()
    return not digits.isdigit() or (len(digits) < 20 and int(digits) <= limit_bytes)
