"""Unattended recovery: a Nexus that lost its memory gets the root key back from its Keepers, with nobody awake.

Each attempt asks all Keepers at once, and once the key is there waits a moment for the others:

1. The keyring in the store is a hint: it names the share set, its members and the check value.
2. Keepers give their shares, what they say they have committed, and the anchor they keep.
3. The shares give a root key that fits the check value, and the root key authenticates the whole keyring.
4. The anchors of Keepers and backup places say whether the store is an old copy. No change of keys is followed by a
   write before all Keepers but t - 1 hold its anchor (or a place does): among any t that answer is one that has it.
5. The access list and one record of each kind are opened. Then the vault is.

Nothing is written, but for events that had not reached the history. What stops an attempt is a reason for the next:
it never gives up. One liar cannot keep the key away: his word alone is named and not believed; that of t Keepers is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from spike.error import RefusedError, SpikeError
from spike.lifecycle import anchor as anchors
from spike.lifecycle import restore as rules
from spike.lifecycle import staleness
from spike.lifecycle.keyring import Keyring, ShareSet, UnconfirmedKeyring
from spike.lifecycle.rebuild import Rebuilt, rebuild
from spike.lifecycle.refresh import set_in_force
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.ring import KeyRing
from spike.lifecycle.share import Share, ShareError
from spike.lifecycle.staleness import Objection
from spike.lifecycle.witness import Claim
from spike.memory.key_memory import KeyMemory
from spike.nexus.examination import anchors_of_places, examine_store, open_ring
from spike.nexus.keeper_desk import KeeperDesk
from spike.nexus.keeper_link import KeeperLink
from spike.nexus.sealed import SealedStore
from spike.nexus.vault import KEYRING_ID, Vault
from spike.storage.protocol import Record

_log = logging.getLogger("spike.nexus.keeper")
_HEARING_S: Final = 1.0
"""How long Keepers that have not answered yet are waited for once the key is there."""
_OTHERWISE: Final = (
    "a password (spike restore) or recovery shards (spike operator restore) bring it back, too"
)


@dataclass(slots=True)
class _Testimony:
    """What the Keepers have answered so far in one attempt. Owns the shares."""

    shares: list[Share] = field(default_factory=list)
    anchors: list[tuple[str, bytes]] = field(default_factory=list)
    claims: list[tuple[str, Claim]] = field(default_factory=list)
    trouble: dict[int, str] = field(default_factory=dict)

    def wipe(self) -> None:
        for share in self.shares:
            share.value.wipe()


async def recover(desk: KeeperDesk) -> bool:
    """Try once. Return whether the vault is open now; else the desk's `waits_for` says what is missing.

    Raises:
        StoreError: the store does not answer.
    """
    vault = desk.vault
    async with vault.lock:
        if vault.is_open:
            return True
        stored = await vault.store.get(KEYRING_ID)
        if stored is None:
            desk.waits_for = ""
            return False
        testimony = _Testimony()
        try:
            desk.waits_for = await _attempt(desk, stored, testimony)
        except RefusalError as error:
            desk.waits_for = f"{error.message}{_next(error.next_step)}"
            _log.error("the root key does not come back by itself: %s", error.message)
        finally:
            testimony.wipe()
    return vault.is_open


async def fetch_anew(desk: KeeperDesk) -> None:
    """Get the keys of an open vault from the Keepers again, because one in memory is not what it was.

    Raises:
        RefusedError: the Keepers do not give the root key now, or the keyring was replaced meanwhile.
    """
    vault = desk.vault
    async with vault.lock:
        document = vault.opened.document
        share_set = set_in_force(document)
        if share_set is None:
            raise RefusedError("no Keepers hold shares of this root key", "restart Nexus")
        testimony = _Testimony()
        try:
            rebuilt = await _rebuilt(desk, document, share_set, testimony)
        finally:
            testimony.wipe()
        if rebuilt is None:
            raise RefusedError(_missing(desk.links, share_set, testimony))
        try:
            ring = open_ring(document, rebuilt.root)
            await _mended(vault, ring)
        except BaseException:
            rebuilt.held.wipe()
            raise
        desk.adopt(rebuilt.held)


async def _mended(vault: Vault, ring: KeyRing) -> None:
    try:
        await vault.mend(ring)
    except BaseException:
        ring.wipe()
        raise


async def _attempt(desk: KeeperDesk, stored: Record, testimony: _Testimony) -> str:
    """Ask, rebuild, examine, open. Return what is still missing, or nothing once the vault is open."""
    held = rules.read_stored(stored.blob)
    share_set = set_in_force(held.hint)
    if share_set is None or not desk.links:
        return "no Keepers hold shares of this root key; a password brings it back: spike restore"
    rebuilt = await _rebuilt(desk, held.hint, share_set, testimony)
    if rebuilt is None:
        return _missing(desk.links, share_set, testimony)
    try:
        await _open(desk.vault, stored, held, rebuilt.root, testimony)
    except BaseException:
        rebuilt.held.wipe()
        raise
    desk.adopt(rebuilt.held)
    for bad in rebuilt.bad:
        _log.error("Keeper %d gave a wrong share: %s", bad.index, bad.reason)
    _log.warning("the root key is back, from %d Keepers", len(testimony.shares))
    return ""


async def _rebuilt(
    desk: KeeperDesk, hint: Keyring, share_set: ShareSet, testimony: _Testimony
) -> Rebuilt | None:
    """Collect answers until they give the root key, or until all are there."""
    asked = [asyncio.create_task(_ask(link, share_set, testimony)) for link in desk.links]
    try:
        for answered in asyncio.as_completed(asked):
            await answered
            if len(testimony.shares) < share_set.threshold:
                continue
            rebuilt = _try_rebuild(desk, hint, share_set, testimony.shares)
            if rebuilt is not None:
                # The key is there. Who else keeps an anchor is heard, too: the newest may be his.
                await asyncio.wait(asked, timeout=_HEARING_S)
                return rebuilt
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    return None


async def _ask(link: KeeperLink, share_set: ShareSet, testimony: _Testimony) -> None:
    """Let one Keeper answer. The anchor comes before the share: who gives one without the other is not counted."""
    try:
        look = await link.look()
        share = await link.fetch(share_set.id)
    except SpikeError as error:
        testimony.trouble[link.index] = error.message
        return
    except Exception:  # noqa: BLE001  whatever one Keeper brings about must not keep the others away
        _log.exception("%s has brought about a fault", link.name)
        testimony.trouble[link.index] = "what it answers brought about a fault of ours; see the log"
        return
    if look.anchor is not None:
        testimony.anchors.append((link.name, look.anchor))
    if look.committed is not None:
        testimony.claims.append((link.name, look.committed.claim))
    if share is None:
        testimony.trouble[link.index] = _has_none(look.committed is not None)
    elif share.label.index != link.index:
        share.value.wipe()
        testimony.trouble[link.index] = "it answers with the share of another Keeper"
    else:
        testimony.shares.append(share)


def _try_rebuild(
    desk: KeeperDesk, hint: Keyring, share_set: ShareSet, shares: Sequence[Share]
) -> Rebuilt | None:
    try:
        return rebuild(
            share_set,
            hint.store_id,
            hint.lineage,
            hint.active_root.check,
            shares,
            least_threshold=desk.setting.threshold,
        )
    except ShareError as error:
        _log.info("%d shares do not give the root key: %s", len(shares), error.message)
        return None


async def _open(
    vault: Vault,
    stored: Record,
    held: UnconfirmedKeyring,
    root: KeyMemory,
    testimony: _Testimony,
) -> None:
    """Authenticate, examine, open. Takes over `root`, also when it fails."""
    confirmed = held.confirmed_by(root)
    if confirmed is None:
        root.wipe()
        raise RefusalError(
            Reason.PLANTED,
            "the keyring in the store is not authentic: somebody changed it or planted another key",
            "restore from a key backup: spike restore --backup FILE",
        )
    ring = open_ring(confirmed, root)
    try:
        policies = await examine_store(SealedStore(vault.store, ring))
        await _require_living(vault, ring, policies.access_generation, testimony)
        await vault.open_with(ring, stored.revision, stored.blob, policies)
    except BaseException:
        if not vault.is_open:
            ring.wipe()
        raise


async def _require_living(
    vault: Vault, ring: KeyRing, access_generation: int, testimony: _Testimony
) -> None:
    """Return if nothing that can be believed says that this store is an old copy, or not the living one.

    Raises:
        RefusalError: STALE_STORE or FOREIGN.
    """
    confirmed = ring.document
    kept = [(f"{name}'s anchor", raw) for name, raw in testimony.anchors]
    kept += [
        ("a backup place's anchor", raw)
        for raw in await anchors_of_places(vault, confirmed.store_id)
    ]
    for name, raw in kept:
        weighed = anchors.weigh_untrusted((raw,), confirmed, ring.root)
        for remark in weighed.rejected:
            _log.warning("%s (%s)", remark, name)
        for seen in weighed.valid:
            _raise(staleness.by_anchor(confirmed, access_generation, seen, name))
    _raise(staleness.by_fence(confirmed, (await vault.store.health()).fence))
    claimed = [staleness.by_claim(confirmed, *claim) for claim in testimony.claims]
    against = [objection for objection in claimed if objection is not None]
    for objection in against:
        _log.error("not authenticated: %s", objection.message)
    in_force = set_in_force(confirmed)
    if in_force is not None and len(against) >= in_force.threshold:
        raise against[0].refusal()


def _raise(objection: Objection | None) -> None:
    if objection is not None:
        raise objection.refusal()


def _missing(links: Sequence[KeeperLink], share_set: ShareSet, testimony: _Testimony) -> str:
    """Say in one sentence what the root key waits for."""
    told = [
        f"{link.name}: {testimony.trouble[link.index]}"
        for link in links
        if link.index in testimony.trouble
    ]
    needed = f"{share_set.threshold} of {len(share_set.members)} Keepers have to give their shares"
    if len(testimony.shares) >= share_set.threshold:
        needed = f"the shares of {len(testimony.shares)} Keepers do not give the root key"
    return f"{needed}; {'; '.join([*told, _OTHERWISE])}"


def _has_none(holds_another: bool) -> str:
    return "it holds a share of another set only" if holds_another else "it holds no share"


def _next(step: str) -> str:
    return f"; next: {step}" if step else ""
