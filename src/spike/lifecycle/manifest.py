"""The manifest: what a system backup holds, authenticated under the root key of its moment. It ends the file.

    spike-manifest 1
    {"written_at":…,"store_id":…,…}
    mac …                                        manifest-mac of the active root key

`digest` is the chain of digests over all that stands before the manifest (spike.lifecycle.system_backup), so whoever
holds an authentic manifest can tell each byte of the file from another one.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from spike.crypto.purpose import Purpose, purpose_key
from spike.error import FormatError
from spike.lifecycle import document
from spike.lifecycle.document import Document
from spike.lifecycle.keyring import Counter, Digest, Id, Keyring, Moment, Number
from spike.memory.key_memory import KeyMemory

FORMAT: Final = 1
LIMIT_BYTES: Final = 64 << 10
THING: Final = "manifest"


class CensusLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many records of a kind carry a generation."""

    kind: Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,64}\Z")]
    generation: Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)]
    records: Counter


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What stands in the file before it. `generation` is that of the root key it is authenticated with.

    `size_bytes` and `digest` are of everything before the manifest's own frame; `fence` is the store's.
    """

    written_at: Moment
    store_id: Id
    lineage: Id
    epoch: Counter
    revision: Counter
    generation: Number
    access_generation: Counter
    fence: Counter
    records: Counter
    size_bytes: Counter
    digest: Digest
    census: tuple[CensusLine, ...]


class UnconfirmedManifest:
    """A manifest as read from outside: a hint until a root key confirms it."""

    def __init__(self, raw: bytes, split: Document, hint: Manifest) -> None:
        self.raw = raw
        self.hint = hint
        """What it says. Nothing in it may be relied on."""
        self._split = split

    def confirmed_by(self, root: KeyMemory, confirmed: Keyring) -> Manifest | None:
        """Return the manifest if it is of this keyring and authentic under its active root key, else None."""
        names = (self.hint.store_id, self.hint.lineage, self.hint.epoch, self.hint.revision)
        if names != (confirmed.store_id, confirmed.lineage, confirmed.epoch, confirmed.revision):
            return None
        with manifest_key(root, confirmed) as key:
            return self.hint if self._split.confirmed_by(key) else None


def manifest_key(root: KeyMemory, held: Keyring) -> KeyMemory:
    """Return the key that authenticates manifests under a keyring's active root key; the caller wipes it."""
    store = bytes.fromhex(held.store_id)
    return purpose_key(root, Purpose.MANIFEST_MAC, store, held.active_root.number)


def encode(manifest: Manifest, key: KeyMemory) -> bytes:
    """Return the manifest, authenticated under `manifest_key`."""
    return document.compose(THING, FORMAT, manifest, key)


def decode_untrusted(raw: bytes) -> UnconfirmedManifest:
    """Read a manifest from outside. Size: at most 64 KiB.

    Raises:
        NewerFormatError: written by a newer SPIKE.
        FormatError: none, or damaged.
    """
    split = document.split_untrusted(raw, THING, FORMAT, LIMIT_BYTES)
    hint = document.read_untrusted(split.body, Manifest, THING)
    lines = [(line.kind, line.generation) for line in hint.census]
    if lines != sorted(set(lines)):
        raise FormatError("the manifest is damaged: its census is not in order")
    return UnconfirmedManifest(raw, split, hint)
