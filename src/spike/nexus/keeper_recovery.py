"""Unattended recovery: a Nexus that lost its memory gets the root key back from its Keepers, with nobody awake.

Each attempt asks all Keepers at once, and once the key is there waits a moment for the others:

1. The keyring in the store is a hint: it names the share set, its members and the check value. Whom the environment
   names is asked, and whom the hint names: keeper_roster.py says who, keeper_testimony.py what of it counts.
2. Keepers give their shares, what they say they have committed, and the anchor they keep.
3. The shares give a root key that fits the check value, and the root key authenticates the whole keyring.
4. The anchors of Keepers and backup places say whether the store is an old copy. No change of keys is followed by a
   write before all Keepers but t - 1 hold its anchor (or a place does): among any t that answer is one that has it.
   Of a root key that this copy does not know an anchor proves nothing: from a place it stops the attempt, Keepers'
   are their word alone. But who held such an anchor for a write gives no share of the root key before any more, and
   the Keepers that are left are too few to bring that one back.
5. The access list and one record of each kind are opened. Then the vault is.

Nothing is written, but for events that had not reached the history. What stops an attempt is a reason for the next:
it never gives up. One liar cannot keep the key away: his word alone is named and not believed; that of t Keepers is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
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
from spike.lifecycle.share import ShareError
from spike.lifecycle.staleness import Objection
from spike.lifecycle.witness import Claim
from spike.memory.key_memory import KeyMemory
from spike.nexus.examination import anchors_of_places, examine_store, open_ring
from spike.nexus.keeper_desk import KeeperDesk
from spike.nexus.keeper_roster import Candidate
from spike.nexus.keeper_testimony import Answer, Testimony, require_vouched
from spike.nexus.sealed import SealedStore
from spike.nexus.vault import KEYRING_ID, Vault
from spike.storage.protocol import Record

_log = logging.getLogger("spike.nexus.keeper")
_HEARING_S: Final = 1.0
"""How long Keepers that have not answered yet are waited for once the key is there."""
_OTHERWISE: Final = (
    "a password (spike restore) or recovery shards (spike operator restore) bring it back, too"
)


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
        testimony = Testimony()
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
        testimony = Testimony()
        try:
            asked = [Candidate(link, named=True) for link in desk.links]
            rebuilt = await _rebuilt(asked, document, share_set, testimony)
            missing = _missing(share_set, testimony)
        finally:
            testimony.wipe()
        if rebuilt is None:
            raise RefusedError(missing)
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


async def _attempt(desk: KeeperDesk, stored: Record, testimony: Testimony) -> str:
    """Ask, rebuild, examine, open. Return what is still missing, or nothing once the vault is open."""
    held = rules.read_stored(stored.blob)
    share_set = set_in_force(held.hint)
    asked = () if share_set is None else desk.roster.candidates(share_set)
    if share_set is None or not asked:
        return "no Keepers hold shares of this root key; a password brings it back: spike restore"
    rebuilt = await _rebuilt(asked, held.hint, share_set, testimony)
    if rebuilt is None:
        return _missing(share_set, testimony)
    try:
        await _open(desk, stored, held, rebuilt.root, testimony)
    except BaseException:
        rebuilt.held.wipe()
        raise
    desk.adopt(rebuilt.held)
    for bad in rebuilt.bad:
        _log.error("Keeper %d gave a wrong share: %s", bad.index, bad.reason)
    _log.warning("the root key is back, from %d Keepers", len(testimony.shares()))
    return ""


async def _rebuilt(
    candidates: Sequence[Candidate], hint: Keyring, share_set: ShareSet, testimony: Testimony
) -> Rebuilt | None:
    """Collect answers until they give the root key, or until all are there."""
    asked = [asyncio.create_task(_ask(each, hint, share_set, testimony)) for each in candidates]
    try:
        for answered in asyncio.as_completed(asked):
            await answered
            if len(testimony.shares()) < share_set.threshold:
                continue
            rebuilt = _try_rebuild(hint, share_set, testimony)
            if rebuilt is not None:
                # The key is there. Who else keeps an anchor is heard, too: the newest may be his.
                await asyncio.wait(asked, timeout=_HEARING_S)
                return rebuilt
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    return None


async def _ask(asked: Candidate, hint: Keyring, share_set: ShareSet, testimony: Testimony) -> None:
    """Let one Keeper answer. The anchor comes before the share: who gives one without the other is not counted."""
    link = asked.link
    try:
        look = await link.look()
        share = await link.fetch(share_set.id)
    except SpikeError as error:
        testimony.trouble[link] = error.message
        return
    except Exception:  # noqa: BLE001  whatever one Keeper brings about must not keep the others away
        _log.exception("%s has brought about a fault", link.name)
        testimony.trouble[link] = "what it answers brought about a fault of ours; see the log"
        return
    claim = None if look.committed is None else look.committed.claim
    if share is None:
        testimony.trouble[link] = _has_none(claim, hint)
    elif share.label.index != link.index:
        share.value.wipe()
        share = None
        testimony.trouble[link] = "it answers with the share of another Keeper"
    testimony.answers.append(Answer(asked, link.found, share, look.anchor, claim))


def _try_rebuild(hint: Keyring, share_set: ShareSet, testimony: Testimony) -> Rebuilt | None:
    shares = testimony.shares()
    try:
        rebuilt = rebuild(share_set, hint.store_id, hint.lineage, hint.active_root.check, shares)
    except ShareError as error:
        _log.info("%d shares do not give the root key: %s", len(shares), error.message)
        return None
    testimony.right = testimony.right_shares(rebuilt, shares)
    return rebuilt


async def _open(
    desk: KeeperDesk,
    stored: Record,
    held: UnconfirmedKeyring,
    root: KeyMemory,
    testimony: Testimony,
) -> None:
    """Authenticate, examine, open. Takes over `root`, also when it fails."""
    vault = desk.vault
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
        places = await anchors_of_places(vault, confirmed.store_id)
        least = desk.roster.setting.threshold
        require_vouched(testimony, confirmed, root, places=places, least=least)
        await _require_living(vault, ring, policies.access_generation, testimony, places)
        await vault.open_with(ring, stored.revision, stored.blob, policies)
    except BaseException:
        if not vault.is_open:
            ring.wipe()
        raise


async def _require_living(
    vault: Vault,
    ring: KeyRing,
    access_generation: int,
    testimony: Testimony,
    places: Sequence[bytes],
) -> None:
    """Return if nothing that can be believed says that this store is an old copy, or not the living one.

    Raises:
        RefusalError: STALE_STORE or FOREIGN.
    """
    confirmed = ring.document
    for raw in places:
        _raise(_by_anchor(ring, access_generation, "a backup place's anchor", raw))
    against: list[Objection] = []
    for each in testimony.believed():
        told: list[Objection | None] = []
        if each.anchor is not None:
            told.append(_by_anchor(ring, access_generation, f"{each.name}'s anchor", each.anchor))
        if each.claim is not None:
            told.append(staleness.by_claim(confirmed, each.name, each.claim))
        objections = [objection for objection in told if objection is not None]
        _raise(next((objection for objection in objections if objection.proven), None))
        for objection in objections:
            _log.error("not authenticated: %s", objection.message)
        # Whatever one Keeper says and keeps, it is one.
        against += objections[:1]
    _raise(staleness.by_fence(confirmed, (await vault.store.health()).fence))
    in_force = set_in_force(confirmed)
    if in_force is not None and len(against) >= in_force.threshold:
        _raise(against[0])


def _by_anchor(ring: KeyRing, access_generation: int, name: str, raw: bytes) -> Objection | None:
    weighed = anchors.weigh_untrusted((raw,), ring.document, ring.roots)
    for remark in weighed.rejected:
        _log.warning("%s (%s)", remark, name)
    return staleness.by_weighed(ring.document, access_generation, weighed, name)


def _raise(objection: Objection | None) -> None:
    if objection is not None:
        raise objection.refusal()


def _missing(share_set: ShareSet, testimony: Testimony) -> str:
    """Say in one sentence what the root key waits for."""
    told = [
        f"{link.name}: {why}"
        for link, why in sorted(testimony.trouble.items(), key=lambda each: each[0].index)
    ]
    needed = f"{share_set.threshold} of {len(share_set.members)} Keepers have to give their shares"
    given = len(testimony.shares())
    if given >= share_set.threshold:
        needed = f"the shares of {given} Keepers do not give the root key"
    return f"{needed}; {'; '.join([*told, _OTHERWISE])}"


def _has_none(claim: Claim | None, hint: Keyring) -> str:
    """Say what a Keeper without the share asked for holds. Neither side is authenticated yet: it decides nothing."""
    if claim is None:
        return "it holds no share"
    if claim.store_id != hint.store_id:
        return "it holds a share of another store only"
    if claim.lineage != hint.lineage:
        return "it holds a share of another lineage of this store only"
    if claim.epoch <= hint.epoch:
        return "it holds a share of an older set only"
    return (
        f"it holds a share of epoch {claim.epoch}, and the store is at epoch {hint.epoch}: an old copy of the store "
        "may have been put back"
    )


def _next(step: str) -> str:
    return f"; next: {step}" if step else ""
