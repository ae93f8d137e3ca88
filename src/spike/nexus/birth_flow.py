"""Init: the first root key of a store, made once, and its first backup, opened before success is reported."""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from typing import Final

from spike.crypto.slot import SALT_BYTES, Argon2Setting
from spike.error import FormatError, OpenError, StoreConflictError, StoreError
from spike.lifecycle import keyring as keyrings
from spike.lifecycle.birth import FIRST, NewSlot, Origin, first_ring
from spike.lifecycle.history import record_key
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.restore import choose, choose_slot
from spike.lifecycle.ring import KeyRing
from spike.lifecycle.slot import header_of
from spike.memory.key_memory import KeyMemory
from spike.nexus.keeper_desk import KeeperDesk
from spike.nexus.keeper_refresh import NewSet, deliver, new_set, require_free, withdraw
from spike.nexus.opened import Opened, Phase
from spike.nexus.password_child import Derive
from spike.nexus.password_desk import PasswordSession
from spike.nexus.policy_book import ACCESS_LIST_ID, PolicyBook
from spike.nexus.sealed import SealedStore
from spike.nexus.vault import KEYRING_ID, Vault
from spike.storage.protocol import HISTORY, MUST_NOT_EXIST, Delete, Record, RecordId

_log: Final = logging.getLogger("spike.nexus.birth_flow")
# All that an init writes.
_WRITTEN: Final = (KEYRING_ID, ACCESS_LIST_ID, RecordId(HISTORY, record_key(FIRST)))


async def require_unborn(vault: Vault) -> None:
    """Return if the store holds nothing at all.

    Raises:
        RefusalError: ALREADY_INITIALIZED or STORE_NOT_EMPTY.
    """
    if await vault.phase() is not Phase.UNINITIALIZED:
        raise RefusalError(
            Reason.ALREADY_INITIALIZED,
            "this store has been initialized already; that happens once only",
            "if it is locked, restore it: spike restore",
        )
    if await vault.store.census():
        raise RefusalError(
            Reason.STORE_NOT_EMPTY,
            "the store holds records but no keyring: a new root key could never open them",
            "restore from a key backup (spike restore --backup FILE), or name an empty data directory",
        )
    if (await vault.store.health()).fence > FIRST:
        raise RefusalError(
            Reason.STORE_NOT_EMPTY,
            "the store is empty and was not always: somebody took its records away",
            "put the store back, or name an empty data directory",
        )


@dataclass(frozen=True, slots=True)
class Birth:
    """What an init is asked with: the sealed password, the name of its slot, who asks."""

    sealed_password: bytes
    slot_name: str
    actor: str


@dataclass(frozen=True, slots=True)
class _Conceived:
    """A first ring nobody has been told of, and the shares the Keepers hold of its root key, if there are Keepers."""

    ring: KeyRing
    shares: NewSet | None


async def initialize(keepers: KeeperDesk, session: PasswordSession, birth: Birth) -> Opened:
    """Make the root key and everything below it, bring the shares to the Keepers, commit, prove the backup, and open
    the vault.

    Raises:
        RefusalError: the store is not empty, or the password is refused.
        StoreError: the store failed; it is as it was, unless it failed again when that was put right. Then
            the password that was given restores it. Backup places that failed are in the vault's `places`.
    """
    vault = keepers.vault
    async with vault.lock, keepers.lock:
        await require_unborn(vault)
        await require_free(keepers.links)
        conceived = await _conceive(keepers, session, birth)
        try:
            opened = await _bring_forth(keepers, session, conceived)
        except BaseException:
            if not vault.is_open:
                conceived.ring.wipe()
                await _miscarry(keepers, conceived.shares)
            raise
        keepers.adopt(None if conceived.shares is None else conceived.shares.held)
    # The Keepers commit; one that does not now is told again at the next look.
    await keepers.look()
    return opened


async def _miscarry(keepers: KeeperDesk, shares: NewSet | None) -> None:
    """Take the shares back from the Keepers; not while it may be that the keyring that names them was written."""
    if shares is None:
        return
    shares.held.wipe()
    try:
        unborn = await keepers.vault.store.get(KEYRING_ID) is None
    except StoreError:
        unborn = False
    if unborn:
        await withdraw(keepers.links, shares.share_set.id)


async def bear_volatile(vault: Vault) -> Opened:
    """Open the vault of a store that keeps nothing: no password, no backup, gone with the process."""
    ring = first_ring(_origin(vault, "nexus"), None, KeyMemory.generate())
    sealed = SealedStore(vault.store, ring)
    revision, raw = await vault.replace_keyring(
        ring, MUST_NOT_EXIST, beside=(PolicyBook.birth(sealed),)
    )
    return await vault.open_with(ring, revision, raw, await PolicyBook.load(sealed))


def _origin(vault: Vault, actor: str) -> Origin:
    return Origin(
        store_id=secrets.token_hex(16),
        lineage=secrets.token_hex(16),
        slot_id=secrets.token_hex(16),
        at=vault.moment(),
        actor=actor,
    )


async def _conceive(keepers: KeeperDesk, session: PasswordSession, birth: Birth) -> _Conceived:
    origin = _origin(keepers.vault, birth.actor)
    salt, setting = secrets.token_bytes(SALT_BYTES), Argon2Setting()
    public = await session.derive(
        Derive(
            sealed_password=birth.sealed_password,
            argon2=setting.phc(),
            salt=salt,
            store_id=bytes.fromhex(origin.store_id),
            slot_id=bytes.fromhex(origin.slot_id),
            judge=(birth.slot_name,),
        )
    )
    root = KeyMemory.generate()
    shares = _dealt(keepers, origin, root)
    new_slot = NewSlot(birth.slot_name, setting.phc(), salt, public, session.take_auth())
    ring = first_ring(origin, new_slot, root, None if shares is None else shares.share_set)
    return _Conceived(ring, shares)


def _dealt(keepers: KeeperDesk, origin: Origin, root: KeyMemory) -> NewSet | None:
    if not keepers.links:
        return None
    return new_set(
        keepers.links,
        keepers.threshold,
        root,
        store_id=origin.store_id,
        lineage=origin.lineage,
        generation=FIRST,
    )


async def _bring_forth(
    keepers: KeeperDesk, session: PasswordSession, conceived: _Conceived
) -> Opened:
    vault, ring = keepers.vault, conceived.ring
    sealed = SealedStore(vault.store, ring)
    try:
        if conceived.shares is not None:
            check = ring.document.active_root.check
            await deliver(
                keepers.links,
                conceived.shares,
                ring.root,
                check,
                least=len(keepers.links),
                anchor_raw=None,
            )
        revision, raw = await vault.replace_keyring(
            ring, MUST_NOT_EXIST, beside=(PolicyBook.birth(sealed),)
        )
        await _prove(session, raw, ring)
        policies = await PolicyBook.load(sealed)
        return await vault.open_with(ring, revision, raw, policies)
    except StoreConflictError as error:
        raise RefusalError(
            Reason.ALREADY_INITIALIZED, "somebody else has initialized this store meanwhile"
        ) from error
    except BaseException:
        # Also when the answer to the write was lost: what was written is found by looking.
        if not vault.is_open:
            await _undo(vault, sealed, ring)
        raise


async def _prove(session: PasswordSession, raw: bytes, ring: KeyRing) -> None:
    """Open the slot as a restore would, from the bytes that were read back, and compare the keys."""
    candidate = choose(raw, None)
    chosen = choose_slot(candidate.held, "")
    header = header_of(candidate.held.hint, chosen.slot, chosen.sealed)
    reopened = await session.open(header, chosen.sealed.sealed, bytes.fromhex(chosen.sealed.tag))
    with reopened as root:
        if not root.same_as(ring.root) or keyrings.decode_untrusted(raw).confirmed_by(root) is None:
            raise RefusalError(
                Reason.DAMAGED, "the backup that was written does not give the root key back"
            )


async def _undo(vault: Vault, sealed: SealedStore, ring: KeyRing) -> None:
    """Take back what nobody has been told of, and nothing that this init has not written.

    Should this fail too, `init` says that the store is initialized.
    """
    try:
        held = [await vault.store.get(record_id) for record_id in _WRITTEN]
        ours = [record for record in held if record is not None and _is_ours(record, sealed, ring)]
        if ours:
            changes = [Delete(record.id, record.revision) for record in ours]
            await vault.store.apply(changes, fence=None)
    except StoreError as error:
        _log.error("an init that failed could not be taken back: %s", error.message)


def _is_ours(record: Record, sealed: SealedStore, ring: KeyRing) -> bool:
    try:
        if record.id == KEYRING_ID:
            return keyrings.decode_untrusted(record.blob).confirmed_by(ring.root) is not None
        sealed.open(record)
    except (OpenError, FormatError):
        return False
    return True
