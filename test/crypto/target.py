"""What a fuzzer throws bytes at: every decoder of spike.crypto.

Each target returns, or raises only the errors its decoder documents, which it takes as an answer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final

from spike.crypto import cobblestone
from spike.crypto.record import RecordContext, generation_of_untrusted, open_into, open_untrusted
from spike.crypto.slot import Argon2Setting, OneTimeKey, SlotKey, seal_to
from spike.error import FormatError, OpenError
from spike.memory import KeyMemory

_CONTEXT: Final = RecordContext(bytes(16), "secret", "path", "version", "field")


@cache
def _key() -> KeyMemory:
    return KeyMemory.generate()


@cache
def _slot() -> SlotKey:
    return SlotKey.from_slot_secret(_key(), bytes(16), bytes(16))


def _record(data: bytes) -> None:
    try:
        open_untrusted(_key(), _CONTEXT, data)
    except (OpenError, FormatError):
        return
    raise AssertionError("a record that nobody sealed was opened")


def _record_into_memory(data: bytes) -> None:
    with KeyMemory.allocate(32) as out:
        try:
            open_into(_key(), _CONTEXT, data, out)
        except (OpenError, FormatError):
            return
    raise AssertionError("a wrapped key that nobody sealed was opened")


def _generation(data: bytes) -> None:
    try:
        generation = generation_of_untrusted(data)
    except FormatError:
        return
    assert generation > 0
    assert generation.to_bytes(4, "big") == data[2:6]


def _message(data: bytes) -> None:
    try:
        cobblestone.open_untrusted(_key(), b"", data)
    except OpenError:
        return
    raise AssertionError("a message that nobody sealed was opened")


def _sealed_root_key(data: bytes) -> None:
    with KeyMemory.allocate(32) as out:
        try:
            _slot().open_into(data, b"", out)
        except OpenError:
            return
    raise AssertionError("a root key that nobody sealed was opened")


def _sealed_password(data: bytes) -> None:
    try:
        OneTimeKey.generate().open_untrusted(data, b"")
    except OpenError:
        return
    raise AssertionError("a password that nobody sealed was opened")


def _public_key(data: bytes) -> None:
    try:
        seal_to(data, b"", memoryview(b"plaintext"))
    except FormatError:
        return


def _argon2_setting(data: bytes) -> None:
    text = data.decode("latin-1")
    try:
        setting = Argon2Setting.parse_untrusted(text)
    except FormatError:
        return
    assert setting.phc() == text


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "record": _record,
    "record into key memory": _record_into_memory,
    "generation of a record": _generation,
    "chunked message": _message,
    "sealed root key": _sealed_root_key,
    "sealed password": _sealed_password,
    "public key of a slot": _public_key,
    "Argon2 setting": _argon2_setting,
}
