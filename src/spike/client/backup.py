"""The client's calls on the key backup: its slots, its verification, a copy of it."""

from __future__ import annotations

from dataclasses import dataclass

from spike.client.caller import KEY_TIMEOUT_S
from spike.client.password import PasswordCaller, PasswordFor
from spike.wire import call as calls
from spike.wire.backup import (
    BackupExportAnswer,
    BackupExportRequest,
    BackupVerifyAnswer,
    BackupVerifyRequest,
    SlotAnswer,
    SlotListAnswer,
    SlotPasswordRequest,
    SlotRemoveRequest,
)
from spike.wire.message import Empty


@dataclass(frozen=True, slots=True)
class SlotChange:
    """What a change of slots goes with: an existing slot's password, or None; whether a rotation follows."""

    existing: PasswordFor | None = None
    rotate: bool = True


class BackupCalls(PasswordCaller):
    """The part of `spike.client.nexus.NexusClient` that is about the key backup.

    The calls that change slots need the recover role, or the superuser role together with an existing slot's password.
    They raise RefusalError with the reason; nothing was changed then.
    """

    def list_slots(self) -> SlotListAnswer:
        """Return every slot, and what still opens with a password that was changed."""
        return self._read(calls.SLOT_LIST, Empty(), "backup slot list")

    def add_slot(self, new: PasswordFor, change: SlotChange) -> SlotAnswer:
        """Add a slot named `new.slot_name` for a new password."""
        request = self._password_request(new, change)
        return self._call(
            calls.SLOT_ADD, request, "backup slot add", KEY_TIMEOUT_S, repeatable=False
        )

    def change_password(self, new: PasswordFor, change: SlotChange) -> SlotAnswer:
        """Give the slot named `new.slot_name` a new password."""
        request = self._password_request(new, change)
        return self._call(
            calls.SLOT_CHANGE,
            request,
            "backup slot change-password",
            KEY_TIMEOUT_S,
            repeatable=False,
        )

    def remove_slot(self, name: str, change: SlotChange) -> SlotAnswer:
        """Remove a slot."""
        session, sealed = self._seal_existing(change)
        request = SlotRemoveRequest(
            slot=name,
            existing_slot="" if change.existing is None else change.existing.slot_name,
            existing_session=session,
            existing_password=sealed,
            no_rotate=not change.rotate,
        )
        return self._call(
            calls.SLOT_REMOVE, request, "backup slot remove", KEY_TIMEOUT_S, repeatable=False
        )

    def verify_backup(self, secret: PasswordFor | None = None) -> BackupVerifyAnswer:
        """Look at every copy of the backup; with a password, open each of them by its slot."""
        request = BackupVerifyRequest()
        if secret is not None:
            session, sealed = self._seal(secret.password)
            request = BackupVerifyRequest(secret.slot_name, session, sealed)
        return self._call(
            calls.BACKUP_VERIFY, request, "backup verify", KEY_TIMEOUT_S, repeatable=False
        )

    def export_backup(self, place: str = "") -> BackupExportAnswer:
        """Return a key backup of the present keyring; `place` tells the history where it will lie."""
        return self._read(calls.BACKUP_EXPORT, BackupExportRequest(place), "backup export")

    def _password_request(self, new: PasswordFor, change: SlotChange) -> SlotPasswordRequest:
        existing_session, existing = self._seal_existing(change)
        session, sealed = self._seal(new.password)
        return SlotPasswordRequest(
            slot=new.slot_name,
            session=session,
            sealed_password=sealed,
            existing_slot="" if change.existing is None else change.existing.slot_name,
            existing_session=existing_session,
            existing_password=existing,
            no_rotate=not change.rotate,
        )

    def _seal_existing(self, change: SlotChange) -> tuple[str, bytes]:
        return ("", b"") if change.existing is None else self._seal(change.existing.password)
