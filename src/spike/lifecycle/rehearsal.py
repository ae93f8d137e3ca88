"""Which shares a rehearsal rebuilds the root key from. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Final

SUBSET_LIMIT: Final = 20


def subsets(indexes: Sequence[int], threshold: int) -> tuple[tuple[int, ...], ...]:
    """Return every choice of `threshold` indexes while there are at most SUBSET_LIMIT, else each index once.

    Where their number is no multiple of the threshold the last choice is filled up with the first indexes.

    Raises:
        ValueError: there are fewer indexes than the threshold.
    """
    if not 1 <= threshold <= len(indexes):
        raise ValueError("there are fewer shares than the threshold")
    if math.comb(len(indexes), threshold) <= SUBSET_LIMIT:
        return tuple(combinations(indexes, threshold))
    ring = (*indexes, *indexes[:threshold])
    return tuple(
        tuple(sorted(ring[start : start + threshold]))
        for start in range(0, len(indexes), threshold)
    )
