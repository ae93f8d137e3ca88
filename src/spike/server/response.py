"""Answers, and how they look on the wire.

Source: RFC 9110, RFC 9112; the header fields of JSON answers are those that Go's SPIKE sends.
"""

from __future__ import annotations

import re
from email.utils import formatdate
from http import HTTPStatus
from typing import Final, NamedTuple, NewType

# Header fields as they stand on the wire, each ended by CRLF; made by `header_block` only.
HeaderBlock = NewType("HeaderBlock", bytes)

# RFC 9110, sections 5.1 and 5.5: what may stand in a name and in a value. Used with fullmatch.
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(r"[\x20-\x7e]*")


def header_block(*fields: tuple[str, str]) -> HeaderBlock:
    """Return header fields in wire form.

    Raises:
        ValueError: a name or value that could end its line, or is not ASCII.
    """
    for name, value in fields:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError(f"not a header field: {name!r}")
    return HeaderBlock("".join(f"{name}: {value}\r\n" for name, value in fields).encode("ascii"))


_NEVER_STORED: Final = (
    ("Cache-Control", "no-store, no-cache, must-revalidate, private"),
    ("Pragma", "no-cache"),
    ("Expires", "0"),
)
JSON_HEADERS: Final = header_block(("Content-Type", "application/json"), *_NEVER_STORED)
BINARY_HEADERS: Final = header_block(("Content-Type", "application/octet-stream"), *_NEVER_STORED)


class Response(NamedTuple):
    """One answer. With `close`, the connection ends after it."""

    status: int
    body: bytes = b"{}"
    headers: HeaderBlock = JSON_HEADERS
    close: bool = False


BAD_REQUEST: Final = Response(400, b'{"err":"api_bad_request"}')
INTERNAL_ERROR: Final = Response(500, b'{"err":"api_internal_error"}')

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

# A status outside of this table is a fault of ours, not an answer.
_STATUS_LINES: Final[dict[int, bytes]] = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii")
    for status in HTTPStatus
    if status >= 200 and status not in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
}
_CLOSE: Final = b"Connection: close\r\n"


def encode_head(response: Response, date: bytes, closing: bool) -> bytes:
    """Return all that stands before the body. HTTP/1.0 peers get the same: RFC 9110, section 2.5.

    Raises:
        KeyError: the status is none that can be answered with a body.
    """
    return b"%b%b%bContent-Length: %d\r\n%b\r\n" % (
        _STATUS_LINES[response.status],
        response.headers,
        date,
        len(response.body),
        _CLOSE if closing else b"",
    )


def date_field(now_s: float) -> bytes:
    """Return the header field Date, which RFC 9110, section 6.6.1 wants of servers with a clock."""
    return f"Date: {formatdate(now_s, usegmt=True)}\r\n".encode("ascii")
