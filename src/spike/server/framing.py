"""HTTP/1.1 requests out of bytes. No I/O: what is found goes to a `Sink`.

llhttp does the reading, in its strict mode. It refuses what request smuggling lives on: two
lengths, a length beside a transfer coding, folded lines, bare line feeds, spaces before a colon.
What it lets through and this server does not understand is refused here: other versions of HTTP,
other transfer codings than `chunked`, an upgrade that has a body (llhttp would not read it as one),
no Host or two.

Source: RFC 9112.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

import httptools

from spike.error import InputError

# What is given to the parser at once.
_PIECE_BYTES: Final = 16 * 1024


class FramingError(InputError):
    """The bytes are no request that is understood here; the connection cannot go on."""


class PipelineError(FramingError):
    """A request came before the last one was answered."""


class Head(NamedTuple):
    """A request without its body. `length` is None for a chunked body."""

    method: str
    path: str
    query: bytes
    headers: dict[bytes, bytes]  # names in lower case; of fields with one name, the first
    length: int | None
    keep_alive: bool
    awaits_continue: bool


class Sink(Protocol):
    """Takes what the framing finds, in this order."""

    def request_began(self) -> None:
        """Take note of the first byte of a request.

        Raises:
            PipelineError: the request before is not answered yet.
        """

    def head_came(self, head: Head) -> None:
        """Take the head."""

    def body_came(self, part: bytes) -> None:
        """Take a part of the body, not empty."""

    def request_ended(self) -> None:
        """Take note that the body is whole."""


class RequestFraming:
    """Reads the requests of one connection, one after another."""

    __slots__ = (
        "_count_bytes",
        "_ended",
        "_headers",
        "_hosts",
        "_in_head",
        "_max_head_bytes",
        "_parser",
        "_silent_bytes",
        "_sink",
        "_url",
    )

    def __init__(self, sink: Sink, max_head_bytes: int) -> None:
        self._sink = sink
        self._max_head_bytes = max_head_bytes
        self._parser = httptools.HttpRequestParser(self)
        self._ended = False
        self._silent_bytes = 0
        self._start()

    def _start(self) -> None:
        self._headers: dict[bytes, bytes] = {}
        self._url = b""
        self._count_bytes = 0
        self._hosts = 0
        self._in_head = True

    def feed_untrusted(self, data: bytes | memoryview) -> None:
        """Read what has come; nothing of `data` is kept, only copies.

        After an error, or an upgrade, nothing more is read.

        Raises:
            FramingError: no request that is understood here, or a head over its limit.
            PipelineError: a request came before the last one was answered.
        """
        if len(data) <= _PIECE_BYTES:
            self._feed(data)
        else:
            whole = memoryview(data)
            for start in range(0, len(data), _PIECE_BYTES):
                self._feed(whole[start : start + _PIECE_BYTES])

    def close(self) -> None:
        """Read nothing more, and let go of parser and sink, which hold this object in turn."""
        self._ended = True
        del self._parser, self._sink

    def _feed(self, data: bytes | memoryview) -> None:
        if self._ended:
            return
        # What the parser swallows without a word it may be collecting: a header value, an endless
        # chunk extension, empty lines. Any report of progress in the body sets this back, so up to
        # one piece is held beyond the limit.
        self._silent_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Upgrades are not offered; the request is answered as if none had been asked for, and
            # since llhttp leaves the protocol here, the connection ends after it.
            self._ended = True
        except httptools.HttpParserCallbackError as error:
            self._ended = True
            if isinstance(error.__context__, FramingError):
                raise error.__context__ from None
            raise
        except httptools.HttpParserError as error:
            self._ended = True
            raise FramingError(f"not HTTP/1.1: {error}") from None
        if self._silent_bytes > self._max_head_bytes:
            self._ended = True
            raise FramingError(f"a request's head has at most {self._max_head_bytes} bytes")

    def _count(self, size_bytes: int) -> None:
        self._count_bytes += size_bytes
        if self._count_bytes > self._max_head_bytes:
            raise FramingError(f"a request's head has at most {self._max_head_bytes} bytes")

    # What follows is called by httptools, by these names.

    def on_message_begin(self) -> None:
        """Start over."""
        self._sink.request_began()
        self._start()

    def on_url(self, url: bytes) -> None:
        """Collect the request target, which may come in pieces."""
        self._count(len(url))
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a field. Trailers are counted and dropped: none means anything here."""
        self._count(len(name) + len(value) + 4)
        if not self._in_head:
            return
        name = name.lower()
        if name == b"host":
            self._hosts += 1
        self._headers.setdefault(name, value)

    def on_headers_complete(self) -> None:
        """Check what llhttp does not, and hand the head over."""
        self._in_head = False
        headers = self._headers
        parser = self._parser
        version = parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise FramingError("neither HTTP/1.1 nor HTTP/1.0")
        if version == "1.1" and self._hosts != 1:
            raise FramingError("not exactly one Host")  # RFC 9112, section 3.2
        length: int | None = int(headers.get(b"content-length", b"0"))
        coding = headers.get(b"transfer-encoding")
        if coding is not None:
            if coding.strip().lower() != b"chunked" or version == "1.0":
                raise FramingError("another transfer coding than chunked, or one in HTTP/1.0")
            length = None
        upgrade = parser.should_upgrade()
        if upgrade and length != 0:
            raise FramingError("an upgrade with a body")
        path, _, query = self._url.partition(b"?")
        self._sink.head_came(
            Head(
                parser.get_method().decode("ascii"),
                path.decode("latin-1"),
                query,
                headers,
                length,
                not upgrade and parser.should_keep_alive(),
                version == "1.1" and headers.get(b"expect", b"").lower() == b"100-continue",
            )
        )

    def on_chunk_header(self) -> None:
        """Take a new chunk as progress."""
        self._silent_bytes = 0

    def on_body(self, part: bytes) -> None:
        """Pass a part of the body on; llhttp also reports empty ones, which are no progress."""
        if part:
            self._silent_bytes = 0
            self._sink.body_came(part)

    def on_message_complete(self) -> None:
        """Pass on that the request is whole."""
        self._silent_bytes = 0
        self._sink.request_ended()
