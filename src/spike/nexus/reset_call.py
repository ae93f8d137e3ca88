"""The call that resets a store."""

from __future__ import annotations

from collections.abc import Mapping

from spike.nexus.factory_reset import Loss, ResetDesk
from spike.nexus.handler import Handler, OnKey
from spike.nexus.vault import Vault
from spike.policy.access import Grant
from spike.wire import call
from spike.wire.call import CallName
from spike.wire.own import BackupPlace
from spike.wire.reset import FactoryResetAnswer, FactoryResetRequest, ResetKeeper


class ResetCalls:
    """Handlers bound to one vault."""

    def __init__(self, vault: Vault, desk: ResetDesk) -> None:
        self._vault = vault
        self._desk = desk

    def handlers(self) -> Mapping[CallName, Handler]:
        """Return the handler of each call served here."""
        return {call.OPERATOR_FACTORY_RESET.name: OnKey(self.reset)}

    async def reset(self, grant: Grant, asked: FactoryResetRequest) -> FactoryResetAnswer:
        """Say what would be lost; with the phrase, lose it."""
        actor = str(grant.peer)
        if not asked.phrase:
            loss, phrase = await self._desk.ask(actor, asked.store_id)
            return self._answer(loss, phrase)
        return self._answer(await self._desk.carry_out(actor, asked.phrase, asked.store_id), None)

    def _answer(self, loss: Loss, phrase: str | None) -> FactoryResetAnswer:
        places = (
            []
            if not loss.store_id
            else [
                BackupPlace(str(state.place.backup_path(loss.store_id)), "stays")
                for state in self._vault.places
            ]
        )
        places += [BackupPlace("", "failed", fault) for fault in loss.place_faults]
        return FactoryResetAnswer(
            done=phrase is None,
            state=loss.phase.value,
            phrase=phrase,
            store_id=loss.store_id or None,
            lineage=loss.lineage or None,
            epoch=loss.epoch or None,
            records=loss.records,
            keepers=[ResetKeeper(k.index, k.url, k.state, k.detail) for k in loss.keepers],
            places=places,
            asides=list(loss.asides),
        )
