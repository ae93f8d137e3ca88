"""The root key comes back from any threshold of right shares, and whoever gives a wrong one is named."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import combinations, permutations

import msgspec
import pytest

from share_kit import (
    Dealt,
    at_index,
    deal,
    dealt,
    key_of,
    one_bit_wrong,
    relabelled,
    wrong_length,
    wrong_tag,
    wrong_value,
)
from size import record, seed, size
from spike.crypto import shamir
from spike.error import SettingError, WipedError
from spike.lifecycle import rebuild as module
from spike.lifecycle.keyring import ShareMember, ShareSet
from spike.lifecycle.rebuild import SUBSET_LIMIT, Rebuilt, rebuild
from spike.lifecycle.share import (
    BadShare,
    Share,
    ShareError,
    ShareLabel,
    ShareProblem,
    digest_of,
    tag_key,
    tag_of,
)
from spike.memory.key_memory import KeyMemory

Change = Callable[[Share], Share]
OTHER = "5e" * 16

LABELS: Mapping[str, Change] = {
    "another store": relabelled(lambda label: replace(label, store_id=OTHER)),
    "another lineage": relabelled(lambda label: replace(label, lineage=OTHER)),
    "another set": relabelled(lambda label: replace(label, set_id=OTHER)),
    "another generation": relabelled(lambda label: replace(label, generation=8)),
    "a lower threshold": relabelled(lambda label: replace(label, threshold=2)),
    "no id at all": relabelled(lambda label: replace(label, store_id="\ud800")),
}
WRONG: Mapping[str, tuple[Change, ShareProblem]] = {
    "another value": (wrong_value, ShareProblem.WRONG_VALUE),
    "one bit": (one_bit_wrong, ShareProblem.WRONG_VALUE),
    "zeros": (lambda share: replace(share, value=KeyMemory.allocate(32)), ShareProblem.WRONG_VALUE),
    "a tag of zeros": (wrong_tag, ShareProblem.WRONG_TAG),
    "a tag that is none": (lambda s: replace(s, tag="\ud800é"), ShareProblem.WRONG_TAG),
    "an upper-case tag": (lambda s: replace(s, tag=s.tag.upper()), ShareProblem.WRONG_TAG),
    "index 0": (at_index(0), ShareProblem.INDEX_ZERO),
    "index 256": (at_index(256), ShareProblem.OUT_OF_RANGE),
    "index -1": (at_index(-1), ShareProblem.OUT_OF_RANGE),
    "an unknown index": (at_index(6), ShareProblem.UNKNOWN_INDEX),
    "31 bytes": (wrong_length(31), ShareProblem.WRONG_LENGTH),
    "33 bytes": (wrong_length(33), ShareProblem.WRONG_LENGTH),
    **{name: (change, ShareProblem.MIXED_SET) for name, change in LABELS.items()},
}


def require_whole(made: Dealt, found: Rebuilt) -> None:
    """Hold what came back against what was dealt, and wipe it."""
    assert found.root.same_as(made.root)
    assert found.held.indexes == made.held.indexes
    for index in made.held.indexes:
        mine, theirs = found.held.share(index), made.held.share(index)
        assert mine.value.same_as(theirs.value)
        assert (mine.label, mine.tag) == (theirs.label, theirs.tag)
    found.root.wipe()
    found.held.wipe()


def problem_of(made: Dealt, shares: list[Share], share_set: ShareSet | None = None) -> ShareProblem:
    with pytest.raises(ShareError) as refused:
        made.rebuild(shares, share_set)
    return refused.value.problem


@pytest.mark.parametrize("count", range(1, 7))
def test_every_threshold_of_keepers_brings_the_key_and_the_whole_set_back(count: int) -> None:
    tried = 0
    for threshold in range(1, count + 1):
        with dealt(threshold, count) as made:
            for enough in range(threshold, count + 1):
                for chosen in combinations(range(1, count + 1), enough):
                    found = made.rebuild(made.shares(chosen))
                    assert (found.bad, found.digest_mismatch) == ((), ())
                    require_whole(made, found)
                    tried += 1
    record(f"rebuild: all subsets of {count} Keepers at every threshold", tried, "key and set")


def test_fewer_than_the_threshold_never_do() -> None:
    with dealt(3, 5) as made:
        for count in range(3):
            for chosen in combinations(range(1, 6), count):
                assert problem_of(made, made.shares(chosen)) is ShareProblem.TOO_FEW


@pytest.mark.parametrize("name", WRONG)
def test_one_wrong_share_of_five_is_named_wherever_it_is(name: str) -> None:
    change, reason = WRONG[name]
    for place in range(5):
        with dealt(3, 5) as made:
            shares = made.shares()
            shares[place] = change(shares[place])
            found = made.rebuild(shares)
            assert found.bad == (BadShare(shares[place].label.index, reason, place),)
            require_whole(made, found)


def test_any_two_wrong_shares_of_five_are_named_whatever_is_wrong_with_them() -> None:
    tried = 0
    kinds = list(WRONG.items()) if size(test=0, proof=1) else list(WRONG.items())[::3]
    for (_, first), (_, second) in permutations(kinds, 2):
        for places in combinations(range(5), 2):
            with dealt(3, 5) as made:
                shares = made.shares()
                expected = []
                for place, (change, reason) in zip(places, (first, second), strict=True):
                    shares[place] = change(shares[place])
                    expected.append(BadShare(shares[place].label.index, reason, place))
                found = made.rebuild(shares)
                assert found.bad == tuple(expected)
                require_whole(made, found)
                tried += 1
    record("rebuild: two wrong shares among five", tried, "key back, both named")


def test_three_wrong_values_of_five_are_too_many() -> None:
    for places in combinations(range(5), 3):
        with dealt(3, 5) as made:
            shares = made.shares()
            for place in places:
                shares[place] = wrong_value(shares[place])
            with pytest.raises(ShareError) as refused:
                made.rebuild(shares)
            assert refused.value.problem is ShareProblem.NOT_CONFIRMED
            assert refused.value.suspicious == tuple(place + 1 for place in places)
            assert refused.value.bad == ()


@pytest.mark.parametrize("name", LABELS)
def test_shares_of_different_sets_are_never_mixed(name: str) -> None:
    with dealt(3, 5) as made:
        shares = made.shares((1, 2, 4))
        shares[1] = LABELS[name](shares[1])
        with pytest.raises(ShareError) as refused:
            made.rebuild(shares)
        assert refused.value.problem is ShareProblem.MIXED_SET
        assert refused.value.bad == (BadShare(2, ShareProblem.MIXED_SET, 1),)


def test_a_share_of_another_split_under_this_set_s_label_is_a_wrong_value() -> None:
    """A Keeper that kept its share of the last set and says it is of this one."""
    with dealt(3, 5) as made:
        old = deal(3, 5, made.root)
        shares = made.shares()
        shares[2] = replace(shares[2], value=old.held.share(3).value, tag=old.held.share(3).tag)
        found = made.rebuild(shares)
        assert found.bad == (BadShare(3, ShareProblem.WRONG_VALUE, 2),)
        require_whole(made, found)
        old.held.wipe()


@pytest.mark.parametrize(
    ("index", "problem"),
    [
        (0, ShareProblem.INDEX_ZERO),
        (256, ShareProblem.OUT_OF_RANGE),
        (9, ShareProblem.UNKNOWN_INDEX),
        (1, ShareProblem.DUPLICATE),
    ],
)
def test_a_wrong_index_is_refused_by_name_when_no_other_share_takes_its_place(
    index: int, problem: ShareProblem
) -> None:
    with dealt(3, 5) as made:
        shares = made.shares((1, 2, 3))
        shares[1] = at_index(index)(shares[1])
        assert problem_of(made, shares) is problem


def test_a_wrong_length_is_refused_by_name_when_no_other_share_takes_its_place() -> None:
    with dealt(2, 3) as made:
        shares = made.shares((1, 2))
        shares[0] = wrong_length(16)(shares[0])
        assert problem_of(made, shares) is ShareProblem.WRONG_LENGTH


def test_a_share_given_twice_counts_once() -> None:
    with dealt(3, 5) as made:
        assert problem_of(made, made.shares((1, 2, 2))) is ShareProblem.DUPLICATE
        found = made.rebuild(made.shares((1, 2, 2, 5)))
        assert found.bad == (BadShare(2, ShareProblem.DUPLICATE, 2),)
        require_whole(made, found)


@pytest.mark.parametrize("liar", range(5))
def test_a_keeper_that_answers_for_its_neighbours_is_named_by_its_place(liar: int) -> None:
    for neighbour in range(1, 6):
        with dealt(3, 5) as made:
            shares = made.shares()
            shares[liar] = at_index(neighbour)(wrong_value(shares[liar]))
            found = made.rebuild(shares)
            assert found.bad == (BadShare(neighbour, ShareProblem.WRONG_VALUE, liar),)
            require_whole(made, found)


def test_digests_a_storage_writer_changed_neither_stop_the_key_nor_name_the_honest() -> None:
    with dealt(3, 5) as made:
        changed = made.with_digests(dict.fromkeys(range(1, 6), "0" * 64))
        shares = made.shares()
        shares[1] = wrong_value(shares[1])
        found = made.rebuild(shares, changed)
        assert found.bad == (BadShare(2, ShareProblem.WRONG_VALUE, 1),)
        assert found.digest_mismatch == (1, 2, 3, 4, 5)
        require_whole(made, found)


def test_digests_that_vouch_for_liars_are_overruled_by_the_tags() -> None:
    """A storage writer and two Keepers together: the keyring has the digests of their lies."""
    with dealt(3, 5) as made:
        shares = made.shares()
        lies = {index: wrong_value(shares[index - 1]) for index in (2, 4)}
        for index, lie in lies.items():
            shares[index - 1] = lie
        forged = {index: digest_of(lie.label, lie.value) for index, lie in lies.items()}
        found = made.rebuild(shares, made.with_digests(forged))
        assert [(each.index, each.reason) for each in found.bad] == [
            (2, ShareProblem.WRONG_VALUE),
            (4, ShareProblem.WRONG_VALUE),
        ]
        assert found.digest_mismatch == (2, 4)
        require_whole(made, found)


def cancelling(made: Dealt, first: int, second: int, honest: int) -> dict[int, Share]:
    """Return lies for two indexes that cancel each other at 0 when `honest` is the third."""
    indexes = (first, second, honest)
    factors = [shamir._lagrange(index, indexes, 0) for index in (first, second)]
    lies = {}
    for index, factor in zip((first, second), factors, strict=True):
        share = made.held.share(index)
        with share.value.view() as view:
            # 0x53 over the share's own factor, so that both add the same to the secret.
            error = shamir._public_product(0x53, shamir._public_inverse(factor))
            value = bytes(byte ^ error for byte in view)
        lies[index] = replace(share, value=key_of(value))
    return lies


def test_lies_that_cancel_each_other_do_not_make_the_honest_look_wrong() -> None:
    """The subset found first gives the right key and a wrong set: the tags, not the subset, decide."""
    with dealt(3, 5) as made:
        lies = cancelling(made, 1, 2, 3)
        with shamir.interpolate(
            {1: lies[1].value, 2: lies[2].value, 3: made.held.share(3).value}
        ) as key:
            assert key.same_as(made.root)
        forged = {index: digest_of(lie.label, lie.value) for index, lie in lies.items()}
        for share_set in (made.share_set, made.with_digests(forged)):
            found = made.rebuild([lies[1], lies[2], *made.shares((3, 4, 5))], share_set)
            assert [each.index for each in found.bad] == [1, 2]
            require_whole(made, found)


def test_lies_that_cancel_each_other_are_not_believed_when_too_few_others_are_there() -> None:
    with dealt(3, 5) as made:
        lies = cancelling(made, 1, 2, 3)
        shares = [lies[1], lies[2], *made.shares((3,))]
        assert problem_of(made, shares) is ShareProblem.NOT_CONFIRMED


def test_shares_without_their_tags_count_by_their_digests() -> None:
    with dealt(3, 5) as made:
        found = made.rebuild([wrong_tag(share) for share in made.shares((5, 1, 2))])
        assert [each.reason for each in found.bad] == [ShareProblem.WRONG_TAG] * 3
        require_whole(made, found)


def test_shares_nobody_vouches_for_are_not_believed_though_they_give_the_key() -> None:
    with dealt(3, 5) as made:
        shares = [wrong_tag(share) for share in made.shares()]
        changed = made.with_digests(dict.fromkeys(range(1, 6), "0" * 64))
        assert problem_of(made, shares, changed) is ShareProblem.NOT_CONFIRMED


def test_shares_of_another_key_are_not_believed_however_well_vouched_for() -> None:
    """Right labels, right digests, tags of their own root key: only the check value tells."""
    with dealt(3, 5) as made, KeyMemory.generate() as planted:
        held = type(made.held).split(
            planted,
            store_id=made.store_id,
            lineage=made.lineage,
            generation=7,
            set_id=made.share_set.id,
            threshold=3,
            indexes=range(1, 6),
        )
        forged = made.with_digests({index: held.digest(index) for index in held.indexes})
        shares = [held.share(index) for index in held.indexes]
        assert problem_of(made, shares, forged) is ShareProblem.NOT_CONFIRMED
        assert problem_of(made, [*shares[:3], *made.shares((4, 5))]) is ShareProblem.NOT_CONFIRMED
        held.wipe()


def test_one_keeper_that_answers_twice_does_not_count_as_two() -> None:
    """It plants a key of its own, fits everything to it, and needs nobody but somebody else's index."""
    with KeyMemory.generate() as planted, dealt(2, 3) as made:
        own = deal(1, 3, planted)
        label = ShareLabel(own.store_id, own.lineage, own.share_set.id, 7, 1, 2)
        with tag_key(planted, label) as key, KeyMemory.generate() as other:
            lies = [Share(label, each, tag_of(key, label, each)) for each in (planted, other)]
            honest = Share(replace(label, index=2), made.held.share(2).value, "")
            share_set = msgspec.structs.replace(own.share_set, threshold=2)
            for shares in permutations([*lies, honest]):
                assert problem_of(own, list(shares), share_set) is ShareProblem.NOT_CONFIRMED
        own.held.wipe()


def test_two_splits_under_one_set_id_are_not_mixed_into_a_third() -> None:
    """It must not happen; if it does, shares with right tags do not fit each other."""
    with dealt(2, 3) as made:
        again = type(made.held).split(
            made.root,
            store_id=made.store_id,
            lineage=made.lineage,
            generation=7,
            set_id=made.share_set.id,
            threshold=2,
            indexes=(1, 2, 3),
        )
        shares = [made.held.share(1), again.share(2), again.share(3)]
        assert problem_of(made, shares) is ShareProblem.NOT_CONFIRMED
        again.wipe()


def test_a_store_cannot_ask_for_fewer_shares_than_were_configured() -> None:
    """Otherwise it could name a key of its own, and one hostile Keeper would be enough to give it."""
    with dealt(1, 3) as made, pytest.raises(ShareError) as refused:
        rebuild(
            made.share_set,
            made.store_id,
            made.lineage,
            made.check,
            made.shares(),
            least_threshold=2,
        )
    assert refused.value.problem is ShareProblem.LOW_THRESHOLD


@pytest.mark.parametrize(
    ("indexes", "problem"), [((1, 2, 2), ShareProblem.DUPLICATE), ((1,), ShareProblem.TOO_FEW)]
)
def test_a_set_that_cannot_be_is_refused(indexes: tuple[int, ...], problem: ShareProblem) -> None:
    with dealt(2, 3) as made:
        members = tuple(
            ShareMember(index=index, identity="", url="", digest="0" * 64) for index in indexes
        )
        changed = msgspec.structs.replace(made.share_set, members=members)
        assert problem_of(made, made.shares(), changed) is problem


@pytest.mark.parametrize("honest_digests", [True, False])
def test_the_search_tries_no_more_than_needed_and_at_most_a_thousand(
    honest_digests: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten wrong ones among twenty: 184,756 subsets, and one that gives the key."""
    tried = 0

    def counted(points: Mapping[int, KeyMemory], at: int = 0) -> KeyMemory:
        nonlocal tried
        tried += 1
        return shamir.interpolate(points, at)

    with dealt(10, 20) as made:
        shares = [*map(wrong_value, made.shares(range(1, 11))), *made.shares(range(11, 21))]
        monkeypatch.setattr(module, "interpolate", counted)
        if honest_digests:
            found = made.rebuild(shares)
            assert tried == 1 + 1 + 20  # found at once; once more at 0; every share of the set
            assert [each.index for each in found.bad] == list(range(1, 11))
            require_whole(made, found)
        else:
            changed = made.with_digests(dict.fromkeys(range(1, 21), "0" * 64))
            assert problem_of(made, shares, changed) is ShareProblem.NOT_CONFIRMED
            assert tried == SUBSET_LIMIT


def test_whatever_is_refused_leaves_nothing_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[KeyMemory] = []
    allocate = KeyMemory.allocate

    def watched(size_bytes: int) -> KeyMemory:
        kept.append(allocate(size_bytes))
        return kept[-1]

    with dealt(3, 5) as made:
        cancelled = [*cancelling(made, 1, 2, 3).values(), *made.shares((3,))]
        lost = [wrong_tag(share) for share in made.shares()]
        lies = [wrong_value(share) for share in made.shares((1, 2, 3))]
        untold = made.with_digests(dict.fromkeys(range(1, 6), "0" * 64))
        gone = wrong_value(made.held.share(5))
        gone.value.wipe()
        monkeypatch.setattr(KeyMemory, "allocate", watched)
        refused = [(cancelled, None), (lost, untold), (lies, None), (made.shares((1, 2)), None)]
        for shares, share_set in refused:
            problem_of(made, shares, share_set)
        with pytest.raises(WipedError):
            made.rebuild([*made.shares((1, 2)), gone])
        assert len(kept) > 10
        assert all(key.wiped for key in kept)


def test_wherever_locked_memory_runs_out_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[KeyMemory] = []
    room = 0
    allocate = KeyMemory.allocate

    def scarce(size_bytes: int) -> KeyMemory:
        if len(kept) == room:
            raise SettingError("no more memory may be locked")
        kept.append(allocate(size_bytes))
        return kept[-1]

    with dealt(2, 3) as made:
        shares = made.shares((3, 1))
        monkeypatch.setattr(KeyMemory, "allocate", scarce)
        for number in range(100):
            room = number
            kept.clear()
            try:
                found = made.rebuild(shares)
            except SettingError:
                assert all(key.wiped for key in kept)
                continue
            break
        assert room > 10
        assert [key for key in kept if not key.wiped] == [
            found.root,
            *(found.held.share(index).value for index in (1, 2, 3)),
        ]
        require_whole(made, found)


def test_what_fails_after_the_set_was_computed_wipes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[KeyMemory] = []
    allocate = KeyMemory.allocate

    def watched(size_bytes: int) -> KeyMemory:
        kept.append(allocate(size_bytes))
        return kept[-1]

    def failing(*_: object) -> str:
        raise WipedError("a share was wiped meanwhile")

    with dealt(2, 3) as made:
        shares = made.shares()
        monkeypatch.setattr(KeyMemory, "allocate", watched)
        monkeypatch.setattr(type(made.held), "digest", failing)
        with pytest.raises(WipedError):
            made.rebuild(shares)
        assert all(key.wiped for key in kept)


def test_the_shares_given_stay_the_caller_s() -> None:
    with dealt(2, 3) as made:
        shares = made.shares()
        found = made.rebuild(shares)
        assert not any(share.value.wiped for share in shares)
        found.held.wipe()
        assert not any(share.value.wiped for share in shares)
        assert not found.root.wiped
        found.root.wipe()


def test_whatever_hostile_keepers_and_store_do_no_other_key_ever_comes_back() -> None:
    """Random lies of any number of Keepers, random digests: the key, or a refusal; with an honest store, and as many
    right shares as the threshold, always the key, with exactly the liars named."""
    chosen = seed()
    print("seed", chosen)
    chance = random.Random(chosen)
    rounds = size(test=150, proof=100_000)
    kinds = [change for change, _ in WRONG.values()]
    back = 0
    for _ in range(rounds):
        count = chance.randint(1, 7)
        threshold = chance.randint(1, count)
        with dealt(threshold, count) as made:
            shares = chance.sample(made.shares(), chance.randint(0, count))
            liars = chance.sample(range(len(shares)), chance.randint(0, len(shares)))
            for place in liars:
                shares[place] = chance.choice(kinds)(shares[place])
            honest_store = chance.random() < 0.5
            share_set = made.share_set
            if not honest_store:
                share_set = made.with_digests(
                    {
                        i: hashlib.sha256(chance.randbytes(4)).hexdigest()
                        for i in chance.sample(range(1, count + 1), chance.randint(1, count))
                    }
                )
            try:
                found = made.rebuild(shares, share_set)
            except ShareError:
                assert not honest_store or len(shares) - len(liars) < threshold
                continue
            named = [each.position for each in found.bad]
            assert named == sorted(named)
            assert set(named) <= set(liars), "an honest Keeper was called a liar"
            require_whole(made, found)
            back += 1
    assert back > rounds // 10
    record("rebuild: random lies of Keepers and store", rounds, "the key or a refusal", seed=chosen)


def test_a_label_is_looked_at_before_anything_of_the_share_is_used() -> None:
    """What cannot be of this set is not even hashed: its label may be of any form."""
    with dealt(2, 3) as made:
        strange = ShareLabel("", "x", "\x00", -5, 1, 10**9)
        shares = [*made.shares((2, 3)), Share(strange, made.held.share(1).value, "")]
        found = made.rebuild(shares)
        assert found.bad == (BadShare(1, ShareProblem.MIXED_SET, 2),)
        require_whole(made, found)
