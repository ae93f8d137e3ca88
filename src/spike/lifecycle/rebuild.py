"""The root key from what Keepers answer: which of the shares are right, and who is wrong.

A wrong share does not make Shamir fail, it makes a wrong key; and lies of two Keepers can cancel each other at 0, so
that the key is right and the other shares computed from them are not. So the tags, not the subset that happened to give
the key, say which shares the set is computed from.

What `rebuild` proves is that these shares give the root key which *this* keyring names. That the keyring is the
store's, and its newest, it does not prove: authenticate the keyring with the key (`UnconfirmedKeyring.confirmed_by`),
then hold it against the anchors. docs/decision/share.md says what a hostile store with hostile Keepers can do.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import combinations, islice
from typing import Final, NamedTuple

from spike.crypto.purpose import check_value, check_value_matches
from spike.crypto.shamir import INDEX_LIMIT, interpolate
from spike.lifecycle.keyring import ShareSet
from spike.lifecycle.share import (
    BadShare,
    HeldSet,
    Share,
    ShareError,
    ShareLabel,
    ShareProblem,
    digest_of,
    tag_key,
    tag_of,
    wipe_shares,
)
from spike.memory.key_memory import KEY_BYTES, KeyMemory

SUBSET_LIMIT: Final = 1000


class Rebuilt(NamedTuple):
    """What came back; the caller wipes `root` and `held`.

    `bad` are the shares that are wrong, by their position. `digest_mismatch` are the indexes whose digest in the
    keyring is not that of the share that was dealt: the keyring was changed, and its MAC will say so.
    """

    root: KeyMemory
    held: HeldSet
    bad: tuple[BadShare, ...]
    digest_mismatch: tuple[int, ...]


class _Candidate(NamedTuple):
    """A share whose label fits, and whether its digest does."""

    position: int
    share: Share
    fits: bool


def rebuild(
    share_set: ShareSet,
    store_id: str,
    lineage: str,
    check: str,
    shares: Sequence[Share],
    *,
    least_threshold: int = 1,
) -> Rebuilt:
    """Return the root key and the whole set from any `threshold` right shares among those given.

    `share_set`, ids and `check` (hexadecimal) are of a keyring nobody has authenticated yet, the shares of Keepers who
    may lie. `least_threshold` is what the operator configured: a store must not be able to ask for less. The shares
    stay the caller's. A wrong share is named and does not stop the others, whatever is wrong with it.

    1. Set aside what cannot be of this set: index, length, label.
    2. Search subsets, those whose digests fit first, for the check value; at most `SUBSET_LIMIT`.
    3. Judge all shares by their tags under that key; compute the set from right ones; it must give the key at 0.
    4. Compare every share given and every digest with the set.

    Raises:
        ShareError: LOW_THRESHOLD; NOT_CONFIRMED, no key was found or too few shares are vouched for; else what was
            wrong with the first share set aside; DUPLICATE or TOO_FEW. All that was rebuilt is wiped.
        ValueError: `check`, an id or a generation has not the form it has in a keyring.
        WipedError: a share is gone.
        SettingError: RLIMIT_MEMLOCK leaves no room.
    """
    label = ShareLabel(
        store_id, lineage, share_set.id, share_set.generation, 0, share_set.threshold
    )
    _check_set(share_set, least_threshold)
    candidates, bad = _sort(share_set, label, shares)
    _require_enough(candidates, bad, share_set.threshold, len(shares))
    root, found = _search(candidates, bad, label, bytes.fromhex(check))
    with ExitStack() as undo:
        undo.callback(root.wipe)
        with tag_key(root, label) as key:
            authentic = {each.position for each in candidates if _is_authentic(key, each.share)}
        base = _trusted(candidates, found, authentic, label.threshold)
        held = _recompute(share_set, root, label, base)
        undo.callback(held.wipe)
        bad += _judge(candidates, held, authentic)
        differs = tuple(m.index for m in share_set.members if held.digest(m.index) != m.digest)
        undo.pop_all()
    return Rebuilt(root, held, tuple(sorted(bad, key=lambda each: each.position)), differs)


def _check_set(share_set: ShareSet, least_threshold: int) -> None:
    indexes = [member.index for member in share_set.members]
    if share_set.threshold < least_threshold:
        raise ShareError(ShareProblem.LOW_THRESHOLD)
    if len(set(indexes)) != len(indexes):
        raise ShareError(ShareProblem.DUPLICATE)
    if len(indexes) < share_set.threshold:
        raise ShareError(ShareProblem.TOO_FEW)


def _sort(
    share_set: ShareSet, label: ShareLabel, shares: Sequence[Share]
) -> tuple[list[_Candidate], list[BadShare]]:
    """Tell the shares that may be of this set from those that cannot be."""
    digests = {member.index: member.digest for member in share_set.members}
    candidates: list[_Candidate] = []
    bad: list[BadShare] = []
    for position, share in enumerate(shares):
        problem = _problem(share, label, digests)
        if problem is not None:
            bad.append(BadShare(share.label.index, problem, position))
            continue
        fits = digest_of(share.label, share.value) == digests[share.label.index]
        candidates.append(_Candidate(position, share, fits))
    return candidates, bad


def _problem(share: Share, label: ShareLabel, digests: Mapping[int, str]) -> ShareProblem | None:
    index = share.label.index
    if index == 0:
        return ShareProblem.INDEX_ZERO
    if not 1 <= index <= INDEX_LIMIT:
        return ShareProblem.OUT_OF_RANGE
    if share.label != replace(label, index=index):
        return ShareProblem.MIXED_SET
    if index not in digests:
        return ShareProblem.UNKNOWN_INDEX
    if share.value.size_bytes != KEY_BYTES:
        return ShareProblem.WRONG_LENGTH
    return None


def _require_enough(
    candidates: Sequence[_Candidate], bad: Sequence[BadShare], threshold: int, given: int
) -> None:
    if len({each.share.label.index for each in candidates}) >= threshold:
        return
    if bad:
        raise ShareError(bad[0].reason, bad)
    raise ShareError(ShareProblem.DUPLICATE if given >= threshold else ShareProblem.TOO_FEW)


def _search(
    candidates: Sequence[_Candidate], bad: Sequence[BadShare], label: ShareLabel, check: bytes
) -> tuple[KeyMemory, tuple[_Candidate, ...]]:
    """Return the first key the check value confirms, and the subset it came from."""
    store = bytes.fromhex(label.store_id)
    for subset in islice(_subsets(candidates, label.threshold), SUBSET_LIMIT):
        points = {each.share.label.index: each.share.value for each in subset}
        if len(points) < len(subset):
            continue  # two shares claim one index: fewer points would ask for fewer shares
        root = interpolate(points)
        try:
            if check_value_matches(check, check_value(root, store, label.generation)):
                return root, subset
        except BaseException:
            root.wipe()
            raise
        root.wipe()
    suspicious = [each.share.label.index for each in candidates if not each.fits]
    raise ShareError(ShareProblem.NOT_CONFIRMED, bad, suspicious)


def _subsets(candidates: Sequence[_Candidate], threshold: int) -> Iterator[tuple[_Candidate, ...]]:
    """Yield every subset of `threshold` shares, those with the fewest suspicious ones first."""
    fitting = [each for each in candidates if each.fits]
    suspicious = [each for each in candidates if not each.fits]
    for count in range(threshold + 1):
        for some in combinations(suspicious, count):
            for others in combinations(fitting, threshold - count):
                yield (*others, *some)


def _trusted(
    candidates: Sequence[_Candidate],
    found: Sequence[_Candidate],
    authentic: set[int],
    threshold: int,
) -> dict[int, KeyMemory]:
    """Return the shares to compute the set from: authentic ones, else those of the subset that gave the key.

    Of the latter each must be authentic or have the digest the keyring names; those digests become proof only with the
    keyring's own MAC, which the caller checks.

    Raises:
        ShareError: NOT_CONFIRMED, too few are vouched for. That stops no recovery that lies could not stop anyway: with
            enough right shares and an honest store it does not happen, and a changed store is refused in any case.
    """
    proven = {e.share.label.index: e.share.value for e in candidates if e.position in authentic}
    if len(proven) >= threshold:
        return dict(islice(proven.items(), threshold))
    if not all(each.fits or each.position in authentic for each in found):
        raise ShareError(ShareProblem.NOT_CONFIRMED)
    return {each.share.label.index: each.share.value for each in found}


def _recompute(
    share_set: ShareSet, root: KeyMemory, label: ShareLabel, base: Mapping[int, KeyMemory]
) -> HeldSet:
    """Return the whole set on the polynomials through `base`, which must give `root` at 0.

    Raises:
        ShareError: NOT_CONFIRMED, they do not.
    """
    with interpolate(base) as again:
        if not again.same_as(root):
            raise ShareError(ShareProblem.NOT_CONFIRMED)
    values: dict[int, KeyMemory] = {}
    try:
        for member in share_set.members:
            values[member.index] = interpolate(base, member.index)
        return HeldSet(root, label, values)
    except BaseException:
        wipe_shares(values)
        raise


def _judge(candidates: Sequence[_Candidate], held: HeldSet, authentic: set[int]) -> list[BadShare]:
    """Name the shares that are not what was dealt, and those given a second time."""
    bad: list[BadShare] = []
    seen: set[int] = set()
    for position, share, _ in candidates:
        index = share.label.index
        if not share.value.same_as(held.share(index).value):
            bad.append(BadShare(index, ShareProblem.WRONG_VALUE, position))
        elif position not in authentic:
            bad.append(BadShare(index, ShareProblem.WRONG_TAG, position))
        elif index in seen:
            bad.append(BadShare(index, ShareProblem.DUPLICATE, position))
        else:
            seen.add(index)
    return bad


def _is_authentic(key: KeyMemory, share: Share) -> bool:
    expected = tag_of(key, share.label, share.value).encode()
    return hmac.compare_digest(expected, share.tag.encode("utf-8", "surrogatepass"))
