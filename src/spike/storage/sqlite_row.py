"""Rows of the SQLite file as records. Whoever can write the file past this engine may have put anything there.

Each function raises StoreCorruptError where a row cannot be a record.
"""

from __future__ import annotations

from spike.error import InputError
from spike.storage.protocol import (
    GENERATION_LIMIT,
    Kind,
    Record,
    RecordHead,
    RecordId,
    Revision,
)
from spike.storage.sqlite_fault import corrupt


def read_head(kind: Kind, row: tuple[object, ...]) -> tuple[RecordHead, int]:
    """Return the record without its blob that a row (key, version, generation, revision) is, and no size."""
    key, version, generation, revision = row
    return RecordHead(_id(kind, key, version), *read_numbers(generation, revision)), 0


def read_record(kind: Kind, row: tuple[object, ...]) -> tuple[Record, int]:
    """Return the record that a row (key, version, generation, revision, blob) is, and its blob's size in bytes."""
    key, version, generation, revision, blob = row
    if type(blob) is not bytes:
        raise corrupt("a record has columns of wrong types")
    return Record(_id(kind, key, version), blob, *read_numbers(generation, revision)), len(blob)


def _id(kind: Kind, key: object, version: object) -> RecordId:
    if type(key) is not str or type(version) is not str:
        raise corrupt("a record has columns of wrong types")
    try:
        return RecordId(kind, key, version)
    except InputError as error:
        raise corrupt("a record has a name that cannot be") from error


def read_numbers(generation: object, revision: object) -> tuple[int, Revision]:
    """Return generation and revision as they were read."""
    if type(generation) is not int or type(revision) is not int:
        raise corrupt("a record has columns of wrong types")
    # The file's own checks can be turned off by whoever writes to it past this engine.
    if not (0 <= generation <= GENERATION_LIMIT and revision >= 1):
        raise corrupt("a record has numbers that cannot be")
    return generation, Revision(revision)
