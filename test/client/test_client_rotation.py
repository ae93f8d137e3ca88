"""How the client follows a rotation: what it gives, when it ends, and what a Nexus that falls silent means."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from rotation_kit import ID, MOMENT, Walk
from spike.client.nexus import NexusClient
from spike.client.pool import JSON_CONTENT_TYPE, Body, Reply
from spike.client.rotation import Silent, Until
from spike.error import NotReadyError, UnreachableError
from spike.lifecycle.keyring import RotationKind, Scope, Succession
from spike.nexus.rotation_call import rotation_of
from spike.nexus.rotation_view import RotationView
from spike.wire.go_json import encode
from spike.wire.key import KeyStatusAnswer
from spike.wire.rotation import KeyRotateRequest, Rotation

AWAY = UnreachableError("nobody listens")
LOCKED = Reply(503, b'{"err":"state_not_ready"}')


class Told:
    """An exchange that gives what it was told to give, one after the other; the last again and again."""

    def __init__(self, replies: Iterable[Reply | UnreachableError]) -> None:
        self.replies = list(replies)
        self.asked: list[tuple[str, bool]] = []

    def exchange(
        self,
        target: str,
        body: Body,
        *,
        repeatable: bool,
        timeout_s: float,
        content_type: str = JSON_CONTENT_TYPE,
    ) -> Reply:
        assert body
        assert timeout_s > 0
        assert content_type == JSON_CONTENT_TYPE
        self.asked.append((target, repeatable))
        given = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(given, UnreachableError):
            raise given
        return given

    def close(self) -> None: ...


def view(phase: str, fault: str = "") -> RotationView:
    return RotationView(
        id=ID,
        kind=RotationKind.ROTATION,
        scope=Scope.FULL,
        phase=phase,
        started_at=MOMENT,
        actor="spiffe://spike.ist/spike/pilot/role/superuser",
        reason="",
        attempt=1,
        root=Succession(1, 2),
        record=Succession(1, 2),
        cipher=Succession(1, 2),
        fault=fault,
    )


def reply(now: RotationView | None) -> Reply:
    return Reply(200, encode(KeyStatusAnswer(rotation=None if now is None else rotation_of(now))))


def followed(*replies: Reply | UnreachableError, until: Until = Until.VERIFIED) -> list[str]:
    """Return what a follower was given: phases, `silent`, `none`."""
    given = []
    with NexusClient(Told(replies)) as nexus:
        for told in nexus.follow_rotation(until):
            match told:
                case Rotation(phase=phase):
                    given.append(phase)
                case Silent():
                    given.append("silent")
                case None:
                    given.append("none")
    return given


def test_each_change_is_given_once_until_it_is_verified() -> None:
    walking = replace(view("re-encrypting"), progress=Walk(250))
    told = followed(
        reply(view("prepared")),
        reply(view("prepared")),
        reply(walking),
        reply(replace(walking, progress=Walk(500))),
        reply(view("verified")),
    )
    assert told == ["prepared", "re-encrypting", "re-encrypting", "verified"]


@pytest.mark.parametrize("phase", ["finalized", "dropped", "failed"])
def test_an_end_ends_it_whatever_was_waited_for(phase: str) -> None:
    for until in Until:
        assert followed(reply(view(phase)), until=until) == [phase]


def test_one_that_is_being_finalized_was_verified() -> None:
    assert followed(reply(view("finalizing"))) == ["finalizing"]
    told = followed(reply(view("finalizing")), reply(view("finalized")), until=Until.FINALIZED)
    assert told == ["finalizing", "finalized"]


def test_a_fault_that_goes_away_is_waited_out_and_one_that_stays_ends_it() -> None:
    held_up = reply(view("re-encrypting", "the disk is full"))
    assert followed(held_up, held_up, reply(view("verified"))) == ["re-encrypting", "verified"]
    assert followed(held_up) == ["re-encrypting"]


def test_a_nexus_that_is_away_or_locked_is_asked_on_and_that_is_told_once() -> None:
    told = followed(reply(view("prepared")), AWAY, AWAY, LOCKED, reply(view("verified")))
    assert told == ["prepared", "silent", "verified"]


def test_what_was_told_before_a_silence_is_told_again_after_it() -> None:
    told = followed(reply(view("prepared")), AWAY, reply(view("prepared")), reply(view("dropped")))
    assert told == ["prepared", "silent", "prepared", "dropped"]


def test_a_nexus_that_stays_away_is_not_waited_for_without_end() -> None:
    with NexusClient(Told([AWAY])) as nexus, pytest.raises(NotReadyError, match="nobody listens"):
        list(nexus.follow_rotation(patience_s=0))


def test_without_a_rotation_there_is_nothing_to_follow() -> None:
    assert followed(reply(None)) == ["none"]


def test_what_may_be_sent_twice_and_what_may_not() -> None:
    begun = Reply(200, b'{"id":"i","started":true,"checks":[]}')
    told = Reply(200, b'{"rotation":null}')
    exchange = Told([begun, begun, begun, begun, told])
    nexus = NexusClient(exchange)
    nexus.start_rotation(KeyRotateRequest())
    nexus.start_rotation(KeyRotateRequest(leaked=["root"], reason="found"))
    nexus.check_rotation(KeyRotateRequest(leaked=["root"], reason="found", dry_run=True))
    nexus.rollback_rotation("back")
    nexus.pause_rotation()
    nexus.resume_rotation()
    nexus.set_rotation_pace(5)
    nexus.abort_rotation()
    nexus.finalize_rotation()
    words = ("rotate", "rotate", "rotate", "rollback", "pause", "resume", "pace", "abort")
    assert [target for target, _ in exchange.asked] == [
        f"/v1/key?action={word}" for word in (*words, "finalize")
    ]
    again = (True, False, True, False, True, True, True, False, False)
    assert tuple(repeatable for _, repeatable in exchange.asked) == again


def test_a_check_that_would_begin_one_is_a_fault_of_the_caller() -> None:
    with pytest.raises(ValueError, match="dry run"):
        NexusClient(Told([LOCKED])).check_rotation(KeyRotateRequest())
