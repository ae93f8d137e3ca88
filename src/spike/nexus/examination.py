"""What is looked at between a root key that was opened and the commit of a restore: the same for every way back.

The steps are 3 to 6 of spike.lifecycle.restore. Nothing is changed here.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from spike.error import FormatError, NewerFormatError, OpenError, StoreUnavailableError
from spike.lifecycle import anchor as anchors
from spike.lifecycle import backup, staleness
from spike.lifecycle import manifest as manifests
from spike.lifecycle import restore as rules
from spike.lifecycle.anchor import Anchor, Weighed
from spike.lifecycle.keyring import Keyring, Slot
from spike.lifecycle.manifest import Manifest
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.restore import Candidate, ChosenSlot
from spike.lifecycle.ring import KeyRing
from spike.lifecycle.staleness import Objection
from spike.lifecycle.system_restore import require_moment
from spike.lifecycle.witness import Witness
from spike.memory.key_memory import KeyMemory
from spike.nexus.place import Place
from spike.nexus.policy_book import PolicyBook
from spike.nexus.sealed import SealedStore
from spike.nexus.vault import Vault
from spike.storage.protocol import Record

_log = logging.getLogger("spike.nexus.place")

Witnesses = Callable[[], Awaitable[Sequence[Witness]]]
"""Asks the Keepers what they hold; who does not answer is left out."""

_OWN_ANCHOR: Final = "the backup's anchor"
_UNCONFIRMED: Final = (
    "no anchor confirms that this is the newest copy: an old one would look the same"
)


@dataclass(frozen=True, slots=True)
class SystemAsked:
    """A whole store is to be brought back from a system backup with this manifest; `backup` is its key backup.

    `set_aside`: what the store holds now may be kept aside for it.
    """

    manifest: bytes
    set_aside: bool


@dataclass(frozen=True, slots=True)
class SystemFound:
    """The manifest of a system backup, authenticated, and what was asked for."""

    manifest: Manifest
    manifest_raw: bytes
    set_aside: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """What every way back is asked with.

    `backup` is a key backup handed in, `anchors` what the caller had seen; `accept_older`: go on though somebody says
    that the store had been further.
    """

    backup: bytes | None
    anchors: tuple[bytes, ...]
    actor: str
    accept_older: bool = False
    system: SystemAsked | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tried:
    """The copy of the keyring and the slot that were opened, beside the keyring as the store holds it."""

    candidate: Candidate
    chosen: ChosenSlot
    stored: Record | None


@dataclass(frozen=True, slots=True)
class Examined:
    """What can be brought back, opened and authenticated. Owns the ring.

    `accepted` is what speaks against it and was accepted; `remarks` are for the person who decides. `policies` are
    those of the store; with `system` there are none yet, for the records are still to come.
    """

    confirmed: Keyring
    ring: KeyRing
    policies: PolicyBook | None
    tried: Tried
    actor: str
    accepted: tuple[Objection, ...]
    remarks: tuple[str, ...]
    system: SystemFound | None = None


async def no_witness() -> Sequence[Witness]:
    """Return nobody: for a Nexus without Keepers."""
    return ()


async def examine(
    vault: Vault, root: KeyMemory, tried: Tried, asked: Asked, witnesses: Witnesses
) -> Examined:
    """Check all that a restore with this root key depends on. Takes over `root`, also when it fails.

    Raises:
        RefusalError: with the reason; see spike.lifecycle.refusal.
        StoreError: the store does not answer.
    """
    try:
        confirmed = rules.confirm(tried.candidate, root)
    except BaseException:
        root.wipe()
        raise
    ring = open_ring(confirmed, root)
    try:
        objections = _against_backup(tried, ring)
        keepers = await witnesses()
        found = await _anchors(vault, tried.candidate, confirmed.store_id, asked.anchors)
        found += [(f"{each.name}'s anchor", each.anchor) for each in keepers if each.anchor]
        heard = _Heard.of(found, ring)
        rules.require_in_force(
            tried.candidate,
            confirmed,
            None if tried.stored is None else tried.stored.blob,
            root,
            heard.valid_outside(),
        )
        system = None if asked.system is None else _authentic(asked.system, ring)
        policies = None
        if system is None:
            policies = await examine_store(SealedStore(vault.store, ring))
            reached = policies.access_generation
        else:
            reached = system.manifest.access_generation
        objections += heard.against(confirmed, reached)
        objections += _by_keepers(confirmed, keepers)
        if system is None or not system.set_aside:
            objections += _by_fence(confirmed, (await vault.store.health()).fence)
        _require_accepted(confirmed, objections, asked)
    except BaseException:
        ring.wipe()
        raise
    return Examined(
        confirmed=confirmed,
        ring=ring,
        policies=policies,
        tried=tried,
        actor=asked.actor,
        accepted=tuple(objections),
        remarks=(*asked.remarks, *heard.remarks()),
        system=system,
    )


def _authentic(asked: SystemAsked, ring: KeyRing) -> SystemFound:
    """Return the manifest, if the root key confirms it for this keyring.

    Raises:
        RefusalError: DAMAGED, NEWER_FORMAT or PLANTED.
    """
    try:
        told = manifests.decode_untrusted(asked.manifest)
    except NewerFormatError as error:
        raise RefusalError(Reason.NEWER_FORMAT, error.message, error.next_step) from error
    except FormatError as error:
        raise RefusalError(Reason.DAMAGED, error.message, "restore from another copy") from error
    found = require_moment(told.confirmed_by(ring.root, ring.document))
    return SystemFound(found, told.raw, asked.set_aside)


def open_ring(confirmed: Keyring, root: KeyMemory) -> KeyRing:
    """Open every key the keyring holds. Takes over `root`, also when it fails.

    Raises:
        RefusalError: DAMAGED.
    """
    try:
        return KeyRing.open(confirmed, root)
    except (OpenError, FormatError) as error:
        raise RefusalError(Reason.DAMAGED, f"the keyring is damaged: {error.message}") from error


async def examine_store(sealed: SealedStore) -> PolicyBook:
    """Open the access list and one record of each kind.

    Raises:
        RefusalError: FOREIGN when a record does not open: it is of another store, or was moved or changed.
    """
    try:
        policies = await PolicyBook.load(sealed)
        async for record in sealed.samples():
            sealed.open(record)
    except (OpenError, FormatError) as error:
        raise RefusalError(
            Reason.FOREIGN,
            f"the root key does not open what the store holds ({error.message}): "
            "the records are of another store, or were changed",
            "put the right store beside its keyring, then try again",
        ) from error
    return policies


async def slots_in_places(vault: Vault, store_id: str) -> list[tuple[Slot, Path]]:
    """Return every slot that a backup place remembers, and where. Nothing of it is authenticated."""
    found: list[tuple[Slot, Path]] = []
    for state in vault.places:
        raw = await _read(state.place, state.place.read_backup, store_id)
        if raw is None:
            continue
        with contextlib.suppress(RefusalError):
            held = rules.choose(None, raw).held.hint
            found += [(slot, state.place.backup_path(store_id)) for slot in held.slots]
    return found


def _against_backup(tried: Tried, ring: KeyRing) -> list[Objection]:
    if tried.candidate.backup is None:
        return []
    stored = None if tried.stored is None else tried.stored.blob
    objection = rules.compare_copies(ring.document, stored, ring.roots)
    return [] if objection is None else [objection]


def _by_keepers(confirmed: Keyring, keepers: Sequence[Witness]) -> list[Objection]:
    claims = (
        staleness.by_claim(confirmed, each.name, each.claim)
        for each in keepers
        if each.claim is not None
    )
    return [each for each in claims if each is not None]


def _by_fence(confirmed: Keyring, fence: int) -> list[Objection]:
    objection = staleness.by_fence(confirmed, fence)
    return [] if objection is None else [objection]


def _require_accepted(confirmed: Keyring, objections: Sequence[Objection], asked: Asked) -> None:
    # What nobody can accept is told first, before anybody types a phrase for the rest.
    staleness.above(confirmed, objections)
    if objections and not asked.accept_older:
        raise objections[0].refusal()


class _Heard(NamedTuple):
    """What was weighed, with where each anchor was."""

    weighed: tuple[tuple[str, Weighed], ...]

    @classmethod
    def of(cls, found: Sequence[tuple[str, bytes]], ring: KeyRing) -> _Heard:
        weigh = anchors.weigh_untrusted
        return cls(tuple((name, weigh((raw,), ring.document, ring.roots)) for name, raw in found))

    def valid_outside(self) -> list[Anchor]:
        """Return the valid anchors that come from outside of the backup."""
        return [s for name, each in self.weighed if name != _OWN_ANCHOR for s in each.valid]

    def remarks(self) -> tuple[str, ...]:
        """Return what was wrong with anchors, and whether none confirms anything."""
        wrong = [
            f"{name} does not count: {told}"
            for name, each in self.weighed
            for told in each.rejected
        ]
        confirms = any(each.valid for _, each in self.weighed)
        return tuple(wrong) if confirms else (*wrong, _UNCONFIRMED)

    def against(self, confirmed: Keyring, access_generation: int) -> list[Objection]:
        found = (
            staleness.by_weighed(confirmed, access_generation, each, name)
            for name, each in self.weighed
        )
        return [each for each in found if each is not None]


async def _anchors(
    vault: Vault, candidate: Candidate, store_id: str, given: Sequence[bytes]
) -> list[tuple[str, bytes]]:
    found = [("the anchor that was handed in", raw) for raw in given if raw]
    if candidate.backup is not None:
        found.append((_OWN_ANCHOR, candidate.backup.anchor_raw))
    in_places = await anchors_of_places(vault, store_id)
    return found + [("a backup place's anchor", raw) for raw in in_places]


async def anchors_of_places(vault: Vault, store_id: str) -> list[bytes]:
    """Return every anchor that a backup place holds of a store, alone or in the key backup. None is authenticated."""
    found: list[bytes] = []
    for state in vault.places:
        raw = await _read(state.place, state.place.read_anchor, store_id)
        if raw is not None:
            found.append(raw)
        # A crash may have come between the two files.
        held = await _read(state.place, state.place.read_backup, store_id)
        if held is not None:
            with contextlib.suppress(FormatError):
                copy = backup.decode_untrusted(held)
                # What is pending says how far the store may come, not how far it came.
                found += [] if copy.pending else [copy.anchor_raw]
    return found


async def _read(place: Place, act: Callable[[str], bytes | None], store_id: str) -> bytes | None:
    try:
        return await place.reach.call(act, store_id)
    except StoreUnavailableError as error:
        # As one that holds nothing: a mount that hangs must not keep the root key away.
        _log.error("%s; what it holds is left out", error.message)
        return None
