"""Random operations on every engine side by side, compared with a model of a few lines."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import seed as with_seed
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from size import record, seed, size
from spike.error import FenceError, InputError, StoreConflictError
from spike.storage.protocol import (
    MUST_NOT_EXIST,
    POLICY,
    SECRET,
    Change,
    Delete,
    Put,
    RecordId,
    Revision,
    SetFence,
    Store,
)
from spike.storage.registry import open_store
from storage.conformance.engine import ENGINES, collect

KEYS = ("", "a", "a/", "a/b", "a%", "b", "é", "\uffff", "\U00010000")
PREFIXES = (*KEYS, "zz", "a/b/c")
# Few names, so that changes meet each other.
IDS = st.sampled_from([RecordId(SECRET, key) for key in KEYS[:5]]) | st.builds(
    RecordId,
    st.sampled_from([SECRET, POLICY]),
    st.sampled_from(KEYS),
    st.sampled_from(["", "0f"]),
)
EXPECTATIONS = st.sampled_from(["present", "present", "present", "must not exist", "old", "never"])
GENERATIONS = st.integers(0, 3)


@dataclass(frozen=True)
class Wish:
    """A change before it is known what revisions an engine gave: `expected` says which one to
    name."""

    id: RecordId
    expected: str
    blob: bytes | None  # None: delete
    generation: int


@dataclass(frozen=True)
class Fence:
    epoch: int


WISHES = st.builds(Wish, IDS, EXPECTATIONS, st.none() | st.binary(max_size=40), GENERATIONS)
FENCES = st.builds(Fence, st.integers(0, 6))


Outcome = TypeVar("Outcome")


async def outcome_of(call: Awaitable[Outcome]) -> Outcome | InputError | StoreConflictError:
    try:
        return await call
    except (InputError, StoreConflictError) as error:
        return error


@dataclass
class Engine:
    """An engine under test, and the revisions it gave."""

    name: str
    directory: Path
    store: Store
    present: dict[RecordId, Revision] = field(default_factory=dict)
    old: dict[RecordId, Revision] = field(default_factory=dict)
    given: set[int] = field(default_factory=set)

    def change(self, wish: Wish | Fence) -> Change:
        if isinstance(wish, Fence):
            return SetFence(wish.epoch)
        never = Revision(2**62)
        match wish.expected:
            case "present":
                revision = self.present.get(wish.id, never)
            case "old":
                revision = self.old.get(wish.id, never)
            case "must not exist" if wish.blob is not None:
                return Put(wish.id, wish.blob, wish.generation, MUST_NOT_EXIST)
            case _:
                revision = never
        if wish.blob is None:
            return Delete(wish.id, revision)
        return Put(wish.id, wish.blob, wish.generation, revision)

    def learn(self, wishes: Sequence[Wish | Fence], revisions: Sequence[Revision]) -> None:
        assert len(set(revisions)) == len(revisions) == len(wishes)
        assert not self.given & set(revisions), "a revision was given twice"
        self.given |= set(revisions)
        for wish, revision in zip(wishes, revisions, strict=True):
            if isinstance(wish, Wish):
                if wish.id in self.present:
                    self.old[wish.id] = self.present.pop(wish.id)
                if wish.blob is not None:
                    self.present[wish.id] = revision


@dataclass(frozen=True)
class Model:
    """What must be there."""

    records: dict[RecordId, tuple[bytes, int]] = field(default_factory=dict)
    fence: int = 0

    def apply(self, wishes: Sequence[Wish | Fence], fence: int | None) -> Model | type[Exception]:
        names = [it.id if isinstance(it, Wish) else None for it in wishes]
        if len(set(names)) != len(names) or not names:
            return InputError
        if fence is not None and fence != self.fence:
            return FenceError
        records, following = dict(self.records), self.fence
        for wish in wishes:
            if isinstance(wish, Fence):
                if wish.epoch < self.fence:
                    return FenceError
                following = wish.epoch
                continue
            # "must not exist" has no meaning for a delete; Engine.change then names no revision
            # that ever was.
            fits = (wish.expected == "present" and wish.id in records) or (
                wish.expected == "must not exist"
                and wish.blob is not None
                and wish.id not in records
            )
            if not fits:
                return StoreConflictError
            if wish.blob is None:
                del records[wish.id]
            else:
                records[wish.id] = (wish.blob, wish.generation)
        return replace(self, records=records, fence=following)


class Side(RuleBasedStateMachine):
    """Every engine, side by side with the model."""

    @initialize()
    def begin(self) -> None:
        self.runner = asyncio.Runner()
        self.place = tempfile.TemporaryDirectory()
        self.model = Model()
        self.engines = []
        for name in ENGINES:
            directory = Path(self.place.name) / name
            store = self.runner.run(open_store(name, directory))
            self.engines.append(Engine(name, directory, store))

    def teardown(self) -> None:
        for engine in self.engines:
            self.runner.run(engine.store.close())
        self.runner.close()
        self.place.cleanup()

    @rule(
        wishes=st.lists(WISHES | FENCES, min_size=0, max_size=5),
        fence=st.none() | st.sampled_from(["present"]) | st.integers(0, 6),
    )
    def apply(self, wishes: list[Wish | Fence], fence: int | str | None) -> None:
        epoch = self.model.fence if isinstance(fence, str) else fence
        expected = self.model.apply(wishes, epoch)
        for engine in self.engines:
            changes = [engine.change(wish) for wish in wishes]
            outcome = self.runner.run(outcome_of(engine.store.apply(changes, fence=epoch)))
            if isinstance(outcome, Exception):
                assert type(outcome) is expected, (engine.name, outcome)
            else:
                assert isinstance(expected, Model), (engine.name, expected)
                engine.learn(wishes, outcome)
        if isinstance(expected, Model):
            self.model = expected

    @rule(wish=WISHES)
    def change_one(self, wish: Wish) -> None:
        self.apply([wish], "present")

    @rule(prefix=st.sampled_from(PREFIXES), limit=st.integers(1, 5))
    def scan(self, prefix: str, limit: int) -> None:
        for kind in (SECRET, POLICY):
            ids = [it for it in self.model.records if it.kind == kind and it.key.startswith(prefix)]
            ids.sort(key=lambda it: (it.key.encode(), it.version))
            expected = [(it, *self.model.records[it]) for it in ids]
            for engine in self.engines:
                store = engine.store
                records = self.runner.run(
                    collect(lambda after, s=store, k=kind: s.scan(k, prefix, after, limit))  # type: ignore[misc] # defaults bind the loop's values
                )
                heads = self.runner.run(
                    collect(lambda after, s=store, k=kind: s.scan_key(k, prefix, after, limit))  # type: ignore[misc] # defaults bind the loop's values
                )
                assert [(it.id, it.blob, it.generation) for it in records] == expected, engine.name
                assert [(it.id, it.revision) for it in heads] == [
                    (it, engine.present[it]) for it in ids
                ], engine.name

    @rule(generation=GENERATIONS, limit=st.integers(1, 5))
    def scan_generation(self, generation: int, limit: int) -> None:
        ids = [
            it
            for it, (_, found) in self.model.records.items()
            if it.kind == SECRET and found == generation
        ]
        ids.sort(key=lambda it: (it.key.encode(), it.version))
        for engine in self.engines:
            store = engine.store
            records = self.runner.run(
                collect(lambda after, s=store: s.scan_generation(SECRET, generation, after, limit))  # type: ignore[misc] # defaults bind the loop's values
            )
            assert [it.id for it in records] == ids, engine.name

    @rule()
    def purge(self) -> None:
        for engine in self.engines:
            self.runner.run(engine.store.purge(10_000))

    @rule()
    def open_again(self) -> None:
        for engine in self.engines:
            if self.runner.run(engine.store.health()).durable:
                self.runner.run(engine.store.close())
                engine.store = self.runner.run(open_store(engine.name, engine.directory))

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        census: dict[tuple[str, int], int] = {}
        for id, (_, generation) in self.model.records.items():  # noqa: A001 - the field's own name
            census[id.kind, generation] = census.get((id.kind, generation), 0) + 1
        for engine in self.engines:
            assert self.runner.run(engine.store.census()) == census, engine.name
            assert self.runner.run(engine.store.health()).fence == self.model.fence, engine.name
            assert engine.present.keys() == self.model.records.keys()
            for id, (blob, generation) in self.model.records.items():  # noqa: A001 - the field's own name
                found = self.runner.run(engine.store.get(id))
                assert found is not None, engine.name
                assert (found.blob, found.generation) == (blob, generation), engine.name
                assert found.revision == engine.present[id], engine.name


def test_random_operations_leave_every_engine_as_the_model_says() -> None:
    number, examples = seed(), size(test=25, proof=500)
    print(f"SPIKE_SEED={number}")
    run_state_machine_as_test(
        with_seed(number)(Side),
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    record("storage: random operations on every engine", examples, "as the model", seed=number)
