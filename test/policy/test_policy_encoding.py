"""The stored form of a policy: one text for each; damage is named."""

from __future__ import annotations

import pytest

from spike.error import FormatError, NewerFormatError
from spike.policy.encoding import decode_policy_untrusted, encode_policy
from spike.policy.rule import Permission, Policy, PolicyName
from spike.wire.go_time import UnixNs

POLICY = Policy(
    PolicyName("db readers"),
    r"^spiffe://spike\.ist/db/.*$",
    "^tenants/db$",
    frozenset({Permission.LIST, Permission.READ}),
    UnixNs(5),
    UnixNs(9),
)
# Written down once and opened for good: format 1.
TEXT = rb'[1,"db readers","^spiffe://spike\\.ist/db/.*$","^tenants/db$",["read","list"],5,9]'


def test_a_policy_of_format_1_reads_as_it_always_did() -> None:
    assert decode_policy_untrusted(TEXT) == POLICY
    assert encode_policy(POLICY) == TEXT


@pytest.mark.parametrize(
    "damaged",
    [
        pytest.param(b"", id="empty"),
        pytest.param(TEXT[:-1], id="cut"),
        pytest.param(TEXT + b" ", id="trailing space"),
        pytest.param(TEXT.replace(b"[1,", b"[0,"), id="format 0"),
        pytest.param(TEXT.replace(b"db readers", b"db/readers"), id="name"),
        pytest.param(TEXT.replace(b"db readers", b"db readers\\n"), id="name with a line feed"),
        pytest.param(TEXT.replace(b"spiffe:", b"https:"), id="SPIFFE pattern"),
        pytest.param(TEXT.replace(b"^tenants", b"^ tenants"), id="path pattern"),
        pytest.param(
            TEXT.replace(b'"read","list"', b'"list","read"'), id="permissions not in order"
        ),
        pytest.param(TEXT.replace(b'"read","list"', b'"read","read"'), id="a permission twice"),
        pytest.param(TEXT.replace(b'"read","list"', b'"root"'), id="an unknown permission"),
        pytest.param(TEXT.replace(b'"read","list"', b""), id="no permission"),
        pytest.param(TEXT.replace(b",9]", b",null]"), id="no time"),
        pytest.param(TEXT.replace(b",9]", b",9.0]"), id="a fraction"),
        pytest.param(TEXT.replace(b",9]", b",9,1]"), id="a field too many"),
        pytest.param(b'[1,"' + b"a" * 20_000, id="large"),
    ],
)
def test_a_damaged_policy_is_refused(damaged: bytes) -> None:
    with pytest.raises(FormatError):
        decode_policy_untrusted(damaged)


def test_a_newer_format_is_named() -> None:
    with pytest.raises(NewerFormatError) as caught:
        decode_policy_untrusted(b'[3,{"anything":1}]')
    assert (caught.value.found, caught.value.known) == (3, 1)
