"""Nexus as a whole: everything it is made of is made here, in order, and taken down in the reverse order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Coroutine

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
from spike.nexus.keeper_call import KeeperCalls
from spike.nexus.keeper_desk import KeeperDesk
from spike.nexus.keeper_link import KeeperLink
from spike.nexus.keeper_loop import KeeperLoop
from spike.nexus.keeper_roster import Roster
from spike.nexus.key_call import KeyCalls
from spike.nexus.key_view_call import KeyViewCalls
from spike.nexus.lite import Service, service_of, unserved
from spike.nexus.password_desk import PasswordDesk
from spike.nexus.place import Place
from spike.nexus.policy_call import PolicyCalls
from spike.nexus.rehearsal import ProofLoop, Rehearser
from spike.nexus.report_call import ReportCalls
from spike.nexus.reset_call import ResetCalls
from spike.nexus.restore_flow import RestoreDesk
from spike.nexus.schedule_call import ScheduleCalls
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
from spike.wire.go_time import UnixNs

_log = logging.getLogger("spike.nexus.service")


def utc_now() -> UnixNs:
    """Return the present moment."""
    return UnixNs(time.time_ns())


async def serve(setting: NexusSetting, stop: asyncio.Event, ready: asyncio.Event) -> None:
    """Run Nexus until `stop` is set; `ready` is set once it listens.

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
        desk = PasswordDesk()
        stack.push_async_callback(desk.close)
        keepers = _keepers(setting, vault, source)
        stack.callback(keepers.close)
        restores = RestoreDesk(vault, keepers.witnesses)
        stack.callback(restores.forget)
        counts = setting.keepers
        shards = ShardDesk(vault, desk, restores, shares=counts.shares, threshold=counts.threshold)
        stack.callback(shards.forget)
        copies = BackupWatch(vault)
        slots = SlotDesk(vault, desk, restores)
        verifier = Verifier(vault)
        stack.push_async_callback(verifier.close)
        backups = SystemBackupDesk(vault)
        stack.push_async_callback(backups.close)
        arrivals = SystemRestoreDesk(vault, restores)
        stack.callback(arrivals.forget)
        watch = MemoryWatch(vault)
        await stack.enter_async_context(_running(watch.run()))
        await stack.enter_async_context(_running(copies.run()))
        await stack.enter_async_context(_running(KeeperLoop(keepers).run()))
        rehearser = Rehearser(keepers)
        drills = DrillDesk(vault, desk, restores)
        await stack.enter_async_context(_proving(rehearser, drills, setting.keepers.interval_s))
        await stack.enter_async_context(_running(usage.run()))
        handlers = {
            **SECRET_HANDLERS,
            **PolicyCalls(vault).handlers(),
            **CipherCalls(vault, setting.cipher_limit_bytes).handlers(),
            **KeyCalls(
                keepers,
                desk,
                restores,
                watch,
                verifier=verifier,
                rehearser=rehearser,
                copies=copies,
                usage=usage,
                service=service,
            ).handlers(),
            **BackupCalls(vault, slots, copies).handlers(),
            **ReportCalls(vault).handlers(),
            **KeyViewCalls(vault, verifier, usage).handlers(),
            **ScheduleCalls(vault, usage).handlers(),
            **CipherOldestCalls(vault, usage).handlers(),
            **ShardCalls(shards, watch).handlers(),
            **KeeperCalls(keepers, rehearser).handlers(),
            **DrillCalls(vault, drills, desk, rehearser).handlers(),
            **SystemBackupCalls(backups).handlers(),
            **ResetCalls(vault, ResetDesk(keepers)).handlers(),
            **SystemRestoreCalls(keepers, desk, restores, arrivals, watch).handlers(),
        }
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
async def _proving(
    rehearser: Rehearser, drills: DrillDesk, interval_s: float
) -> AsyncIterator[None]:
    """Prove by itself, when it is due, that recovery would work."""
    async with (
        _running(ProofLoop(rehearser.run_if_due, interval_s).run()),
        _running(ProofLoop(drills.run_if_due, DRILL_LOOK_S).run()),
    ):
        try:
            yield
        finally:
            await drills.close()


@contextlib.asynccontextmanager
async def _running(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
