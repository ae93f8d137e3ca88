"""Bringing a share set to Keepers: at init, as a refresh or reshape. Stage, read back, rebuild; only then the keyring.

The order is that of spike.lifecycle.refresh. Nothing is erased anywhere before the keyring that makes it superfluous
has been read back.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from spike.error import NotFoundError, SpikeError
from spike.lifecycle import refresh as rules
from spike.lifecycle.keyring import Keyring, ShareMember, ShareSet
from spike.lifecycle.rebuild import rebuild
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.share import HeldSet, Share, ShareError
from spike.lifecycle.supply import KeeperState, judge
from spike.memory.key_memory import KeyMemory
from spike.nexus.keeper_desk import KeeperDesk, wanted_of
from spike.nexus.keeper_link import KeeperLink, Look
from spike.nexus.opened import Opened
from spike.nexus.vault import Vault

_log: Final = logging.getLogger("spike.nexus.keeper")
LOOK: Final = "see that each of them runs and is the right one: spike keeper status"


@dataclass(frozen=True, slots=True)
class NewSet:
    """A set that was split and is not in force yet: its shares, and what the keyring will say of it."""

    held: HeldSet
    share_set: ShareSet


class Cause(NamedTuple):
    """Which lifecycle operation brings a set in, and who asked for it."""

    kind: str
    actor: str


def new_set(
    links: Sequence[KeeperLink],
    threshold: int,
    root: KeyMemory,
    *,
    store_id: str,
    lineage: str,
    generation: int,
) -> NewSet:
    """Split a root key for these Keepers, and no others, with a fresh polynomial.

    `root` may be of a generation that is not active yet, and `links` any Keepers with distinct indexes: who is left out
    is given nothing of this set.
    """
    held = HeldSet.split(
        root,
        store_id=store_id,
        lineage=lineage,
        generation=generation,
        set_id=secrets.token_hex(16),
        threshold=threshold,
        indexes=[link.index for link in links],
    )
    members = tuple(
        ShareMember(
            index=link.index,
            identity=identity_of(link, links),
            url=link.peer.url,
            digest=held.digest(link.index),
        )
        for link in links
    )
    return NewSet(held, ShareSet(held.set_id, generation, threshold, staged=True, members=members))


def identity_of(link: KeeperLink, links: Sequence[KeeperLink]) -> str:
    """Return the identity that is pinned: the configured one, else who answered, if nobody else has the same."""
    seen = Counter(each.found for each in links)
    if link.peer.identity is None and (link.found is None or seen[link.found] > 1):
        return ""
    return str(link.peer.identity or link.found)


async def require_free(links: Sequence[KeeperLink]) -> None:
    """Return if every Keeper answers and none has a share of anything committed: a store can be born.

    Raises:
        RefusalError: KEEPER, one does not answer; FOREIGN, one holds a share.
    """
    looks = await asyncio.gather(*(link.look() for link in links), return_exceptions=True)
    silent = [
        f"{link.name}: {look.message if isinstance(look, SpikeError) else type(look).__name__}"
        for link, look in zip(links, looks, strict=True)
        if isinstance(look, BaseException)
    ]
    if silent:
        raise RefusalError(Reason.KEEPER, f"not every Keeper answers ({'; '.join(silent)})", LOOK)
    for link, look in zip(links, looks, strict=True):
        if not isinstance(look, BaseException) and look.committed is not None:
            held = look.committed.claim
            raise RefusalError(
                Reason.FOREIGN,
                f"{link.name} holds a share of a store that is initialized, {held.store_id}, at epoch {held.epoch}; "
                "this store is empty",
                "put that store back; or, if it is given up, restart the Keepers to empty them",
            )


async def deliver(
    links: Sequence[KeeperLink],
    new: NewSet,
    root: KeyMemory,
    check: str,
    *,
    least: int,
    anchor_raw: bytes | None,
) -> None:
    """Stage each Keeper's share, read all of them back, and rebuild the root key from what the Keepers hold.

    At least `least` Keepers must give back what they were given; who does not is named and left out. Each is given the
    anchor before it gives its share back: a Keeper that can bring the key back must also know how far the store had
    come, and one that died in between knows neither.

    Raises:
        RefusalError: KEEPER, too few do; what was wrong with the others.
    """
    brought = await asyncio.gather(
        *(_brought(link, new.held.share(link.index), anchor_raw) for link in links),
        return_exceptions=True,
    )
    shares = [each for each in brought if isinstance(each, Share)]
    trouble = {
        link.name: each.message if isinstance(each, SpikeError) else type(each).__name__
        for link, each in zip(links, brought, strict=True)
        if isinstance(each, BaseException)
    }
    try:
        trouble |= _wrong(new, shares, root, check)
    finally:
        for share in shares:
            share.value.wipe()
    told = "; ".join(f"{name} does not give back its share: {why}" for name, why in trouble.items())
    if len(links) - len(trouble) < least:
        raise RefusalError(Reason.KEEPER, told, LOOK)
    if told:
        _log.error("left out of the new shares: %s", told)


async def _brought(link: KeeperLink, share: Share, anchor_raw: bytes | None) -> Share:
    """Bring one Keeper its share and return what it gives back; the caller wipes that."""
    await link.stage(share)
    if anchor_raw is not None:
        await link.look((), anchor_raw)
    fetched = await link.fetch(share.label.set_id)
    if fetched is None:
        raise NotFoundError("it has lost the share it was just given")
    return fetched


def _wrong(new: NewSet, shares: Sequence[Share], root: KeyMemory, check: str) -> dict[str, str]:
    """Return who does not hold its own share.

    Raises:
        RefusalError: KEEPER, what they hold does not give the root key.
    """
    label = new.held.share(new.share_set.members[0].index).label
    try:
        rebuilt = rebuild(new.share_set, label.store_id, label.lineage, check, shares)
    except ShareError as error:
        why = f"what the Keepers hold does not give the root key: {error.message}"
        raise RefusalError(Reason.KEEPER, why, LOOK) from error
    with rebuilt.root as again, rebuilt.held:
        if not again.same_as(root):
            raise RefusalError(Reason.KEEPER, "what the Keepers hold is another root key", LOOK)
    return {f"Keeper {bad.index}": "it is not what it was given" for bad in rebuilt.bad}


async def withdraw(links: Sequence[KeeperLink], set_id: str) -> None:
    """Let the Keepers erase a set that will not come into force. Who does not answer is told again at the next look."""
    await asyncio.gather(*(link.erase(set_id) for link in links), return_exceptions=True)


async def refresh(desk: KeeperDesk, actor: str, *, least: int) -> Opened:
    """Give a new polynomial to all Keepers that can take it; at least `least` must. See spike.lifecycle.refresh.

    Raises:
        RefusalError: BUSY, or KEEPER: too few can take a share. The old set stays in force.
        StoreError: the store failed.
    """
    vault = desk.vault
    async with vault.lock, desk.lock:
        document = vault.opened.document
        able = await able_among(desk.links, document)
        if len(able) < least:
            raise RefusalError(
                Reason.KEEPER,
                f"{len(able)} of {len(desk.links)} Keepers can take a new share, and {least} have to",
                LOOK,
            )
        new = split_anew(vault, desk.links, desk.threshold)
        return await bring_in(desk, able, new, Cause(rules.REFRESH, actor), least)


def split_anew(vault: Vault, links: Sequence[KeeperLink], threshold: int) -> NewSet:
    """Split the root key in force for these Keepers."""
    document = vault.opened.document
    return new_set(
        links,
        threshold,
        vault.opened.ring.root,
        store_id=document.store_id,
        lineage=document.lineage,
        generation=document.active_root.number,
    )


async def able_among(links: Sequence[KeeperLink], document: Keyring) -> list[KeeperLink]:
    """Return those of these Keepers, old or new, that answer and hold nothing foreign: they can take a share.

    Who has the set in force staged only, as after a kill, commits it first: another set will be staged over it.
    """
    looks = await asyncio.gather(*(link.look() for link in links), return_exceptions=True)
    in_force = rules.set_in_force(document)
    able = []
    for link, look in zip(links, looks, strict=True):
        if isinstance(look, BaseException):
            _log.warning("%s cannot take a new share: it does not answer", link.name)
            continue
        wanted = wanted_of(document, in_force, link.index)
        finding = judge(wanted, look.committed, look.staged)
        held_by_others = finding.state is KeeperState.FOREIGN or (
            look.committed is not None and look.committed.claim.epoch > document.epoch
        )
        if held_by_others:
            _log.warning("%s cannot take a new share: %s", link.name, finding.detail)
        elif await _has_committed(link, document, in_force, look):
            able.append(link)
    return able


async def _has_committed(
    link: KeeperLink, document: Keyring, in_force: ShareSet | None, look: Look
) -> bool:
    staged = look.staged
    if in_force is None or staged is None or staged.claim.set_id != in_force.id:
        return True
    try:
        await link.commit(document.store_id, document.lineage, in_force.id, document.epoch)
    except SpikeError as error:
        _log.warning("%s cannot take a new share: %s", link.name, error.message)
        return False
    return True


async def bring_in(
    desk: KeeperDesk, able: Sequence[KeeperLink], new: NewSet, by: Cause, least: int
) -> Opened:
    """Bring a set to Keepers that can take it, and into force. Hold both locks. Takes over its shares.

    Raises:
        RefusalError: BUSY, or KEEPER: fewer than `least` hold their share then. The old set stays in force.
        StoreError: the store failed.
    """
    try:
        return await _brought_in(desk, able, new, by, least)
    except BaseException:
        if desk.held is not new.held:
            new.held.wipe()
        raise


async def _brought_in(
    desk: KeeperDesk, able: Sequence[KeeperLink], new: NewSet, by: Cause, least: int
) -> Opened:
    vault = desk.vault
    opened = vault.opened
    root, check = opened.ring.root, opened.document.active_root.check
    await _advance(
        vault, rules.begun(opened.document, new.share_set, vault.moment(), by.actor, by.kind)
    )
    try:
        anchor_raw = vault.opened.anchor_raw()
        await deliver(able, new, root, check, least=least, anchor_raw=anchor_raw)
    except BaseException:
        await drop(desk)
        await withdraw(able, new.share_set.id)
        raise
    opened = await _advance(vault, rules.finished(vault.opened.document, vault.moment()))
    desk.adopt(new.held)
    return opened


async def drop(desk: KeeperDesk) -> None:
    """End a refresh that has not come into force, after a fault or a restart. The old set was never touched."""
    vault = desk.vault
    if rules.is_in_progress(vault.opened.document):
        await _advance(vault, rules.dropped(vault.opened.document, vault.moment()))


async def _advance(vault: Vault, document: Keyring) -> Opened:
    return await vault.advance(vault.opened.ring.replaced(document))
