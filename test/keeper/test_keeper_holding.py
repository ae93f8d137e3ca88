"""What a Keeper lets happen to what it holds: the rules one by one, then every state that calls can lead to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from size import record
from spike.keeper import holding as rules
from spike.keeper.anchor import HeldAnchor
from spike.keeper.holding import Holding, Label, Refusal, Share
from spike.wire.keeper import KeeperReason, Place

OWN = ("store", "lineage")
FOREIGN = [("other", "lineage"), ("store", "other"), ("other", "other")]
NOTHING: Holding[str] = Holding()


def share(set_id: str = "s1", value: str = "bytes", owner: tuple[str, str] = OWN) -> Share[str]:
    return Share(Label(*owner, set_id, 1, 2, 2), value, "tag")


def held(set_id: str = "s1", epoch: int = 3) -> Holding[str]:
    """Return what a Keeper with one committed share holds."""
    return Holding(committed=replace(share(set_id), epoch=epoch))


def reason(outcome: Holding[str] | Refusal[str]) -> KeeperReason | None:
    return outcome.reason if isinstance(outcome, Refusal) else None


def test_a_stage_writes_the_staged_place_and_no_other() -> None:
    before = replace(held(), contributed="go", anchor=HeldAnchor(b"", OWN, (1, 1), 1))
    for staged in (share("s2"), share("s1", "newer")):
        assert rules.stage(before, staged) == replace(before, staged=staged)


def test_a_stage_replaces_what_was_staged_whoever_s_it_was() -> None:
    before = Holding(staged=share(owner=FOREIGN[0]))
    assert rules.stage(before, share()) == Holding(staged=share())


@pytest.mark.parametrize("owner", FOREIGN)
def test_a_stage_beside_another_store_s_or_lineage_s_share_is_refused(
    owner: tuple[str, str],
) -> None:
    outcome = rules.stage(held(), share("s2", owner=owner))
    assert outcome == Refusal(KeeperReason.FOREIGN, held().committed)


def test_a_commit_to_an_empty_place_takes_any_epoch() -> None:
    for epoch in (0, 1, 1 << 62):
        outcome = rules.commit(Holding(staged=share()), OWN, "s1", epoch)
        assert outcome == Holding(committed=replace(share(), epoch=epoch))


@pytest.mark.parametrize(
    ("epoch", "refused"), [(0, True), (2, True), (3, True), (4, False), (9, False)]
)
def test_a_commit_of_another_set_needs_a_higher_epoch(epoch: int, refused: bool) -> None:
    before = replace(held(epoch=3), staged=share("s2", "new"))
    outcome = rules.commit(before, OWN, "s2", epoch)
    if refused:
        assert outcome == Refusal(KeeperReason.OLD, before.committed)
    else:
        assert outcome == Holding(committed=replace(share("s2", "new"), epoch=epoch))


@pytest.mark.parametrize(("epoch", "reached"), [(0, 3), (3, 3), (8, 8)])
def test_a_commit_of_the_same_set_again_keeps_the_higher_epoch(epoch: int, reached: int) -> None:
    assert rules.commit(held(epoch=3), OWN, "s1", epoch) == held(epoch=reached)
    again = replace(held(epoch=3), staged=share("s1", "other bytes"))
    assert rules.commit(again, OWN, "s1", epoch) == Holding(
        committed=replace(share("s1", "other bytes"), epoch=reached)
    )


def test_a_commit_of_the_committed_set_leaves_another_staged_one_where_it_is() -> None:
    before = replace(held(), staged=share("s2"))
    assert rules.commit(before, OWN, "s1", 3) == before


@pytest.mark.parametrize("owner", FOREIGN)
def test_a_commit_for_another_store_or_lineage_is_refused(owner: tuple[str, str]) -> None:
    outcome = rules.commit(replace(held(), staged=share("s2")), owner, "s2", 9)
    assert outcome == Refusal(KeeperReason.FOREIGN, held().committed)
    staged = Holding(staged=share("s2"))
    assert rules.commit(staged, owner, "s2", 9) == Refusal(KeeperReason.FOREIGN, staged.staged)


def test_a_commit_of_what_is_nowhere_is_refused() -> None:
    assert rules.commit(NOTHING, OWN, "s1", 1) == Refusal(KeeperReason.NOT_STAGED, None)
    other = Holding(staged=share("s2"))
    assert rules.commit(other, OWN, "s1", 1) == Refusal(KeeperReason.NOT_STAGED, other.staged)
    assert reason(rules.commit(held(), OWN, "s2", 9)) is KeeperReason.NOT_STAGED


def test_an_erase_empties_every_place_of_its_set_and_is_no_fault_where_there_is_none() -> None:
    both = replace(held("s1"), staged=share("s1", "again"), contributed="go")
    assert rules.erase(both, "s1") == Holding(contributed="go")
    mixed = replace(held("s1"), staged=share("s2"))
    assert rules.erase(mixed, "s2") == held("s1")
    assert rules.erase(mixed, "s1") == Holding(staged=share("s2"))
    assert rules.erase(mixed, "s3") == mixed


def test_what_go_contributes_has_a_place_of_its_own() -> None:
    before = replace(held(), staged=share("s2"))
    after = rules.contribute(rules.contribute(before, "go 1"), "go 2")
    assert after == replace(before, contributed="go 2")
    assert after.plain() == "bytes"
    assert rules.erase(after, "s1").plain() == "go 2"
    assert NOTHING.plain() is None


def test_a_share_is_found_by_its_set_the_committed_one_first() -> None:
    both = replace(held("s1"), staged=share("s1", "again"))
    assert both.share("s1") == (Place.COMMITTED, both.committed)
    assert replace(both, staged=share("s2")).share("s2") == (Place.STAGED, share("s2"))
    assert both.share("s3") is None


Step = Callable[[Holding[str]], Holding[str] | Refusal[str]]


def steps() -> dict[str, Step]:
    """Return every call, of two owners, two sets and two epochs, by a name that says which."""
    found: dict[str, Step] = {"contribute": partial(rules.contribute, value="go")}
    for set_id in ("s1", "s2"):
        found[f"erase {set_id}"] = partial(rules.erase, set_id=set_id)
        for owner in (OWN, FOREIGN[1]):
            staged = share(set_id, f"{set_id} of {owner}", owner)
            found[f"stage {owner} {set_id}"] = partial(rules.stage, share=staged)
            for epoch in (1, 2):
                found[f"commit {owner} {set_id} {epoch}"] = partial(
                    rules.commit, owner=owner, set_id=set_id, epoch=epoch
                )
    return found


def test_a_committed_share_yields_to_a_later_one_of_its_own_store_only() -> None:
    """Every state that can be reached, and every step from each: not only sequences up to some length."""
    seen, pending = {NOTHING}, [NOTHING]
    while pending:
        now = pending.pop()
        for name, step in steps().items():
            after = step(now)
            if isinstance(after, Refusal):
                continue
            check(now, name, after)
            repeated = step(after)
            assert repeated == after, f"{name} twice is not {name} once"
            if after not in seen:
                seen.add(after)
                pending.append(after)
    assert len(seen) > 50
    record("a Keeper's rules: every state, and every call from each", len(seen), "as the rules say")


def check(before: Holding[str], name: str, after: Holding[str]) -> None:
    was, now = before.committed, after.committed
    if was is not None and now is None:
        assert name == f"erase {was.label.set_id}"
    if was is not None and now is not None:
        assert now.label.owner == was.label.owner
        assert now.epoch >= was.epoch
        assert now.label.set_id == was.label.set_id or now.epoch > was.epoch
    if now is not None and now != was:
        assert name.startswith("commit")
    if name != "contribute":
        assert after.contributed == before.contributed
