"""Progress of a re-encryption: counts add up whatever is merged, names are bounded, one encoding of each."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spike.error import FormatError, NewerFormatError
from spike.lifecycle.progress import (
    NAMED_LIMIT,
    SKIP_REASONS,
    BatchCount,
    Outcome,
    Progress,
    Reason,
    begun,
    decode_progress_untrusted,
    encode,
    finished,
    merged,
)

ROTATION = "0b" * 16
Fate = tuple[Outcome, Reason] | str

FATES: st.SearchStrategy[Fate] = st.one_of(
    st.sampled_from(["re-encrypted", "current"]),
    st.tuples(st.just(Outcome.SKIPPED), st.sampled_from(sorted(SKIP_REASONS))),
    st.just((Outcome.VANISHED, Reason.REMOVED)),
    st.tuples(st.just(Outcome.FAILED), st.sampled_from([Reason.UNOPENABLE, Reason.MALFORMED])),
)
BATCHES = st.lists(st.lists(FATES, max_size=80), max_size=6)


def counted(fates: list[Fate]) -> BatchCount:
    count = BatchCount(scanned=len(fates), size_bytes=10 * len(fates))
    for position, fate in enumerate(fates):
        if fate == "re-encrypted":
            count.re_encrypted += 1
        elif fate == "current":
            count.already_current += 1
        else:
            assert isinstance(fate, tuple)
            count.note(*fate, "secret", f"path {position}", "0a")
    return count


def after(batches: list[list[Fate]]) -> Progress:
    progress = begun(ROTATION, 3, 100)
    for number, fates in enumerate(batches):
        progress = merged(progress, counted(fates), "secret", f":{number}", 7)
    return progress


@given(BATCHES)
def test_every_record_scanned_has_one_outcome(batches: list[list[Fate]]) -> None:
    progress = after(batches)
    assert progress.scanned == sum(map(len, batches))
    assert progress.adds_up
    assert progress.size_bytes == 10 * progress.scanned
    everything = [fate for fates in batches for fate in fates]
    assert progress.failed == sum(fate[0] == Outcome.FAILED for fate in everything)
    assert progress.skipped_total == sum(fate[0] == Outcome.SKIPPED for fate in everything)


@given(BATCHES)
def test_the_first_of_each_outcome_are_named_and_no_more(batches: list[list[Fate]]) -> None:
    progress = after(batches)
    for outcome, total in (
        (Outcome.SKIPPED, progress.skipped_total),
        (Outcome.VANISHED, progress.vanished),
        (Outcome.FAILED, progress.failed),
    ):
        named = [each for each in progress.named if each.outcome is outcome]
        assert len(named) == min(total, NAMED_LIMIT)


@given(BATCHES, st.booleans())
def test_what_is_written_is_read_again(batches: list[list[Fate]], ended: bool) -> None:
    progress = finished(after(batches)) if ended else after(batches)
    assert decode_progress_untrusted(encode(progress)) == progress


def test_counts_that_do_not_add_up_are_not_written() -> None:
    count = counted(["current"])
    count.scanned += 1
    with pytest.raises(ValueError, match="do not add up"):
        merged(begun(ROTATION, 1, 1), count, "secret", "", 0)


WHOLE = after(
    [["re-encrypted", (Outcome.SKIPPED, Reason.NO_KEY), (Outcome.FAILED, Reason.MALFORMED)]]
)


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("a sum that is not one", {"scanned": 4}),
        ("a reason that is none for skipping", {"skipped": {"malformed": 1}}),
        ("a reason with nothing to it", {"skipped": {"no-key": 1, "other-generation": 0}}),
        ("reasons in another order", {"skipped": {"no-key": 1, "changed-under-old-key": 0}}),
        ("an outcome that does not exist", {"named": [{**msgspec.to_builtins(WHOLE.named[0]), "outcome": "lost"}]}),
        ("more names than are kept", {"named": [msgspec.to_builtins(WHOLE.named[0])] * (NAMED_LIMIT + 1)}),
        ("a field nobody knows", {"more": 1}),
        ("no rotation", {"rotation": ""}),
        ("a generation that no key has", {"before": 0}),
        ("a number below none", {"failed": -1}),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_refused(what: str, changes: dict[str, object]) -> None:
    raw = msgspec.json.encode({**msgspec.to_builtins(WHOLE), **changes})
    with pytest.raises(FormatError):
        decode_progress_untrusted(raw)


def test_another_form_of_the_same_is_refused() -> None:
    assert decode_progress_untrusted(encode(WHOLE)) == WHOLE
    with pytest.raises(FormatError):
        decode_progress_untrusted(encode(WHOLE) + b"\n")
    with pytest.raises(FormatError, match="larger"):
        decode_progress_untrusted(encode(WHOLE) + b" " * (1 << 20))


def test_a_newer_format_is_named() -> None:
    with pytest.raises(NewerFormatError):
        decode_progress_untrusted(b'{"format":2,"what":"nobody knows"}')


def test_the_time_left_follows_from_the_rate() -> None:
    progress = msgspec.structs.replace(begun(ROTATION, 1, 100), scanned=40, re_encrypted=40)
    assert progress.left_s is None
    assert msgspec.structs.replace(progress, rate_per_s=20).left_s == 3.0
    assert finished(progress).left_s == 0.0
    more = msgspec.structs.replace(progress, scanned=120, re_encrypted=120)
    assert more.left_s == 0.0
