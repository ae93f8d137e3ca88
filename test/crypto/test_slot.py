from __future__ import annotations

import hmac

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from hypothesis import given, settings
from hypothesis import strategies as st

from size import size
from spike.crypto.slot import (
    Argon2Setting,
    OneTimeKey,
    SlotKey,
    derive_slot_secret,
    seal_to,
)
from spike.error import FormatError, InputError, OpenError, WipedError
from spike.memory import KeyMemory

STORE, SLOT, SALT = bytes(range(16)), bytes(range(16, 32)), bytes(range(32, 48))
CHEAPEST = Argon2Setting(64 * 1024, 3, 4)


def memory_of(data: bytes) -> KeyMemory:
    memory = KeyMemory.allocate(len(data))
    with memory.view() as view:
        view[:] = data
    return memory


def content(memory: KeyMemory) -> bytes:
    with memory.view() as view:
        return bytes(view)


def slot_key(secret: bytes = bytes(32), store: bytes = STORE, slot: bytes = SLOT) -> SlotKey:
    with memory_of(secret) as memory:
        return SlotKey.from_slot_secret(memory, store, slot)


def sealed_root(key: SlotKey, root: KeyMemory, info: bytes = b"header") -> bytes:
    with root.view() as view:
        return seal_to(key.public, info, view)


def test_a_password_opens_what_was_sealed_to_its_slot() -> None:
    with KeyMemory.generate() as root:
        with derive_slot_secret(b"correct horse battery", SALT, CHEAPEST) as secret:
            first = SlotKey.from_slot_secret(secret, STORE, SLOT)
        sealed = sealed_root(first, root)
        with derive_slot_secret(bytearray(b"correct horse battery"), SALT, CHEAPEST) as secret:
            again = SlotKey.from_slot_secret(secret, STORE, SLOT)
        assert again.public == first.public
        assert again.auth.same_as(first.auth)
        with KeyMemory.allocate(32) as out:
            again.open_into(sealed, b"header", out)
            assert out.same_as(root)


@pytest.mark.parametrize(
    ("password", "salt"), [(b"correct horse batterz", SALT), (b"correct horse battery", bytes(16))]
)
def test_another_password_or_salt_gives_another_slot_secret(password: bytes, salt: bytes) -> None:
    with (
        derive_slot_secret(b"correct horse battery", SALT, CHEAPEST) as right,
        derive_slot_secret(password, salt, CHEAPEST) as wrong,
    ):
        assert not right.same_as(wrong)


def test_the_slot_secret_is_plain_argon2id() -> None:
    expected = Argon2id(salt=SALT, length=32, iterations=3, lanes=4, memory_cost=64 * 1024).derive(
        b"password"
    )
    with derive_slot_secret(b"password", SALT, CHEAPEST) as secret:
        assert content(secret) == expected


def test_the_keys_of_a_slot_are_the_documented_ones() -> None:
    """Computed a second time with the standard library's HMAC, as a reader of the format would."""

    def hkdf(label: bytes, length: int) -> bytes:
        extracted = hmac.digest(bytes(64), b"s" * 32, "sha512")
        info = b"spike/slot/v1/" + label + STORE + SLOT
        return hmac.digest(extracted, info + b"\x01", "sha512")[:length]

    key = slot_key(b"s" * 32)
    assert content(key.auth) == hkdf(b"auth", 32)
    mlkem = MLKEM768PrivateKey.from_seed_bytes(hkdf(b"mlkem768", 64)).public_key()
    x25519 = X25519PrivateKey.from_private_bytes(hkdf(b"x25519", 32)).public_key()
    assert key.public == mlkem.public_bytes_raw() + x25519.public_bytes_raw()


def test_each_store_and_slot_has_keys_of_its_own() -> None:
    keys = [slot_key(), slot_key(store=SLOT), slot_key(slot=STORE), slot_key(secret=b"1" * 32)]
    assert len({key.public for key in keys}) == 4
    assert len({content(key.auth) for key in keys}) == 4


def test_every_flipped_byte_of_a_sealed_root_key_is_refused() -> None:
    key = slot_key()
    with KeyMemory.generate() as root, KeyMemory.allocate(32) as out:
        sealed = sealed_root(key, root)
        assert len(sealed) == 1136 + 32
        for index in range(len(sealed)):
            changed = bytearray(sealed)
            changed[index] ^= 0xFF
            with pytest.raises(OpenError):
                key.open_into(changed, b"header", out)
        for wrong_size in (b"", sealed[:-1], sealed[1:], sealed + b"\x00"):
            with pytest.raises(OpenError):
                key.open_into(wrong_size, b"header", out)
        assert content(out) == bytes(32)


def test_another_slot_store_or_header_does_not_open() -> None:
    with KeyMemory.generate() as root, KeyMemory.allocate(32) as out:
        sealed = sealed_root(slot_key(), root)
        for key, info in (
            (slot_key(), b"headex"),
            (slot_key(), b""),
            (slot_key(store=SLOT), b"header"),
            (slot_key(slot=STORE), b"header"),
        ):
            with pytest.raises(OpenError):
                key.open_into(sealed, info, out)


def test_sealing_the_same_key_twice_gives_two_messages() -> None:
    key = slot_key()
    with KeyMemory.generate() as root:
        assert sealed_root(key, root) != sealed_root(key, root)


@pytest.mark.parametrize(
    "public", [b"", bytes(1216), b"\xff" * 1216, bytes(1215), slot_key().public[:1184] + bytes(32)]
)
def test_what_is_not_a_public_key_is_refused(public: bytes) -> None:
    with pytest.raises(FormatError, match="public key"):
        seal_to(public, b"", memoryview(b"plaintext"))


def test_a_wiped_slot_key_opens_nothing_and_shows_nothing() -> None:
    key = slot_key()
    assert repr(key) == "SlotKey(…)"
    with KeyMemory.generate() as root:
        sealed = sealed_root(key, root)
    key.wipe()
    key.wipe()
    assert key.auth.wiped
    with KeyMemory.allocate(32) as out, pytest.raises(WipedError):
        key.open_into(sealed, b"header", out)


def test_a_slot_needs_a_whole_secret_and_whole_ids() -> None:
    with KeyMemory.generate(31) as short, pytest.raises(ValueError, match="32 bytes"):
        SlotKey.from_slot_secret(short, STORE, SLOT)
    with pytest.raises(ValueError, match="16 bytes"):
        slot_key(store=b"short")
    with pytest.raises(ValueError, match="16 bytes"):
        slot_key(slot=b"short")
    with pytest.raises(ValueError, match="16 bytes"):
        derive_slot_secret(b"password", b"short", CHEAPEST)


def test_a_one_time_key_opens_one_password_once() -> None:
    key = OneTimeKey.generate()
    sealed = seal_to(key.public, b"init", memoryview(b"a long password"))
    assert key.open_untrusted(sealed, b"init") == bytearray(b"a long password")
    with pytest.raises(WipedError, match="twice"):
        key.open_untrusted(sealed, b"init")
    assert repr(key) == "OneTimeKey(…)"


@pytest.mark.parametrize("sealed", [b"", bytes(1135), bytes(1136), bytes(65_536), bytes(65_537)])
def test_a_one_time_key_refuses_what_was_not_sealed_to_it(sealed: bytes) -> None:
    key = OneTimeKey.generate()
    with pytest.raises(OpenError):
        key.open_untrusted(sealed, b"init")
    with pytest.raises(WipedError):  # also a failed attempt uses it up
        key.open_untrusted(sealed, b"init")


def test_two_one_time_keys_are_never_the_same() -> None:
    assert len({OneTimeKey.generate().public for _ in range(20)}) == 20


def test_what_is_sealed_has_a_size_limit() -> None:
    public = OneTimeKey.generate().public
    assert len(seal_to(public, b"", memoryview(bytes(64_400)))) == 65_536
    with pytest.raises(ValueError, match="too large"):
        seal_to(public, b"", memoryview(bytes(64_401)))


def test_the_default_setting_is_the_promised_one() -> None:
    assert Argon2Setting().phc() == "$argon2id$v=19$m=262144,t=3,p=4"


@pytest.mark.parametrize(
    "setting",
    [
        (65_535, 3, 4),
        (4_194_305, 3, 4),
        (65_536, 2, 4),
        (65_536, 65, 4),
        (65_536, 3, 3),
        (65_536, 3, 17),
    ],
)
def test_no_setting_outside_the_limits_can_be_made(setting: tuple[int, int, int]) -> None:
    with pytest.raises(InputError):
        Argon2Setting(*setting)
    memory, passes, lanes = setting
    with pytest.raises(FormatError):
        Argon2Setting.parse_untrusted(f"$argon2id$v=19$m={memory},t={passes},p={lanes}")


@settings(max_examples=size(test=100, proof=5000), deadline=None)
@given(st.integers(65_536, 4_194_304), st.integers(3, 64), st.integers(4, 16))
def test_a_setting_is_read_as_it_was_written(memory_kib: int, passes: int, lanes: int) -> None:
    setting = Argon2Setting(memory_kib, passes, lanes)
    assert Argon2Setting.parse_untrusted(setting.phc()) == setting


@pytest.mark.parametrize(
    "text",
    [
        "",
        "$argon2id$v=19$m=262144,t=3,p=4\n",
        "$argon2id$v=19$m=0262144,t=3,p=4",
        "$argon2id$v=19$m=+262144,t=3,p=4",
        "$argon2id$v=19$m=٢٦٢١٤٤,t=3,p=4",
        "$argon2id$v=19$t=3,m=262144,p=4",
        "$argon2id$v=16$m=262144,t=3,p=4",
        "$argon2i$v=19$m=262144,t=3,p=4",
        "$argon2id$v=19$m=262144,t=3,p=4$c2FsdA",
        " $argon2id$v=19$m=262144,t=3,p=4",
        "$argon2id$v=19$m=99999999999,t=3,p=4",
    ],
)
def test_only_one_form_of_a_setting_is_read(text: str) -> None:
    with pytest.raises(FormatError):
        Argon2Setting.parse_untrusted(text)
