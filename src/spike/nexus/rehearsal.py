"""Rehearsal: would the Keepers bring the root key back right now? Every hour, after each change, and when asked.

1. The keyring is read from the store, as a recovery reads it.
2. Every Keeper gives its share. One that does not match the keyring's digest is named and left out.
3. The root key is rebuilt from every choice of them (`lifecycle.rehearsal`) into memory that is wiped right after, and
   compared with the check value and with the root key in force.
4. The first one authenticates the keyring, opens every wrapped key, the access list and one record of each kind.

Nothing is changed. Where the keyring was replaced meanwhile it starts again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

from spike.crypto.purpose import check_value, check_value_matches
from spike.crypto.shamir import interpolate
from spike.error import FormatError, OpenError, RefusedError, SpikeError, WipedError
from spike.lifecycle import proof
from spike.lifecycle.keyring import Keyring, ShareSet, decode_untrusted
from spike.lifecycle.operation import in_progress
from spike.lifecycle.proof import REHEARSAL_S, Outcome
from spike.lifecycle.refresh import set_in_force
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.rehearsal import subsets
from spike.lifecycle.share import Share, digest_of
from spike.memory.key_memory import KeyMemory
from spike.nexus.examination import open_ring
from spike.nexus.keeper_desk import KeeperDesk
from spike.nexus.keeper_link import KeeperLink
from spike.nexus.opened import Opened
from spike.nexus.pace import Pace
from spike.nexus.policy_book import PolicyBook
from spike.nexus.sealed import SealedStore
from spike.nexus.vault import KEYRING_ID

ACTOR: Final = "nexus"
_ATTEMPTS: Final = 5
_VISIT_S: Final = 6.0
_TEXT_LIMIT: Final = 500
_log: Final = logging.getLogger("spike.nexus.rehearsal")


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """How one ended. `right` of `members` shares were right, `subsets` choices of them gave the root key."""

    outcome: Outcome
    at: str
    duration_s: float
    generation: int
    threshold: int
    members: int
    right: int
    subsets: int
    keys: int
    records: int
    problems: tuple[str, ...]

    @property
    def margin(self) -> int:
        """How many more Keepers may be lost."""
        return self.right - self.threshold


@dataclass(slots=True)
class _Course:
    """One attempt: what it has found so far."""

    opened: Opened
    share_set: ShareSet
    right: int = 0
    subsets: int = 0
    keys: int = 0
    records: int = 0
    failed: bool = False
    problems: list[str] = field(default_factory=list)

    def fail(self, why: str) -> None:
        self.failed = True
        self.problems.append(why)


class Rehearser:
    """Rehearses with the Keepers of one vault; one rehearsal at a time."""

    def __init__(self, desk: KeeperDesk) -> None:
        self._desk = desk
        self._lock = asyncio.Lock()
        self._done_for: object = None
        self._done_with: tuple[int, frozenset[int]] = 0, frozenset()
        self._next_s = 0.0
        self.last: Rehearsal | None = None

    async def run(self) -> Rehearsal:
        """Rehearse now.

        Raises:
            RefusalError: KEEPER, there are no Keepers.
            StoreError, NotReadyError: the store does not answer, or the vault is locked.
        """
        async with self._lock:
            at, began = self._desk.vault.moment(), time.monotonic()
            done_with = self._desk.dealt, self._desk.holders or frozenset()
            course, outcome = await self._course()
            done = Rehearsal(
                outcome=outcome,
                at=at,
                duration_s=time.monotonic() - began,
                generation=course.share_set.generation,
                threshold=course.share_set.threshold,
                members=len(course.share_set.members),
                right=course.right,
                subsets=course.subsets,
                keys=course.keys,
                records=course.records,
                problems=tuple(course.problems),
            )
            self.last = done
            self._done_for, self._done_with = _shape(course.opened.document), done_with
            self._next_s = time.monotonic() + REHEARSAL_S
            _tell(done)
        await self._note(done)
        return done

    async def run_if_due(self) -> None:
        """Rehearse when an hour has passed, keys have changed, or a Keeper holds its share that did not before.

        Nothing while keys or shares are changing, nor before the Keepers were looked at behind a change of the set:
        they commit their shares in that look.
        """
        vault = self._desk.vault
        if not vault.is_open or not self._desk.links:
            return
        document, holders = vault.opened.document, self._desk.holders
        if document.operation is not None or holders is None:
            return
        is_new = self._done_for != _shape(document) or self._has_come(holders)
        if is_new or time.monotonic() >= self._next_s:
            await self.run()

    def _has_come(self, holders: frozenset[int]) -> bool:
        dealt, before = self._done_with
        return self._desk.dealt != dealt or not holders <= before

    async def _course(self) -> tuple[_Course, Outcome]:
        for _ in range(_ATTEMPTS):
            opened = self._desk.vault.opened
            share_set = set_in_force(opened.document)
            if share_set is None or not self._desk.links:
                raise RefusalError(
                    Reason.KEEPER,
                    "there are no Keepers to rehearse with",
                    "what a backup brings back is proven by: spike drill",
                )
            course = _Course(opened, share_set)
            try:
                await self._play(course)
            except WipedError:
                # The key it compares with has fallen away: a rotation came in between.
                if self._desk.vault.opened.ring is opened.ring:
                    raise
                continue
            if self._desk.vault.opened.document.revision == opened.document.revision:
                return course, Outcome.FAILED if course.failed else Outcome.SUCCEEDED
        return course, Outcome.INTERRUPTED

    async def _play(self, course: _Course) -> None:
        with ExitStack() as undo:
            shares = await self._shares(course, undo)
            right = {share.label.index: share.value for share in shares}
            course.right = len(right)
            if course.right < course.share_set.threshold:
                course.fail(
                    f"{course.right} of {len(course.share_set.members)} shares are right, and it takes "
                    f"{course.share_set.threshold}"
                )
                return
            pace = Pace()
            for choice in subsets(tuple(right), course.share_set.threshold):
                with interpolate({index: right[index] for index in choice}) as root:
                    if not _is_root(root, course.opened):
                        course.fail(f"the shares of Keepers {_listed(choice)} give another key")
                        continue
                    course.subsets += 1
                    if course.subsets == 1:
                        await self._open_all(course, root)
                await pace.give_way()

    async def _shares(self, course: _Course, undo: ExitStack) -> Sequence[Share]:
        """Return the shares that are right; all that came are wiped by `undo`."""
        links = self._desk.links
        told = await asyncio.gather(
            *(_given(link, course.share_set.id, undo) for link in links), return_exceptions=True
        )
        digests = {member.index: member.digest for member in course.share_set.members}
        right = []
        for link, share in zip(links, told, strict=True):
            if share is None:
                course.problems.append(f"{link.name} holds no share of the set in force")
            elif isinstance(share, SpikeError):
                course.problems.append(f"{link.name} gives no share: {share.message}")
            elif isinstance(share, BaseException):
                course.problems.append(f"{link.name} gives no share: {type(share).__name__}")
            elif _is_right(share, link, course, digests):
                right.append(share)
            else:
                course.problems.append(
                    f"{link.name} gives a share that is not the one it was dealt"
                )
        return right

    async def _open_all(self, course: _Course, root: KeyMemory) -> None:
        """Do with a rebuilt root key what a recovery would do with it."""
        store = self._desk.vault.store
        stored = await store.get(KEYRING_ID)
        try:
            confirmed = None if stored is None else decode_untrusted(stored.blob).confirmed_by(root)
        except FormatError as error:
            course.fail(f"the keyring in the store: {error.message}")
            return
        if confirmed is None:
            course.fail("the keyring in the store is not authentic, or is not there")
            return
        ring = open_ring(confirmed, root.duplicate())
        try:
            course.keys = sum(key.is_live for key in confirmed.keys)
            sealed = SealedStore(store, ring)
            await PolicyBook.load(sealed)
            async for record in sealed.samples():
                sealed.open(record)
                course.records += 1
        except (OpenError, FormatError) as error:
            course.fail(f"the root key does not open what the store holds: {error.message}")
        finally:
            ring.wipe()

    async def _note(self, done: Rehearsal) -> None:
        """Write the outcome into the keyring where it is another one than before. What fails is tried the next time."""
        vault = self._desk.vault
        detail = {
            "shares": f"{done.right} of {done.members}",
            "threshold": str(done.threshold),
            **({"problems": "; ".join(done.problems)[:_TEXT_LIMIT]} if done.problems else {}),
        }
        async with vault.lock:
            document = vault.opened.document
            if in_progress(document) is not None:
                return
            noted = proof.Noted(done.outcome, done.at, ACTOR, detail)
            if proof.rehearsed(document, noted) is not None:
                await vault.change(lambda ring: ring.replaced(_rehearsed(ring.document, noted)))


class ProofLoop:
    """Does by itself what proves a recovery, when it is due."""

    def __init__(
        self,
        due: Callable[[], Awaitable[None]],
        pause_s: float,
        news: asyncio.Event | None = None,
    ) -> None:
        """`due` does what is due, if it is; it is asked at the latest after `pause_s`, and at once on `news`."""
        self._due = due
        self._pause_s = pause_s
        self._news = asyncio.Event() if news is None else news

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause_s):
                    await self._news.wait()
            self._news.clear()
            try:
                await self._due()
            except SpikeError as error:
                _log.error("no proof that recovery works: %s", error.message)
            except Exception:  # noqa: BLE001  a loop that ends would be missed by nobody
                _log.exception("a proof of recovery met a fault; it is tried again")


def _rehearsed(document: Keyring, noted: proof.Noted) -> Keyring:
    following = proof.rehearsed(document, noted)
    if following is None:
        raise RefusedError("it is noted already")
    return following


def _shape(document: Keyring) -> object:
    """Return what a rehearsal depends on and is done again for."""
    keys = tuple(
        (key.purpose, key.slot, key.number, key.root) for key in document.keys if key.is_live
    )
    return (document.epoch, tuple(each.id for each in document.share_sets), keys)


async def _given(link: KeeperLink, set_id: str, undo: ExitStack) -> Share | None:
    async with asyncio.timeout(_VISIT_S):
        share = await link.fetch(set_id)
    if share is not None:
        undo.callback(share.value.wipe)
    return share


def _is_right(share: Share, link: KeeperLink, course: _Course, digests: dict[int, str]) -> bool:
    label, document = share.label, course.opened.document
    fits = (label.store_id, label.lineage, label.set_id, label.generation, label.threshold) == (
        document.store_id,
        document.lineage,
        course.share_set.id,
        course.share_set.generation,
        course.share_set.threshold,
    )
    return (
        fits and label.index == link.index and digest_of(label, share.value) == digests[link.index]
    )


def _is_root(root: KeyMemory, opened: Opened) -> bool:
    document = opened.document
    active = document.active_root
    check = check_value(root, bytes.fromhex(document.store_id), active.number)
    return check_value_matches(bytes.fromhex(active.check), check) and root.same_as(
        opened.ring.root
    )


def _listed(indexes: Sequence[int]) -> str:
    return ", ".join(map(str, indexes))


def _tell(done: Rehearsal) -> None:
    level = (
        logging.INFO if done.outcome is Outcome.SUCCEEDED and not done.problems else logging.ERROR
    )
    told = f": {'; '.join(done.problems)}" if done.problems else ""
    _log.log(
        level,
        "rehearsal %s in %.3f s: %d of %d shares, threshold %d, margin %d, %d choices gave the root key%s",
        done.outcome,
        done.duration_s,
        done.right,
        done.members,
        done.threshold,
        done.margin,
        done.subsets,
        told,
    )
