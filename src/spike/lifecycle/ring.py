"""The key ring: the confirmed keyring document together with its keys, in locked memory.

Immutable: a change of keys makes a new ring, and the old one is wiped only after the compare-and-swap that made it
superfluous has been read back (persist, then swap, then wipe).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, NewType, Self

from spike.crypto.purpose import Purpose, check_value, data_check_value, purpose_key
from spike.crypto.record import RecordContext, open_into, seal
from spike.error import FormatError, NotFoundError, OpenError, RefusedError
from spike.lifecycle.keyring import KeyPurpose, Keyring, WrappedKey
from spike.lifecycle.state import State
from spike.memory.key_memory import KeyMemory

Generation = NewType("Generation", int)
KEY_SIZE_BYTES = 32


class KeyName(NamedTuple):
    """Which key: purpose, slot id (empty but for `backup-auth`), generation number."""

    purpose: KeyPurpose
    slot: str
    number: int


class RecordKey(NamedTuple):
    """A key that seals records, with the generation number each record carries."""

    generation: Generation
    key: KeyMemory


def wrap_context(store_id: str, name: KeyName) -> RecordContext:
    """Return what a wrapped key is bound to, besides the root-key generation in its header."""
    return RecordContext(
        store_id=bytes.fromhex(store_id),
        kind="wrapped-key",
        key=f"{name.purpose}/{name.slot}/{name.number}",
        version="",
        field="",
    )


def wrap(root: KeyMemory, generation: int, store_id: str, name: KeyName, key: KeyMemory) -> bytes:
    """Return `key` (32 bytes) sealed under a root-key generation."""
    with (
        key.view() as view,
        purpose_key(root, Purpose.WRAP, bytes.fromhex(store_id), generation) as wrapping,
    ):
        return seal(wrapping, generation, wrap_context(store_id, name), view)


class KeyRing:
    """The keys of one confirmed keyring. Owns `root` and every key it holds; `wipe` destroys them all."""

    def __init__(
        self, document: Keyring, root: KeyMemory, keys: Mapping[KeyName, KeyMemory]
    ) -> None:
        self._document = document
        self._root = root
        self._keys = dict(keys)
        active = document.active_key(KeyPurpose.RECORD)
        self._record = {
            name.number: RecordKey(Generation(name.number), key)
            for name, key in self._keys.items()
            if name.purpose is KeyPurpose.RECORD
        }
        self._active_record = self._record[active.number]
        # Only what may be used: a generation below the oldest accepted one opens nothing more.
        self._cipher = {
            name.number: key
            for name, key in self._keys.items()
            if name.purpose is KeyPurpose.CIPHER and name.number >= document.oldest_cipher
        }
        number = document.active_key(KeyPurpose.CIPHER).number
        self._active_cipher = RecordKey(Generation(number), self._cipher[number])

    @classmethod
    def open(cls, document: Keyring, root: KeyMemory) -> Self:
        """Unwrap every key the keyring holds. Takes over `root`, also when it fails.

        Raises:
            OpenError: a wrapped key does not open, or is not the one its check value was made of.
            RefusedError: `root` is not the root key of this keyring.
        """
        keys: dict[KeyName, KeyMemory] = {}
        try:
            _require_confirmed(document, root)
            for wrapped in document.keys:
                if wrapped.state is not State.DESTROYED:
                    name = KeyName(wrapped.purpose, wrapped.slot, wrapped.number)
                    keys[name] = _unwrap(document.store_id, wrapped, name, root)
            return cls(document, root, keys)
        except BaseException:
            for key in (*keys.values(), root):
                key.wipe()
            raise

    @property
    def document(self) -> Keyring:
        """The confirmed keyring."""
        return self._document

    @property
    def root(self) -> KeyMemory:
        """The active root key."""
        return self._root

    @property
    def roots(self) -> Mapping[int, KeyMemory]:
        """Every root key at hand by its generation: the active one, and one kept for a way back."""
        kept = {
            name.number: key for name, key in self._keys.items() if name.purpose is KeyPurpose.ROOT
        }
        return {**kept, self._document.active_root.number: self._root}

    @property
    def active_record(self) -> RecordKey:
        """The record key that seals what is written now."""
        return self._active_record

    @property
    def record_generations(self) -> frozenset[int]:
        """The generations of the record key that are at hand."""
        return frozenset(self._record)

    def record(self, generation: int) -> KeyMemory:
        """Return the record key of a generation.

        Raises:
            OpenError: the ring holds no such generation.
        """
        try:
            return self._record[generation].key
        except KeyError:
            raise OpenError(f"no record key of generation {generation} is at hand") from None

    @property
    def active_cipher(self) -> RecordKey:
        """The cipher key that encrypts now."""
        return self._active_cipher

    def cipher(self, generation: int) -> KeyMemory:
        """Return the cipher key of a generation, to decrypt with.

        Raises:
            OpenError: the ring holds no such generation, or it is older than the oldest accepted one.
        """
        try:
            return self._cipher[generation]
        except KeyError:
            raise OpenError(f"no cipher key of generation {generation} may be used") from None

    def key(self, name: KeyName) -> KeyMemory:
        """Return a key by its name.

        Raises:
            NotFoundError: the ring holds no such key.
        """
        try:
            return self._keys[name]
        except KeyError:
            raise NotFoundError(
                f"no {name.purpose} key of generation {name.number} is at hand"
            ) from None

    def auth(self, slot_id: str) -> KeyMemory:
        """Return a slot's `backup-auth` key.

        Raises:
            NotFoundError: there is no such slot.
        """
        for name, key in self._keys.items():
            if name.purpose is KeyPurpose.BACKUP_AUTH and name.slot == slot_id:
                return key
        raise NotFoundError("there is no such slot")

    def replaced(self, document: Keyring) -> KeyRing:
        """Return a ring with the same keys and a newer document. This ring must not be wiped then."""
        return KeyRing(document, self._root, self._keys)

    def changed(self, document: Keyring, added: Mapping[KeyName, KeyMemory]) -> KeyRing:
        """Return a ring with a newer document: with the keys `added`, without those that it names as destroyed.

        Both rings share the other keys: the one that does not come into force is dropped with `wipe_except`.
        """
        kept = {
            KeyName(k.purpose, k.slot, k.number)
            for k in document.keys
            if k.state is not State.DESTROYED
        }
        keys = {name: key for name, key in self._keys.items() if name in kept}
        return KeyRing(document, self._root, {**keys, **added})

    def succeeded(
        self, document: Keyring, root: KeyMemory, added: Mapping[KeyName, KeyMemory]
    ) -> KeyRing:
        """Return the ring of a document whose active root key is `root`: every key it names, from here and `added`.

        Both rings share the other keys, as with `changed`. A document that keeps this ring's root key gets it, too.
        """
        former = KeyName(KeyPurpose.ROOT, "", self._document.active_root.number)
        known = {**self._keys, **added, former: self._root}
        live = [KeyName(k.purpose, k.slot, k.number) for k in document.keys if k.is_live]
        return KeyRing(document, root, {name: known[name] for name in live})

    def with_active_record_alone(self) -> KeyRing:
        """Return a ring that lacks every record key but the active one: what it opens depends on no other."""
        active = self._active_record.generation
        kept = {
            name: key
            for name, key in self._keys.items()
            if name.purpose is not KeyPurpose.RECORD or name.number == active
        }
        return KeyRing(self._document, self._root, kept)

    def wipe_except(self, kept: KeyRing) -> None:
        """Destroy the keys that `kept` does not hold. Idempotent."""
        held = {id(key) for key in (*kept._keys.values(), kept._root)}
        for key in (*self._keys.values(), self._root):
            if id(key) not in held:
                key.wipe()

    def holds(self, key: KeyMemory) -> bool:
        """Return whether this very memory is one of the ring's keys."""
        return any(key is each for each in (*self._keys.values(), self._root))

    def has_keys_of(self, other: KeyRing) -> bool:
        """Return whether both hold the same keys."""
        return self._root is other._root and self._keys == other._keys

    def mismatches(self) -> tuple[str, ...]:
        """Check every key in memory against its check value; return the names of those that differ or left their lock.

        Costs one derivation a key.
        """
        wrong = [] if confirms_root(self._document, self._root) else ["root"]
        checks = {KeyName(k.purpose, k.slot, k.number): k.check for k in self._document.keys}
        for name, key in self._keys.items():
            if check_of(self._document.store_id, name, key) != checks.get(name):
                wrong.append(f"{name.purpose} {name.number}")
        return tuple(wrong)

    def unwrap_again(self, wrapped: WrappedKey) -> str:
        """Unwrap a key of the document once more; return what is wrong with it, or "". Nothing in memory changes."""
        name = KeyName(wrapped.purpose, wrapped.slot, wrapped.number)
        try:
            _unwrap(self._document.store_id, wrapped, name, self._root).wipe()
        except (OpenError, FormatError) as error:
            return error.message
        return ""

    def wipe(self) -> None:
        """Destroy every key. Idempotent."""
        for key in (*self._keys.values(), self._root):
            key.wipe()


def confirms_root(document: Keyring, root: KeyMemory) -> bool:
    """Return whether `root` gives the check value of the active generation. The value is public: no constant time."""
    active = document.active_root
    return check_value(root, bytes.fromhex(document.store_id), active.number).hex() == active.check


def _require_confirmed(document: Keyring, root: KeyMemory) -> None:
    if not confirms_root(document, root):
        raise RefusedError("the root key does not match the check value in the keyring")


def check_of(store_id: str, name: KeyName, key: KeyMemory) -> str:
    """Return the check value of a key below the root key, in hexadecimal."""
    label = f"{name.purpose}/{name.slot}"
    return data_check_value(key, label, bytes.fromhex(store_id), name.number).hex()


def _unwrap(store_id: str, wrapped: WrappedKey, name: KeyName, root: KeyMemory) -> KeyMemory:
    key = KeyMemory.allocate(KEY_SIZE_BYTES)
    try:
        _unwrap_into(store_id, wrapped, name, root, key)
    except BaseException:
        key.wipe()
        raise
    return key


def _unwrap_into(
    store_id: str, wrapped: WrappedKey, name: KeyName, root: KeyMemory, key: KeyMemory
) -> None:
    with purpose_key(root, Purpose.WRAP, bytes.fromhex(store_id), wrapped.root) as wrapping:
        open_into(wrapping, wrap_context(store_id, name), wrapped.wrapped, key)
    if check_of(store_id, name, key) != wrapped.check:
        raise OpenError(f"the {name.purpose} key of generation {name.number} is not the one it was")
