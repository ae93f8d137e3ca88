"""The client's calls on system backups."""

from __future__ import annotations

from collections.abc import Iterator

from spike.client.caller import KEY_TIMEOUT_S, Caller
from spike.wire import call as calls
from spike.wire.message import Empty
from spike.wire.system_backup import (
    SystemBackupCreateAnswer,
    SystemBackupReadRequest,
)


class SystemBackupCalls(Caller):
    """The part of `spike.client.nexus.NexusClient` that is about system backups."""

    def begin_system_backup(self) -> SystemBackupCreateAnswer:
        """Fix the moment of a system backup, for the superuser role. Read it at once: it does not wait for long.

        Raises:
            RefusalError: BUSY, another one is being made.
        """
        return self._call(
            calls.SYSTEM_BACKUP_CREATE, Empty(), "system backup", KEY_TIMEOUT_S, repeatable=False
        )

    def read_system_backup(self, session: str) -> Iterator[bytes]:
        """Give the file piece by piece.

        Raises:
            RefusalError: EXPIRED, it was read too slowly.
        """
        part, last = 0, False
        while not last:
            request = SystemBackupReadRequest(session, part)
            # Repeatable: the part that was read last is given again.
            answer = self._read(calls.SYSTEM_BACKUP_READ, request, "system backup")
            yield answer.data
            part, last = part + 1, answer.last
