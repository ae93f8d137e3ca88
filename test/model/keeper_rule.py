"""The real rules of Keepers and keyrings over small numbers, for the model (keeper_model.py).

A keyring, what a Keeper holds and an anchor are each a number here, which stands for one real immutable value: states
of the model are then tuples of small numbers, and each real rule is asked once for each input. A set of shares is a
number too; a share of it has that number as its value, so a share under the label of another set would be seen.
All Keepers use index 1: each is only ever given its own share, so which index it has decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cache
from typing import Final, Generic, TypeVar

import msgspec

from spike.keeper import holding as rules
from spike.keeper.anchor import HeldAnchor
from spike.keeper.holding import Holding, Label, Refusal, Share
from spike.lifecycle import refresh, restore, staleness
from spike.lifecycle.anchor import Anchor, anchor_of
from spike.lifecycle.keyring import Keyring, RootGeneration, ShareSet
from spike.lifecycle.staleness import Objection
from spike.lifecycle.state import State, Transition, enter
from spike.lifecycle.supply import Finding, Held, Wanted, judge
from spike.lifecycle.witness import Claim

AT: Final = "2026-11-24T00:00:00Z"
STORE: Final = "5" * 32
LINEAGE: Final = "a" * 32
THRESHOLD: Final = 2
KEEPERS: Final = 3
NOTHING: Final = 0
"""No keyring, no set, no anchor; and the number of an empty Keeper."""

T = TypeVar("T")


class Numbers(Generic[T]):
    """Values by number, in the order in which they were met; number 0 is the one that stands for nothing.

    `name` tells one value from another.
    """

    def __init__(self, nothing: T, name: Callable[[T], Hashable]) -> None:
        self._name = name
        self._values = [nothing]
        self._numbers = {name(nothing): NOTHING}

    def __getitem__(self, number: int) -> T:
        return self._values[number]

    def of(self, value: T) -> int:
        """Return the value's number; a new one gets the next."""
        number = self._numbers.setdefault(self._name(value), len(self._values))
        if number == len(self._values):
            self._values.append(value)
        return number


def _itself(value: Hashable) -> Hashable:
    return value


documents: Final[Numbers[Keyring | None]] = Numbers(None, msgspec.json.encode)
holdings: Final[Numbers[Holding[int]]] = Numbers(Holding(), _itself)
anchors: Final[Numbers[Anchor | None]] = Numbers(None, _itself)


def _document(number: int) -> Keyring:
    found = documents[number]
    assert found is not None
    return found


def _kept(document: Keyring) -> int:
    """Number a keyring without its events: they decide nothing of what is modelled."""
    return documents.of(msgspec.structs.replace(document, outbox=(), next_event=1))


def set_id(number: int) -> str:
    return f"{number:032x}"


def _set_number(share_set: ShareSet | None) -> int:
    return NOTHING if share_set is None else int(share_set.id, 16)


def _share_set(number: int, *, staged: bool) -> ShareSet:
    return ShareSet(id=set_id(number), generation=1, threshold=THRESHOLD, staged=staged, members=())


@cache
def born(share_set: int) -> int:
    """The first keyring, with its set in force."""
    made = Transition(state=State.PRE_ACTIVATION, at=AT, actor="model", reason="")
    active = Transition(state=State.ACTIVE, at=AT, actor="model", reason="")
    history = enter(enter((), made), active)
    return _kept(
        Keyring(
            store_id=STORE,
            lineage=LINEAGE,
            revision=1,
            epoch=1,
            created_at=AT,
            replaced_at=AT,
            roots=(RootGeneration(number=1, check="0" * 64, history=history),),
            keys=(),
            slots=(),
            share_sets=(_share_set(share_set, staged=False),),
            operation=None,
            oldest_cipher=1,
            next_event=1,
            outbox=(),
            audit_head="",
        )
    )


@cache
def epoch(document: int) -> int:
    return _document(document).epoch


@cache
def in_force(document: int) -> int:
    """The set in force."""
    return _set_number(refresh.set_in_force(_document(document)))


@cache
def in_progress(document: int) -> bool:
    return refresh.is_in_progress(_document(document))


@cache
def begun(document: int, share_set: int) -> int:
    return _kept(refresh.begun(_document(document), _share_set(share_set, staged=True), AT, ""))


@cache
def finished(document: int) -> int:
    return _kept(refresh.finished(_document(document), AT))


@cache
def dropped(document: int) -> int:
    return _kept(refresh.dropped(_document(document), AT))


@cache
def recovered(document: int, accepted: tuple[Objection, ...]) -> int:
    return _kept(restore.recovered(_document(document), AT, "", "", accepted=accepted))


def reached(document: int, access: int, accepted: tuple[Objection, ...]) -> int:
    """The access generation after a restore that accepted this (spike.nexus.restore_flow._raised_list)."""
    seen = staleness.above(_document(document), accepted).access_generation
    return seen + 1 if seen > access else access


@cache
def anchor(document: int, access: int) -> int:
    """The anchor of a keyring and an access list."""
    return anchors.of(anchor_of(_document(document), access))


@cache
def stage(holding: int, share_set: int) -> int | None:
    """What a Keeper holds after `stage`; None when it refuses."""
    label = Label(STORE, LINEAGE, set_id(share_set), 1, 1, THRESHOLD)
    return _after(rules.stage(holdings[holding], Share(label, share_set, "")))


@cache
def commit(holding: int, share_set: int, at_epoch: int) -> int | None:
    return _after(rules.commit(holdings[holding], (STORE, LINEAGE), set_id(share_set), at_epoch))


@cache
def erase(holding: int, share_set: int) -> int:
    return holdings.of(rules.erase(holdings[holding], set_id(share_set)))


@cache
def keep_anchor(holding: int, given: int) -> int:
    statement = anchors[given]
    assert statement is not None
    raw = str(given).encode()
    held = HeldAnchor(
        raw, (STORE, LINEAGE), (statement.epoch, statement.revision), statement.access_generation
    )
    return holdings.of(rules.keep_anchor(holdings[holding], held))


def _after(outcome: Holding[int] | Refusal[int]) -> int | None:
    return None if isinstance(outcome, Refusal) else holdings.of(outcome)


@cache
def anchor_kept(holding: int) -> int:
    """The anchor a Keeper keeps."""
    held = holdings[holding].anchor
    return NOTHING if held is None else int(held.raw)


@cache
def holds(holding: int, share_set: int) -> bool:
    """Whether a Keeper has a share of the set in either place."""
    found = holdings[holding].share(set_id(share_set))
    return found is not None and found[1].value == share_set


@cache
def committed(holding: int) -> tuple[int, int]:
    """The committed set and its epoch."""
    held = holdings[holding].committed
    return (NOTHING, 0) if held is None else (int(held.label.set_id, 16), held.epoch)


@cache
def staged(holding: int) -> int:
    held = holdings[holding].staged
    return NOTHING if held is None else int(held.label.set_id, 16)


def _claim(share: Share[int]) -> Claim:
    label = share.label
    return Claim(label.store_id, label.lineage, share.epoch, label.generation, label.set_id)


def _said(share: Share[int] | None, known: int) -> Held | None:
    if share is None:
        return None
    return Held(_claim(share), 1, proven=known != NOTHING and share.value == known)


@cache
def judged(document: int, holding: int, known: int) -> Finding:
    """What Nexus finds of a Keeper; `known` is the set whose shares it has in memory."""
    ring, held = _document(document), holdings[holding]
    wanted = Wanted(
        store_id=ring.store_id,
        lineage=ring.lineage,
        epoch=ring.epoch,
        set_id=set_id(in_force(document)),
        index=1,
        staged_set_id="" if not in_progress(document) else set_id(_staged_of(document)),
    )
    return judge(wanted, _said(held.committed, known), _said(held.staged, known))


def _staged_of(document: int) -> int:
    return _set_number(refresh.staged_set(_document(document)))


@cache
def by_anchor(document: int, access: int, seen: int) -> Objection | None:
    """What an anchor says against a store."""
    statement = anchors[seen]
    if statement is None:
        return None
    return staleness.by_anchor(_document(document), access, statement, "an anchor")


@cache
def by_claim(document: int, holding: int) -> Objection | None:
    """What a Keeper's committed share says against a store."""
    held = holdings[holding].committed
    return (
        None if held is None else staleness.by_claim(_document(document), "a Keeper", _claim(held))
    )


@cache
def by_fence(document: int, fence: int) -> Objection | None:
    return staleness.by_fence(_document(document), fence)
