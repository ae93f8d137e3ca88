"""The calls of a rotation: what they ask for, what they refuse before anything is asked, and what they tell."""

from __future__ import annotations

import pytest

from rotation_kit import BACK, BEFORE_FLIP, ID, RECORDS, Looked, SmallRotations
from spike.error import InputError
from spike.lifecycle.keyring import Emergency, Scope
from spike.lifecycle.refusal import Reason, RefusalError
from spike.nexus.rotation_call import (
    RATE_LIMIT_PER_S,
    WINDOW_LIMIT_S,
    RotationCalls,
    asked_of,
    rotation_of,
)
from spike.nexus.rotation_view import Asked
from spike.policy.access import Grant, authorize
from spike.policy.compiled import CompiledPolicies
from spike.policy.role import Role
from spike.spiffe.id import SpiffeId
from spike.wire import call
from spike.wire.go_json import decode_answer_untrusted, encode
from spike.wire.message import Empty
from spike.wire.rotation import (
    KeyPaceRequest,
    KeyReasonRequest,
    KeyRotateRequest,
    KeyRotationAnswer,
    Rotation,
)

ANNA = "spiffe://spike.ist/spike/pilot/role/superuser/anna"


def granted() -> Grant:
    peer = SpiffeId.parse_untrusted(ANNA)
    decision = authorize(call.KEY_STATUS, peer, frozenset({Role.SUPERUSER}), CompiledPolicies([]))
    assert isinstance(decision, Grant)
    return decision


async def test_what_is_asked_comes_through_whole_with_the_name_of_who_asks() -> None:
    small = SmallRotations()
    message = KeyRotateRequest(
        *("", "the disk was stolen", 60, 500, ["root", "slot:admin", "keeper:2"]),
        *(["3"], True, True),
    )
    answer = await RotationCalls(small).rotate(granted(), message)
    assert (answer.id, answer.started) == (ID, True)
    assert [check.name for check in answer.checks] == ["disk"]
    emergency = Emergency(("root", "slot:admin", "keeper:2"))
    assert small.asked == [
        Asked(Scope.FULL, "the disk was stolen", 60, 500, emergency, ("3",), True, True)
    ]
    assert small.actors == [ANNA]


async def test_a_window_that_is_not_named_is_the_usual_one_and_none_is_none() -> None:
    assert asked_of(KeyRotateRequest()) == Asked(Scope.FULL, "")
    assert asked_of(KeyRotateRequest()).window_s is None
    assert asked_of(KeyRotateRequest(window_s=0)).window_s == 0


@pytest.mark.parametrize("scope", list(Scope))
def test_a_scope_is_named_as_in_the_keyring(scope: Scope) -> None:
    assert asked_of(KeyRotateRequest(scope=scope.value)).scope is scope


@pytest.mark.parametrize(
    "message",
    [
        KeyRotateRequest(scope="everything"),
        KeyRotateRequest(scope="Full"),
        KeyRotateRequest(reason="x" * 501),
        KeyRotateRequest(window_s=-1),
        KeyRotateRequest(window_s=WINDOW_LIMIT_S + 1),
        KeyRotateRequest(max_rate=-1),
        KeyRotateRequest(max_rate=RATE_LIMIT_PER_S + 1),
        KeyRotateRequest(leaked=["root"]),
        KeyRotateRequest(leaked=["roots"], reason="x"),
        KeyRotateRequest(leaked=["slot:"], reason="x"),
        KeyRotateRequest(leaked=["slot:a b"], reason="x"),
        KeyRotateRequest(leaked=["slot"], reason="x"),
        KeyRotateRequest(leaked=["keeper:"], reason="x"),
        KeyRotateRequest(leaked=["keeper:" + "x" * 494], reason="x"),
        KeyRotateRequest(leaked=[""], reason="x"),
        KeyRotateRequest(leaked=["root"] * 301, reason="x"),
        KeyRotateRequest(without=[""]),
        KeyRotateRequest(without=["x" * 494]),
        KeyRotateRequest(without=["1"] * 301),
    ],
)
async def test_what_cannot_be_meant_is_refused_before_anything_is_asked(
    message: KeyRotateRequest,
) -> None:
    small = SmallRotations()
    with pytest.raises(InputError):
        await RotationCalls(small).rotate(granted(), message)
    assert not small.asked


async def test_a_dry_run_tells_every_check_and_begins_nothing() -> None:
    small = SmallRotations(checks=[Looked("disk", "fail", "0 MiB free", "make room")])
    calls = RotationCalls(small)
    answer = await calls.rotate(granted(), KeyRotateRequest(dry_run=True))
    assert (answer.id, answer.started, answer.exposure) == ("", False, [])
    (check,) = answer.checks
    assert (check.result, check.detail, check.next_step) == ("fail", "0 MiB free", "make room")
    assert small.now is None
    with pytest.raises(RefusalError) as refused:
        await calls.rotate(granted(), KeyRotateRequest())
    assert refused.value.reason is Reason.PREFLIGHT


async def test_the_dry_run_of_an_emergency_tells_what_it_would_end() -> None:
    request = KeyRotateRequest(leaked=["root"], reason="found it", dry_run=True)
    answer = await RotationCalls(SmallRotations()).rotate(granted(), request)
    assert answer.exposure[0] == "leaked: root"


async def test_a_second_start_of_the_same_joins_the_first_and_another_is_refused() -> None:
    calls = RotationCalls(SmallRotations())
    first = await calls.rotate(granted(), KeyRotateRequest())
    second = await calls.rotate(granted(), KeyRotateRequest())
    assert (first.started, second.started) == (True, False)
    assert first.id == second.id
    with pytest.raises(RefusalError):
        await calls.rotate(granted(), KeyRotateRequest(scope="root-only"))


def told(answer: KeyRotationAnswer) -> Rotation:
    assert answer.rotation is not None
    return answer.rotation


async def test_each_call_tells_the_rotation_as_it_is_then() -> None:
    small = SmallRotations()
    calls = RotationCalls(small)
    await calls.rotate(granted(), KeyRotateRequest())
    small.steps("re-encrypting")
    assert told(await calls.pause(granted(), Empty())).paused
    assert not told(await calls.resume(granted(), Empty())).paused
    assert told(await calls.pace(granted(), KeyPaceRequest(7))).max_rate == 7
    small.steps("verified")
    assert told(await calls.finalize(granted(), Empty())).phase == "finalizing"
    assert set(small.actors) == {ANNA}


async def test_abort_and_rollback_carry_their_reason() -> None:
    small = SmallRotations()
    calls = RotationCalls(small)
    await calls.rotate(granted(), KeyRotateRequest())
    dropped = told(await calls.abort(granted(), KeyReasonRequest("changed my mind")))
    assert (dropped.phase, dropped.fault) == ("dropped", "aborted: changed my mind")
    await calls.rotate(granted(), KeyRotateRequest())
    small.steps("verified")
    back = await calls.rollback(granted(), KeyReasonRequest("it broke"))
    assert (back.id, back.started) == (BACK, True)
    assert small.now is not None
    assert small.now.reason == "it broke"
    assert not (await calls.rollback(granted(), KeyReasonRequest())).started


async def test_a_reason_too_long_or_a_rate_below_zero_is_asked_of_nobody() -> None:
    small = SmallRotations()
    calls = RotationCalls(small)
    for wrong in (
        calls.abort(granted(), KeyReasonRequest("x" * 501)),
        calls.rollback(granted(), KeyReasonRequest("x" * 501)),
        calls.pace(granted(), KeyPaceRequest(-1)),
    ):
        with pytest.raises(InputError):
            await wrong
    assert not small.actors


async def test_what_does_not_fit_is_refused_by_name() -> None:
    calls = RotationCalls(SmallRotations())
    for wrong in (
        calls.pause(granted(), Empty()),
        calls.finalize(granted(), Empty()),
        calls.abort(granted(), KeyReasonRequest()),
    ):
        with pytest.raises(RefusalError) as refused:
            await wrong
        assert refused.value.reason is Reason.ROTATION


async def test_a_rotation_is_told_the_same_to_the_other_end_in_every_phase() -> None:
    small = SmallRotations()
    await RotationCalls(small).rotate(
        granted(), KeyRotateRequest(leaked=["shards"], reason="found on a desk")
    )
    seen = []
    for _ in range(12):
        assert small.now is not None
        one = rotation_of(small.now)
        assert decode_answer_untrusted(Rotation, encode(one)) == one
        seen.append(one)
        small.step()
    assert {one.phase for one in seen} == {*BEFORE_FLIP, "re-encrypting", "verified"}
    assert all(one.leaked == ["shards"] for one in seen)
    for one in seen:
        assert (one.flipped_at is None) is (one.phase in BEFORE_FLIP)
        if (walk := one.progress) is not None:
            parts = (walk.re_encrypted, walk.already_current, walk.skipped, walk.vanished)
            assert walk.scanned == sum(parts) + walk.failed
    assert seen[-1].verification is not None
    assert seen[-1].verification.scanned == RECORDS


async def test_a_record_that_failed_is_told_by_name() -> None:
    small = SmallRotations()
    await RotationCalls(small).rotate(granted(), KeyRotateRequest())
    small.steps("re-encrypting")
    small.fail_a_record()
    assert small.now is not None
    one = rotation_of(small.now)
    assert one.progress is not None
    (record,) = one.progress.records
    assert (record.outcome, record.reason) == ("failed", "does-not-open")
    assert (record.kind, record.key, record.version) == ("secret", "tenant/acme/database", "3f")
    assert one.fault
