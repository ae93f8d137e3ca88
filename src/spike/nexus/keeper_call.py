"""The calls on Keepers."""

from __future__ import annotations

from collections.abc import Mapping

from spike.error import SettingError
from spike.lifecycle.refresh import set_in_force
from spike.lifecycle.refusal import Reason, RefusalError
from spike.nexus.handler import Handler, Reading, Writing
from spike.nexus.keeper_desk import KeeperDesk
from spike.nexus.keeper_refresh import refresh
from spike.nexus.keeper_reshape import reshape, take_leave
from spike.nexus.keeper_roster import assignments, peer_texts
from spike.nexus.keeper_setting import LEAST_SHARES, MOST_SHARES, Peer, parse_peers
from spike.nexus.opened import Opened
from spike.nexus.rehearsal import Rehearsal as Done
from spike.nexus.rehearsal import Rehearser
from spike.policy.access import Grant
from spike.wire import call
from spike.wire.call import CallName
from spike.wire.message import Empty, GoTime
from spike.wire.own import KeeperRefreshAnswer, KeeperReshapeAnswer, KeeperReshapeRequest, Rehearsal


class KeeperCalls:
    """Handlers bound to the Keepers of one vault."""

    def __init__(self, keepers: KeeperDesk, rehearser: Rehearser) -> None:
        self._keepers = keepers
        self._rehearser = rehearser

    def handlers(self) -> Mapping[CallName, Handler]:
        """Return the handler of each call served here."""
        return {
            call.KEEPER_REFRESH.name: Writing(self.refresh),
            call.KEEPER_RESHAPE.name: Writing(self.reshape),
            call.KEEPER_REHEARSE.name: Reading(self.rehearse),
        }

    async def refresh(self, grant: Grant, _opened: Opened, _asked: Empty) -> KeeperRefreshAnswer:
        """Give every Keeper a new share of the same root key; all of them or none.

        Raises:
            RefusalError: KEEPER or BUSY; nothing was changed.
        """
        keepers = self._keepers
        self._require_keepers()
        opened = await refresh(keepers, str(grant.peer), least=len(keepers.links))
        await keepers.look()
        told = keepers.status()
        return KeeperRefreshAnswer(
            epoch=opened.document.epoch, keepers=[] if told is None else told[0]
        )

    async def reshape(
        self, grant: Grant, opened: Opened, asked: KeeperReshapeRequest
    ) -> KeeperReshapeAnswer:
        """Let other Keepers hold the root key, or as many with another threshold; all of the new ones or none.

        Raises:
            RefusalError: KEEPER or BUSY; nothing was changed.
        """
        keepers = self._keepers
        self._require_keepers()
        peers = _peers(asked, opened)
        done = await reshape(keepers, peers, asked.threshold, str(grant.peer))
        await keepers.look()
        await take_leave(keepers)
        document = keepers.vault.opened.document
        in_force = set_in_force(document)
        told = keepers.status()
        return KeeperReshapeAnswer(
            epoch=document.epoch,
            changed=done is not None,
            threshold=keepers.threshold,
            keepers=[] if told is None else told[0],
            setting=[] if in_force is None else list(assignments(in_force)),
            leaving=[each.url for each in keepers.vault.opened.document.leaving],
        )

    async def rehearse(self, _grant: Grant, _opened: Opened, _asked: Empty) -> Rehearsal:
        """Try out whether the Keepers would bring the root key back.

        Raises:
            RefusalError: KEEPER, there are none.
        """
        return rehearsal_of(await self._rehearser.run())

    def _require_keepers(self) -> None:
        if not self._keepers.links:
            raise RefusalError(
                Reason.KEEPER,
                "this Nexus has no Keepers",
                "name them in SPIKE_NEXUS_KEEPER_PEERS and start Nexus again",
            )


def rehearsal_of(done: Done) -> Rehearsal:
    """Return a rehearsal as it is told on the wire."""
    return Rehearsal(
        outcome=done.outcome.value,
        at=GoTime(done.at),
        duration_ms=round(done.duration_s * 1000),
        generation=done.generation,
        threshold=done.threshold,
        members=done.members,
        right=done.right,
        margin=done.margin,
        choices=done.subsets,
        keys=done.keys,
        records=done.records,
        problems=list(done.problems),
    )


def _peers(asked: KeeperReshapeRequest, opened: Opened) -> tuple[Peer, ...]:
    """Return the Keepers that are asked for.

    Raises:
        RefusalError: KEEPER; the numbers do not go together, or one is no Keeper's address.
    """
    in_force = set_in_force(opened.document)
    present = () if in_force is None else peer_texts(in_force)
    named = tuple(asked.peers) or present
    shares, threshold = asked.shares, asked.threshold
    if not LEAST_SHARES <= threshold <= shares <= MOST_SHARES:
        raise RefusalError(
            Reason.KEEPER,
            f"{threshold} of {shares} Keepers cannot bring a root key back: "
            f"there are {LEAST_SHARES} to {MOST_SHARES}, and the threshold is from {LEAST_SHARES} to their number",
        )
    if len(named) != shares:
        told = "named" if asked.peers else "in the keyring"
        raise RefusalError(
            Reason.KEEPER,
            f"{len(named)} Keepers are {told}, and there are to be {shares} shares",
            "name one Keeper for each share: --peers",
        )
    if any("," in each for each in named):
        raise RefusalError(Reason.KEEPER, "a comma stands in the address of a Keeper")
    try:
        return parse_peers(",".join(named))
    except SettingError as error:
        raise RefusalError(Reason.KEEPER, error.message, error.next_step) from error
