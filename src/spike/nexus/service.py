"""Nexus as a whole: everything it is made of is made here, in order, and taken down in the reverse order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from dataclasses import dataclass

from spike.crypto import known_answer
from spike.error import StoreUnavailableError
from spike.memory.process import harden
from spike.nexus.backup_call import BackupCalls
from spike.nexus.backup_watch import BackupWatch
from spike.nexus.birth_flow import bear_volatile
from spike.nexus.cipher_call import CipherCalls
from spike.nexus.cipher_oldest_call import CipherOldestCalls
from spike.nexus.dispatch import Dispatcher
from spike.nexus.drill import DRILL_LOOK_S, DrillDesk
from spike.nexus.drill_call import DrillCalls
from spike.nexus.factory_reset import ResetDesk
from spike.nexus.handler import Handler
from spike.nexus.keeper_call import KeeperCalls
from spike.nexus.keeper_desk import KeeperDesk
from spike.nexus.keeper_link import KeeperLink
from spike.nexus.keeper_loop import KeeperLoop
from spike.nexus.keeper_roster import Roster
from spike.nexus.key_call import KeyCalls
from spike.nexus.key_view_call import KeyViewCalls
from spike.nexus.lite import Service, service_of, unserved
from spike.nexus.password_desk import PasswordDesk
from spike.nexus.performer import Performer
from spike.nexus.place import Place
from spike.nexus.policy_call import PolicyCalls
from spike.nexus.rehearsal import ProofLoop, Rehearser
from spike.nexus.report_call import ReportCalls
from spike.nexus.reset_call import ResetCalls
from spike.nexus.restore_flow import RestoreDesk
from spike.nexus.rotation_call import RotationCalls
from spike.nexus.rotation_desk import RotationDesk
from spike.nexus.rotation_loop import RotationLoop
from spike.nexus.schedule_call import ScheduleCalls
from spike.nexus.scheduler import Scheduler
from spike.nexus.secret_call import SECRET_HANDLERS
from spike.nexus.setting import NexusSetting
from spike.nexus.shard_call import ShardCalls
from spike.nexus.shard_flow import ShardDesk
from spike.nexus.slot_flow import SlotDesk
from spike.nexus.system_backup_call import SystemBackupCalls
from spike.nexus.system_backup_desk import SystemBackupDesk
from spike.nexus.system_restore import SystemRestoreDesk
from spike.nexus.system_restore_call import SystemRestoreCalls
from spike.nexus.usage_book import UsageBook
from spike.nexus.vault import Vault
from spike.nexus.verification import Verifier
from spike.nexus.watch import MemoryWatch
from spike.policy.role import Role
from spike.server.program import require_measures, require_role
from spike.server.server import Server
from spike.spiffe.tls import server_context
from spike.spiffe.workload_source import X509Source
from spike.storage.protocol import Store
from spike.storage.registry import open_store
from spike.wire.call import CallName
from spike.wire.go_time import UnixNs

_log = logging.getLogger("spike.nexus.service")


def utc_now() -> UnixNs:
    """Return the present moment."""
    return UnixNs(time.time_ns())


async def serve(
    setting: NexusSetting,
    stop: asyncio.Event,
    ready: asyncio.Event,
    performer: Performer | None = None,
) -> None:
    """Run Nexus until `stop` is set; `ready` is set once it listens. `performer` performs what rotations write.

    Raises:
        SettingError, WorkloadApiError, NewerFormatError, KnownAnswerError, StoreError: it cannot start.
    """
    measures = harden()
    require_measures(measures, strict=setting.strict_memory)
    known_answer.run()
    async with contextlib.AsyncExitStack() as stack:
        service, engine = service_of(setting.engine)
        store = await open_store(engine, setting.data_directory)
        stack.push_async_callback(store.close)
        if service is Service.LITE:
            _log.warning("%s%s", service.remark, unserved(await store.census()))
        vault = await _vault(setting, store)
        stack.push_async_callback(vault.close)
        usage = UsageBook(vault)
        stack.push_async_callback(usage.try_flush)
        source = await X509Source.open(setting.endpoint or None, setting.source_timeout_s)
        stack.push_async_callback(source.close)
        require_role(source.material.svid.id, setting.roles, Role.NEXUS)
        keepers = _keepers(setting, vault, source)
        stack.callback(keepers.close)
        desks = _desks(stack, setting, keepers, usage, performer)
        for work in (
            desks.watch.run(),
            desks.copies.run(),
            KeeperLoop(keepers).run(),
            ProofLoop(desks.rehearser.run_if_due, setting.keepers.interval_s, keepers.looked).run(),
            ProofLoop(desks.drills.run_if_due, DRILL_LOOK_S).run(),
            usage.run(),
            desks.rotation_loop.run(),
            desks.scheduler.run(),
        ):
            await stack.enter_async_context(_running(work))
        handlers = _handlers(setting, desks, service)
        dispatcher = Dispatcher(vault, handlers, setting.roles, setting.body_limit_bytes, service)
        server = Server(
            dispatcher.handle,
            server_context(source),
            setting.host,
            setting.port,
            trust=source.still_trusts,
        )
        await server.start()
        stack.push_async_callback(server.drain, setting.drain_s)
        _log.warning(
            "listening on port %d as %s, %s",
            server.port,
            source.material.svid.id,
            await vault.phase(),
        )
        ready.set()
        await stop.wait()


@dataclass(frozen=True, slots=True)
class _Desks:
    """What the calls of one Nexus are served with."""

    keepers: KeeperDesk
    passwords: PasswordDesk
    restores: RestoreDesk
    shards: ShardDesk
    slots: SlotDesk
    copies: BackupWatch
    verifier: Verifier
    backups: SystemBackupDesk
    arrivals: SystemRestoreDesk
    watch: MemoryWatch
    rehearser: Rehearser
    drills: DrillDesk
    usage: UsageBook
    rotation_loop: RotationLoop
    rotations: RotationDesk
    scheduler: Scheduler


def _desks(
    stack: contextlib.AsyncExitStack,
    setting: NexusSetting,
    keepers: KeeperDesk,
    usage: UsageBook,
    performer: Performer | None,
) -> _Desks:
    """Make every desk, and see that what each holds ends with the stack."""
    vault, counts = keepers.vault, setting.keepers
    passwords = PasswordDesk()
    stack.push_async_callback(passwords.close)
    rotation_loop = RotationLoop(keepers, passwords, performer)
    rotations = RotationDesk(rotation_loop)
    restores = RestoreDesk(vault, keepers.witnesses)
    restores.begin_rotation = rotations.begin
    stack.callback(restores.forget)
    shards = ShardDesk(vault, passwords, restores, shares=counts.shares, threshold=counts.threshold)
    stack.callback(shards.forget)
    verifier = Verifier(vault)
    stack.push_async_callback(verifier.close)
    backups = SystemBackupDesk(vault)
    stack.push_async_callback(backups.close)
    arrivals = SystemRestoreDesk(vault, restores, rotations.begin)
    stack.callback(arrivals.forget)
    drills = DrillDesk(vault, passwords, restores)
    stack.push_async_callback(drills.close)
    return _Desks(
        keepers=keepers,
        passwords=passwords,
        restores=restores,
        shards=shards,
        slots=SlotDesk(vault, passwords, restores, rotations.begin),
        copies=BackupWatch(vault),
        verifier=verifier,
        backups=backups,
        arrivals=arrivals,
        watch=MemoryWatch(vault),
        rehearser=Rehearser(keepers),
        drills=drills,
        usage=usage,
        rotation_loop=rotation_loop,
        rotations=rotations,
        scheduler=Scheduler(vault, usage, rotations.begin_due, rotations.hold),
    )


def _handlers(setting: NexusSetting, desks: _Desks, service: Service) -> Mapping[CallName, Handler]:
    """Return the handler of every call."""
    vault = desks.keepers.vault
    return {
        **SECRET_HANDLERS,
        **PolicyCalls(vault).handlers(),
        **CipherCalls(vault, setting.cipher_limit_bytes).handlers(),
        **KeyCalls(
            desks.keepers,
            desks.passwords,
            desks.restores,
            desks.watch,
            verifier=desks.verifier,
            rehearser=desks.rehearser,
            copies=desks.copies,
            usage=desks.usage,
            rotations=desks.rotations,
            service=service,
        ).handlers(),
        **BackupCalls(vault, desks.slots, desks.copies).handlers(),
        **ReportCalls(vault).handlers(),
        **KeyViewCalls(vault, desks.verifier, desks.usage, desks.rotations).handlers(),
        **ScheduleCalls(vault, desks.usage, lambda: desks.scheduler.fault).handlers(),
        **CipherOldestCalls(vault, desks.usage).handlers(),
        **ShardCalls(desks.shards, desks.watch).handlers(),
        **KeeperCalls(desks.keepers, desks.rehearser).handlers(),
        **DrillCalls(vault, desks.drills, desks.passwords, desks.rehearser).handlers(),
        **SystemBackupCalls(desks.backups).handlers(),
        **ResetCalls(vault, ResetDesk(desks.keepers, desks.rotation_loop)).handlers(),
        **SystemRestoreCalls(
            desks.keepers,
            desks.passwords,
            desks.restores,
            desks.arrivals,
            watch=desks.watch,
            rotations=desks.rotation_loop,
        ).handlers(),
        **RotationCalls(desks.rotations).handlers(),
    }


async def _vault(setting: NexusSetting, store: Store) -> Vault:
    health = await store.health()
    places = tuple(Place(path) for path in setting.backup_directories) if health.durable else ()
    for place in places:
        await _prepare(place)
    vault = Vault(store, places, utc_now, setting.max_versions)
    if not health.durable:
        await bear_volatile(vault)
    return vault


async def _prepare(place: Place) -> None:
    try:
        await place.reach.call(place.prepare)
    except StoreUnavailableError as error:
        # Others may hold the backup, and secrets can be served without any: it is tried again every minute.
        _log.error("%s", error.message)


def _keepers(setting: NexusSetting, vault: Vault, source: X509Source) -> KeeperDesk:
    """Return the desk of the Keepers. A store that keeps nothing has none: its key brings nothing back."""
    if vault.is_open:
        return KeeperDesk(vault)
    roles = setting.roles
    return KeeperDesk(vault, Roster(setting.keepers, lambda peer: KeeperLink(peer, source, roles)))


@contextlib.asynccontextmanager
async def _running(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
