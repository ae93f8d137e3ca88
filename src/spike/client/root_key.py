"""The client's calls on the root key: init, status, restore, recovery shards, Keepers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spike.client.caller import KEY_TIMEOUT_S
from spike.client.password import PasswordCaller, PasswordFor
from spike.lifecycle.recovery_shard import digest_of
from spike.memory.key_memory import KeyMemory
from spike.wire import call as calls
from spike.wire.message import Empty
from spike.wire.operator import (
    RecoverAnswer,
    RecoverRequest,
    ShardCheckAnswer,
    ShardCheckRequest,
    ShardRestoreAnswer,
    ShardRestoreRequest,
)
from spike.wire.own import (
    FileRestoreRequest,
    InitAnswer,
    InitRequest,
    KeeperRefreshAnswer,
    KeeperReshapeAnswer,
    KeeperReshapeRequest,
    PasswordRestoreRequest,
    Rehearsal,
    RestoreAnswer,
    StatusAnswer,
)


@dataclass(frozen=True, slots=True)
class ShardOf:
    """One recovery shard, and the set its text names or an empty name. The holder wipes `value`."""

    index: int
    value: KeyMemory
    set_id: str = ""


class RootKeyCalls(PasswordCaller):
    """The part of `spike.client.nexus.NexusClient` that is about the root key."""

    def get_status(self) -> StatusAnswer:
        """Return the state of Nexus; all but `ready` is for the superuser alone."""
        return self._read(calls.OPERATOR_STATUS, Empty(), "status")

    def refresh_keepers(self) -> KeeperRefreshAnswer:
        """Give every Keeper a new share of the same root key; all of them or none.

        Raises:
            RefusalError: with the reason. Nothing was changed.
        """
        return self._call(
            calls.KEEPER_REFRESH, Empty(), "keeper refresh", KEY_TIMEOUT_S, repeatable=False
        )

    def rehearse(self) -> Rehearsal:
        """Try out whether the Keepers would bring the root key back.

        Raises:
            RefusalError: there are no Keepers.
        """
        return self._call(
            calls.KEEPER_REHEARSE, Empty(), "keeper rehearse", KEY_TIMEOUT_S, repeatable=True
        )

    def reshape_keepers(
        self, shares: int, threshold: int, peers: Sequence[str] = ()
    ) -> KeeperReshapeAnswer:
        """Let these Keepers hold the root key; without any, the present ones with another threshold.

        Raises:
            RefusalError: with the reason. Nothing was changed.
        """
        request = KeeperReshapeRequest(shares, threshold, list(peers))
        return self._call(
            calls.KEEPER_RESHAPE, request, "keeper reshape", KEY_TIMEOUT_S, repeatable=False
        )

    def init(self, secret: PasswordFor) -> InitAnswer:
        """Make the root key of an empty store, with one backup slot for this password.

        Raises:
            RefusalError: with the reason. Nothing was changed.
        """
        session, sealed = self._seal(secret.password)
        request = InitRequest(session, sealed, secret.slot_name)
        return self._call(calls.OPERATOR_INIT, request, "init", KEY_TIMEOUT_S, repeatable=False)

    def preview_restore(
        self,
        secret: PasswordFor,
        anchor: bytes,
        backup: bytes | None,
        *,
        accept_older: bool = False,
    ) -> RestoreAnswer:
        """Open what a restore would bring back, changing nothing.

        `anchor` is the last one seen of this store, or empty. `backup` is a key backup to restore
        from; None = the store's own. `accept_older`: show it also if somebody has seen the store
        further, and say who.

        Raises:
            RefusalError: with the reason, such as a wrong password.
        """
        session, sealed = self._seal(secret.password)
        if backup is None:
            request = PasswordRestoreRequest(
                session, sealed, secret.slot_name, anchor, accept_older_store=accept_older
            )
            return self._call(
                calls.OPERATOR_RESTORE_PASSWORD, request, "restore", KEY_TIMEOUT_S, repeatable=False
            )
        from_file = FileRestoreRequest(
            session, sealed, secret.slot_name, anchor, "", backup, accept_older
        )
        return self._call(
            calls.OPERATOR_RESTORE_FILE, from_file, "restore", KEY_TIMEOUT_S, repeatable=False
        )

    def confirm_restore(self, confirm: str) -> RestoreAnswer:
        """Carry out the restore whose preview named `confirm`.

        Raises:
            RefusalError: with the reason, such as a preview that has expired.
        """
        request = PasswordRestoreRequest(confirm=confirm)
        return self._call(
            calls.OPERATOR_RESTORE_PASSWORD, request, "restore", KEY_TIMEOUT_S, repeatable=False
        )

    def recover(self, *, only_first: bool) -> RecoverAnswer:
        """Return new recovery shards, which make all shards before useless.

        Raises:
            RefusalError: SHARDS_EXIST with `only_first`, if there are shards already.
        """
        request = RecoverRequest(only_first)
        return self._call(
            calls.OPERATOR_RECOVER, request, "recover", KEY_TIMEOUT_S, repeatable=False
        )

    def check_shard(self, shard: ShardOf) -> ShardCheckAnswer:
        """Check a recovery shard in. Its digest is sent, the shard is not.

        Raises:
            RefusalError: WRONG_SHARD, it was changed, or is of an older set or another store; UNKNOWN_SLOT.
        """
        asked = ShardCheckRequest(id=shard.index, set_id=shard.set_id)
        of = self._read(calls.OPERATOR_CHECK_SHARD, asked, "check-shard")
        digest = digest_of(of.store_id, of.set_id, shard.index, shard.value)
        request = ShardCheckRequest(shard.index, shard.set_id, digest)
        return self._write(calls.OPERATOR_CHECK_SHARD, request, "check-shard")

    def bring_shard(
        self,
        shard: ShardOf,
        anchor: bytes,
        backup: bytes | None,
        *,
        accept_older: bool = False,
        manifest: bytes = b"",
        set_aside: bool = False,
    ) -> ShardRestoreAnswer:
        """Bring one recovery shard; with the last one needed the answer is a preview.

        The other arguments are those of `preview_restore`; with `manifest`, `backup` is that of a system backup, and
        `set_aside` lets what the store holds be kept aside for it.

        Raises:
            RefusalError: with the reason, such as a shard of an older set.
        """
        with shard.value.view() as view:
            request = ShardRestoreRequest(
                id=shard.index,
                shard=list(view),
                set_id=shard.set_id,
                anchor=anchor,
                backup=backup or b"",
                accept_older_store=accept_older,
                preview=True,
                manifest=manifest,
                set_aside=set_aside,
            )
        return self._call(
            calls.OPERATOR_RESTORE, request, "restore", KEY_TIMEOUT_S, repeatable=False
        )
