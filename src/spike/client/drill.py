"""The calls on drills."""

from __future__ import annotations

from spike.client.caller import KEY_TIMEOUT_S
from spike.client.password import PasswordCaller, PasswordFor
from spike.wire import call as calls
from spike.wire.drill import Drill, DrillBeginRequest, DrillRecordRequest, DrillReportAnswer
from spike.wire.message import Empty


class DrillCalls(PasswordCaller):
    """The part of `spike.client.nexus.NexusClient` that is about drills. For the superuser role."""

    def begin_drill(self, *, full: bool, secret: PasswordFor | None = None) -> Drill:
        """Begin a drill; with a password a person's. It goes on in Nexus: look at it with `get_drills`.

        Raises:
            RefusalError: with the reason, such as a wrong password.
        """
        session, sealed = ("", b"") if secret is None else self._seal(secret.password)
        slot_name = "" if secret is None else secret.slot_name
        request = DrillBeginRequest(session, sealed, slot_name, full)
        return self._call(calls.DRILL_BEGIN, request, "drill", KEY_TIMEOUT_S, repeatable=False)

    def get_drills(self) -> DrillReportAnswer:
        """Return what is known of drills."""
        return self._read(calls.DRILL_REPORT, Empty(), "drill report")

    def record_drill(self, name: str, outcome: str, note: str) -> None:
        """Note that people practised a runbook."""
        request = DrillRecordRequest(name, outcome, note)
        self._write(calls.DRILL_RECORD, request, "drill record")
