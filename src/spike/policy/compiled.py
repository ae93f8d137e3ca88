"""All policies as two automata: one over SPIFFE IDs, one over paths. Built once, asked often.

A decision runs each text through its automaton once, whatever the number of policies: RE2 never
backtracks. It depends only on the policies given; whoever changes a policy builds a new object and
swaps it in, and with the old one everything remembered about it is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
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

# Compile all again once more than one in this many is new or gone.
_RECENT_FRACTION: Final = 16

# Finds the positions of the patterns that occur in a text; None when there are none.
_Automaton = Callable[[str], Sequence[int] | None]

# The program and the states seen so far of one automaton stay below this. It starts small, because
# an adversary who chooses paths can fill it; RE2 then forgets the states and goes on. A set too large
# for the last is refused when the policy is written.
_SET_MEMORY_BYTES: Final = (16 << 20, 64 << 20, 256 << 20)


class CompiledPolicies:
    """A fixed set of policies, ready to decide.

    To compile 10,000 policies takes some 100 ms. Given `previous`, what is the same in both is not compiled
    again as long as little differs: the few policies that are new get automata of their own beside the large
    ones, and those that are gone are passed over. The decisions are the same either way.

    `left_out` names policies whose patterns this version of RE2 refuses. They allow nothing: to leave
    a policy out can only take rights away.

    Raises:
        InputError: the policies are too large together.
    """

    def __init__(
        self, policies: Iterable[Policy], previous: CompiledPolicies | None = None
    ) -> None:
        wanted = tuple(policies)
        reused = None if previous is None else _reused(previous._base, wanted)
        if reused is None:
            self._base: _Layer = _layer(wanted)
            self._recent = _NO_LAYER
            self.left_out = self._base.left_out
            alive = set(range(len(self._base.policies)))
        else:
            self._base, alive, self._recent = reused
            self.left_out = self._recent.left_out
        # Positions count through the base, then through the recent ones.
        self._offset = len(self._base.policies)
        every = (*self._base.policies, *self._recent.policies)
        alive.update(range(self._offset, len(every)))
        self._holders: Final = _holders(every, alive)
        self._reserved: Final[Mapping[str, frozenset[int]]] = {
            path: frozenset(
                position
                for position in self._matching(path)
                if position in alive and counts_for_reserved(every[position], path)
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
        text = str(peer)
        recent = (self._offset + position for position in self._recent.ids_in(text) or ())
        found = Candidates(
            self._holders[wanted].intersection(self._base.ids_in(text) or ())
            | self._holders[wanted].intersection(recent)
        )
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
        return not candidates.isdisjoint(self._matching(path))

    def decide(self, peer: SpiffeId, path: str, wanted: Permission) -> bool:
        """Return whether one single policy matches both and holds the permission."""
        candidates = self.candidates(peer, wanted)
        return bool(candidates) and self.allows(candidates, path)

    def _matching(self, path: str) -> Sequence[int]:
        base = self._base.paths_in(path) or ()
        recent = self._recent.paths_in(path)
        if not recent:
            return base
        return [*base, *(self._offset + position for position in recent)]


@dataclass(frozen=True, slots=True)
class _Layer:
    """Policies that were compiled together, and those of them that could not be."""

    policies: tuple[Policy, ...]
    ids_in: _Automaton
    paths_in: _Automaton
    left_out: tuple[PolicyName, ...]
    memory_bytes: int


def _reused(base: _Layer, wanted: Sequence[Policy]) -> tuple[_Layer, set[int], _Layer] | None:
    """Return `base`, which of it is still wanted, and a layer of the rest; None to compile all again."""
    positions = {policy.name: position for position, policy in enumerate(base.policies)}
    alive, recent = set(), []
    for policy in wanted:
        position = positions.get(policy.name)
        if position is not None and base.policies[position] == policy:
            alive.add(position)
        else:
            recent.append(policy)
    if len(base.policies) - len(alive) + len(recent) > len(base.policies) // _RECENT_FRACTION:
        return None
    layer = _layer(tuple(recent))
    # Sizes add up, so these two fit together into the last size. That must be sure at each write: a
    # server that starts compiles all at once, and must not find only then that they are too large.
    if base.memory_bytes == _SET_MEMORY_BYTES[-1] or layer.memory_bytes > _SET_MEMORY_BYTES[0]:
        return None
    return base, alive, layer


def _holders(
    policies: Sequence[Policy], alive: Iterable[int]
) -> Mapping[Permission, frozenset[int]]:
    holders: dict[Permission, list[int]] = {permission: [] for permission in Permission}
    for position in alive:
        held = policies[position].permissions
        for permission in Permission if Permission.SUPER in held else held:
            holders[permission].append(position)
    return {permission: frozenset(positions) for permission, positions in holders.items()}


class _UnreadableError(Exception):
    """RE2 refuses one of the patterns."""


def _layer(policies: tuple[Policy, ...]) -> _Layer:
    try:
        return _compiled(policies, left_out=())
    except _UnreadableError:
        # Never for policies written under this version of RE2, so only now is each looked at.
        readable = tuple(policy for policy in policies if _is_readable(policy))
        left_out = sorted({policy.name for policy in policies} - {p.name for p in readable})
        return _compiled(readable, left_out=tuple(left_out))


def _compiled(policies: tuple[Policy, ...], left_out: tuple[PolicyName, ...]) -> _Layer:
    ids_in, ids_bytes = _automaton([policy.spiffe_id_pattern for policy in policies])
    paths_in, paths_bytes = _automaton([policy.path_pattern for policy in policies])
    return _Layer(policies, ids_in, paths_in, left_out, max(ids_bytes, paths_bytes))


def _is_readable(policy: Policy) -> bool:
    # A set of its own parses a pattern without compiling it.
    parser = re2.Set.SearchSet(pattern_options())
    try:
        parser.Add(policy.spiffe_id_pattern)
        parser.Add(policy.path_pattern)
    except re2.error:
        return False
    return True


def _automaton(patterns: Sequence[str]) -> tuple[_Automaton, int]:
    """Return the automaton of the patterns and the bound of its memory."""
    if not patterns:
        return _nothing, 0  # RE2 has no automaton of no patterns
    for memory_bytes in _SET_MEMORY_BYTES:
        automaton = re2.Set.SearchSet(pattern_options(memory_bytes))
        try:
            for pattern in patterns:
                automaton.Add(pattern)
        except re2.error:
            raise _UnreadableError from None
        try:
            # Compile also proves that twenty of the largest possible states fit, so that Match, which
            # can only answer "no match" when it runs out of memory, never does.
            automaton.Compile()
        except re2.error:
            continue
        match: _Automaton = automaton.Match
        return match, memory_bytes
    raise InputError(
        "the policies are too large together",
        "use fewer policies, or shorter patterns without large repetitions",
    )


def _nothing(text: str) -> None:  # noqa: ARG001  (an _Automaton)
    return None


_NO_LAYER: Final = _Layer((), _nothing, _nothing, left_out=(), memory_bytes=0)
