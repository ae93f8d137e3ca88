"""The stored form of metadata and values: one text for each, damage named, secrets never repeated."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from size import size
from spike.error import FormatError, NewerFormatError
from spike.secret.encoding import (
    decode_meta_untrusted,
    decode_values_untrusted,
    encode_meta,
    encode_values,
)
from spike.secret.version import SecretMeta, Version, VersionId, VersionNumber
from spike.wire.go_time import UnixNs

A, B = VersionId("a" * 32), VersionId("b" * 32)
META = SecretMeta(
    (
        Version(VersionNumber(1), A, UnixNs(10), UnixNs(30)),
        Version(VersionNumber(2), B, UnixNs(20), None),
    ),
    10,
    UnixNs(10),
    UnixNs(30),
)
# Written down once and opened for good: format 1.
META_TEXT = b'[1,10,30,10,[[1,"%b",10,30],[2,"%b",20,null]]]' % (b"a" * 32, b"b" * 32)
VALUES_TEXT = '[1,{"a key":"","z":"ü\\n"}]'.encode()


def test_metadata_of_format_1_read_as_they_always_did() -> None:
    assert decode_meta_untrusted(META_TEXT) == META
    assert encode_meta(META) == META_TEXT


def test_values_of_format_1_read_as_they_always_did() -> None:
    values = {"z": "ü\n", "a key": ""}
    assert decode_values_untrusted(VALUES_TEXT) == values
    assert encode_values(values) == VALUES_TEXT


@pytest.mark.parametrize(
    "damaged",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{}", id="no array"),
        pytest.param(META_TEXT[:-1], id="cut"),
        pytest.param(META_TEXT + b"\n", id="trailing line feed"),
        pytest.param(META_TEXT.replace(b"10,30", b"10, 30", 1), id="a space"),
        pytest.param(META_TEXT.replace(b"[1,10", b"[0,10", 1), id="format 0"),
        pytest.param(META_TEXT.replace(b"[1,10", b"[01,10", 1), id="format 01"),
        pytest.param(META_TEXT.replace(b"b" * 32, b"B" * 32), id="upper-case id"),
        pytest.param(META_TEXT.replace(b"b" * 32, b"b" * 32 + b"\\n"), id="id with line feed"),
        pytest.param(META_TEXT.replace(b"b" * 32, b"a" * 32), id="one id twice"),
        pytest.param(META_TEXT.replace(b"[2,", b"[3,"), id="a gap"),
        pytest.param(META_TEXT.replace(b'[1,"', b'[2,"'), id="one number twice"),
        pytest.param(META_TEXT.replace(b'[1,"', b'[0,"'), id="version 0"),
        pytest.param(META_TEXT.replace(b"b" * 32, b"b" * 31), id="short id"),
        pytest.param(META_TEXT.replace(b"b" * 32, b"b" * 32 + b"c" * 32), id="long id"),
        pytest.param(META_TEXT.replace(b"[1,10,", b"[1,%d," % 2**63), id="a time beyond 64 bits"),
        pytest.param(META_TEXT.replace(b"null", b"%d" % 2**63), id="a deletion beyond 64 bits"),
        pytest.param(META_TEXT.replace(b"null", b"1.5"), id="a fraction of a time"),
        pytest.param(b"[1,10,30,10,[]]", id="no version"),
        pytest.param(META_TEXT.replace(b"30,10,[[", b"30,1,[["), id="more than kept"),
        pytest.param(META_TEXT.replace(b",null", b""), id="a field missing"),
        pytest.param(META_TEXT.replace(b",null", b",null,1"), id="a field too many"),
        pytest.param(b"[1," + b"[" * 100_000, id="deep"),
        pytest.param(b" " * (9 << 20), id="large"),
    ],
)
def test_damaged_metadata_are_refused(damaged: bytes) -> None:
    with pytest.raises(FormatError):
        decode_meta_untrusted(damaged)


@pytest.mark.parametrize(
    "damaged",
    [
        pytest.param(b'[1,{"b":"1","a":"2"}]', id="not sorted"),
        pytest.param(b'[1,{"a":"1","a":"2"}]', id="one key twice"),
        pytest.param(b'[1,{"a":"\\u0041"}]', id="an escape too many"),
        pytest.param(b'[1,{"a":1}]', id="a number"),
        pytest.param(b'[1,{"a":null}]', id="null"),
        pytest.param(b'[1,{"a":"\xff"}]', id="not UTF-8"),
        pytest.param(b'[1,{"a":"\\ud800"}]', id="lone surrogate"),
    ],
)
def test_damaged_values_are_refused(damaged: bytes) -> None:
    with pytest.raises(FormatError):
        decode_values_untrusted(damaged)


def test_a_newer_format_is_named_whatever_follows() -> None:
    with pytest.raises(NewerFormatError) as meta_error:
        decode_meta_untrusted(b'[2,{"anything":[]}]')
    assert (meta_error.value.found, meta_error.value.known) == (2, 1)
    with pytest.raises(NewerFormatError) as values_error:
        decode_values_untrusted(b"[7]")
    assert (values_error.value.found, values_error.value.known) == (7, 1)


def test_no_error_repeats_a_secret() -> None:
    raw = b'[1,{"hunter2-key":["hunter2-value"]}]'
    with pytest.raises(FormatError) as caught:
        decode_values_untrusted(raw)
    told = repr(caught.value) + str(caught.value) + str(caught.value.__cause__)
    assert "hunter2" not in told


@settings(max_examples=size(test=100, proof=10_000), derandomize=True)
@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])),
        st.text(st.characters(exclude_categories=["Cs"])),
    )
)
def test_any_values_come_back(values: dict[str, str]) -> None:
    assert decode_values_untrusted(encode_values(values)) == values
