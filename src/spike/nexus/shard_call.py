"""The two calls on recovery shards, as Go's clients know them, with fields of our own beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from spike.lifecycle.recovery_shard import SHARD_BYTES
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.shard_check import ShownShard, slot_of
from spike.memory.key_memory import KeyMemory
from spike.nexus.examination import Asked, SystemAsked
from spike.nexus.handler import Handler, OnKey, Writing
from spike.nexus.key_call import preview_of
from spike.nexus.opened import Opened
from spike.nexus.shard_flow import Arrived, ShardDesk
from spike.nexus.watch import MemoryWatch
from spike.policy.access import Grant
from spike.wire import call
from spike.wire.call import CallName
from spike.wire.operator import (
    RecoverAnswer,
    RecoverRequest,
    ShardCheckAnswer,
    ShardCheckRequest,
    ShardRestoreAnswer,
    ShardRestoreRequest,
)
from spike.wire.validate import check_shard, check_shard_id, check_tag


class ShardCalls:
    """Handlers bound to one desk."""

    def __init__(self, desk: ShardDesk, watch: MemoryWatch) -> None:
        self._desk = desk
        self._watch = watch

    def handlers(self) -> Mapping[CallName, Handler]:
        """Return the handler of each call served here."""
        return {
            call.OPERATOR_RECOVER.name: OnKey(self.recover),
            call.OPERATOR_RESTORE.name: OnKey(self.restore),
            call.OPERATOR_CHECK_SHARD.name: Writing(self.check),
        }

    async def recover(self, grant: Grant, asked: RecoverRequest) -> RecoverAnswer:
        """Hand out recovery shards."""
        in_force = self._desk.set_in_force()
        if asked.only_first and in_force is not None:
            raise RefusalError(
                Reason.SHARDS_EXIST,
                f"there are recovery shards already, set {in_force}; new ones make them useless",
                "hand out new ones with: spike operator recover --yes",
            )
        handed_out = await self._desk.recover(str(grant.peer))
        self._watch.look()
        try:
            shards = {index: _octets(shard) for index, shard in handed_out.shards.items()}
        finally:
            handed_out.wipe()
        return RecoverAnswer(shards, handed_out.set_id, handed_out.threshold)

    async def check(
        self, grant: Grant, _opened: Opened, asked: ShardCheckRequest
    ) -> ShardCheckAnswer:
        """Check a shard in by its digest, or say of what a digest has to be."""
        if asked.digest:
            check_tag(asked.digest)
            shown = ShownShard(asked.id, asked.set_id, asked.digest)
            await self._desk.check_in(shown, str(grant.peer))
        document = self._desk.document()
        slot, shards = slot_of(document, asked.set_id)
        return ShardCheckAnswer(
            checked=bool(asked.digest),
            store_id=document.store_id,
            set_id=slot.id,
            shares=len(shards.digests),
            threshold=shards.threshold,
        )

    async def restore(self, grant: Grant, asked: ShardRestoreRequest) -> ShardRestoreAnswer:
        """Take one recovery shard."""
        check_shard_id(asked.id)
        check_shard(asked.shard)
        with _locked(asked.shard or ()) as value:
            progress = await self._desk.restore(
                Arrived(asked.id, value, asked.set_id),
                Asked(
                    backup=asked.backup or None,
                    anchors=(asked.anchor,) if asked.anchor else (),
                    actor=str(grant.peer),
                    accept_older=asked.accept_older_store,
                    system=SystemAsked(asked.manifest, asked.set_aside) if asked.manifest else None,
                ),
                preview_only=asked.preview,
            )
        remarks = () if progress.preview is None else progress.preview.found.remarks
        if progress.opened is not None:
            self._watch.look()
            remarks = await self._desk.restores.rotation_remarks()
        return ShardRestoreAnswer(
            collected=progress.collected,
            remaining=progress.remaining,
            restored=progress.opened is not None,
            preview=None if progress.preview is None else preview_of(progress.preview.found),
            confirm=None if progress.preview is None else progress.preview.token,
            remarks=list(remarks) or None,
            anchor=None if progress.opened is None else progress.opened.anchor_raw(),
        )


def _octets(shard: KeyMemory) -> list[int]:
    with shard.view() as view:
        return list(view)


def _locked(octets: Sequence[int]) -> KeyMemory:
    value = KeyMemory.allocate(SHARD_BYTES)
    with value.view() as view:
        for position, octet in enumerate(octets):
            view[position] = octet
    return value
