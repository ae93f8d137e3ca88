"""What is done about a Keeper, row by row, and the keyrings a refresh passes through."""

from __future__ import annotations

import msgspec
import pytest

import lifecycle_kit
from spike.lifecycle import refresh
from spike.lifecycle.keyring import Keyring, ShareMember, ShareSet, decode_untrusted, encode
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.supply import Held, KeeperState, Step, Wanted, judge
from spike.lifecycle.witness import Claim

STORE, LINEAGE, OURS, STAGED, OTHER = (digit * 32 for digit in "12345")
WANTED = Wanted(STORE, LINEAGE, epoch=7, set_id=OURS, index=2, staged_set_id=STAGED)


def held(
    set_id: str = OURS,
    *,
    proven: bool = True,
    epoch: int = 7,
    index: int = 2,
    store: str = STORE,
    lineage: str = LINEAGE,
) -> Held:
    return Held(Claim(store, lineage, epoch, 1, set_id), index, proven)


@pytest.mark.parametrize(
    ("committed", "staged", "state", "step"),
    [
        (None, None, KeeperState.EMPTY, Step.SUPPLY),
        (None, held(), KeeperState.EMPTY, Step.COMMIT),
        (None, held(proven=False), KeeperState.EMPTY, Step.SUPPLY),
        (None, held(STAGED), KeeperState.EMPTY, Step.SUPPLY),
        (held(), None, KeeperState.CURRENT, Step.NOTHING),
        (held(epoch=3), None, KeeperState.CURRENT, Step.NOTHING),
        (held(epoch=99), None, KeeperState.CURRENT, Step.NOTHING),
        (held(), held(STAGED, proven=False), KeeperState.CURRENT, Step.NOTHING),
        (held(), held(OTHER, proven=False), KeeperState.CURRENT, Step.ERASE_STAGED),
        (held(proven=False), None, KeeperState.SUSPECT, Step.SUPPLY),
        (held(index=3), None, KeeperState.SUSPECT, Step.SUPPLY),
        (held(OTHER, epoch=6), None, KeeperState.OLD, Step.SUPPLY),
        (held(OTHER, epoch=6), held(), KeeperState.OLD, Step.COMMIT),
        (held(OTHER, epoch=7), None, KeeperState.SUSPECT, Step.NOTHING),
        (held(OTHER, epoch=8), None, KeeperState.SUSPECT, Step.NOTHING),
        (held(store=OTHER), None, KeeperState.FOREIGN, Step.NOTHING),
        (held(lineage=OTHER), held(), KeeperState.FOREIGN, Step.NOTHING),
    ],
)
def test_each_row(
    committed: Held | None, staged: Held | None, state: KeeperState, step: Step
) -> None:
    finding = judge(WANTED, committed, staged)
    assert (finding.state, finding.step) == (state, step)
    assert bool(finding.detail) == (state is not KeeperState.CURRENT)


def shares(set_id: str, *, staged: bool) -> ShareSet:
    members = tuple(ShareMember(index, "", "", "0" * 64) for index in (1, 2, 3))
    return ShareSet(set_id, 1, 2, staged, members)


@pytest.fixture
def document() -> Keyring:
    born = lifecycle_kit.born()
    return msgspec.structs.replace(born.ring.document, share_sets=(shares(OURS, staged=False),))


AT, ADMIN = lifecycle_kit.AT, lifecycle_kit.ADMIN


def test_a_refresh_changes_the_set_in_force_by_its_last_keyring_alone(document: Keyring) -> None:
    begun = refresh.begun(document, shares(OTHER, staged=True), AT, ADMIN)
    assert refresh.set_in_force(begun) == refresh.set_in_force(document)
    assert refresh.staged_set(begun) == shares(OTHER, staged=True)
    assert refresh.is_in_progress(begun)
    assert begun.age == (document.epoch, document.revision + 1)
    finished = refresh.finished(begun, AT)
    assert finished.share_sets == (shares(OTHER, staged=False),)
    assert finished.operation is None
    assert finished.age == (document.epoch + 1, document.revision + 2)
    assert finished.outbox[-1].kind == "refresh"
    assert finished.outbox[-1].actor == ADMIN


def test_a_refresh_that_is_dropped_leaves_the_set_it_found(document: Keyring) -> None:
    begun = refresh.begun(document, shares(OTHER, staged=True), AT, ADMIN)
    dropped = refresh.dropped(begun, AT)
    assert dropped.share_sets == document.share_sets
    assert dropped.operation is None
    assert dropped.epoch == document.epoch
    assert dropped.outbox[-1].kind == "refresh dropped"


def test_one_lifecycle_operation_at_a_time(document: Keyring) -> None:
    begun = refresh.begun(document, shares(OTHER, staged=True), AT, ADMIN)
    with pytest.raises(RefusalError) as caught:
        refresh.begun(begun, shares(STAGED, staged=True), AT, ADMIN)
    assert caught.value.reason is Reason.BUSY


@pytest.mark.parametrize("end", [refresh.finished, refresh.dropped])
def test_what_is_not_in_progress_does_not_end(document: Keyring, end: object) -> None:
    assert callable(end)
    with pytest.raises(RefusalError):
        end(document, AT)


def test_each_keyring_of_a_refresh_is_read_back_as_written() -> None:
    born = lifecycle_kit.born()
    begun = refresh.begun(born.ring.document, shares(OTHER, staged=True), AT, ADMIN)
    for each in (begun, refresh.finished(begun, AT), refresh.dropped(begun, AT)):
        raw = encode(each, born.ring.root)
        assert decode_untrusted(raw).confirmed_by(born.ring.root) == each
