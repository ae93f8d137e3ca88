"""When a key is due, warned of, expired, and which rotation comes next."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec
import pytest

from lifecycle_kit import AT, born
from spike.error import FormatError, NewerFormatError
from spike.lifecycle import due, keyring
from spike.lifecycle import usage as usage_record
from spike.lifecycle.due import Standing
from spike.lifecycle.keyring import KeyPurpose, Keyring, Scope
from spike.lifecycle.ring import KeyRing
from spike.lifecycle.schedule import Schedule, window_of
from spike.lifecycle.state import State, Transition
from spike.lifecycle.usage import Usage

BIRTH = datetime.fromisoformat(AT)
BERLIN = ZoneInfo("Europe/Berlin")
SUNDAYS = (window_of(["sun"], "01:00", "05:00"),)


@pytest.fixture
def ring() -> Iterator[KeyRing]:
    made = born()
    yield made.ring
    made.ring.wipe()
    made.slot_key.wipe()


def at(days: float) -> datetime:
    return BIRTH + timedelta(days=days)


def with_schedule(ring: KeyRing, **changes: object) -> Keyring:
    return msgspec.structs.replace(
        ring.document, schedule=msgspec.structs.replace(Schedule(), **changes)
    )


def passed(document: Keyring, *steps: tuple[State, float], root: bool = False) -> Keyring:
    """Return the document whose record (or root) key has entered more states, at days after its birth."""
    more = tuple(
        Transition(state, f"{at(days):%Y-%m-%dT%H:%M:%SZ}", "x", "") for state, days in steps
    )
    if root:
        (old,) = document.roots
        return msgspec.structs.replace(
            document, roots=(msgspec.structs.replace(old, history=(*old.history, *more)),)
        )
    keys = tuple(
        msgspec.structs.replace(key, history=(*key.history, *more))
        if key.purpose is KeyPurpose.RECORD
        else key
        for key in document.keys
    )
    return msgspec.structs.replace(document, keys=keys)


def used(count: int, purpose: str = "record") -> Usage:
    return msgspec.structs.replace(Usage(1, AT), **{purpose: ((1, count),)})


@pytest.mark.parametrize(
    ("days", "record", "root"),
    [
        (0, Standing.CURRENT, Standing.CURRENT),
        (71.9, Standing.CURRENT, Standing.CURRENT),
        (72, Standing.WARNING, Standing.CURRENT),
        (90, Standing.DUE, Standing.CURRENT),
        (179.9, Standing.DUE, Standing.CURRENT),
        (180, Standing.EXPIRED, Standing.CURRENT),
        (292, Standing.EXPIRED, Standing.WARNING),
        (365, Standing.EXPIRED, Standing.DUE),
        (730, Standing.EXPIRED, Standing.EXPIRED),
    ],
)
def test_a_key_is_warned_of_due_and_expired_by_its_age(
    ring: KeyRing, days: float, record: Standing, root: Standing
) -> None:
    root_use, record_use, cipher_use = due.uses(ring.document, None)
    assert root_use.standing(at(days)) is root
    assert record_use.standing(at(days)) is cipher_use.standing(at(days)) is record


def test_a_key_that_may_not_expire_is_due(ring: KeyRing) -> None:
    record = due.uses(ring.document, None)[1]
    assert record.standing(at(1000), may_expire=False) is Standing.DUE


def test_a_key_without_an_interval_never_ends(ring: KeyRing) -> None:
    document = with_schedule(ring, record_days=0, root_days=0)
    for use in due.uses(document, used(10**6)):
        assert use.standing(at(100_000)) is Standing.CURRENT
    assert due.next_rotation(document, None, UTC, at(100_000)) is None
    assert due.expiry(document, KeyPurpose.RECORD) is None


@pytest.mark.parametrize("purpose", ["record", "cipher"])
def test_use_warns_and_makes_due_and_never_expires(ring: KeyRing, purpose: str) -> None:
    document = with_schedule(ring, usage_limit=1_000)
    for count, standing in ((799, "current"), (800, "warning"), (1_000, "due"), (10**9, "due")):
        found = {use.purpose: use for use in due.uses(document, used(count, purpose))}
        assert found[purpose].standing(at(1)) == standing
    planned = due.next_rotation(document, used(1_000, purpose), UTC, at(1))
    assert planned is not None
    assert (planned.scope, planned.begins_at) == (Scope.DATA_ONLY, at(1))
    assert f"{purpose} key 1 has sealed 1000 records" in planned.why


def test_a_limit_of_none_is_never_reached(ring: KeyRing) -> None:
    document = with_schedule(ring, usage_limit=0)
    assert due.uses(document, used(1 << 60))[1].standing(at(1)) is Standing.CURRENT


def test_the_next_rotation_replaces_the_data_keys_when_these_are_due(ring: KeyRing) -> None:
    planned = due.next_rotation(ring.document, None, UTC, at(10))
    assert planned == (Scope.DATA_ONLY, at(90), at(90), "record key 1 is 90 days old")


def test_the_next_rotation_replaces_everything_when_the_root_key_is_due(ring: KeyRing) -> None:
    document = with_schedule(ring, root_days=90)
    planned = due.next_rotation(document, None, UTC, at(10))
    assert planned is not None
    assert planned.scope is Scope.FULL


def test_a_date_outside_of_the_windows_waits_for_the_next_one(ring: KeyRing) -> None:
    document = with_schedule(ring, windows=SUNDAYS, zone="Europe/Berlin")
    planned = due.next_rotation(document, None, BERLIN, at(10))
    assert planned is not None
    assert planned.due_at == at(90)
    assert planned.begins_at.astimezone(BERLIN).strftime("%a %H:%M") == "Sun 01:00"
    assert timedelta(0) <= planned.begins_at - at(90) < timedelta(days=7)


def test_a_missed_date_runs_at_the_next_window(ring: KeyRing) -> None:
    document = with_schedule(ring, windows=SUNDAYS, zone="Europe/Berlin")
    planned = due.next_rotation(document, None, BERLIN, at(130))
    assert planned is not None
    assert planned.due_at == at(90)
    assert at(130) < planned.begins_at <= at(137)


def test_an_expired_key_waits_for_no_window(ring: KeyRing) -> None:
    document = with_schedule(ring, windows=SUNDAYS, zone="Europe/Berlin")
    planned = due.next_rotation(document, None, BERLIN, at(181))
    assert planned is not None
    assert planned.begins_at == at(181)
    unsure = due.next_rotation(document, None, BERLIN, at(181), may_expire=False)
    assert unsure is not None
    assert unsure.begins_at > at(181)


def test_nothing_begins_by_itself_for_a_week_after_a_rollback(ring: KeyRing) -> None:
    document = passed(ring.document, (State.SUSPENDED, 90), (State.ACTIVE, 91))
    planned = due.next_rotation(document, None, UTC, at(92))
    assert planned is not None
    assert planned.begins_at == at(98)
    # ... and the key is no younger for it.
    assert planned.due_at == at(90)


def test_nothing_begins_by_itself_for_a_day_after_a_rotation_was_dropped(ring: KeyRing) -> None:
    (root,) = ring.document.roots
    steps = [(State.PRE_ACTIVATION, 95.0), (State.DESTROYED, 95.5)]
    history = tuple(Transition(s, f"{at(d):%Y-%m-%dT%H:%M:%SZ}", "x", "") for s, d in steps)
    unborn = msgspec.structs.replace(root, number=2, history=history)
    document = msgspec.structs.replace(ring.document, roots=(root, unborn))
    planned = due.next_rotation(document, None, UTC, at(95.6))
    assert planned is not None
    assert planned.begins_at == at(96.5)


def test_an_estimate_says_whether_it_fits_the_window() -> None:
    schedule = Schedule(windows=SUNDAYS)
    sunday = datetime(2026, 11, 29, 1, tzinfo=UTC)
    quick = due.estimate(schedule, UTC, sunday, 1_000_001, 5_000)
    assert quick == (201, 5_000, True, sunday + timedelta(hours=4), True)
    slow = due.estimate(schedule, UTC, sunday, 100_000_000, None)
    assert (slow.rate_per_s, slow.is_measured, slow.fits) == (1_000, False, False)
    assert due.estimate(Schedule(), UTC, sunday, 10, 10).fits is None


def test_a_new_key_under_the_root_key_that_stays_is_noticed(ring: KeyRing) -> None:
    document = ring.document
    (record,) = (key for key in document.keys if key.purpose is KeyPurpose.RECORD)
    more = msgspec.structs.replace(
        document, keys=(*document.keys, msgspec.structs.replace(record, number=2))
    )
    assert due.wraps_more(document, more)
    assert not due.wraps_more(document, document)
    assert not due.wraps_more(more, document)


def test_a_keyring_with_a_schedule_is_format_2_and_reads_back(ring: KeyRing) -> None:
    document = with_schedule(ring, zone="Europe/Berlin", windows=SUNDAYS, record_days=30)
    raw = keyring.encode(document, ring.root)
    assert raw.startswith(b"spike-keyring 2\n")
    assert keyring.decode_untrusted(raw).confirmed_by(ring.root) == document
    assert keyring.encode(ring.document, ring.root).startswith(b"spike-keyring 1\n")


def test_usage_adds_up_and_reads_back() -> None:
    first = usage_record.added(None, {1: 3}, {}, AT)
    second = usage_record.added(first, {1: 2, 2: 1}, {1: 7}, "2026-11-24T12:00:00Z")
    assert second.record == ((1, 5), (2, 1))
    assert second.of(KeyPurpose.CIPHER, 1) == 7
    assert second.of(KeyPurpose.RECORD, 9) == 0
    assert second.of(KeyPurpose.AUDIT, 1) is None
    assert usage_record.decode_untrusted(usage_record.encode(second)) == second


def test_usage_forgets_the_oldest_generations_first() -> None:
    whole = usage_record.added(None, dict.fromkeys(range(1, 1_201), 1), {}, AT)
    assert [number for number, _ in whole.record] == list(range(201, 1_201))
    assert len(usage_record.encode(whole)) < usage_record.LIMIT_BYTES


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b'{"format":1}',
        b'{"format":1,"at":"2026-11-23T12:00:00Z","record":[],"cipher":[]} ',
        b'{"format":1,"at":"yesterday","record":[],"cipher":[]}',
        b'{"format":1,"at":"2026-11-23T12:00:00Z","record":[[0,1]],"cipher":[]}',
        b'{"format":1,"at":"2026-11-23T12:00:00Z","record":[[1,-1]],"cipher":[]}',
        b" " * (64 << 10) + b"{}",
    ],
)
def test_a_usage_record_in_another_form_is_refused(raw: bytes) -> None:
    with pytest.raises(FormatError):
        usage_record.decode_untrusted(raw)


def test_a_usage_record_of_a_newer_version_is_refused_by_name() -> None:
    with pytest.raises(NewerFormatError, match="usage record"):
        usage_record.decode_untrusted(b'{"format":2,"more":1}')
