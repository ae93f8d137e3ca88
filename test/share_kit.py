"""A dealt set of shares for tests, with the keyring's part of it, and the ways in which shares go wrong."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import msgspec
from cryptography.utils import Buffer

from spike.crypto.purpose import check_value
from spike.lifecycle.keyring import ShareMember, ShareSet
from spike.lifecycle.rebuild import Rebuilt, rebuild
from spike.lifecycle.share import HeldSet, Share, ShareLabel
from spike.memory.key_memory import KeyMemory


@dataclass
class Dealt:
    """A root key, its shares, and what the keyring says of both."""

    root: KeyMemory
    held: HeldSet
    share_set: ShareSet
    store_id: str
    lineage: str
    check: str

    def shares(self, indexes: Iterable[int] | None = None) -> list[Share]:
        """Return the right shares, of all indexes or of some."""
        return [self.held.share(i) for i in (self.held.indexes if indexes is None else indexes)]

    def rebuild(self, shares: Sequence[Share], share_set: ShareSet | None = None) -> Rebuilt:
        """Rebuild from these shares, with the keyring's part as it is or as given."""
        found = share_set or self.share_set
        return rebuild(found, self.store_id, self.lineage, self.check, shares)

    def with_digests(self, digests: Mapping[int, str]) -> ShareSet:
        """Return the keyring's part with other digests, as a storage writer can put them there."""
        return msgspec.structs.replace(
            self.share_set,
            members=tuple(
                msgspec.structs.replace(m, digest=digests.get(m.index, m.digest))
                for m in self.share_set.members
            ),
        )

    def wipe(self) -> None:
        """Overwrite root key and shares."""
        self.root.wipe()
        self.held.wipe()


def deal(threshold: int, count: int, root: KeyMemory | None = None) -> Dealt:
    """Split a root key, a fresh one if none is given, for Keepers 1 to `count`."""
    root = root or KeyMemory.generate()
    store_id, lineage, set_id = (secrets.token_hex(16) for _ in range(3))
    held = HeldSet.split(
        root,
        store_id=store_id,
        lineage=lineage,
        generation=7,
        set_id=set_id,
        threshold=threshold,
        indexes=range(1, count + 1),
    )
    members = tuple(
        ShareMember(index=i, identity="", url="", digest=held.digest(i)) for i in held.indexes
    )
    share_set = ShareSet(
        id=set_id, generation=7, threshold=threshold, staged=False, members=members
    )
    check = check_value(root, bytes.fromhex(store_id), 7).hex()
    return Dealt(root, held, share_set, store_id, lineage, check)


@contextmanager
def dealt(threshold: int, count: int) -> Iterator[Dealt]:
    """Lend what `deal` makes and wipe it."""
    made = deal(threshold, count)
    try:
        yield made
    finally:
        made.wipe()


def key_of(value: Buffer) -> KeyMemory:
    """Return key memory with these bytes."""
    key = KeyMemory.allocate(memoryview(value).nbytes)
    with key.view() as view:
        view[:] = value
    return key


def wrong_value(share: Share) -> Share:
    """Return the share with another value under its label and tag."""
    return replace(share, value=KeyMemory.generate())


def one_bit_wrong(share: Share) -> Share:
    """Return the share with one bit flipped."""
    with share.value.view() as view:
        value = bytearray(view)
    value[17] ^= 0x10
    return replace(share, value=key_of(value))


def wrong_tag(share: Share) -> Share:
    """Return the share with the tag of nothing."""
    return replace(share, tag="0" * 64)


def wrong_length(size_bytes: int) -> Callable[[Share], Share]:
    """Return what gives a share another size."""
    return lambda share: replace(share, value=KeyMemory.generate(size_bytes))


def relabelled(change: Callable[[ShareLabel], ShareLabel]) -> Callable[[Share], Share]:
    """Return what puts another label on a share."""
    return lambda share: replace(share, label=change(share.label))


def at_index(index: int) -> Callable[[Share], Share]:
    """Return what makes a share claim another index."""
    return relabelled(lambda label: replace(label, index=index))
