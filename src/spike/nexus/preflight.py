"""Looking at everything that a rotation depends on, and changing nothing: what the checks are made of."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Sequence

from spike.crypto import known_answer
from spike.error import FormatError, KnownAnswerError, OpenError, SpikeError, StoreError
from spike.lifecycle import backup
from spike.lifecycle import preflight as rules
from spike.lifecycle.preflight import Check
from spike.lifecycle.refresh import set_in_force
from spike.lifecycle.rotation_plan import Plan
from spike.lifecycle.supply import KeeperState, judge
from spike.memory.process import check_measures
from spike.nexus.keeper_desk import KeeperDesk, wanted_of
from spike.nexus.keeper_link import KeeperLink
from spike.nexus.opened import Opened
from spike.nexus.place import Place
from spike.nexus.vault import Vault


async def before(keepers: KeeperDesk, plan: Plan) -> tuple[Check, ...]:
    """Run every check before a rotation. Changes no byte anywhere."""
    opened = keepers.vault.opened
    return (
        rules.startable(opened.document, plan),
        rules.keyring_room(plan, len(opened.keyring_raw)),
        *await _always(keepers, plan, force=plan.forced),
        rules.clock(keepers.vault.moment(), opened.document),
    )


async def after(keepers: KeeperDesk, plan: Plan) -> tuple[Check, ...]:
    """Run the checks that tell whether all is well again behind a rotation."""
    return (
        rules.idle(keepers.vault.opened.document),
        *await _always(keepers, plan, force=True),
    )


async def _always(keepers: KeeperDesk, plan: Plan, *, force: bool) -> tuple[Check, ...]:
    vault, opened = keepers.vault, keepers.vault.opened
    return (
        *await _storage(vault),
        await _keepers(keepers, plan, force=force),
        await _places(vault, opened, plan),
        _memory(),
        _known_answers(),
        await _sample(opened),
        rules.passwords(vault.moment(), opened.document),
    )


async def _storage(vault: Vault) -> tuple[Check, ...]:
    stops = ", ".join(sorted(vault.stops))
    try:
        health = await vault.store.health()
    except StoreError as error:
        return (rules.storage(error.message),)
    fault = f"writes are stopped: {stops}" if stops else health.fault
    return (rules.storage(fault), rules.room(health.free_bytes, health.size_bytes))


async def _keepers(keepers: KeeperDesk, plan: Plan, *, force: bool) -> Check:
    asked = [link for link in keepers.links if link.index not in plan.left_out]
    faults = await asyncio.gather(*(_fault(keepers, link) for link in asked))
    good = [link.name for link, fault in zip(asked, faults, strict=True) if not fault]
    bad = [f"{link.name} {fault}" for link, fault in zip(asked, faults, strict=True) if fault]
    return rules.keepers(plan, keepers.threshold, good, bad, force=force)


async def _fault(keepers: KeeperDesk, link: KeeperLink) -> str:
    """Return what is wrong with a Keeper, or "". It is asked, and given nothing."""
    document, held = keepers.vault.opened.document, keepers.held
    in_force = set_in_force(document)
    try:
        look = await link.look(() if held is None else (held,))
    except SpikeError as error:
        return f"does not answer: {error.message}"
    finding = judge(wanted_of(document, in_force, link.index), look.committed, look.staged)
    if finding.state is KeeperState.CURRENT or (in_force is None and look.committed is None):
        return ""
    return f"is {finding.state}: {finding.detail}"


async def _places(vault: Vault, opened: Opened, plan: Plan) -> Check:
    faults = await asyncio.gather(*(_reached(state.place, opened) for state in vault.places))
    bad = [fault for fault in faults if fault]
    return rules.places(plan, len(faults) - len(bad), bad)


async def _reached(place: Place, opened: Opened) -> str:
    try:
        return await place.reach.call(_place_fault, place, opened)
    except StoreError as error:
        return error.message


def _place_fault(place: Place, opened: Opened) -> str:
    """Return what is wrong with the key backup that a place holds, or ""."""
    path = place.backup_path(opened.document.store_id)
    raw = place.read_backup(opened.document.store_id)
    if raw is None:
        return f"{path} is not there"
    try:
        held = backup.decode_untrusted(raw)
    except FormatError as error:
        return f"{path}: {error.message}"
    if held.confirmed_by(opened.ring.root) is None:
        return f"{path} is not of the root key in force"
    if held.keyring.raw != opened.keyring_raw:
        return f"{path} does not hold the keyring in force"
    return ""


def _memory() -> Check:
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    free = None if soft == resource.RLIM_INFINITY else max(0, soft - _locked_bytes())
    return rules.memory(free, [m.name for m in check_measures() if not m.applied])


def _locked_bytes() -> int:
    """Return how much of this process is locked in memory, as the kernel counts it."""
    with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123
        for line in status:
            if line.startswith("VmLck:"):
                return int(line.split()[1]) << 10
    return 0


def _known_answers() -> Check:
    try:
        known_answer.run()
    except KnownAnswerError as error:
        return rules.known_answers(error.message)
    return rules.known_answers("")


async def _sample(opened: Opened) -> Check:
    count, fault = 0, ""
    try:
        async for record in opened.sealed.samples():
            opened.sealed.open(record)
            count += 1
    except (OpenError, FormatError, StoreError) as error:
        fault = error.message
    return rules.sample(count, fault)


def told(checks: Sequence[Check]) -> dict[str, str]:
    """Return checks as the history keeps them."""
    return {check.name: f"{check.result}: {check.detail}"[:500] for check in checks}
