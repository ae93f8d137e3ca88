"""All policies as two automata: one over SPIFFE IDs, one over paths. Built once, asked often.

A decision runs each text through its automaton once, whatever the number of policies: RE2 never
backtracks. It depends only on the policies given; whoever changes a policy builds a new object and
swaps it in, and with the old one everything remembered about it is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NewType

import re2

from spike.error import InputError
from spike.policy.rule import (
    RESERVED_PATHS,
    Permission,
    Policy,
    PolicyName,
    counts_for_reserved,
    pattern_options,
)
from spike.spiffe.id import SpiffeId

# The policies, by their position, that match a caller's SPIFFE ID and hold the permission wanted.
Candidates = NewType("Candidates", frozenset[int])

# How many positions of candidates are remembered, over all callers: about 10 MB.
_MEMORY_LIMIT: Final = 200_000

# Finds the positions of the patterns that occur in a text; None when there are none.
_Automaton = Callable[[str], Sequence[int] | None]

# The program and the states seen so far of one automaton stay below this. It starts small, because
# an adversary who chooses paths can fill it; RE2 then forgets the states and goes on. A set too large
# for the last is refused when the policy is written.
_SET_MEMORY_BYTES: Final = (16 << 20, 64 << 20, 256 << 20)


class CompiledPolicies:
    """A fixed set of policies, ready to decide.

    `left_out` names policies whose patterns this version of RE2 refuses. They allow nothing: to leave
    a policy out can only take rights away.

    Raises:
        InputError: the policies are too large together.
    """

    def __init__(self, policies: Iterable[Policy]) -> None:
        usable, self.left_out = _sorted_out(tuple(policies))
        self._ids_in = _automaton([policy.spiffe_id_pattern for policy in usable])
        self._paths_in = _automaton([policy.path_pattern for policy in usable])
        self._holders: Final = {
            permission: frozenset(
                position for position, policy in enumerate(usable) if policy.holds(permission)
            )
            for permission in Permission
        }
        self._reserved: Final[Mapping[str, frozenset[int]]] = {
            path: frozenset(
                position
                for position in self._paths_in(path) or ()
                if counts_for_reserved(usable[position], path)
            )
            for path in RESERVED_PATHS
        }
        self._remembered: dict[tuple[SpiffeId, Permission], Candidates] = {}
        self._remembered_size = 0

    def candidates(self, peer: SpiffeId, wanted: Permission) -> Candidates:
        """Return the policies that could allow `peer` something; empty = no path at all."""
        known = self._remembered.get((peer, wanted))
        if known is not None:
            return known
        found = Candidates(self._holders[wanted].intersection(self._ids_in(str(peer)) or ()))
        # One more for the entry itself: callers that match nothing must not add up either.
        self._remembered_size += len(found) + 1
        if self._remembered_size > _MEMORY_LIMIT:
            self._remembered.clear()
            self._remembered_size = len(found) + 1
        self._remembered[peer, wanted] = found
        return found

    def allows(self, candidates: Candidates, path: str) -> bool:
        """Return whether one of the candidates matches `path` too. `path` may be any text."""
        if path in self._reserved:
            return not candidates.isdisjoint(self._reserved[path])
        return not candidates.isdisjoint(self._paths_in(path) or ())

    def decide(self, peer: SpiffeId, path: str, wanted: Permission) -> bool:
        """Return whether one single policy matches both and holds the permission."""
        candidates = self.candidates(peer, wanted)
        return bool(candidates) and self.allows(candidates, path)


def _sorted_out(policies: Sequence[Policy]) -> tuple[Sequence[Policy], tuple[PolicyName, ...]]:
    bad = frozenset(policy.name for policy in policies if not _is_readable(policy))
    return [policy for policy in policies if policy.name not in bad], tuple(sorted(bad))


def _is_readable(policy: Policy) -> bool:
    # A set of its own parses a pattern without compiling it, in a tenth of the time.
    parser = re2.Set.SearchSet(pattern_options())
    try:
        parser.Add(policy.spiffe_id_pattern)
        parser.Add(policy.path_pattern)
    except re2.error:
        return False
    return True


def _automaton(patterns: Sequence[str]) -> _Automaton:
    if not patterns:
        return _nothing  # RE2 has no automaton of no patterns
    for memory_bytes in _SET_MEMORY_BYTES:
        automaton = re2.Set.SearchSet(pattern_options(memory_bytes))
        try:
            for pattern in patterns:
                automaton.Add(pattern)
            # Compile also proves that twenty of the largest possible states fit, so that Match, which
            # can only answer "no match" when it runs out of memory, never does.
            automaton.Compile()
        except re2.error:
            continue
        match: _Automaton = automaton.Match
        return match
    raise InputError(
        "the policies are too large together",
        "use fewer policies, or shorter patterns without large repetitions",
    )


def _nothing(text: str) -> None:  # noqa: ARG001  (an _Automaton)
    return None
