"""The real rules of a rotation over small numbers, for the model (rotation_model.py).

As in keeper_rule.py a keyring, what a Keeper holds and an anchor are each a number that stands for one real value, and
each real rule is asked once for each input. Keys are real: what a keyring wraps of one is replaced by the key's own
number here, so that keyrings which name the same keys are one. Which key it is decides, not its generation: where an
old keyring goes on, the same generation comes into being a second time, with another key.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, cached_property
from typing import Final, NamedTuple

import msgspec

import lifecycle_kit
from model.keeper_rule import AT, NOTHING, THRESHOLD, Numbers
from spike.error import RefusedError
from spike.keeper import holding as rules
from spike.keeper.anchor import HeldAnchor
from spike.keeper.holding import Holding, Label, Refusal, Share
from spike.lifecycle import anchor as anchor_rules
from spike.lifecycle import keyring, refresh, restore, staleness
from spike.lifecycle import rotation as rotation_rules
from spike.lifecycle.anchor import Anchor, Weighed
from spike.lifecycle.keyring import (
    Emergency,
    KeyPurpose,
    Keyring,
    Phase,
    Rotation,
    RotationKind,
    Scope,
    SealedRoot,
    ShareSet,
    Slot,
    WrappedKey,
)
from spike.lifecycle.refusal import RefusalError
from spike.lifecycle.ring import KeyName, KeyRing
from spike.lifecycle.rotation import Incoming
from spike.lifecycle.rotation_flip import flipped as flip
from spike.lifecycle.rotation_plan import Plan, numbers_of, plan_of, require_startable
from spike.lifecycle.staleness import Objection
from spike.lifecycle.supply import Finding, Held, Wanted, is_past, judge
from spike.lifecycle.witness import Claim
from spike.memory.key_memory import KeyMemory


class _Keys:
    """Every key there is by its number. The first ones are those of the newborn store.

    They are made at their first use, not at import: other tests of this process wipe every key there is.
    """

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, int, int], int] = {}

    @cached_property
    def _born(self) -> KeyRing:
        return lifecycle_kit.born().ring

    @property
    def first(self) -> Keyring:
        return self._born.document

    @cached_property
    def _keys(self) -> list[KeyMemory]:
        names = [KeyName(key.purpose, key.slot, key.number) for key in self.first.keys]
        return [self._born.root, *(self._born.key(name) for name in names)]

    @cached_property
    def roots(self) -> dict[str, int]:
        return {self.first.active_root.check: 0}

    @cached_property
    def wrapped(self) -> dict[str, int]:
        return {key.check: number for number, key in enumerate(self.first.keys, start=1)}

    def _add(self, key: KeyMemory) -> int:
        self._keys.append(key)
        return len(self._keys) - 1

    def __getitem__(self, number: int) -> KeyMemory:
        return self._keys[number]

    def made(self, purpose: str, generation: int, serial: int) -> KeyMemory:
        """Return the key that the preparation with this serial number makes."""
        name = (purpose, generation, serial)
        if name not in self._numbers:
            self._numbers[name] = self._add(KeyMemory.generate())
        return self._keys[self._numbers[name]]

    def number_of(self, key: KeyMemory) -> int:
        return next(number for number, each in enumerate(self._keys) if each is key)


keys: Final = _Keys()
documents: Final[Numbers[Keyring | None]] = Numbers(None, msgspec.json.encode)
holdings: Final[Numbers[Holding[int]]] = Numbers(Holding(), lambda holding: holding)
anchors: Final[Numbers[tuple[Anchor, bytes] | None]] = Numbers(
    None, lambda found: found and found[1]
)


def document_of(number: int) -> Keyring:
    found = documents[number]
    assert found is not None
    return found


def rotation_of(number: int) -> Rotation | None:
    return document_of(number).rotation


@cache
def phase(document: int) -> Phase | None:
    rotation = rotation_of(document)
    return None if rotation is None else rotation.phase


@cache
def is_rollback(document: int) -> bool:
    rotation = rotation_of(document)
    return rotation is not None and rotation.kind is RotationKind.ROLLBACK


@cache
def is_emergency(document: int) -> bool:
    rotation = rotation_of(document)
    return rotation is not None and rotation.emergency is not None


@cache
def epoch(document: int) -> int:
    return document_of(document).epoch


@cache
def ring(document: int) -> KeyRing:
    """The key ring of a keyring: as opened with its root key, by what is named in it."""
    held = document_of(document)
    named = {
        KeyName(each.purpose, each.slot, each.number): keys[_key_number(each)]
        for each in held.keys
        if each.is_live
    }
    return KeyRing(held, keys[keys.roots[held.active_root.check]], named)


def _key_number(key: WrappedKey) -> int:
    if key.purpose is KeyPurpose.ROOT:
        return int(key.wrapped)
    return keys.wrapped[key.check]


def _canonical_key(key: WrappedKey, number: int) -> WrappedKey:
    return msgspec.structs.replace(key, wrapped=str(number).encode() if key.is_live else b"")


def _canonical_slot(slot: Slot) -> Slot:
    def plain(sealed: SealedRoot) -> SealedRoot:
        return msgspec.structs.replace(sealed, sealed=b"", tag="0" * 64)

    return msgspec.structs.replace(slot, roots=tuple(plain(each) for each in slot.roots))


def _kept(document: Keyring, added: Mapping[str, int] | None = None) -> int:
    """Number a keyring without its events, its bytes reduced to what they stand for. It must be one that is written."""
    known = {**keys.wrapped, **(added or {})}
    keys.wrapped.update(added or {})

    def plain(key: WrappedKey) -> WrappedKey:
        if key.purpose is not KeyPurpose.ROOT:
            return _canonical_key(key, known[key.check])
        generation = next(root for root in document.roots if root.number == key.number)
        return _canonical_key(key, keys.roots[generation.check])

    rotation = document.rotation
    if rotation is not None:
        next_keys = tuple(plain(each) for each in rotation.next_keys)
        rotation = msgspec.structs.replace(rotation, next_keys=next_keys)
    canonical = msgspec.structs.replace(
        document,
        outbox=(),
        next_event=1,
        keys=tuple(plain(each) for each in document.keys),
        slots=tuple(_canonical_slot(each) for each in document.slots),
        rotation=rotation,
    )
    root = keys[keys.roots[document.active_root.check]]
    confirmed = keyring.decode_untrusted(keyring.encode(canonical, root)).confirmed_by(root)
    assert confirmed == canonical
    return documents.of(canonical)


def share_set(number: int, *, staged: bool) -> ShareSet:
    """A set is numbered by its root-key generation and how many there were: see `set_number`."""
    return ShareSet(set_id(number), number % 16, THRESHOLD, staged=staged, members=())


def set_number(generation: int, count: int) -> int:
    return count * 16 + generation


def set_id(number: int) -> str:
    return f"{number:032x}"


def _number(found: ShareSet | None) -> int:
    return NOTHING if found is None else int(found.id, 16)


@cache
def born() -> int:
    """The newborn store with a share set in force."""
    sets = (share_set(set_number(1, 1), staged=False),)
    return _kept(msgspec.structs.replace(keys.first, share_sets=sets))


@cache
def in_force(document: int) -> int:
    return _number(refresh.set_in_force(document_of(document)))


@cache
def staged(document: int) -> int:
    return _number(refresh.staged_set(document_of(document)))


class Wish(NamedTuple):
    """What is asked for."""

    kind: RotationKind = RotationKind.ROTATION
    scope: Scope = Scope.FULL
    emergency: bool = False


@cache
def prepared(document: int, wish: Wish | None, serial: int) -> int | None:
    """The keyring behind step 1, or None where it cannot begin. Without a wish the rotation is prepared again."""
    held = document_of(document)
    if wish is None:
        assert held.rotation is not None
        plan = plan_of(held.rotation)
    else:
        emergency = Emergency(("root",)) if wish.emergency else None
        plan = Plan(f"{serial:032x}", wish.scope, "", "", 0, 0, wish.kind, emergency)
        try:
            require_startable(held, plan)
        except (RefusalError, RefusedError):
            return None
    numbers = numbers_of(held, plan)
    present = ring(document)
    if numbers.root.after == numbers.root.before:
        root = present.root
    elif plan.kind is RotationKind.ROLLBACK:
        root = present.key(KeyName(KeyPurpose.ROOT, "", numbers.root.after))
    else:
        root = keys.made("root", numbers.root.after, serial)
    made = {name: keys.made(name.purpose, name.number, serial) for name in numbers.new_names}
    following = rotation_rules.prepared(present, plan, numbers, Incoming(root, made), AT)
    assert following.rotation is not None
    after = next(each for each in following.roots if each.number == numbers.root.after)
    keys.roots.setdefault(after.check, keys.number_of(root))
    found = {(each.purpose, each.number): each.check for each in following.rotation.next_keys}
    added = {found[name.purpose, name.number]: keys.number_of(key) for name, key in made.items()}
    return _kept(following, added)


def _incoming_root(document: int) -> KeyMemory:
    held = document_of(document)
    assert held.rotation is not None
    number = held.rotation.root.after
    check = next(root.check for root in held.roots if root.number == number)
    return keys[keys.roots[check]]


@cache
def replaces_root(document: int) -> bool:
    rotation = rotation_of(document)
    return rotation is not None and rotation.root.before != rotation.root.after


@cache
def incoming_generation(document: int) -> int:
    rotation = rotation_of(document)
    assert rotation is not None
    return rotation.root.after


@cache
def distributed(document: int, new: int) -> int:
    return _kept(rotation_rules.distributed(document_of(document), share_set(new, staged=True), AT))


@cache
def backed_up(document: int) -> int:
    held, present = document_of(document), ring(document)
    auth = {slot.id: present.auth(slot.id) for slot in held.slots}
    slots = rotation_rules.sealed_slots(held, _incoming_root(document), auth, AT)
    return _kept(rotation_rules.backed_up(held, slots, 1, AT))


@cache
def flipped(document: int) -> int:
    return _kept(flip(document_of(document), AT, has_keepers=True))


@cache
def pending(document: int) -> int:
    """The keyring that a pending backup holds: the one behind the flip, composed ahead."""
    return flipped(backed_up(document))


@cache
def verified(document: int) -> int:
    return _kept(rotation_rules.verified(document_of(document), AT, {}))


@cache
def finalizing(document: int) -> int:
    return _kept(rotation_rules.finalizing(document_of(document), AT, ""))


@cache
def reopened(document: int) -> int:
    return _kept(rotation_rules.reopened(document_of(document), AT, ""))


@cache
def finalized(document: int) -> int:
    return _kept(rotation_rules.finalized(document_of(document), AT, {}))


@cache
def dropped(document: int) -> int:
    return _kept(rotation_rules.dropped(document_of(document), AT, ""))


@cache
def recovered(document: int) -> int:
    """The keyring behind a restore by password to which nothing objects."""
    return _kept(
        restore.recovered(document_of(document), AT, "", document_of(document).slots[0].id)
    )


@cache
def refreshed(document: int, new: int) -> int:
    """The keyring behind the refresh that follows such a restore; its own steps are those of the model of Keepers."""
    begun = refresh.begun(document_of(document), share_set(new, staged=True), AT, "")
    return _kept(refresh.finished(begun, AT))


@cache
def active_generation(document: int) -> int:
    return document_of(document).active_root.number


@cache
def record_key(document: int) -> int:
    """The key that seals what is written now."""
    return keys.wrapped[document_of(document).active_key(KeyPurpose.RECORD).check]


@cache
def record_keys(document: int) -> frozenset[int]:
    """Every record key a keyring opens records with."""
    held = document_of(document)
    return frozenset(
        keys.wrapped[key.check]
        for key in held.keys
        if key.purpose is KeyPurpose.RECORD and key.is_live
    )


@cache
def opens_by_password(document: int) -> bool:
    """Whether each slot that may be used holds the active root key."""
    held = document_of(document)
    active = held.active_root
    return bool(held.slots) and all(
        any((r.generation, r.check) == (active.number, active.check) for r in slot.roots)
        for slot in held.slots
    )


@cache
def anchor(document: int) -> int:
    """The anchor of a keyring, authenticated with its active root key."""
    statement = anchor_rules.anchor_of(document_of(document), 0)
    return anchors.of((statement, anchor_rules.encode(statement, ring(document).root)))


@cache
def weighed(document: int, seen: int) -> Weighed:
    found = anchors[seen]
    if found is None:
        return Weighed((), (), ())
    present = ring(document)
    return anchor_rules.weigh_untrusted((found[1],), present.document, present.roots)


@cache
def by_anchor(document: int, seen: int) -> Objection | None:
    """What an anchor says against a store."""
    return staleness.by_weighed(document_of(document), 0, weighed(document, seen), "an anchor")


@cache
def by_claim(document: int, holding: int) -> Objection | None:
    held = holdings[holding].committed
    if held is None:
        return None
    return staleness.by_claim(document_of(document), "a Keeper", _claim(held))


@cache
def claims_higher(document: int, holding: int) -> bool:
    """Whether a Keeper's committed share is of a higher generation than the active one."""
    held = holdings[holding].committed
    return held is not None and held.label.generation > active_generation(document)


@cache
def by_fence(document: int, fence: int) -> Objection | None:
    return staleness.by_fence(document_of(document), fence)


def _claim(share: Share[int]) -> Claim:
    label = share.label
    return Claim(label.store_id, label.lineage, share.epoch, label.generation, label.set_id)


def _owner() -> tuple[str, str]:
    return keys.first.store_id, keys.first.lineage


@cache
def stage(holding: int, new: int) -> int:
    label = Label(*_owner(), set_id(new), new % 16, 1, THRESHOLD)
    outcome = rules.stage(holdings[holding], Share(label, new, ""))
    assert not isinstance(outcome, Refusal)
    return holdings.of(outcome)


@cache
def commit(holding: int, new: int, at_epoch: int) -> int | None:
    outcome = rules.commit(holdings[holding], _owner(), set_id(new), at_epoch)
    return None if isinstance(outcome, Refusal) else holdings.of(outcome)


@cache
def erase(holding: int, old: int) -> int:
    return holdings.of(rules.erase(holdings[holding], set_id(old)))


@cache
def keep_anchor(holding: int, given: int) -> int:
    found = anchors[given]
    assert found is not None
    statement = found[0]
    age = (statement.epoch, statement.revision)
    held = HeldAnchor(str(given).encode(), _owner(), age, statement.access_generation)
    return holdings.of(rules.keep_anchor(holdings[holding], held))


@cache
def anchor_kept(holding: int) -> int:
    held = holdings[holding].anchor
    return NOTHING if held is None else int(held.raw)


@cache
def holds(holding: int, wanted: int) -> bool:
    return holdings[holding].share(set_id(wanted)) is not None


@cache
def committed(holding: int) -> int:
    held = holdings[holding].committed
    return NOTHING if held is None else int(held.label.set_id, 16)


@cache
def staged_at(holding: int) -> int:
    held = holdings[holding].staged
    return NOTHING if held is None else int(held.label.set_id, 16)


def _said(share: Share[int] | None, known: int) -> Held | None:
    return None if share is None else Held(_claim(share), 1, proven=share.value == known)


@cache
def judged(document: int, holding: int, known: int) -> Finding:
    """What Nexus finds of a Keeper; `known` is the set whose shares it has in memory."""
    held, what = document_of(document), holdings[holding]
    wanted = Wanted(
        store_id=held.store_id,
        lineage=held.lineage,
        epoch=held.epoch,
        set_id=set_id(in_force(document)),
        index=1,
        staged_set_id="" if not staged(document) else set_id(staged(document)),
    )
    return judge(wanted, _said(what.committed, known), _said(what.staged, known))


@cache
def counts(document: int, holding: int) -> bool:
    """Whether a Keeper that keeps the anchor gives no share of another root key any more."""
    return is_past(active_generation(document), _said(holdings[holding].committed, NOTHING))
