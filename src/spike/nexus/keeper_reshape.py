"""Other Keepers, other numbers: a reshape while Nexus serves, and the Keepers that leave by it.

It is a refresh whose new set has other members: see spike.lifecycle.refresh for the keyrings it passes through. A
Keeper that leaves is told to erase its share only when the keyring that makes the share superfluous has been read back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from spike.error import SpikeError
from spike.lifecycle import refresh as rules
from spike.lifecycle.keyring import LeavingKeeper, ShareSet
from spike.lifecycle.operation import in_progress, require_idle
from spike.lifecycle.refusal import Reason, RefusalError
from spike.nexus.keeper_desk import KeeperDesk
from spike.nexus.keeper_link import KeeperLink
from spike.nexus.keeper_refresh import LOOK, Cause, able_among, bring_in, identity_of, split_anew
from spike.nexus.keeper_setting import Peer
from spike.nexus.opened import Opened

_log: Final = logging.getLogger("spike.nexus.keeper")


async def reshape(
    desk: KeeperDesk, peers: Sequence[Peer], threshold: int, actor: str
) -> Opened | None:
    """Let other Keepers, or as many with another threshold, hold the root key. All of the new ones must take a share.

    Who is no member any more is let go by `take_leave`. None: the keyring names just these Keepers already.

    Raises:
        RefusalError: BUSY, or KEEPER: one cannot take a share. The old set stays in force.
        StoreError: the store failed.
    """
    vault = desk.vault
    async with vault.lock, desk.lock:
        document = vault.opened.document
        require_idle(document)
        links = desk.roster.of(peers)
        able = await able_among(links, document)
        if len(able) < len(links):
            lacking = ", ".join(
                f"{link.name} ({link.peer.url})" for link in links if link not in able
            )
            raise RefusalError(Reason.KEEPER, f"not every Keeper can take a share: {lacking}", LOOK)
        _require_told_apart(rules.set_in_force(document), links)
        if desk.held is not None and _is_so(rules.set_in_force(document), links, threshold):
            return None
        new = split_anew(vault, links, threshold)
        return await bring_in(desk, able, new, Cause(rules.RESHAPE, actor), len(links))


def _require_told_apart(in_force: ShareSet | None, links: Sequence[KeeperLink]) -> None:
    """Return unless Keepers that are told apart would be replaced by some that are not.

    Who has one Keeper and may reshape could else let it stand in for as many as bring the root key back.
    """
    if in_force is None or not all(member.identity for member in in_force.members):
        return
    loose = ", ".join(
        f"{link.name} ({link.peer.url})" for link in links if not identity_of(link, links)
    )
    if loose:
        raise RefusalError(
            Reason.KEEPER,
            f"these Keepers are not told apart by their identities, and those in force are: {loose}",
            "give each an identity of its own, and pin it: URL#IDENTITY",
        )


def _is_so(in_force: ShareSet | None, links: Sequence[KeeperLink], threshold: int) -> bool:
    if in_force is None or in_force.threshold != threshold:
        return False
    known = [(member.index, member.url, member.identity) for member in in_force.members]
    return known == [(link.index, link.peer.url, identity_of(link, links)) for link in links]


async def take_leave(desk: KeeperDesk) -> None:
    """Let Keepers that are no members any more erase their old share. Who does not answer is told again later."""
    vault = desk.vault
    async with vault.lock:
        document = vault.opened.document
        if not document.leaving or in_progress(document) is not None:
            return
        # With one that had leaked nobody speaks any more: what it says proves nothing.
        known = [each for each in document.leaving if not each.barred]
        told = await asyncio.gather(*(_let_go(desk, each) for each in known))
        erased = frozenset(each for each, gone in zip(known, told, strict=True) if gone)
        following = rules.has_left(document, erased, vault.moment())
        if following is not None:
            await vault.advance(vault.opened.ring.replaced(following))


async def _let_go(desk: KeeperDesk, leaving: LeavingKeeper) -> bool:
    """Return whether a Keeper has erased its share of the set it was in."""
    try:
        link = desk.roster.leaver(leaving)
        await link.erase(leaving.set_id)
    except SpikeError as error:
        _log.warning(
            "the Keeper at %s does not erase its old share: %s", leaving.url, error.message
        )
        return False
    return True
