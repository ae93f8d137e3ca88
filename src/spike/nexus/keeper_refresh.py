"""Bringing a share set to the Keepers: at init, and as a refresh. Stage, read back, rebuild; only then the keyring.

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
from typing import Final

from spike.error import SpikeError
from spike.lifecycle import refresh as rules
from spike.lifecycle.keyring import Keyring, ShareMember, ShareSet
from spike.lifecycle.rebuild import rebuild
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.share import HeldSet, Share, ShareError
from spike.lifecycle.supply import KeeperState, judge
from spike.memory.key_memory import KeyMemory
from spike.nexus.keeper_desk import KeeperDesk, wanted_of
from spike.nexus.keeper_link import KeeperLink
from spike.nexus.vault import Opened, Vault

_log: Final = logging.getLogger("spike.nexus.keeper")
_LOOK: Final = "see that each of them runs and is the right one: spike keeper status"


@dataclass(frozen=True, slots=True)
class NewSet:
    """A set that was split and is not in force yet: its shares, and what the keyring will say of it."""

    held: HeldSet
    share_set: ShareSet


def new_set(
    links: Sequence[KeeperLink],
    threshold: int,
    root: KeyMemory,
    *,
    store_id: str,
    lineage: str,
    generation: int,
) -> NewSet:
    """Split a root key for these Keepers with a fresh polynomial."""
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
            identity=_identity(link, links),
            url=link.peer.url,
            digest=held.digest(link.index),
        )
        for link in links
    )
    return NewSet(held, ShareSet(held.set_id, generation, threshold, staged=True, members=members))


def _identity(link: KeeperLink, links: Sequence[KeeperLink]) -> str:
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
        raise RefusalError(Reason.KEEPER, f"not every Keeper answers ({'; '.join(silent)})", _LOOK)
    for link, look in zip(links, looks, strict=True):
        if not isinstance(look, BaseException) and look.committed is not None:
            held = look.committed.claim
            raise RefusalError(
                Reason.FOREIGN,
                f"{link.name} holds a share of a store that is initialized, {held.store_id}, at epoch {held.epoch}; "
                "this store is empty",
                "put that store back; or, if it is given up, restart the Keepers to empty them",
            )


async def deliver(links: Sequence[KeeperLink], new: NewSet, root: KeyMemory, check: str) -> None:
    """Stage each Keeper's share, read all of them back, and rebuild the root key from what the Keepers hold.

    Raises:
        RefusalError: KEEPER, a Keeper does not take its share or does not give it back; each is named.
    """
    staged = await asyncio.gather(
        *(link.stage(new.held.share(link.index)) for link in links), return_exceptions=True
    )
    _require_all(links, staged, "does not take its share")
    fetched = await asyncio.gather(
        *(link.fetch(new.share_set.id) for link in links), return_exceptions=True
    )
    shares = [each for each in fetched if isinstance(each, Share)]
    try:
        _require_all(links, fetched, "does not give its share back")
        if len(shares) < len(links):
            raise RefusalError(
                Reason.KEEPER, "a Keeper has lost the share it was just given", _LOOK
            )
        _require_same(links, new, shares, root, check)
    finally:
        for share in shares:
            share.value.wipe()


def _require_all(links: Sequence[KeeperLink], results: Sequence[object], what: str) -> None:
    failed = [
        f"{link.name} {what}: {result.message}"
        for link, result in zip(links, results, strict=True)
        if isinstance(result, SpikeError)
    ]
    if failed:
        raise RefusalError(Reason.KEEPER, "; ".join(failed), _LOOK)
    for result in results:
        if isinstance(result, BaseException):
            raise result


def _require_same(
    links: Sequence[KeeperLink], new: NewSet, shares: Sequence[Share], root: KeyMemory, check: str
) -> None:
    """Return if what the Keepers hold gives the root key, and each of them holds its own share."""
    label = new.held.share(links[0].index).label
    try:
        rebuilt = rebuild(new.share_set, label.store_id, label.lineage, check, shares)
    except ShareError as error:
        raise RefusalError(
            Reason.KEEPER,
            f"what the Keepers hold does not give the root key: {error.message}",
            _LOOK,
        ) from error
    with rebuilt.root as again, rebuilt.held:
        good = again.same_as(root)
    wrong = [f"Keeper {bad.index}" for bad in rebuilt.bad]
    if wrong or not good:
        raise RefusalError(
            Reason.KEEPER, f"not what it was given: the share of {', '.join(wrong)}", _LOOK
        )


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
    async with vault.lock:
        document = vault.opened.document
        able = await _able(desk, document)
        if len(able) < least:
            raise RefusalError(
                Reason.KEEPER,
                f"{len(able)} of {len(desk.links)} Keepers can take a new share, and {least} have to",
                _LOOK,
            )
        new = new_set(
            desk.links,
            desk.setting.threshold,
            vault.opened.ring.root,
            store_id=document.store_id,
            lineage=document.lineage,
            generation=document.active_root.number,
        )
        try:
            return await _brought_in(desk, able, new, actor)
        except BaseException:
            if desk.held is not new.held:
                new.held.wipe()
            raise


async def _able(desk: KeeperDesk, document: Keyring) -> list[KeeperLink]:
    """Return the Keepers that answer and hold nothing foreign."""
    looks = await asyncio.gather(*(link.look() for link in desk.links), return_exceptions=True)
    in_force = rules.set_in_force(document)
    able = []
    for link, look in zip(desk.links, looks, strict=True):
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
        else:
            able.append(link)
    return able


async def _brought_in(
    desk: KeeperDesk, able: Sequence[KeeperLink], new: NewSet, actor: str
) -> Opened:
    vault = desk.vault
    opened = vault.opened
    root, check = opened.ring.root, opened.document.active_root.check
    await _advance(vault, rules.begun(opened.document, new.share_set, vault.moment(), actor))
    try:
        await deliver(able, new, root, check)
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
