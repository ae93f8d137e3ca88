"""A rotation in a running Nexus, step by step and real: the rules, the vault, its store, places and Keepers.

What a rotation does on its own is tested elsewhere. Here its steps are taken one at a time, so that a copy of the store
can be made between any two of them.
"""

from __future__ import annotations

import secrets

from nexus_kit import SUPERUSER, RunningNexus
from spike.lifecycle import rotation as rules
from spike.lifecycle.keyring import Emergency, KeyPurpose, Phase, RotationKind, Scope
from spike.lifecycle.ring import KeyName, KeyRing
from spike.lifecycle.rotation import Incoming
from spike.lifecycle.rotation_flip import flipped, root_of
from spike.lifecycle.rotation_plan import Plan, numbers_of, require_startable
from spike.memory.key_memory import KeyMemory
from spike.nexus.keeper_refresh import NewSet, deliver, new_set


class Rotating:
    """One rotation on its way. The record key stays, unless another scope is asked for."""

    def __init__(
        self,
        nexus: RunningNexus,
        kind: RotationKind = RotationKind.ROTATION,
        scope: Scope = Scope.ROOT_ONLY,
        emergency: Emergency | None = None,
    ) -> None:
        self._nexus = nexus
        self._vault = nexus.vault
        self._plan = Plan(
            id=secrets.token_hex(16),
            scope=Scope.FULL if emergency else scope,
            actor=SUPERUSER,
            reason="a test",
            window_s=0,
            kind=kind,
            emergency=emergency,
        )
        self._incoming: Incoming | None = None
        self._dealt: NewSet | None = None

    @property
    def ring(self) -> KeyRing:
        return self._vault.opened.ring

    @property
    def incoming(self) -> Incoming:
        assert self._incoming is not None
        return self._incoming

    async def prepare(self) -> None:
        """Reserve the numbers and compose the next keyring."""
        document = self.ring.document
        require_startable(document, self._plan)
        numbers = numbers_of(document, self._plan)
        if self._plan.kind is RotationKind.ROLLBACK:
            root = self.ring.key(KeyName(KeyPurpose.ROOT, "", numbers.root.after))
        else:
            root = KeyMemory.generate()
        made = {name: KeyMemory.generate() for name in numbers.new_names}
        self._incoming = Incoming(root, made)
        at = self._vault.moment()
        following = rules.prepared(self.ring, self._plan, numbers, self._incoming, at)
        await self._vault.advance(self.ring.replaced(following))

    async def distribute(self) -> None:
        """Stage new shares on the Keepers, if there are any."""
        document, desk = self.ring.document, self._nexus.keepers
        if not desk.links:
            return
        assert document.rotation is not None
        number = document.rotation.root.after
        self._dealt = new_set(
            desk.links,
            desk.threshold,
            self.incoming.root,
            store_id=document.store_id,
            lineage=document.lineage,
            generation=number,
        )
        check = root_of(document, number).check
        root, least = self.incoming.root, len(desk.links)
        await deliver(desk.links, self._dealt, root, check, least=least, anchor_raw=None)
        following = rules.distributed(document, self._dealt.share_set, self._vault.moment())
        await self._vault.advance(self.ring.replaced(following))

    async def back_up(self) -> None:
        """Seal the incoming root key to each slot."""
        document = self.ring.document
        auth = {slot.id: self.ring.auth(slot.id) for slot in document.slots}
        at = self._vault.moment()
        slots = rules.sealed_slots(document, self.incoming.root, auth, at)
        await self._vault.advance(self.ring.replaced(rules.backed_up(document, slots, 1, at)))

    async def flip(self) -> None:
        """Let the incoming keys come into force. The Keepers are told at the next look."""
        ring, at = self.ring, self._vault.moment()
        following = flipped(ring.document, at, has_keepers=self._dealt is not None)
        after = ring.succeeded(following, self.incoming.root, self.incoming.added)
        await self._vault.advance(after)
        ring.wipe_except(after)
        if self._dealt is not None:
            self._nexus.keepers.adopt(self._dealt.held)

    async def to_flip(self) -> None:
        """Take every step up to the flip, and look at the Keepers."""
        await self.prepare()
        await self.distribute()
        await self.back_up()
        await self.flip()
        await self._nexus.keepers.look()

    async def finalize(self) -> None:
        """Destroy what was replaced."""
        document, at = self.ring.document, self._vault.moment()
        assert document.rotation is not None
        assert document.rotation.phase is Phase.VERIFIED
        following = rules.finalizing(document, at, SUPERUSER)
        await self._vault.advance(self.ring.replaced(following))
        ring = self.ring
        after = ring.changed(rules.finalized(ring.document, at, {}), {})
        await self._vault.advance(after)
        ring.wipe_except(after)
        await self._nexus.keepers.look()


async def rotate(nexus: RunningNexus, *, finalize: bool = False) -> Rotating:
    """Replace the root key."""
    rotating = Rotating(nexus)
    await rotating.to_flip()
    if finalize:
        await rotating.finalize()
    return rotating


async def roll_back(nexus: RunningNexus, *, finalize: bool = False) -> Rotating:
    """Go back to the root key that was replaced last."""
    rotating = Rotating(nexus, RotationKind.ROLLBACK)
    await rotating.to_flip()
    if finalize:
        await rotating.finalize()
    return rotating
