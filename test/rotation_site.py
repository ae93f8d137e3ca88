"""A small Nexus that rotates: the calls, handlers and messages as shipped, over the rotations of rotation_kit."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from pilot_kit import SmallNexus
from rotation_kit import BACK, MOMENT, Looked, SmallRotations
from spike.error import SpikeError
from spike.lifecycle.refusal import RefusalError
from spike.nexus.handler import OnKey
from spike.nexus.rotation_call import RotationCalls, in_short, rotation_of
from spike.policy.access import Grant, authorize
from spike.policy.compiled import CompiledPolicies
from spike.policy.role import RoleMap
from spike.server import Request, Response
from spike.server.query import action_untrusted
from spike.wire import call as calls
from spike.wire.code import ErrorCode, code_of
from spike.wire.go_json import decode_untrusted, encode
from spike.wire.key import KeyEvent, KeyHistoryAnswer, KeyStatusAnswer
from spike.wire.message import ErrorAnswer, GoTime, Message
from spike.wire.own import RefusalAnswer, StatusAnswer

ROLES = RoleMap.from_settings({})


class RotatingNexus(SmallNexus):
    """Open from the start. `rotations` is what a test steps along."""

    def __init__(self) -> None:
        super().__init__()
        self.state = "open"
        self.rotations = SmallRotations()
        self.events: list[KeyEvent] = []
        self._handlers = RotationCalls(self.rotations).handlers()

    def forget(self) -> None:
        """Be started again: what has ended is known to the history alone."""
        told = self.rotations.now
        assert told is not None
        kind = f"rotation-{told.phase}"
        self.events.append(KeyEvent(7, GoTime(MOMENT), kind, "nexus", {"id": told.id}))
        self.rotations.now = None

    def supersede(self, *, in_force: bool = True) -> None:
        """An emergency takes the place of the rotation, and comes into force or not yet."""
        told = self.rotations.now
        assert told is not None
        by = {"by": BACK, "why": f"superseded by emergency {BACK}"}
        kinds = ["dropped", "started", *(["superseded"] if in_force else [])]
        self.events += [
            KeyEvent(2 + number, GoTime(MOMENT), f"rotation-{kind}", "nexus", {"id": told.id, **by})
            for number, kind in enumerate(kinds)
        ]
        self.rotations.supersede()

    def loop_run(self, work: Coroutine[Any, Any, object]) -> None:
        """Do something that is awaited, on the loop of the server."""
        assert self._loop is not None
        self._loop.run(work)

    def happenings(self) -> dict[str, Callable[[], None]]:
        """What can happen in a script."""
        small = self.rotations
        words = ("backed-up", "re-encrypting", "verified", "finalized")
        return {
            **{f"until {word}": lambda word=word: small.steps(word) for word in words},  # type: ignore[misc]
            "go-on": lambda: setattr(small, "stride", 3),
            "rest": lambda: setattr(small, "stride", 0),
            "fail-a-record": small.fail_a_record,
            "fill-the-disk": lambda: setattr(
                small, "checks", [Looked("disk", "fail", "0 MiB free", "make room")]
            ),
            "warn-of-the-clock": lambda: setattr(
                small,
                "checks",
                [Looked("disk", "ok", "900 MiB free"), Looked("clock", "warn", "3 s behind")],
            ),
            "forget": self.forget,
            "supersede": self.supersede,
        }

    async def handle(self, request: Request) -> Response:
        call = calls.call_at(request.path, action_untrusted(request.query))
        served = {*self._handlers, calls.KEY_STATUS.name, calls.KEY_HISTORY.name}
        if call is None or call.name not in served:
            return await super().handle(request)
        self.targets.append(call.target)
        body = await request.body(1 << 20)
        if self.state != "open":
            return _error(ErrorCode.NOT_READY)
        peer = request.peer.id
        grant = authorize(call, peer, ROLES.roles_of(peer), CompiledPolicies([]))
        if not isinstance(grant, Grant):
            return _error(ErrorCode.UNAUTHORIZED)
        try:
            return Response(200, encode(await self._act(call, grant, body)))
        except RefusalError as error:
            refusal = RefusalAnswer(f"refused_{error.reason}", error.message, error.next_step)
            return Response(400, encode(refusal))
        except SpikeError as error:
            return _error(code_of(error))

    async def _act(self, call: calls.AnyCall, grant: Grant, body: bytes) -> Message:
        message = decode_untrusted(call.request, body)
        if call is calls.KEY_STATUS:
            view = self.rotations.view()
            return KeyStatusAnswer(rotation=None if view is None else rotation_of(view))
        if call is calls.KEY_HISTORY:
            return KeyHistoryAnswer(len(self.events), self.events, [])
        handler = self._handlers[call.name]
        assert isinstance(handler, OnKey)
        return await handler.act(grant, message)

    def status(self, asked: Message, request: Request) -> Message:
        told = super().status(asked, request)  # type: ignore[arg-type]
        assert isinstance(told, StatusAnswer)
        fields = {name: getattr(told, name) for name in told.__struct_fields__}
        return StatusAnswer(**{**fields, "rotation": in_short(self.rotations.now)})


def _error(code: ErrorCode) -> Response:
    return Response(code.status, encode(ErrorAnswer(code.text)))
