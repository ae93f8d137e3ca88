"""Fuzz targets of spike.lifecycle: each takes any bytes and raises nothing but what its docstring says."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

import lifecycle_kit
from spike.error import FormatError
from spike.lifecycle import anchor, backup, keyring
from spike.lifecycle.refusal import RefusalError
from spike.lifecycle.restore import choose, confirm

_BORN = lifecycle_kit.born()
_ROOT = _BORN.ring.root
_DOCUMENT = _BORN.ring.document
_ANCHOR = anchor.encode(anchor.anchor_of(_DOCUMENT, 1), _ROOT)
_BACKUP = backup.encode(_BORN.raw, _ANCHOR, lifecycle_kit.AT, _DOCUMENT, _ROOT)


def keyring_document(data: bytes) -> None:
    """Refused with FormatError; confirmed only if it is the very document that was signed."""
    with contextlib.suppress(FormatError):
        confirmed = keyring.decode_untrusted(data).confirmed_by(_ROOT)
        assert confirmed is None or data == _BORN.raw


def anchor_statement(data: bytes) -> None:
    """Never raises; an anchor counts only if it is the very statement that was signed."""
    weighed = anchor.weigh_untrusted([data], _DOCUMENT, _ROOT)
    assert not weighed.valid or data == _ANCHOR


def key_backup(data: bytes) -> None:
    """Refused with a name; confirmed only if it is the very backup that was signed."""
    with contextlib.suppress(RefusalError):
        confirm(choose(None, data), _ROOT)
        assert data == _BACKUP


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "keyring": keyring_document,
    "anchor": anchor_statement,
    "key-backup": key_backup,
}
SEEDS: Mapping[str, bytes] = {"keyring": _BORN.raw, "anchor": _ANCHOR, "key-backup": _BACKUP}
