"""The anchor: one small statement, kept outside the store, of how new the store must at least be.

It is authenticated with the active root key, so whoever keeps it need not be trusted with more than not to lose it.
Each valid anchor is held against the store; an invalid one is reported and ignored.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from spike.crypto.purpose import Purpose, purpose_key
from spike.error import FormatError
from spike.lifecycle import document
from spike.lifecycle.keyring import Counter, Id, Keyring, Number
from spike.memory.key_memory import KeyMemory

FORMAT: Final = 1
LIMIT_BYTES: Final = 4096
THING: Final = "anchor"


class Anchor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the store had reached: `generation` is the root key the statement is authenticated with."""

    store_id: Id
    lineage: Id
    epoch: Counter
    revision: Counter
    access_generation: Counter
    audit_head: str
    generation: Number

    def is_beyond(self, age: tuple[int, int], access_generation: int) -> bool:
        """Return whether the store had been further than this.

        `age` is epoch and revision. Each of keyring and access list counts alone: a newer keyring beside an older
        list would bring revoked rights back.
        """
        return (self.epoch, self.revision) > age or self.access_generation > access_generation


class Weighed(NamedTuple):
    """The valid anchors, and what was wrong with the others, one sentence each."""

    valid: tuple[Anchor, ...]
    rejected: tuple[str, ...]


def anchor_of(keyring: Keyring, access_generation: int) -> Anchor:
    """Return the anchor of a keyring and the access list beside it."""
    return Anchor(
        store_id=keyring.store_id,
        lineage=keyring.lineage,
        epoch=keyring.epoch,
        revision=keyring.revision,
        access_generation=access_generation,
        audit_head=keyring.audit_head,
        generation=keyring.active_root.number,
    )


def encode(anchor: Anchor, root: KeyMemory) -> bytes:
    """Return the statement, authenticated under `root`, the root key of `anchor.generation`."""
    store = bytes.fromhex(anchor.store_id)
    with purpose_key(root, Purpose.ANCHOR_MAC, store, anchor.generation) as key:
        return document.compose(THING, FORMAT, anchor, key)


def weigh_untrusted(raws: Iterable[bytes], keyring: Keyring, root: KeyMemory) -> Weighed:
    """Tell the anchors that are valid for this store under this root key from the others."""
    valid: list[Anchor] = []
    rejected: list[str] = []
    for raw in raws:
        try:
            valid.append(_confirm(raw, keyring, root))
        except FormatError as error:
            rejected.append(error.message)
    return Weighed(tuple(valid), tuple(rejected))


def decode_untrusted(raw: bytes) -> Anchor:
    """Read an anchor without confirming it, to show it or to file it under its store.

    Raises:
        FormatError: it is none, or damaged.
    """
    split = document.split_untrusted(raw, THING, FORMAT, LIMIT_BYTES)
    return document.read_untrusted(split.body, Anchor, THING)


def _confirm(raw: bytes, keyring: Keyring, root: KeyMemory) -> Anchor:
    split = document.split_untrusted(raw, THING, FORMAT, LIMIT_BYTES)
    anchor = document.read_untrusted(split.body, Anchor, THING)
    if anchor.store_id != keyring.store_id:
        raise FormatError(f"the anchor is of another store ({anchor.store_id})")
    if anchor.generation != keyring.active_root.number:
        raise FormatError(f"the anchor is of root-key generation {anchor.generation}")
    store = bytes.fromhex(anchor.store_id)
    with purpose_key(root, Purpose.ANCHOR_MAC, store, anchor.generation) as key:
        if not split.confirmed_by(key):
            raise FormatError("the anchor is not authentic")
    return anchor
