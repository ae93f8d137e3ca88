"""The Keepers of one Nexus: looked at every few seconds, supplied when they are empty, named when they lie.

While the vault is locked the same loop tries to bring the root key back from them (`keeper_recovery`); once it is
open the loop gives each Keeper the newest anchor and what it lacks (`lifecycle.supply` decides what that is).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from spike.error import SpikeError, UnreachableError
from spike.lifecycle import anchor as anchors
from spike.lifecycle.keyring import Keyring, LeavingKeeper, ShareSet
from spike.lifecycle.refresh import set_in_force, staged_set
from spike.lifecycle.refusal import RefusalError
from spike.lifecycle.restore import read_stored
from spike.lifecycle.ring import confirms_root
from spike.lifecycle.share import HeldSet
from spike.lifecycle.staleness import Objection, by_weighed
from spike.lifecycle.supply import Finding, KeeperState, Step, Wanted, is_past, judge
from spike.lifecycle.witness import Witness
from spike.nexus.keeper_link import KeeperLink, Look
from spike.nexus.keeper_roster import Roster
from spike.nexus.opened import Opened, Stop
from spike.nexus.vault import KEYRING_ID, Vault
from spike.wire.own import StatusKeeper

_log = logging.getLogger("spike.nexus.keeper")
_VISIT_S: Final = 6.0
"""For all exchanges of one look with one Keeper: who is slow must not hold up the others' anchors."""


@dataclass(frozen=True, slots=True)
class KeeperView:
    """How a Keeper was when it was last looked at; `anchor` is the one it keeps."""

    link: KeeperLink
    state: KeeperState
    detail: str
    anchor: bytes | None


@dataclass(slots=True)
class _Visit:
    """One look at all Keepers: what they are held against, and how many keep the anchor so far.

    Who still gives a share of an earlier root key is not among these.
    """

    opened: Opened
    in_force: ShareSet
    anchor_raw: bytes
    turn: int
    holding: int = 0

    @property
    def enough(self) -> int:
        """How many have to keep an anchor: all but threshold - 1."""
        return len(self.in_force.members) - self.in_force.threshold + 1


class KeeperDesk:
    """All Keepers of one vault. Owns the share set in force, once it is known."""

    def __init__(self, vault: Vault, roster: Roster | None = None) -> None:
        self.vault = vault
        self.roster = Roster() if roster is None else roster
        self.waits_for = ""
        """One sentence: what the root key waits for while it is not there."""
        self.dealt = 0
        """How often a Keeper was given its share, or has committed it, since Nexus has started."""
        self.looked = asyncio.Event()
        """Set at the end of each look at the Keepers."""
        self._looked_for = ""
        self._held: HeldSet | None = None
        self._views: dict[KeeperLink, KeeperView] = {}
        self._difference = ""
        self._remarks: tuple[str, ...] = ()
        self.lock = asyncio.Lock()
        """Held while Keepers are looked at or given anything: a look must not clear away what is just being staged."""
        vault.guard.has_keepers = bool(self.roster.environment)

    @property
    def links(self) -> tuple[KeeperLink, ...]:
        """The Keepers: the members of the set in force, as the keyring has them; without one the environment's."""
        if not self.vault.is_open:
            return self.roster.environment
        document = self.vault.opened.document
        in_force = set_in_force(document)
        return (
            self.roster.welcome(document.leaving) if in_force is None else self.links_of(in_force)
        )

    def links_of(self, share_set: ShareSet) -> tuple[KeeperLink, ...]:
        """Return the Keepers of any set of an authentic keyring, such as a staged one."""
        return self.roster.members(share_set)

    @property
    def threshold(self) -> int:
        """How many shares give the root key: by the keyring, or by the environment while there is no set."""
        in_force = self.set_in_force()
        return self.roster.setting.threshold if in_force is None else in_force.threshold

    @property
    def held(self) -> HeldSet | None:
        """Every share of the set in force, or None while Nexus does not know them."""
        return self._held

    @property
    def views(self) -> tuple[KeeperView, ...]:
        """How each Keeper is."""
        return tuple(self._view(link) for link in self.links)

    @property
    def holders(self) -> frozenset[int] | None:
        """Indexes of the Keepers that hold their share; None while they were not looked at for the set in force."""
        in_force = self.set_in_force()
        if in_force is None or in_force.id != self._looked_for:
            return None
        return frozenset(v.link.index for v in self.views if v.state is KeeperState.CURRENT)

    def _view(self, link: KeeperLink) -> KeeperView:
        unseen = KeeperView(link, KeeperState.UNKNOWN, "not looked at yet", None)
        return self._views.get(link, unseen)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What an operator should look into, beyond the state of single Keepers."""
        return self._remarks

    def adopt(self, held: HeldSet | None) -> None:
        """Take over the shares of the set in force; those of the one before are wiped."""
        before, self._held = self._held, held
        if before is not None and before is not held:
            before.wipe()

    def close(self) -> None:
        """Wipe every share. Idempotent."""
        self.adopt(None)

    def forget(self) -> None:
        """Wipe every share, and know nothing of any Keeper any more: the store whose key they held is away."""
        self.close()
        self._views.clear()
        self._remarks = ()
        self.waits_for = self._looked_for = ""

    def set_in_force(self) -> ShareSet | None:
        """Return the share set the Keepers have to hold; None while locked, or without Keepers."""
        return set_in_force(self.vault.opened.document) if self.vault.is_open else None

    def status(self) -> tuple[list[StatusKeeper], int, int] | None:
        """Return how each Keeper is, the threshold and the margin; None where there are no Keepers."""
        views, threshold = self.views, self.threshold
        if not views:
            return None
        current = sum(view.state is KeeperState.CURRENT for view in views)
        told = [
            StatusKeeper(
                index=view.link.index,
                url=view.link.peer.url,
                identity=str(view.link.peer.identity or ""),
                state=view.state.value,
                detail=view.detail,
            )
            for view in views
        ]
        return told, threshold, current - threshold

    async def witnesses(self) -> tuple[Witness, ...]:
        """Ask every Keeper that answers how far it saw this store come, also those that the stored keyring names."""
        looks = await asyncio.gather(*(self._witnessed(link) for link in await self._heard()))
        return tuple(witness for witness in looks if witness is not None)

    async def _heard(self) -> Sequence[KeeperLink]:
        stored = None if self.vault.is_open else await self.vault.store.get(KEYRING_ID)
        hinted = None
        if stored is not None:
            with contextlib.suppress(RefusalError):
                hinted = set_in_force(read_stored(stored.blob).hint)
        if hinted is None:
            return self.links
        return [each.link for each in self.roster.candidates(hinted)]

    async def _witnessed(self, link: KeeperLink) -> Witness | None:
        try:
            look = await link.look()
        except SpikeError as error:
            _log.warning("%s bears no witness: %s", link.name, error.message)
            return None
        except Exception:  # noqa: BLE001  whatever one Keeper brings about must not silence the others
            _log.exception("%s has brought about a fault", link.name)
            return None
        committed = look.committed
        return Witness(link.name, look.anchor, None if committed is None else committed.claim)

    async def look(self) -> None:
        """Look at every Keeper once and do what is due with each; all at the same time."""
        async with self.lock:
            if not self.vault.is_open:
                return
            opened, turn = self.vault.opened, self.vault.guard.turn
            in_force = set_in_force(opened.document)
            if in_force is None:
                return
            if not confirms_root(opened.document, opened.ring.root):
                # An anchor made with another key would take a good one's place.
                self.vault.stop_writes(Stop.WRONG_KEY)
                return
            self._compare(in_force)
            if not self.links:
                self._remarks = (self._difference,)
                return
            visit = _Visit(opened, in_force, opened.anchor_raw(), turn)
            views = await asyncio.gather(*(self._tended(view, visit) for view in self.views))
            self._views = {view.link: view for view in views}
            self._judge(visit, views)
            self._looked_for = in_force.id
            self.looked.set()

    def _compare(self, in_force: ShareSet) -> None:
        """Tell where environment and keyring differ, once in the log: the keyring is the truth."""
        differs = self.roster.difference(in_force)
        if differs and differs != self._difference:
            _log.warning("%s", differs)
        self._difference = differs

    async def _tended(self, view: KeeperView, visit: _Visit) -> KeeperView:
        """Look at one Keeper and give it what it lacks, in bounded time."""
        try:
            async with asyncio.timeout(_VISIT_S):
                now = await self._visited(view, visit)
        except TimeoutError:
            now = _lost(view, KeeperState.UNREACHABLE, "it takes too long to answer")
        except UnreachableError as error:
            now = _lost(view, KeeperState.UNREACHABLE, error.message)
        except SpikeError as error:
            now = _lost(view, KeeperState.SUSPECT, error.message)
        except Exception:  # noqa: BLE001  whatever one Keeper brings about must not spare the others
            _log.exception("%s has brought about a fault", view.link.name)
            why = "what it answers brought about a fault of ours; see the log"
            now = _lost(view, KeeperState.SUSPECT, why)
        return self._told(view, now)

    async def _visited(self, view: KeeperView, visit: _Visit) -> KeeperView:
        link, held, in_force = view.link, self._held, visit.in_force
        wanted = wanted_of(visit.opened.document, in_force, link.index)
        ours = () if held is None or held.set_id != in_force.id else (held,)
        look = await link.look(ours, visit.anchor_raw)
        is_heard = self._hear(visit, look)
        finding = judge(wanted, look.committed, look.staged)
        if finding.step is not Step.NOTHING and ours:
            await self._act(link, finding, ours[0], wanted, look)
            again = await link.look(ours, visit.anchor_raw)
            if not is_heard:
                self._hear(visit, again)
            finding, look = _after(finding, judge(wanted, again.committed, again.staged)), again
        return replace(view, state=finding.state, detail=finding.detail, anchor=look.anchor)

    def _hear(self, visit: _Visit, look: Look) -> bool:
        """Take note of an anchor as soon as enough keep it: writes wait for that, not for the last one."""
        if look.anchor != visit.anchor_raw or not is_past(
            visit.in_force.generation, look.committed
        ):
            return False
        visit.holding += 1
        if visit.holding == visit.enough:
            self.vault.guard.note_keepers(visit.turn, hold_anchor=True)
        return True

    async def _act(
        self, link: KeeperLink, finding: Finding, held: HeldSet, wanted: Wanted, look: Look
    ) -> None:
        share = held.share(link.index)
        match finding.step:
            case Step.SUPPLY:
                await link.stage(share)
                await link.commit(wanted.store_id, wanted.lineage, wanted.set_id, wanted.epoch)
                self.dealt += 1
                _log.warning("%s was given its share (it was %s)", link.name, finding.state)
            case Step.COMMIT:
                await link.commit(wanted.store_id, wanted.lineage, wanted.set_id, wanted.epoch)
                self.dealt += 1
                _log.warning("%s has committed its share", link.name)
            case Step.ERASE_STAGED if look.staged is not None:
                await link.erase(look.staged.claim.set_id)
            case _:
                pass

    def _told(self, before: KeeperView, now: KeeperView) -> KeeperView:
        if before.state is not now.state:
            level = logging.WARNING if now.state is KeeperState.CURRENT else logging.ERROR
            _log.log(level, "%s is %s%s", now.link.name, now.state, _because(now.detail))
        return now

    def _judge(self, visit: _Visit, views: Sequence[KeeperView]) -> None:
        """Draw from all views what none of them says alone."""
        opened, in_force = visit.opened, visit.in_force
        holding = [view for view in views if view.anchor == visit.anchor_raw]
        self.vault.guard.note_keepers(visit.turn, hold_anchor=visit.holding >= visit.enough)
        told = [(view, _objection(view, opened, visit.anchor_raw)) for view in views]
        beyond = [view for view, objection in told if objection is not None]
        proven = any(objection.proven for _, objection in told if objection is not None)
        against = [v for v in views if v.state is KeeperState.FOREIGN or v in beyond]
        if proven or len(against) >= in_force.threshold:
            self.vault.stop_writes(Stop.OVERTAKEN)
        lacking = [v for v in views if v.state is KeeperState.CURRENT and v not in holding]
        self._remarks = (
            *(f"{v.link.name} keeps an anchor that is beyond this store" for v in beyond),
            *(f"{v.link.name} does not keep the newest anchor" for v in lacking),
            *((self._difference,) if self._difference else ()),
            *(_left(each) for each in opened.document.leaving),
            *self._unpinned(in_force),
        )

    def _unpinned(self, in_force: ShareSet) -> Sequence[str]:
        """Tell of Keepers that are not told apart."""
        loose = [f"Keeper {member.index}" for member in in_force.members if not member.identity]
        if not loose:
            return ()
        names = ", ".join(loose)
        return (f"{names} have one identity, and one could stand in for the others: pin each",)


def wanted_of(document: Keyring, in_force: ShareSet | None, index: int) -> Wanted:
    """Return what the Keeper with this index has to hold; without a set in force, nothing it has is wanted."""
    staged = staged_set(document)
    return Wanted(
        store_id=document.store_id,
        lineage=document.lineage,
        epoch=document.epoch,
        set_id="" if in_force is None else in_force.id,
        index=index,
        staged_set_id="" if staged is None else staged.id,
    )


def _lost(view: KeeperView, state: KeeperState, why: str) -> KeeperView:
    """Return the view of a Keeper that was not heard out. Whether it still keeps an anchor is not known."""
    return replace(view, state=state, detail=why, anchor=None)


def _after(before: Finding, now: Finding) -> Finding:
    """Return the second finding; who still cannot prove what it was just given does not hold it."""
    if before.step is Step.SUPPLY and now.step is Step.SUPPLY:
        return now._replace(
            state=KeeperState.SUSPECT,
            detail="it was given its share and cannot prove that it holds it",
        )
    return now


def _objection(view: KeeperView, opened: Opened, anchor_raw: bytes) -> Objection | None:
    """Return what the anchor that a Keeper keeps says against this store: it is beyond it, or of another lineage."""
    if view.anchor is None or view.anchor == anchor_raw:
        return None
    document, reached = opened.document, opened.policies.access_generation
    weighed = anchors.weigh_untrusted((view.anchor,), document, opened.ring.roots)
    return by_weighed(document, reached, weighed, f"{view.link.name}'s anchor")


def _left(leaving: LeavingKeeper) -> str:
    """Say what is left at a Keeper that is no member any more."""
    if leaving.barred:
        return (
            f"the Keeper at {leaving.url} had leaked and is given nothing since {leaving.since}; when it is another "
            "one, take it back: spike keeper reshape"
        )
    return (
        f"the Keeper at {leaving.url} left at {leaving.since} and was not seen to erase its old share, which "
        "with enough others of its set gives the root key until that is rotated"
    )


def _because(detail: str) -> str:
    return f": {detail}" if detail else ""
