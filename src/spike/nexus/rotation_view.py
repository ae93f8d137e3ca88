"""What is asked of rotations, and how one is seen from outside: values alone, between calls and the desk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from spike.lifecycle.keyring import Emergency, RotationKind, Scope, Succession


@dataclass(frozen=True, slots=True)
class Asked:
    """A rotation as it is asked for.

    `window_s`: how long it can be rolled back, None = as usual. `without` names Keepers that need not confirm;
    `force`: go on with no Keeper to spare.
    """

    scope: Scope
    reason: str
    window_s: int | None = None
    max_rate: int = 0
    emergency: Emergency | None = None
    without: tuple[str, ...] = ()
    without_keepers: bool = False
    force: bool = False


class Check(Protocol):
    """One thing that was looked at: ok, warn or fail, why, and what to do about it."""

    @property
    def name(self) -> str: ...
    @property
    def result(self) -> str: ...
    @property
    def detail(self) -> str: ...
    @property
    def next_step(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Started:
    """The rotation or rollback that runs. `started`: by this start; else it runs already and was joined."""

    id: str
    started: bool
    checks: Sequence[Check]


class NamedRecord(Protocol):
    """One record that was not simply re-encrypted."""

    @property
    def outcome(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def version(self) -> str: ...


class Progress(Protocol):
    """How far the re-encryption is; every record that was scanned has exactly one outcome."""

    @property
    def scanned(self) -> int: ...
    @property
    def expected(self) -> int: ...
    @property
    def re_encrypted(self) -> int: ...
    @property
    def already_current(self) -> int: ...
    @property
    def skipped_total(self) -> int: ...
    @property
    def vanished(self) -> int: ...
    @property
    def failed(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def rate_per_s(self) -> int: ...
    @property
    def left_s(self) -> float | None: ...
    @property
    def named(self) -> Sequence[NamedRecord]: ...


@dataclass(frozen=True, slots=True)
class RotationView:
    """A rotation in progress or in its rollback window, or the last one that has ended since Nexus started.

    `phase` is that of the keyring, or finalized, dropped, failed once it has ended. Moments are RFC 3339, empty where
    there is none yet. `fault` says why it does not go on, or is empty; `ways` are sentences: by which ways the root key
    would come back now; `impact`: what was written under the new keys since the flip. `verified` and `to_verify` count
    records of its verification. `replaces` is the id of the rotation that a rollback takes back, or whose place an
    emergency takes: from the flip on that one is over.
    """

    id: str
    kind: RotationKind
    scope: Scope
    phase: str
    started_at: str
    actor: str
    reason: str
    attempt: int
    root: Succession
    record: Succession
    cipher: Succession
    max_rate: int = 0
    emergency: Emergency | None = None
    flipped_at: str = ""
    verified_at: str = ""
    window_ends_at: str = ""
    paused: bool = False
    fault: str = ""
    ways: tuple[str, ...] = ()
    impact: tuple[str, ...] = ()
    progress: Progress | None = None
    verified: int = 0
    to_verify: int = 0
    replaces: str = ""
