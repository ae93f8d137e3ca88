"""Which Keepers Nexus speaks with: those the keyring names, once it is authentic; until then also the environment's.

    when                               who
    no share set yet (init)            the environment's Keepers
    the root key is not there          the environment's, and those that the stored keyring names: a hint
    the vault is open                  the members of the share set in force, as the keyring names them

An environment that names no Keepers makes a Nexus that speaks with none: so a copy of a store that is brought up
elsewhere, for a test or a drill, never touches the Keepers of the living one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from spike.client.setting import Address, parse_address
from spike.error import SettingError, SpiffeIdError
from spike.lifecycle.keyring import LeavingKeeper, ShareMember, ShareSet
from spike.nexus.keeper_link import KeeperLink
from spike.nexus.keeper_setting import NO_KEEPERS, PEERS, SHARES, THRESHOLD, KeeperSetting, Peer
from spike.spiffe.id import SpiffeId

Connect = Callable[[Peer], KeeperLink]

_log: Final = logging.getLogger("spike.nexus.keeper")


class Candidate(NamedTuple):
    """A Keeper that is asked before the root key is back; `named`: the environment names it, not the store alone."""

    link: KeeperLink
    named: bool


class Roster:
    """The links to Keepers, made when they are needed and kept: a link remembers who answered last."""

    def __init__(self, setting: KeeperSetting = NO_KEEPERS, connect: Connect | None = None) -> None:
        """Without `connect` there are no Keepers, whatever the setting says."""
        self.setting = setting
        self._connect = connect
        self._links: dict[Peer, KeeperLink] = {}

    @property
    def environment(self) -> tuple[KeeperLink, ...]:
        """The Keepers that the environment names."""
        return tuple(self._link(peer) for peer in self.setting.peers) if self._connect else ()

    def members(self, share_set: ShareSet) -> tuple[KeeperLink, ...]:
        """Return the Keepers of a share set of an authentic keyring; none where the environment names none.

        Raises:
            SettingError, SpiffeIdError: the set names something that is no Keeper.
        """
        if not self.environment:
            return ()
        return tuple(self._link(self._peer(member)) for member in share_set.members)

    def of(self, peers: Sequence[Peer]) -> tuple[KeeperLink, ...]:
        """Return links to any Keepers, such as those that are to become members."""
        return tuple(self._link(peer) for peer in peers)

    def leaver(self, leaving: LeavingKeeper) -> KeeperLink:
        """Return the link to a Keeper that is no member any more.

        Raises:
            SettingError, SpiffeIdError: the keyring names something that is no Keeper.
        """
        member = ShareMember(leaving.index, leaving.identity, leaving.url, digest="")
        return self._link(self._peer(member))

    def welcome(self, leaving: Sequence[LeavingKeeper]) -> tuple[KeeperLink, ...]:
        """Return the Keepers of the environment but those that were made to leave: for a keyring without a set."""
        gone = {(each.url, each.identity) for each in leaving}
        return tuple(
            link
            for link in self.environment
            if not any(
                _text(link.peer.identity) == who
                if link.peer.identity and who
                else link.peer.url == url
                for url, who in gone
            )
        )

    def candidates(self, hint: ShareSet) -> tuple[Candidate, ...]:
        """Return whom to ask while nobody has authenticated the keyring: the environment's, and whom a set names.

        The store can name Keepers, and cannot take one away. One that only the store names must have an identity, and
        no other Keeper's.
        """
        asked = [
            Candidate(self._link(self._at_its_index(peer, hint)), named=True)
            for peer in self.setting.peers
            if self._connect
        ]
        known = {(p.address, p.identity) for p in self.setting.peers}
        for member in hint.members if asked else ():
            try:
                peer = self._peer(member)
            except (SettingError, SpiffeIdError):
                _log.warning("the stored keyring names a Keeper %d that is none", member.index)
                continue
            asked_already = {(peer.address, peer.identity), (peer.address, None)} & known
            if peer.identity is not None and not asked_already:
                asked.append(Candidate(self._link(peer), named=False))
        return tuple(asked)

    def difference(self, in_force: ShareSet) -> str:
        """Say where environment and keyring differ, with both values and how to settle it; empty where they agree."""
        setting = self.setting
        told = [(peer.index, peer.url, _text(peer.identity)) for peer in setting.peers]
        known = [(member.index, member.url, member.identity) for member in in_force.members]
        # An identity that the environment does not pin was pinned when the share was dealt.
        pinned = [
            (index, url, who and identity)
            for (index, url, identity), (*_, who) in zip(known, told, strict=False)
        ]
        agree = len(told) == len(known) and told == pinned
        if agree and setting.threshold == in_force.threshold:
            return ""
        return (
            f"the environment names {_listed(told)}, threshold {setting.threshold}; the keyring, which counts, "
            f"{_listed(known)}, threshold {in_force.threshold}. If the keyring is right, set "
            f"{' '.join(assignments(in_force))} before Nexus is started again; if "
            "the environment is right: spike keeper reshape"
        )

    def _link(self, peer: Peer) -> KeeperLink:
        if self._connect is None:
            raise SettingError("this Nexus has no Keepers")
        if peer not in self._links:
            self._links[peer] = self._connect(peer)
        return self._links[peer]

    def _peer(self, member: ShareMember) -> Peer:
        """Return where a member is and who it must be; where nobody was pinned, whom the environment pins there."""
        address = parse_address(member.url)
        if member.identity:
            return Peer(
                member.index, member.url, address, SpiffeId.parse_untrusted(member.identity)
            )
        return Peer(member.index, member.url, address, self._pinned_at(address))

    def _pinned_at(self, address: Address) -> SpiffeId | None:
        return next((p.identity for p in self.setting.peers if p.address == address), None)

    def _at_its_index(self, peer: Peer, hint: ShareSet) -> Peer:
        """Return a Keeper of the environment with the index that its share has in the set."""
        index = next((m.index for m in hint.members if _is_same(peer, m)), peer.index)
        return Peer(index, peer.url, peer.address, peer.identity)


def assignments(share_set: ShareSet) -> tuple[str, ...]:
    """Return what the environment of Nexus has to say to name a set's Keepers."""
    return (
        f"{PEERS}={','.join(peer_texts(share_set))}",
        f"{SHARES}={len(share_set.members)}",
        f"{THRESHOLD}={share_set.threshold}",
    )


def peer_texts(share_set: ShareSet) -> tuple[str, ...]:
    """Return each member of a set as SPIKE_NEXUS_KEEPER_PEERS names one."""
    return tuple(f"{m.url}#{m.identity}" if m.identity else m.url for m in share_set.members)


def _is_same(peer: Peer, member: ShareMember) -> bool:
    if peer.identity is not None and member.identity:
        return str(peer.identity) == member.identity
    try:
        return parse_address(member.url) == peer.address
    except SettingError:
        return False


def _listed(known: list[tuple[int, str, str]]) -> str:
    if not known:
        return "no Keepers"
    names = ", ".join(f"{url}#{identity}" if identity else url for _, url, identity in known)
    return f"{len(known)} Keepers ({names})"


def _text(identity: SpiffeId | None) -> str:
    return "" if identity is None else str(identity)
