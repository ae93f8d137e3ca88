from __future__ import annotations

import hashlib
import hmac

import pytest

from spike.crypto import known_answer
from spike.error import KnownAnswerError
from spike.memory import KeyMemory

NAMES = ["SHA-512", "HMAC-SHA-512", "HKDF-SHA512", "AES-256-GCM"]
NAMES += ["Argon2id", "Shamir", "record", "HPKE"]


def test_the_primitives_of_this_machine_give_the_known_answers() -> None:
    known_answer.run()


def test_the_expected_values_agree_with_another_implementation() -> None:
    """The standard library's HMAC is not the code under test in HKDF."""
    extracted = hmac.digest(bytes(64), bytes(range(32)), hashlib.sha512)
    expected = hmac.digest(extracted, b"known answer\x01", hashlib.sha512)[:32]
    source = known_answer._hkdf.__code__.co_consts
    assert expected.hex() in source


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_answer_stops_and_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each primitive is made wrong where the process would call it."""

    def broken(*_: object, **__: object) -> bytes:
        return bytes(32)

    def broken_derivation(key: KeyMemory, info: bytes, out: KeyMemory) -> None:
        with out.view() as view:
            view[:] = bytes(len(view))

    def broken_shares(points: dict[int, KeyMemory], at: int = 0) -> KeyMemory:
        return KeyMemory.allocate(32)

    class Broken:
        def __init__(self, *_: object, **__: object) -> None: ...

        encrypt = derive = broken

    class BrokenHash:
        digest = broken

    replacement: dict[str, tuple[str, object]] = {
        "SHA-512": ("hashlib.sha512", lambda _: BrokenHash()),
        "HMAC-SHA-512": ("mac", broken),
        "HKDF-SHA512": ("derive_into", broken_derivation),
        "AES-256-GCM": ("AESGCM", Broken),
        "Argon2id": ("Argon2id", Broken),
        "Shamir": ("interpolate", broken_shares),
        "record": ("open_untrusted", broken),
        "HPKE": ("seal_to", broken),
    }
    target, value = replacement[name]
    monkeypatch.setattr(f"spike.crypto.known_answer.{target}", value)
    with pytest.raises(KnownAnswerError, match=f"known-answer test of {name} "):
        known_answer.run()


@pytest.mark.parametrize("constant", ["_RECORD", "_SEALED"])
def test_what_an_earlier_version_sealed_must_open(
    constant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    good: str = getattr(known_answer, constant)
    last = "AAAA" if constant == "_SEALED" else "ffff"
    monkeypatch.setattr(known_answer, constant, good[:-4] + last)
    with pytest.raises(KnownAnswerError):
        known_answer.run()
