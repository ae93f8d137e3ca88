"""The anchor: one small statement, kept outside the store, of how new the store must at least be.

It is authenticated with the active root key, so whoever keeps it need not be trusted with more than not to lose it.
Each valid anchor is held against the store; an invalid one is reported and ignored.

Root keys change, and an anchor is of the one that was active when it was made. What becomes of it depends on what the
keyring at hand says of that generation:

1. Its key is at hand: the active one, or one that the keyring keeps wrapped for a way back. It confirms the anchor, or
   the anchor is not authentic.
2. The generation has ended here: the keyring names it, its key is neither at hand nor still to come into force. Such
   an anchor is PAST and says nothing against this keyring. For what could it tell? That the store had been further
   than this keyring with that generation active. But from this keyring on, only a key that it holds, one that it is
   about to bring in, or one that is made later can become active. A rollback makes a generation active a second time
   out of the key that was kept, which is at hand as long as that is possible (rule 1); what a rollback goes away from
   is not kept, and never comes back. A compromised generation is never active again either; whoever knows its key can
   make anchors of any number, and they must not count.
3. The keyring does not know the generation, or knows it as still to come: an older copy of the store looks like this
   when a rotation came between. Nothing at hand can confirm such an anchor, and it must not be ignored: it is UNPROVEN.
   Anybody could have made it, so it weighs as somebody's word does (see spike.lifecycle.staleness).

Numbers of generations are those of one life of a store. In another lineage the same number is another key, so an anchor
of another lineage that no key at hand confirms is unproven, whatever its generation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import msgspec

from spike.crypto.purpose import Purpose, purpose_key
from spike.error import FormatError
from spike.lifecycle import document
from spike.lifecycle.document import Document
from spike.lifecycle.keyring import Counter, Id, Keyring, Number
from spike.lifecycle.state import State
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
    """The valid anchors, those that only another keyring could confirm, and what was wrong with the others.

    `rejected` has one sentence for each. Anchors of the past are left out: they say nothing.
    """

    valid: tuple[Anchor, ...]
    unproven: tuple[Anchor, ...]
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


def weigh_untrusted(
    raws: Iterable[bytes], keyring: Keyring, roots: Mapping[int, KeyMemory]
) -> Weighed:
    """Tell the anchors that are valid for this store from the others; see the module's docstring.

    `roots` are the root keys at hand by generation, the active one among them.
    """
    valid: list[Anchor] = []
    unproven: list[Anchor] = []
    rejected: list[str] = []
    for raw in raws:
        try:
            split = document.split_untrusted(raw, THING, FORMAT, LIMIT_BYTES)
            seen = document.read_untrusted(split.body, Anchor, THING)
            if _is_confirmed(split, seen, keyring, roots):
                valid.append(seen)
            elif seen.lineage != keyring.lineage or could_follow(keyring, seen.generation):
                unproven.append(seen)
            elif seen.generation in roots:
                rejected.append("the anchor is not authentic")
        except FormatError as error:
            rejected.append(error.message)
    return Weighed(tuple(valid), tuple(unproven), tuple(rejected))


def could_follow(keyring: Keyring, generation: int) -> bool:
    """Return whether a later keyring could have a root key active that this one does not have.

    So it is with a generation that is not named here, or that is still to come into force.
    """
    state = next((root.state for root in keyring.roots if root.number == generation), None)
    return state is None or state is State.PRE_ACTIVATION


def decode_untrusted(raw: bytes) -> Anchor:
    """Read an anchor without confirming it, to show it or to file it under its store.

    Raises:
        FormatError: it is none, or damaged.
    """
    split = document.split_untrusted(raw, THING, FORMAT, LIMIT_BYTES)
    return document.read_untrusted(split.body, Anchor, THING)


def _is_confirmed(
    split: Document, seen: Anchor, keyring: Keyring, roots: Mapping[int, KeyMemory]
) -> bool:
    if seen.store_id != keyring.store_id:
        raise FormatError(f"the anchor is of another store ({seen.store_id})")
    root = roots.get(seen.generation)
    if root is None:
        return False
    store = bytes.fromhex(seen.store_id)
    with purpose_key(root, Purpose.ANCHOR_MAC, store, seen.generation) as key:
        return split.confirmed_by(key)
