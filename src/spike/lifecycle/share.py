"""Shares of the root key: what each is bound to, what vouches for it, and the set Nexus holds.

The way back from what Keepers answer is spike.lifecycle.rebuild. What vouches for a share:

* its **digest**, in the keyring: needs no key, so a share can be looked at alone. But when a set is rebuilt the keyring
  is not authenticated yet, and whoever writes the store may have changed it: a digest orders the search and is
  suspicion, no more.
* its **tag**, beside it on the Keeper: a MAC that only the owner of the root key can make or check. It says who is
  wrong, once there is a root key.
* the **check value**, in the keyring: says that a rebuilt root key is the one this keyring names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from types import TracebackType
from typing import Final, Self

from spike.crypto.mac import mac
from spike.crypto.purpose import Purpose, purpose_key
from spike.crypto.shamir import proof_of, split
from spike.error import RefusedError
from spike.memory.key_memory import KEY_BYTES, KeyMemory

_ID_BYTES: Final = 16
_DIGEST_LABEL: Final = b"spike/share/v1/digest"
_TAG_LABEL: Final = b"spike/share/v1/tag"


class ShareProblem(StrEnum):
    """What is wrong with a share, or with all that were given."""

    TOO_FEW = "too_few"
    DUPLICATE = "duplicate"
    INDEX_ZERO = "index_zero"
    OUT_OF_RANGE = "out_of_range"
    UNKNOWN_INDEX = "unknown_index"
    MIXED_SET = "mixed_set"
    WRONG_LENGTH = "wrong_length"
    WRONG_VALUE = "wrong_value"
    WRONG_TAG = "wrong_tag"
    LOW_THRESHOLD = "low_threshold"
    NOT_CONFIRMED = "not_confirmed"


MEANING: Final[Mapping[ShareProblem, str]] = {
    ShareProblem.TOO_FEW: "there are fewer shares than the threshold",
    ShareProblem.DUPLICATE: "two shares have the same index",
    ShareProblem.INDEX_ZERO: "a share has index 0, which is the place of the secret itself",
    ShareProblem.OUT_OF_RANGE: "a share has an index outside 1 to 255",
    ShareProblem.UNKNOWN_INDEX: "a share has an index that its set does not have",
    ShareProblem.MIXED_SET: "a share is of another store, lineage, set, generation or threshold",
    ShareProblem.WRONG_LENGTH: "a share has not 32 bytes",
    ShareProblem.WRONG_VALUE: "a share has not the value that was dealt",
    ShareProblem.WRONG_TAG: "a share has the right value, but not the tag it was dealt with",
    ShareProblem.LOW_THRESHOLD: "the keyring asks for fewer shares than was configured",
    ShareProblem.NOT_CONFIRMED: "no choice of these shares gives the root key the keyring names",
}
"""One sentence for each, without anything of a share."""


@dataclass(frozen=True, slots=True)
class BadShare:
    """A share that was set aside: its index as it says, why, and its position among those given."""

    index: int
    reason: ShareProblem
    position: int


class ShareError(RefusedError):
    """Shares that do not give the root key. Nothing was changed.

    `bad` names those known to be wrong, `suspicious` the indexes whose digest does not fit: without a root key nobody
    can tell whether the share or the digest was changed.
    """

    def __init__(
        self,
        problem: ShareProblem,
        bad: Sequence[BadShare] = (),
        suspicious: Sequence[int] = (),
    ) -> None:
        super().__init__(MEANING[problem])
        self.problem = problem
        self.bad = tuple(bad)
        self.suspicious = tuple(suspicious)


@dataclass(frozen=True, slots=True)
class ShareLabel:
    """What a share is bound to. Ids as in the keyring: 32 lower-case hexadecimal digits."""

    store_id: str
    lineage: str
    set_id: str
    generation: int
    index: int
    threshold: int

    def canonical(self) -> bytes:
        """Return the 54 bytes that digest and tag cover: three ids, generation (4), index (1), threshold (1).

        Raises:
            ValueError: an id is not of that form, or a number does not fit.
        """
        numbers = self.generation.to_bytes(4, "big") + bytes((self.index, self.threshold))
        return (
            b"".join(_id_bytes(each) for each in (self.store_id, self.lineage, self.set_id))
            + numbers
        )


@dataclass(frozen=True, slots=True)
class Share:
    """One share as it lies on a Keeper: label, 32 bytes, and its tag in 64 lower-case hexadecimal digits.

    It owns nothing: whoever made `value` wipes it.
    """

    label: ShareLabel
    value: KeyMemory
    tag: str


def digest_of(label: ShareLabel, value: KeyMemory) -> str:
    """Return the SHA-256 digest of a share in hexadecimal, as kept in the keyring.

    It shows nothing of the share: 32 random bytes are not found by trying.

    Raises:
        ValueError: the label has no canonical form.
        WipedError: `value` is gone.
    """
    hashed = hashlib.sha256(_DIGEST_LABEL + label.canonical())
    with value.view() as view:
        hashed.update(view)
    return hashed.hexdigest()


class HeldSet:
    """A whole set of shares in locked memory, as Nexus holds it to give an empty Keeper its own share again.

    Usable as a context manager that wipes. After `wipe`, whatever needs a share raises WipedError.
    """

    def __init__(self, root: KeyMemory, label: ShareLabel, values: Mapping[int, KeyMemory]) -> None:
        """Private: use `split`, or `spike.lifecycle.rebuild`. It owns `values`; `label` is that of any index."""
        self._label = label
        self._values = dict(values)
        with tag_key(root, label) as key:
            self._tags = {i: tag_of(key, self._label_at(i), value) for i, value in values.items()}

    @classmethod
    def split(
        cls,
        root: KeyMemory,
        *,
        store_id: str,
        lineage: str,
        generation: int,
        set_id: str,
        threshold: int,
        indexes: Sequence[int],
    ) -> Self:
        """Split `root`, which stays the caller's, with a fresh polynomial. A set id is used for one split only.

        Raises:
            ValueError: as `spike.crypto.shamir.split`; a key not of 32 bytes, an id or generation of another form.
            WipedError: `root` is gone.
            SettingError: RLIMIT_MEMLOCK leaves no room.
        """
        if root.size_bytes != KEY_BYTES:
            raise ValueError("a root key is 32 bytes")
        values = split(root, threshold, indexes)
        try:
            label = ShareLabel(store_id, lineage, set_id, generation, 0, threshold)
            return cls(root, label, values)
        except BaseException:
            wipe_shares(values)
            raise

    @property
    def set_id(self) -> str:
        """The id of the set."""
        return self._label.set_id

    @property
    def generation(self) -> int:
        """The generation of the root key that was split."""
        return self._label.generation

    @property
    def threshold(self) -> int:
        """How many shares give the root key."""
        return self._label.threshold

    @property
    def indexes(self) -> tuple[int, ...]:
        """The indexes of its shares."""
        return tuple(self._values)

    def share(self, index: int) -> Share:
        """Return one share: a look at what this set owns, gone when it is wiped.

        Raises:
            ShareError: the set has no such index.
        """
        return Share(self._label_at(index), self._value(index), self._tags[index])

    def digest(self, index: int) -> str:
        """Return the digest of one share, for the keyring.

        Raises:
            ShareError: the set has no such index.
            WipedError: the set is wiped.
        """
        return digest_of(self._label_at(index), self._value(index))

    def proof(self, index: int, nonce: bytes) -> bytes:
        """Return what the Keeper of one share must answer to the 32-byte `nonce` (spike.crypto.shamir.proof_of).

        Raises:
            ShareError: the set has no such index.
            ValueError: a nonce not of 32 bytes.
            WipedError: the set is wiped.
        """
        return proof_of(self._value(index), nonce)

    def wipe(self) -> None:
        """Overwrite every share. Idempotent."""
        wipe_shares(self._values)

    def _label_at(self, index: int) -> ShareLabel:
        return replace(self._label, index=index)

    def _value(self, index: int) -> KeyMemory:
        if index not in self._values:
            raise ShareError(ShareProblem.UNKNOWN_INDEX)
        return self._values[index]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.wipe()


def tag_key(root: KeyMemory, label: ShareLabel) -> KeyMemory:
    """Return the key of the tags under `root`, for the store and generation of `label`; the caller wipes it.

    Raises:
        ValueError: store id or generation have not their form.
        WipedError: `root` is gone.
    """
    return purpose_key(root, Purpose.SHARE_MAC, bytes.fromhex(label.store_id), label.generation)


def tag_of(key: KeyMemory, label: ShareLabel, value: KeyMemory) -> str:
    """Return the tag of a share of 32 bytes in hexadecimal; `key` is that of `tag_key`.

    What it covers is put together in locked memory, for the share is part of it.

    Raises:
        ValueError: the label has no canonical form, or the share another size.
        WipedError: `key` or `value` is gone.
    """
    head = _TAG_LABEL + label.canonical()
    with (
        KeyMemory.allocate(len(head) + KEY_BYTES) as covered,
        covered.view() as target,
        value.view() as source,
    ):
        target[: len(head)] = head
        target[len(head) :] = source
        return mac(key, target).hex()


def wipe_shares(values: Mapping[int, KeyMemory]) -> None:
    """Overwrite every share of a split. Idempotent."""
    for value in values.values():
        value.wipe()


def _id_bytes(text: str) -> bytes:
    raw = bytes.fromhex(text)
    if len(raw) != _ID_BYTES or len(text) != 2 * _ID_BYTES or text != text.lower():
        raise ValueError("an id is 32 lower-case hexadecimal digits")
    return raw
