"""The client's calls that look at keys and at what is stored under them."""

from __future__ import annotations

from spike.client.caller import Caller
from spike.wire import call as calls
from spike.wire.key import (
    KeyCipherOldestAnswer,
    KeyCipherOldestRequest,
    KeyGeneration,
    KeyHistoryAnswer,
    KeyHistoryRequest,
    KeyStatusAnswer,
    KeyStatusRequest,
    KeyVerifyAnswer,
    KeyVerifyRequest,
    Verification,
)
from spike.wire.message import Empty
from spike.wire.report import (
    KeyNoteAnswer,
    KeyNoteRequest,
    KeyReportAnswer,
    KeyReportRequest,
)
from spike.wire.schedule import KeyScheduleSetRequest, ScheduleAnswer


class KeyCalls(Caller):
    """The part of `spike.client.nexus.NexusClient` that looks at keys. For the superuser role."""

    def list_keys(self) -> list[KeyGeneration]:
        """Return every generation of every key, the root key first."""
        return self._read(calls.KEY_LIST, Empty(), "key list").keys

    def get_key_history(self, limit: int = 0) -> KeyHistoryAnswer:
        """Return the newest lifecycle events (1 to 1,000; 0 = 100), newest last, and where their chain is broken."""
        return self._read(calls.KEY_HISTORY, KeyHistoryRequest(limit), "key history")

    def raise_oldest_cipher(self, oldest: int, *, confirm: bool) -> KeyCipherOldestAnswer:
        """Accept nothing that a cipher generation older than `oldest` encrypted, and destroy the keys below it.

        Without `confirm` nothing is changed: the answer tells which keys that would be; `oldest` 0 asks how it is.

        Raises:
            RefusalError: there is no such generation, or a rotation would need a key below it.
        """
        request = KeyCipherOldestRequest(oldest, confirm)
        # Repeatable: the same again changes nothing.
        return self._read(calls.KEY_CIPHER_OLDEST, request, "key cipher-oldest")

    def add_key_note(self, rotation_id: str, text: str) -> KeyNoteAnswer:
        """Add a remark (1 to 500 characters, one line) to the history of a rotation.

        Raises:
            RefusalError: there is no such rotation, or this is no remark.
        """
        # Not repeatable: it would stand there twice.
        return self._write(calls.KEY_NOTE, KeyNoteRequest(rotation_id, text), "key note")

    def get_key_report(self, rotation_id: str = "") -> KeyReportAnswer:
        """Return the report of a rotation, by default the one that began last.

        Raises:
            RefusalError: there is no such rotation.
        """
        return self._read(calls.KEY_REPORT, KeyReportRequest(rotation_id), "key report")

    def get_schedule(self) -> ScheduleAnswer:
        """Return the schedule, how far each key is, and the next rotation that begins by itself."""
        return self._read(calls.KEY_SCHEDULE_GET, Empty(), "key schedule")

    def set_schedule(self, asked: KeyScheduleSetRequest) -> ScheduleAnswer:
        """Change the schedule, and return it as it is then."""
        # Repeatable: the same again changes nothing.
        return self._read(calls.KEY_SCHEDULE_SET, asked, "key schedule")

    def start_verification(self) -> KeyVerifyAnswer:
        """Begin to verify all that is stored, or join the verification that runs."""
        # Repeatable: a second start joins the first.
        return self._read(calls.KEY_VERIFY, KeyVerifyRequest(), "key verify")

    def stop_verification(self) -> KeyVerifyAnswer:
        """End the verification that runs; return it, or the last one.

        Raises:
            NotFoundError: there was none since Nexus has started.
        """
        return self._read(calls.KEY_VERIFY, KeyVerifyRequest(stop=True), "key verify")

    def get_key_status(self) -> KeyStatusAnswer:
        """Return what goes on with keys: the verification and the rotation that run, or the last ones."""
        return self._read(calls.KEY_STATUS, KeyStatusRequest(), "key status")

    def get_verification(self, findings_after: int = 0) -> Verification | None:
        """Return the verification that runs or the last one, with the findings behind the first so many.

        None: there was none since Nexus has started.
        """
        request = KeyStatusRequest(findings_after)
        return self._read(calls.KEY_STATUS, request, "key status").verification
