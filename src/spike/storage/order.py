"""The order of records, and the cursors that name a position in it. Pure; for engines.

Keys are ordered by their UTF-8 bytes. That is also the order of their code points, and so of
Python's strings and of SQLite's BINARY collation.
"""

from __future__ import annotations

from typing import Final

from spike.error import InputError
from spike.storage.protocol import SECRET, Cursor, RecordId

_LAST: Final = 0x10FFFF
_SURROGATE_FIRST: Final = 0xD800
_SURROGATE_LAST: Final = 0xDFFF


def cursor_at(id: RecordId) -> Cursor:  # noqa: A002 - the field's own name
    """Return the cursor that goes on behind this record. A version holds no ":", so the first one
    ends it."""
    return Cursor(f"{id.version}:{id.key}")


def position_untrusted(cursor: Cursor | None) -> tuple[str, str] | None:
    """Return the key and version a scan goes on behind; None for its beginning.

    Raises:
        InputError: not a cursor of this form.
    """
    if cursor is None:
        return None
    version, colon, key = cursor.partition(":")
    if not colon:
        raise InputError("not a cursor of this store")
    position = RecordId(SECRET, key, version)  # checks the parts and their limits; the kind is any
    return position.key, position.version


def prefix_end(prefix: str) -> str | None:
    """Return the least string greater than all that begin with `prefix`; None if there is none."""
    for length in range(len(prefix), 0, -1):
        last = ord(prefix[length - 1])
        if last < _LAST:
            # No UTF-8 text holds a surrogate: the next code point after U+D7FF is U+E000.
            following = _SURROGATE_LAST + 1 if last + 1 == _SURROGATE_FIRST else last + 1
            return prefix[: length - 1] + chr(following)
    return None
