"""One record looked at: does it open, is it what its kind must be, does its row tell the truth.

Nothing is called bad at first sight. A record is read again, and again judged with the keys then in force: only what is
found bad twice, with the same bytes, is bad. So a writer who is quicker than the reader makes nothing look bad.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from spike.crypto.record import generation_of_untrusted
from spike.error import FormatError, OpenError
from spike.lifecycle import usage
from spike.lifecycle.census import UNKNOWN_GENERATION, BadReason, Finding
from spike.lifecycle.chain import decode_entry_untrusted
from spike.lifecycle.keyring import KeyPurpose, Keyring
from spike.lifecycle.progress import decode_progress_untrusted
from spike.nexus.sealed import SealedStore
from spike.policy.access_list import decode_access_list_untrusted
from spike.policy.encoding import decode_policy_untrusted
from spike.policy.rule import Policy
from spike.secret.encoding import decode_meta_untrusted, decode_values_untrusted
from spike.storage.protocol import (
    ACCESS_LIST,
    ADMIN,
    HISTORY,
    POLICY,
    PROGRESS,
    SECRET,
    SECRET_META,
    USAGE,
    Kind,
    Record,
    RecordId,
)

READ_ATTEMPTS: Final = 100
"""How often something is read again because it changed under the reader."""


@dataclass(frozen=True, slots=True)
class Sound:
    """The record as last read, its plain text, and what that says; `generation` is that of its blob."""

    record: Record
    plaintext: bytes
    content: object
    generation: int

    def __repr__(self) -> str:
        return f"Sound({self.record.id})"


@dataclass(frozen=True, slots=True)
class Unsound:
    """The record as last read, and what is wrong with it; `generation` is what its blob names."""

    record: Record
    reason: BadReason
    detail: str
    generation: int

    @property
    def finding(self) -> Finding:
        """What is wrong, by the record's name."""
        return finding_of(self.record.id, self.reason, self.detail)


class Gone(Enum):
    """The record is not there any more."""

    TOKEN = "gone"  # noqa: S105 - the name of a sentinel, not a password


GONE: Final = Gone.TOKEN
Outcome = Sound | Unsound | Gone


def finding_of(record_id: RecordId, reason: BadReason, detail: str) -> Finding:
    """Return a finding about the record of this name."""
    return Finding(record_id.kind, record_id.key, record_id.version, reason, detail)


def record_generations(document: Keyring) -> frozenset[int]:
    """Return every generation of the record key that the keyring names."""
    return frozenset(key.number for key in document.keys if key.purpose is KeyPurpose.RECORD)


def header_generation(blob: bytes) -> int:
    """Return the generation a blob names, or UNKNOWN_GENERATION when it is no sealed record."""
    try:
        return generation_of_untrusted(blob)
    except FormatError:
        return UNKNOWN_GENERATION


async def examine(sealed: Callable[[], SealedStore], record: Record) -> Outcome:
    """Look at a record that was just read; read it again before it is called bad or gone.

    `sealed` gives the store as it is seen through the keys in force at that moment.

    Raises:
        StoreError: it cannot be read again.
    """
    found = judge(sealed(), record)
    for _ in range(READ_ATTEMPTS):
        if isinstance(found, Sound):
            return found
        again = await sealed().fetch(record.id)
        if again is None:
            return GONE
        same = again == record
        record, found = again, judge(sealed(), again)
        if same:
            return found
    return found


def judge(sealed: SealedStore, record: Record) -> Sound | Unsound:
    """Open a record and look at what is in it."""
    generation = header_generation(record.blob)
    try:
        plaintext = sealed.open(record)
    except FormatError as error:
        return _unsound(record, BadReason.MALFORMED, error.message, generation)
    except OpenError as error:
        known = generation in sealed.generations
        reason = BadReason.UNOPENABLE if known else BadReason.NO_KEY
        return _unsound(record, reason, error.message, generation)
    try:
        content = _FORM[record.id.kind](plaintext)
        _require_name(record, content)
    except FormatError as error:
        return _unsound(record, BadReason.MALFORMED, error.message, generation)
    if record.generation != generation:
        return _unsound(record, BadReason.MISLABELED, "", generation)
    return Sound(record, plaintext, content, generation)


def _unsound(record: Record, reason: BadReason, detail: str, generation: int) -> Unsound:
    """Say also of a record that is bad for another reason that its column lies."""
    if record.generation != generation:
        lie = f"its row says generation {record.generation}, its blob {generation or 'none'}"
        detail = f"{detail}; {lie}" if detail else lie
    return Unsound(record, reason, detail, generation)


def _require_name(record: Record, content: object) -> None:
    if isinstance(content, Policy) and content.name != record.id.key:
        raise FormatError("the policy has another name than its record")


def _any_form(_plaintext: bytes) -> None:
    """Take what has no form yet: nothing writes this kind."""


# What the plain text of each sealed kind must be. A kind without a line here is not known.
_FORM: Final[Mapping[Kind, Callable[[bytes], object]]] = {
    ACCESS_LIST: decode_access_list_untrusted,
    ADMIN: _any_form,
    HISTORY: decode_entry_untrusted,
    POLICY: decode_policy_untrusted,
    PROGRESS: decode_progress_untrusted,
    SECRET: decode_values_untrusted,
    SECRET_META: decode_meta_untrusted,
    USAGE: usage.decode_untrusted,
}
SEALED_KINDS: Final[frozenset[Kind]] = frozenset(_FORM)
