"""A SPIFFE ID is read strictly, and there is one text for each."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spike.error import SpiffeIdError
from spike.spiffe.id import (
    ID_LIMIT_BYTES,
    TRUST_DOMAIN_LIMIT_BYTES,
    SpiffeId,
    TrustDomain,
    parse_trust_domain_untrusted,
)

VALID = {
    "trust domain alone": ("spiffe://example.org", "example.org", ""),
    "one segment": ("spiffe://example.org/web", "example.org", "/web"),
    "several segments": (
        "spiffe://spike.ist/spike/pilot/role/superuser",
        "spike.ist",
        "/spike/pilot/role/superuser",
    ),
    "every kind of character": ("spiffe://a-b_c.9/A-b_c.9", "a-b_c.9", "/A-b_c.9"),
    "dots that are no dot segment": ("spiffe://example.org/.../.a/a.", "example.org", "/.../.a/a."),
    "upper case in the path": ("spiffe://example.org/WEB", "example.org", "/WEB"),
    "longest trust domain": ("spiffe://" + "a" * 255 + "/x", "a" * 255, "/x"),
    "longest ID": ("spiffe://a/" + "b" * 2037, "a", "/" + "b" * 2037),
}

INVALID = {
    "nothing": "",
    "scheme only": "spiffe://",
    "no trust domain": "spiffe:///web",
    "another scheme": "https://example.org/web",
    "scheme in upper case": "SPIFFE://example.org/web",
    "one slash": "spiffe:/example.org/web",
    "no scheme": "example.org/web",
    "space before": " spiffe://example.org/web",
    "space after": "spiffe://example.org/web ",
    "newline after the path": "spiffe://example.org/web\n",
    "newline after the trust domain": "spiffe://example.org\n",
    "newline within": "spiffe://example.org/we\nb",
    "carriage return": "spiffe://example.org/web\r",
    "NUL": "spiffe://example.org/web\0",
    "NUL in the trust domain": "spiffe://example.org\0.evil.org/web",
    "slash at the end": "spiffe://example.org/web/",
    "slash as the path": "spiffe://example.org/",
    "empty segment": "spiffe://example.org//web",
    "empty segment within": "spiffe://example.org/a//b",
    "dot segment": "spiffe://example.org/./web",
    "double dot segment": "spiffe://example.org/a/../b",
    "double dot at the end": "spiffe://example.org/a/..",
    "dot at the end": "spiffe://example.org/a/.",
    "query": "spiffe://example.org/web?x=1",
    "empty query": "spiffe://example.org/web?",
    "fragment": "spiffe://example.org/web#x",
    "empty fragment": "spiffe://example.org#",
    "port": "spiffe://example.org:443/web",
    "empty port": "spiffe://example.org:/web",
    "user": "spiffe://user@example.org/web",
    "user and password": "spiffe://user:pw@example.org/web",
    "percent-encoding in the path": "spiffe://example.org/%77eb",
    "percent-encoding in the trust domain": "spiffe://ex%61mple.org/web",
    "percent-encoded slash": "spiffe://example.org/a%2Fb",
    "upper case in the trust domain": "spiffe://Example.org/web",
    "IPv6 literal": "spiffe://[::1]/web",
    "backslash": "spiffe://example.org\\web",
    "letter that looks the same": "spiffe://ex\u0430mple.org/web",
    "full-width digit": "spiffe://example.org/\uff11",
    "Arabic digit": "spiffe://example\u0661.org/web",
    "letter that folds to ASCII": "spiffe://example.org/\u212aeeper",
    "lone surrogate": "spiffe://example.org/\ud800",
    "star": "spiffe://example.org/*",
    "plus": "spiffe://example.org/a+b",
    "tilde": "spiffe://example.org/~a",
    "trust domain too long": "spiffe://" + "a" * 256 + "/x",
    "one byte too long": "spiffe://a/" + "b" * 2038,
    "very long": "spiffe://a" + "/b" * 1_000_000,
}


@pytest.mark.parametrize("name", VALID)
def test_an_id_the_standard_allows_is_read_and_written_back_the_same(name: str) -> None:
    text, trust_domain, path = VALID[name]
    spiffe_id = SpiffeId.parse_untrusted(text)
    assert (spiffe_id.trust_domain, spiffe_id.path) == (trust_domain, path)
    assert str(spiffe_id) == text


@pytest.mark.parametrize("name", INVALID)
def test_a_text_the_standard_forbids_is_refused(name: str) -> None:
    with pytest.raises(SpiffeIdError):
        SpiffeId.parse_untrusted(INVALID[name])


def test_the_error_does_not_repeat_the_text_of_a_stranger() -> None:
    with pytest.raises(SpiffeIdError) as caught:
        SpiffeId.parse_untrusted("spiffe://example.org/\x1b[31mforged log line")
    assert "forged" not in str(caught.value)


@pytest.mark.parametrize("path", ["web", "/", "/a/", "//a", "/..", "/a b", "/a\n"])
def test_no_object_can_be_made_that_the_parser_would_refuse(path: str) -> None:
    with pytest.raises(SpiffeIdError):
        SpiffeId(TrustDomain("example.org"), path)


@pytest.mark.parametrize("text", ["example.org", "spiffe://example.org"])
def test_a_trust_domain_is_read_in_both_of_its_forms(text: str) -> None:
    assert parse_trust_domain_untrusted(text) == "example.org"


@pytest.mark.parametrize(
    "text",
    ["", "spiffe://", "spiffe://spiffe://a", "spiffe://a/b", "a/", "A", "a\n", "a:1", "a" * 256],
)
def test_a_text_that_is_no_trust_domain_is_refused(text: str) -> None:
    with pytest.raises(SpiffeIdError):
        parse_trust_domain_untrusted(text)


_trust_domain = st.text(
    "abcdefghijklmnopqrstuvwxyz0123456789.-_", min_size=1, max_size=TRUST_DOMAIN_LIMIT_BYTES
)
_segment = st.text(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_", min_size=1, max_size=30
).filter(lambda text: text not in {".", ".."})


@given(_trust_domain, st.lists(_segment, max_size=20))
def test_whatever_the_grammar_makes_is_read_and_comes_back(
    domain: str, segments: list[str]
) -> None:
    text = "spiffe://" + domain + "".join("/" + segment for segment in segments)
    assert len(text) <= ID_LIMIT_BYTES
    spiffe_id = SpiffeId.parse_untrusted(text)
    assert str(spiffe_id) == text
    assert spiffe_id == SpiffeId(TrustDomain(domain), spiffe_id.path)


@given(
    st.one_of(
        st.text(),
        st.text().map(lambda text: "spiffe://" + text),
        st.from_regex(r"spiffe://[a-z./%\n]*"),
    )
)
def test_any_text_is_refused_or_has_one_canonical_form(text: str) -> None:
    try:
        spiffe_id = SpiffeId.parse_untrusted(text)
    except SpiffeIdError:
        return
    assert str(spiffe_id) == text
    assert text.isascii()
