"""The decoders of Pilot, with inputs near what they accept; `target.py` is fuzzed apart from this."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spike.error import FormatError
from spike.pilot.policy_file import PolicyFile, decode_untrusted


def _targets() -> dict[str, Callable[[bytes], None]]:
    # By its path: each package's tests have a target.py.
    path = Path(__file__).with_name("target.py")
    spec = importlib.util.spec_from_file_location("pilot_target", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, Callable[[bytes], None]] = module.TARGETS
    return found


TARGETS = _targets()
WORDS = [
    b"name", b"spiffeidPattern", b"pathPattern", b"permissions", b": ", b"\n", b"- ", b"[read]",
    b"&a", b"*a", b"!!binary ", b"!!python/object:x ", b"? ", b"{", b"}", b"2001-99-99", b"1:99",
    b"0x", b"<<", b"=", b"|", b"---\n", b"\t", b"\xff", b'"\\ud800"', b"e", b".inf", b"!!set",
]  # fmt: skip


@pytest.mark.parametrize("name", sorted(TARGETS))
@given(data=st.binary(max_size=200) | st.lists(st.sampled_from(WORDS), max_size=30).map(b"".join))
def test_a_decoder_raises_its_one_error_only(name: str, data: bytes) -> None:
    TARGETS[name](data)


GOOD = b"name: web\nspiffeidPattern: ^spiffe://a/b$\npathPattern: ^a/\npermissions: [read, list]\n"


def test_a_policy_file_is_read_as_it_stands() -> None:
    assert decode_untrusted(GOOD) == PolicyFile("web", "^spiffe://a/b$", "^a/", ["read", "list"])


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "not a policy"),
        (b"- a list", "not a policy"),
        (GOOD + b"more: 1\n", "unknown field `more`"),
        (GOOD.replace(b"name: web\n", b""), "missing required field `name`"),
        (GOOD.replace(b"web", b"1"), "Expected `str`"),
        (GOOD.replace(b"[read, list]", b"read"), "Expected `array`"),
        (GOOD + b"---\n" + GOOD, "not YAML"),
        (GOOD + b"# " + b"x" * (16 << 10), "larger than 16 KiB"),
        (GOOD.replace(b"web", b"\xff"), "not YAML in UTF-8"),
        (b"a: &a [*a]", "alias"),
        (b"!!python/object/apply:os.getcwd []", "not YAML"),
        (b"[" * 10_000, "nested too deeply"),
        (b"{" * 10_000, "nested too deeply"),
        (b"- " * 5_000, "nested too deeply"),
        (b"? " * 5_000, "nested too deeply"),
    ],
)
def test_what_is_no_policy_file_is_refused_with_the_reason(raw: bytes, why: str) -> None:
    with pytest.raises(FormatError, match=why):
        decode_untrusted(raw)
