"""The calls on Keepers."""

from __future__ import annotations

from collections.abc import Mapping

from spike.lifecycle.refusal import Reason, RefusalError
from spike.nexus.handler import Handler, Writing
from spike.nexus.keeper_desk import KeeperDesk
from spike.nexus.keeper_refresh import refresh
from spike.nexus.opened import Opened
from spike.policy.access import Grant
from spike.wire import call
from spike.wire.call import CallName
from spike.wire.message import Empty
from spike.wire.own import KeeperRefreshAnswer


class KeeperCalls:
    """Handlers bound to the Keepers of one vault."""

    def __init__(self, keepers: KeeperDesk) -> None:
        self._keepers = keepers

    def handlers(self) -> Mapping[CallName, Handler]:
        """Return the handler of each call served here."""
        return {call.KEEPER_REFRESH.name: Writing(self.refresh)}

    async def refresh(self, grant: Grant, _opened: Opened, _asked: Empty) -> KeeperRefreshAnswer:
        """Give every Keeper a new share of the same root key; all of them or none.

        Raises:
            RefusalError: KEEPER or BUSY; nothing was changed.
        """
        keepers = self._keepers
        if not keepers.links:
            raise RefusalError(
                Reason.KEEPER,
                "this Nexus has no Keepers",
                "name them in SPIKE_NEXUS_KEEPER_PEERS when the store is initialized",
            )
        opened = await refresh(keepers, str(grant.peer), least=len(keepers.links))
        await keepers.look()
        told = keepers.status()
        return KeeperRefreshAnswer(
            epoch=opened.document.epoch, keepers=[] if told is None else told[0]
        )
