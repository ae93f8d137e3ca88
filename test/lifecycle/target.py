"""Fuzz targets of spike.lifecycle: each takes any bytes and raises nothing but what its docstring says."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

import msgspec

import lifecycle_kit
from spike.error import FormatError
from spike.lifecycle import anchor, backup, keyring, usage
from spike.lifecycle.chain import decode_entry_untrusted, sequence_of_untrusted
from spike.lifecycle.history import Entry, record_key
from spike.lifecycle.progress import begun, decode_progress_untrusted
from spike.lifecycle.progress import encode as encode_progress
from spike.lifecycle.refusal import RefusalError
from spike.lifecycle.restore import choose, confirm
from spike.lifecycle.shard_text import (
    decode_shard_text_untrusted,
    encode_shard_text,
    encode_three_part,
)
from system_backup_kit import composed, parsed, records_of

_BORN = lifecycle_kit.born()
_ROOT = _BORN.ring.root
_DOCUMENT = _BORN.ring.document
_ANCHOR = anchor.encode(anchor.anchor_of(_DOCUMENT, 1), _ROOT)
_BACKUP = backup.encode(_BORN.raw, _ANCHOR, lifecycle_kit.AT, _DOCUMENT, _ROOT)
_SYSTEM_BACKUP = composed(_BORN, records_of(_BORN, 3))
_ENTRY = msgspec.json.encode(Entry(format=1, previous="", event=_DOCUMENT.outbox[0]))
_SHARD_TEXT = encode_shard_text("0a" * 16, 2, 1, _ROOT)


def keyring_document(data: bytes) -> None:
    """Refused with FormatError; confirmed only if it is the very document that was signed."""
    with contextlib.suppress(FormatError):
        confirmed = keyring.decode_untrusted(data).confirmed_by(_ROOT)
        assert confirmed is None or data == _BORN.raw


def anchor_statement(data: bytes) -> None:
    """Never raises; an anchor counts only if it is the very statement that was signed."""
    weighed = anchor.weigh_untrusted([data], _DOCUMENT, _BORN.ring.roots)
    assert not weighed.valid or data == _ANCHOR


def key_backup(data: bytes) -> None:
    """Refused with a name; confirmed only if it is the very backup that was signed."""
    with contextlib.suppress(RefusalError):
        confirm(choose(None, data), _ROOT)
        assert data == _BACKUP


def shard_text(data: bytes) -> None:
    """Refused with FormatError; what is accepted is the one text of what it says, but for white space around it."""
    with contextlib.suppress(FormatError):
        found = decode_shard_text_untrusted(data)
        with found.value as value:
            if found.set_id is None or found.threshold is None:
                again = encode_three_part(found.index, value)
            else:
                again = encode_shard_text(found.set_id, found.threshold, found.index, value)
        assert again == data.strip(b" \t\r\n")


def history_entry(data: bytes) -> None:
    """Refused with FormatError; what is accepted is the one form of what it says."""
    with contextlib.suppress(FormatError):
        assert msgspec.json.encode(decode_entry_untrusted(data)) == data
    with contextlib.suppress(FormatError, UnicodeDecodeError):
        key = data.decode()
        assert record_key(sequence_of_untrusted(key)) == key


def progress(data: bytes) -> None:
    """Refused with FormatError; what is accepted adds up and is the one form of what it says."""
    with contextlib.suppress(FormatError):
        found = decode_progress_untrusted(data)
        assert found.adds_up
        assert encode_progress(found) == data


def system_backup(data: bytes) -> None:
    """Refused with FormatError, in pieces as in one; what is confirmed is the very file that was made."""
    with contextlib.suppress(FormatError):
        summary, _ = parsed(data, 97)
        if summary.manifest.confirmed_by(_ROOT, _DOCUMENT) is not None:
            assert data == _SYSTEM_BACKUP


def usage_record(data: bytes) -> None:
    """Refused with FormatError; what is accepted is the one form of what it says."""
    with contextlib.suppress(FormatError):
        assert usage.encode(usage.decode_untrusted(data)) == data


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "keyring": keyring_document,
    "anchor": anchor_statement,
    "key-backup": key_backup,
    "shard-text": shard_text,
    "history-entry": history_entry,
    "progress": progress,
    "system-backup": system_backup,
    "usage": usage_record,
}
SEEDS: Mapping[str, bytes] = {
    "keyring": _BORN.raw,
    "anchor": _ANCHOR,
    "key-backup": _BACKUP,
    "shard-text": bytes(_SHARD_TEXT),
    "history-entry": _ENTRY,
    "progress": encode_progress(begun("0a" * 16, 1, 2)),
    "system-backup": _SYSTEM_BACKUP,
    "usage": usage.encode(usage.added(None, {1: 3, 2: 1}, {1: 7}, lifecycle_kit.AT)),
}
