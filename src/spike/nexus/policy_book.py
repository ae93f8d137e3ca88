"""The policies of an open vault, and the access list that says which of them count.

Policy and access list are written by one `apply`, so that neither is ever without the other. What counts is held in
memory, compiled, until a policy changes; a store that shows another access list than the one in memory is not believed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from spike.error import (
    FenceError,
    FormatError,
    NotFoundError,
    OpenError,
    StoreConflictError,
    StoreCorruptError,
    StoreUnavailableError,
)
from spike.nexus.sealed import SealedStore
from spike.policy.access_list import (
    EMPTY,
    AccessGeneration,
    AccessList,
    Right,
    RightKind,
    add,
    confirm,
    decode_access_list_untrusted,
    encode_access_list,
    raised,
    remove,
)
from spike.policy.compiled import CompiledPolicies
from spike.policy.encoding import decode_policy_untrusted, encode_policy
from spike.policy.rule import Policy
from spike.storage.protocol import (
    ACCESS_LIST,
    MUST_NOT_EXIST,
    POLICY,
    Change,
    Delete,
    Expected,
    Put,
    RecordId,
    Revision,
)

ACCESS_LIST_ID: Final = RecordId(ACCESS_LIST, "current")
_ATTEMPTS: Final = 100
_log = logging.getLogger("spike.nexus.policy_book")


@dataclass(frozen=True, slots=True)
class _Standing:
    """What holds now: the list as stored, and what follows from it. Swapped whole."""

    listed: AccessList
    revision: Revision
    policies: Mapping[str, Policy]
    compiled: CompiledPolicies


@dataclass(frozen=True, slots=True)
class _Doubted:
    """What a write whose answer was lost would make of it."""

    listed: AccessList
    policies: Mapping[str, Policy]
    compiled: CompiledPolicies


class PolicyBook:
    """The policies seen through one key ring."""

    def __init__(
        self, sealed: SealedStore, standing: _Standing, doubted: _Doubted | None = None
    ) -> None:
        self._sealed = sealed
        self._standing = standing
        self._doubted = doubted
        self._lock = asyncio.Lock()

    @staticmethod
    def birth(sealed: SealedStore) -> Put:
        """Return the change that gives a new store its empty access list."""
        return sealed.put(ACCESS_LIST_ID, encode_access_list(EMPTY), MUST_NOT_EXIST)

    @classmethod
    async def load(cls, sealed: SealedStore) -> PolicyBook:
        """Read the access list and the policies it confirms.

        A policy that is not listed, or differs, does not count and is reported: it was not written by Nexus.

        Raises:
            OpenError, FormatError: the access list or a policy is not what was written.
        """
        record = await sealed.read(ACCESS_LIST_ID)
        if record is None:
            raise OpenError("the access list is missing")
        listed = decode_access_list_untrusted(record.plaintext)
        stored = {held.id.key: plaintext async for held, plaintext in sealed.scan(POLICY)}
        confirmed = confirm(listed, RightKind.POLICY, stored)
        for names, what in (
            (confirmed.unlisted, "is not in the access list"),
            (confirmed.differing, "differs from the access list"),
            (confirmed.missing, "is in the access list and missing from the store"),
        ):
            for name in names:
                _log.error("policy %r %s; it does not count", name, what)
        policies = {
            name: decode_policy_untrusted(plaintext)
            for name, plaintext in confirmed.counting.items()
        }
        return cls(sealed, _standing(listed, record.revision, policies))

    def through(self, sealed: SealedStore) -> PolicyBook:
        """Return the same policies, to be written through another key ring from now on."""
        return PolicyBook(sealed, self._standing, self._doubted)

    def raised_above(self, generation: int, sealed: SealedStore) -> Put:
        """Return the change that gives the same list the generation above this one; read it again afterwards."""
        listed = raised(self._standing.listed, AccessGeneration(generation + 1))
        return sealed.put(ACCESS_LIST_ID, encode_access_list(listed), self._standing.revision)

    @contextlib.asynccontextmanager
    async def unchanging(self) -> AsyncIterator[None]:
        """Let no policy be written meanwhile: what `through` takes over is then all there is."""
        async with self._lock:
            yield

    @property
    def access_generation(self) -> int:
        """The generation of the access list in force."""
        return self._standing.listed.generation

    @property
    def compiled(self) -> CompiledPolicies:
        """The policies in force, ready to decide."""
        return self._standing.compiled

    def get(self, name: str) -> Policy:
        """Return a policy.

        Raises:
            NotFoundError: there is none of that name.
        """
        policy = self._standing.policies.get(name)
        if policy is None:
            raise NotFoundError("there is no policy of this name")
        return policy

    def all(self) -> tuple[Policy, ...]:
        """Return every policy, by name."""
        return tuple(policy for _, policy in sorted(self._standing.policies.items()))

    def find(self, name: str) -> Policy | None:
        """Return a policy, or None."""
        return self._standing.policies.get(name)

    async def put(self, policy: Policy) -> None:
        """Write a policy, in the place of one of the same name.

        Raises:
            InputError: all policies together are too large to compile.
            StoreCorruptError: the store's access list is not the one in memory.
            StoreUnavailableError: the store does not answer. If it was written, the next change finds that.
            FenceError: a change of keys came first; nothing was written.
        """
        async with self._lock:
            await self._settle()
            now = self._standing
            encoded = encode_policy(policy)
            listed = add(now.listed, Right(RightKind.POLICY, policy.name), encoded)
            following = {**now.policies, policy.name: policy}
            compiled = CompiledPolicies(following.values(), now.compiled)
            record_id = RecordId(POLICY, policy.name)

            async def row() -> Change:
                return self._sealed.put(record_id, encoded, await self._expected(record_id))

            await self._write(row, listed, following, compiled)

    async def delete(self, name: str) -> None:
        """Delete a policy.

        Raises:
            NotFoundError: there is none of that name.
            StoreCorruptError, StoreUnavailableError, FenceError: as `put`.
        """
        async with self._lock:
            await self._settle()
            now = self._standing
            self.get(name)
            listed = remove(now.listed, Right(RightKind.POLICY, name))
            following = {key: policy for key, policy in now.policies.items() if key != name}
            compiled = CompiledPolicies(following.values(), now.compiled)
            record_id = RecordId(POLICY, name)

            async def row() -> Change | None:
                revision = await self._sealed.head(record_id)
                return None if revision is None else Delete(record_id, revision)

            await self._write(row, listed, following, compiled)

    async def put_back(self, name: str) -> None:
        """Write the row of a policy in force again as it is; nothing for one that is not in force.

        Raises:
            StoreConflictError: somebody wrote it at the same time; nothing was written.
        """
        async with self._lock:
            await self._settle()
            policy = self._standing.policies.get(name)
            if policy is not None:
                record_id = RecordId(POLICY, name)
                expected = await self._expected(record_id)
                row = self._sealed.put(record_id, encode_policy(policy), expected)
                await self._sealed.apply((row,))

    async def put_back_list(self, beside: Change, found: Revision) -> None:
        """Write the access list in force again, in the place of what was found at a revision, with a change beside it.

        Raises:
            StoreConflictError: something else stands there by now; nothing was written.
        """
        async with self._lock:
            await self._settle()
            listed = self._standing.listed
            row = self._sealed.put(ACCESS_LIST_ID, encode_access_list(listed), found)
            _, revision = await self._sealed.apply((beside, row))
            self._standing = replace(self._standing, revision=revision)

    async def _expected(self, record_id: RecordId) -> Expected:
        revision = await self._sealed.head(record_id)
        return MUST_NOT_EXIST if revision is None else revision

    async def _write(
        self,
        row: Callable[[], Awaitable[Change | None]],
        listed: AccessList,
        following: Mapping[str, Policy],
        compiled: CompiledPolicies,
    ) -> None:
        """Write row and list together, then swap what is in memory. The commit line of every right.

        A re-encryption replaces rows and the list by what they say already: who meets that writes again.
        """
        for _ in range(_ATTEMPTS):
            swap = self._sealed.put(
                ACCESS_LIST_ID, encode_access_list(listed), self._standing.revision
            )
            changed = await row()
            # The list first: where an engine writes one by one, a list without its row only takes a right away.
            changes = (swap,) if changed is None else (swap, changed)
            try:
                revisions = await self._sealed.apply(changes)
            except FenceError:
                raise
            except StoreConflictError as error:
                await self._look_again(error)
            except StoreUnavailableError:
                # Perhaps the answer alone is lost. Without a look, every later change would meet a list it takes for
                # somebody else's, and a right that was taken away would go on counting until Nexus is restarted.
                self._doubted = _Doubted(listed, following, compiled)
                if not await self._settle():
                    raise
                return
            else:
                self._standing = _Standing(listed, revisions[0], following, compiled)
                self._doubted = None
                return
        raise StoreUnavailableError("the policies change faster than they can be written")

    async def _look_again(self, met: StoreConflictError) -> None:
        """Take over where the list is now, if it is the one in memory.

        Raises:
            StoreUnavailableError: it is that of an earlier write whose answer was lost.
            StoreCorruptError: it is another one.
        """
        if await self._settle():
            raise StoreUnavailableError(
                "an earlier change of policies was written after all; try again"
            ) from met
        try:
            record = await self._sealed.read(ACCESS_LIST_ID)
            listed = None if record is None else decode_access_list_untrusted(record.plaintext)
        except (OpenError, FormatError):
            record = listed = None
        if record is None or listed != self._standing.listed:
            raise StoreCorruptError(
                "the access list in the store is not the one in memory: somebody else wrote it"
            ) from met
        self._standing = replace(self._standing, revision=record.revision)

    async def _settle(self) -> bool:
        """Go on with a write whose answer was lost, if the store holds it; return whether that is so.

        Raises:
            StoreUnavailableError: the store still does not answer.
        """
        doubted = self._doubted
        if doubted is None:
            return False
        record = await self._sealed.read(ACCESS_LIST_ID)
        if record is None or decode_access_list_untrusted(record.plaintext) != doubted.listed:
            return (
                False  # it may still come true: what is under way is only over with the next write
            )
        self._standing = _Standing(
            doubted.listed, record.revision, doubted.policies, doubted.compiled
        )
        self._doubted = None
        return True


def _standing(listed: AccessList, revision: Revision, policies: Mapping[str, Policy]) -> _Standing:
    compiled = CompiledPolicies(policies.values())
    for name in compiled.left_out:
        _log.error("policy %r has a pattern that cannot be compiled; it does not count", name)
    return _Standing(listed, revision, policies, compiled)
