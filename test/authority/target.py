"""Fuzz targets of Authority: each takes any bytes and raises nothing but its documented error."""

from __future__ import annotations

from collections.abc import Callable

from spike.authority.book import (
    BOOK_LIMIT_BYTES,
    encode_book,
    parse_book_untrusted,
    parse_bundle_pem_untrusted,
    pem_of,
)
from spike.authority.grant import recall_untrusted
from spike.authority.process import Uid
from spike.client.control import (
    decode_answer_untrusted,
    decode_request_untrusted,
    encode_line,
)
from spike.error import AnswerError, FormatError, InputError
from spike.spiffe.id import TrustDomain

NOBODY = Uid(65534)


def control_request(data: bytes) -> None:
    """Refused with InputError, or a request that comes back when written and read."""
    try:
        request = decode_request_untrusted(data)
    except InputError:
        return
    assert decode_request_untrusted(encode_line(request)) == request


def control_answer(data: bytes) -> None:
    """Refused with AnswerError, or an answer that comes back when written and read."""
    try:
        answer = decode_answer_untrusted(data)
    except AnswerError:
        return
    assert encode_line(decode_answer_untrusted(encode_line(answer))) == encode_line(answer)


def entry_file(data: bytes) -> None:
    """Refused with FormatError, or a book that is written in one form and read back the same."""
    try:
        book = parse_book_untrusted(data, NOBODY)
    except FormatError:
        return
    written = encode_book(book)
    assert len(written) <= BOOK_LIMIT_BYTES
    assert parse_book_untrusted(written, NOBODY) == book
    assert all(0 <= each.uid < 1 << 32 and each.uid != NOBODY for each in book.entries)
    assert all(each.identity.id.trust_domain == book.trust_domain for each in book.entries)


def bundle(data: bytes) -> None:
    """Refused with FormatError, or CA certificates that come back when written and read."""
    domain = TrustDomain("example.org")
    try:
        found = parse_bundle_pem_untrusted(domain, data.decode("utf-8", "replace"))
    except FormatError:
        return
    assert parse_bundle_pem_untrusted(domain, pem_of(found.authorities)) == found


def process_memory(data: bytes) -> None:
    """Refused with FormatError, or processes that live now."""
    try:
        processes = recall_untrusted(data, "boot")
    except FormatError:
        return
    for process in processes:
        process.close()


TARGETS: dict[str, Callable[[bytes], None]] = {
    "control-request": control_request,
    "control-answer": control_answer,
    "entry-file": entry_file,
    "bundle": bundle,
    "process-memory": process_memory,
}
