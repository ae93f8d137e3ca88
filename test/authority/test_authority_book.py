"""Entries and foreign bundles: their rules and their file."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authority_kit import RESTORE, SUPERUSER, WEB
from spiffe_kit import Ca
from spike.authority.book import (
    BUNDLE_LIMIT,
    ENTRY_LIMIT,
    PEM_LIMIT_BYTES,
    Book,
    Entry,
    Identity,
    encode_book,
    parse_book_untrusted,
    parse_bundle_pem_untrusted,
    pem_of,
    role_by_launch_only,
)
from spike.authority.process import Uid
from spike.error import FormatError, InputError, NewerFormatError, NotFoundError
from spike.spiffe.id import SpiffeId, TrustDomain

DOMAIN = TrustDomain("spike.ist")
NOBODY = Uid(65534)
EMPTY = Book(DOMAIN, NOBODY)
ME = Uid(1000)


def entry(spiffe_id: str, uid: int = ME, hint: str = "") -> Entry:
    return Entry(Uid(uid), Identity(SpiffeId.parse_untrusted(spiffe_id), hint))


def ids_of(book: Book, uid: Uid = ME) -> list[str]:
    return [str(each.id) for each in book.identities_of(uid)]


def test_the_first_entry_is_the_default_and_another_can_be_put_first() -> None:
    book = EMPTY.with_entry(entry(SUPERUSER)).with_entry(entry(WEB))
    assert ids_of(book) == [SUPERUSER, WEB]
    book = EMPTY.with_entry(entry(SUPERUSER)).with_entry(entry(WEB), "first")
    assert ids_of(book) == [WEB, SUPERUSER]


def test_a_user_without_an_entry_gets_nothing() -> None:
    assert ids_of(EMPTY.with_entry(entry(SUPERUSER)), Uid(1001)) == []


def test_removing_takes_one_entry_of_one_user() -> None:
    book = EMPTY.with_entry(entry(WEB)).with_entry(entry(WEB, 1001)).with_entry(entry(SUPERUSER))
    book = book.without_entry(ME, SpiffeId.parse_untrusted(WEB))
    assert ids_of(book) == [SUPERUSER]
    assert ids_of(book, Uid(1001)) == [WEB]
    with pytest.raises(NotFoundError, match="no entry"):
        book.without_entry(ME, SpiffeId.parse_untrusted(WEB))


REFUSED = {
    "restore role": (entry(RESTORE), "no entry gives the restore role"),
    "recover role below": (
        entry("spiffe://spike.ist/spike/pilot/role/recover/anna"),
        "no entry gives the recover role",
    ),
    "restore role of a tenant's root": (
        entry("spiffe://spike.ist/tenant/a/spike/pilot/role/restore"),
        "no entry gives the restore role",
    ),
    "foreign trust domain": (entry("spiffe://other.org/web"), "not in this Authority's"),
    "trust domain alone": (entry("spiffe://spike.ist"), "instead of a workload"),
    "negative uid": (entry(WEB, -1), "a uid is a number"),
    "the kernel's no-change uid": (entry(WEB, (1 << 32) - 1), "a uid is a number"),
    "the overflow uid": (entry(WEB, NOBODY), "stands for every user"),
    "hint with a space": (entry(WEB, hint="a b"), "a hint has"),
    "hint with a newline": (entry(WEB, hint="a\n"), "a hint has"),
    "twice": (entry(SUPERUSER), "already"),
    "hint twice": (entry(WEB, hint="admin"), "has the hint"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_entry_is_refused(name: str) -> None:
    refused, why = REFUSED[name]
    book = EMPTY.with_entry(entry(SUPERUSER, hint="admin"))
    with pytest.raises(InputError, match=why):
        book.with_entry(refused)


@pytest.mark.parametrize(
    "path", ["/spike/pilot/role/restorer", "/pilot/role/restore", "/spike/pilot/role/superuser"]
)
def test_only_the_roles_themselves_are_by_launch_only(path: str) -> None:
    assert role_by_launch_only(SpiffeId(DOMAIN, path)) == ""


def test_a_foreign_bundle_is_added_replaced_and_removed() -> None:
    old, new = Ca("other.org").bundle, Ca("other.org").bundle
    book = EMPTY.with_bundle(old).with_bundle(new)
    assert book.bundles == (new,)
    assert book.without_bundle(TrustDomain("other.org")).bundles == ()
    with pytest.raises(NotFoundError, match="no foreign bundle"):
        EMPTY.without_bundle(TrustDomain("other.org"))
    with pytest.raises(InputError, match="own trust domain"):
        EMPTY.with_bundle(Ca("spike.ist").bundle)


def test_a_book_has_a_limit() -> None:
    book = EMPTY
    for number in range(BUNDLE_LIMIT):
        book = book.with_bundle(Ca(f"other{number}.org").bundle)
    with pytest.raises(InputError, match="bundles already"):
        book.with_bundle(Ca("another.org").bundle)
    book = Book(DOMAIN, NOBODY, tuple(entry(WEB, uid) for uid in range(ENTRY_LIMIT)))
    with pytest.raises(InputError, match="entries already"):
        book.with_entry(entry(WEB, 5000))


SEGMENT = st.text("abcXYZ019-_", min_size=1, max_size=8)


@given(
    st.lists(st.tuples(st.integers(0, 70_000), SEGMENT, st.text("ab.-_9", max_size=3)), max_size=8),
    st.booleans(),
)
def test_what_is_written_is_read_back(rows: list[tuple[int, str, str]], with_bundle: bool) -> None:
    book = EMPTY
    for uid, segment, hint in rows:
        try:
            book = book.with_entry(entry(f"spiffe://spike.ist/{segment}", uid, hint))
        except InputError:
            assert uid == NOBODY or any(each.uid == uid for each in book.entries)
    if with_bundle:
        book = book.with_bundle(FOREIGN.bundle)
    assert parse_book_untrusted(encode_book(book), NOBODY) == book


FOREIGN = Ca("other.org")


def file(**changes: Any) -> bytes:
    text: dict[str, Any] = {"format": 1, "trust_domain": "spike.ist", "entries": [], "bundles": {}}
    return json.dumps({**text, **changes}).encode()


MALFORMED = {
    "empty": (b"", "cannot be read"),
    "not JSON": (b"{", "cannot be read"),
    "two documents": (file() + b"{}", "cannot be read"),
    "an unknown field": (file(more=1), "cannot be read"),
    "deeply nested": (b"[" * 100_000, "cannot be read"),
    "an unknown format": (file(format=0), "unknown format"),
    "a trust domain that is none": (file(trust_domain="A"), "the trust domain of the entry file"),
    "an ID that is none": (file(entries=[{"uid": 1, "id": "web"}]), "entry 1 of the entry file"),
    "a role by launch only": (
        file(entries=[{"uid": 1, "id": WEB}, {"uid": 1, "id": RESTORE}]),
        "entry 2 of the entry file: no entry gives the restore role",
    ),
    "a uid as text": (file(entries=[{"uid": "1", "id": WEB}]), "cannot be read"),
    "a bundle that is none": (file(bundles={"other.org": "PEM"}), "a bundle of the entry file"),
    "too much": (b" " * (5 << 20), "has at most"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_file_is_refused_and_says_where(name: str) -> None:
    content, why = MALFORMED[name]
    with pytest.raises(FormatError, match=why):
        parse_book_untrusted(content, NOBODY)


def test_a_newer_format_names_itself_whatever_else_the_file_holds() -> None:
    with pytest.raises(NewerFormatError, match="format 7"):
        parse_book_untrusted(file(format=7, news=[1]), NOBODY)


def test_pem_is_read_with_other_text_around_it() -> None:
    text = "a comment\n" + pem_of((FOREIGN.cert,)) + "# end"
    found = parse_bundle_pem_untrusted(TrustDomain("other.org"), text)
    assert found.authorities == (FOREIGN.cert,)


DAMAGED = pem_of((FOREIGN.cert,)).replace("MI", "=I", 1)
BAD_PEM = {
    "nothing": ("", "is empty"),
    "a leaf": (pem_of(FOREIGN.svid("spiffe://other.org/web").chain), "no CA's"),
    "a private key": ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "is empty"),
    "damaged": (DAMAGED, "is damaged"),
    "too large": (pem_of((FOREIGN.cert,)) + " " * PEM_LIMIT_BYTES, "has at most"),
    "damaged beside a good one": (pem_of((FOREIGN.cert,)) + DAMAGED, "is damaged"),
}


@pytest.mark.parametrize("name", BAD_PEM)
def test_a_bundle_that_is_none_is_refused(name: str) -> None:
    text, why = BAD_PEM[name]
    with pytest.raises(FormatError, match=why):
        parse_bundle_pem_untrusted(TrustDomain("other.org"), text)


def test_a_bundle_that_would_be_too_large_in_the_file_is_refused() -> None:
    begin, *lines, end, _ = pem_of((FOREIGN.cert,)).split("\n")
    dense = f"{begin} {''.join(lines)}{end}"
    text = dense * (PEM_LIMIT_BYTES // len(dense))
    with pytest.raises(FormatError, match="has at most"):
        parse_bundle_pem_untrusted(TrustDomain("other.org"), text)
