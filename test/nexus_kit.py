"""A whole Nexus in one process: real store, real TLS, real rules. It starts from a derived key, or from nothing.

async with running(tmp_path) as nexus:
    status, body = await nexus.call(SUPERUSER, "/v1/store/secrets", {"path": "a", "values": {"k": "v"}})
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

import lifecycle_kit
from spiffe_kit import Ca, material
from spike.crypto.slot import seal_to
from spike.lifecycle.birth import FIRST
from spike.nexus.backup_call import BackupCalls
from spike.nexus.backup_watch import BackupWatch
from spike.nexus.cipher_call import CipherCalls
from spike.nexus.cipher_oldest_call import CipherOldestCalls
from spike.nexus.dispatch import Dispatcher
from spike.nexus.drill import DrillDesk
from spike.nexus.drill_call import DrillCalls
from spike.nexus.examination import Witnesses
from spike.nexus.factory_reset import ResetDesk
from spike.nexus.keeper_call import KeeperCalls
from spike.nexus.keeper_desk import KeeperDesk
from spike.nexus.keeper_link import KeeperLink
from spike.nexus.keeper_loop import KeeperLoop
from spike.nexus.keeper_refresh import deliver, new_set, require_free
from spike.nexus.keeper_roster import Roster
from spike.nexus.keeper_setting import NO_KEEPERS, KeeperSetting
from spike.nexus.key_call import KeyCalls
from spike.nexus.key_view_call import KeyViewCalls
from spike.nexus.lite import Service
from spike.nexus.password_desk import PasswordDesk
from spike.nexus.performer import Performer
from spike.nexus.place import Place
from spike.nexus.policy_book import PolicyBook
from spike.nexus.policy_call import PolicyCalls
from spike.nexus.rehearsal import Rehearser
from spike.nexus.report_call import ReportCalls
from spike.nexus.reset_call import ResetCalls
from spike.nexus.restore_flow import RestoreDesk
from spike.nexus.rotation_call import RotationCalls
from spike.nexus.rotation_desk import RotationDesk
from spike.nexus.rotation_loop import RotationLoop
from spike.nexus.schedule_call import ScheduleCalls
from spike.nexus.sealed import SealedStore
from spike.nexus.secret_call import SECRET_HANDLERS
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
from spike.policy.role import RoleMap
from spike.server.limit import Limits
from spike.server.request import Request
from spike.server.response import Response
from spike.server.server import Server
from spike.spiffe.peer import any_peer
from spike.spiffe.source import HeldSource
from spike.spiffe.tls import client_context, server_context
from spike.storage.protocol import MUST_NOT_EXIST, Store
from spike.storage.registry import open_store
from spike.wire.go_time import UnixNs
from spike.wire.own import PASSWORD_INFO

NEXUS = "spiffe://spike.ist/spike/nexus"
SUPERUSER = "spiffe://spike.ist/spike/pilot/role/superuser"
RESTORE = "spiffe://spike.ist/spike/pilot/role/restore"
RECOVER = "spiffe://spike.ist/spike/pilot/role/recover"
KEEPER = "spiffe://spike.ist/spike/keeper/one"
BOOTSTRAP = "spiffe://spike.ist/spike/bootstrap"
LITE = "spiffe://spike.ist/spike/workload/role/lite/one"
WORKLOAD = "spiffe://spike.ist/workload/web"

Answer = tuple[int, Any]
Handle = Callable[[Request], Awaitable[Response]]


class RunningNexus:
    """One Nexus on loopback, and a way to call it as anybody."""

    def __init__(
        self,
        ca: Ca,
        server: Server,
        vault: Vault,
        extra: dict[str, Handle],
        keepers: KeeperDesk,
        verifier: Verifier,
        rehearser: Rehearser,
        drills: DrillDesk,
        rotations: RotationDesk,
    ) -> None:
        self.rehearser = rehearser
        self.drills = drills
        self.rotations = rotations
        self.ca = ca
        self.verifier = verifier
        self.arrivals: SystemRestoreDesk
        self.restores: RestoreDesk
        self.rotation_loop: RotationLoop
        self.keepers = keepers
        self.server = server
        self.vault = vault
        self._extra = extra
        self._callers = ThreadPoolExecutor(64, thread_name_prefix="caller")
        self._contexts: dict[str, ssl.SSLContext] = {}

    def close(self) -> None:
        """Let go of the threads that made calls."""
        self._callers.shutdown()

    def answer_first(self, path: str, handle: Handle) -> None:
        """Answer one more path, beside the calls of Nexus."""
        self._extra[path] = handle

    @property
    def store(self) -> Store:
        return self.vault.store

    def context_of(self, spiffe_id: str, ca: Ca | None = None) -> ssl.SSLContext:
        """Return a client context with an SVID of this ID, from the own authority or another one."""
        if spiffe_id not in self._contexts:
            issuer = ca or self.ca
            federated = () if issuer is self.ca else (self.ca,)
            held = HeldSource(material(issuer.svid(spiffe_id), issuer, *federated))
            self._contexts[spiffe_id] = client_context(held, any_peer)
        return self._contexts[spiffe_id]

    async def seal(self, spiffe_id: str, password: bytes) -> dict[str, str]:
        """Return what a request gives a password as: session and the password sealed to it."""
        status, begun = await self.call(spiffe_id, "/v1/operator/password?action=begin")
        assert status == 200, begun
        public = base64.b64decode(begun["publicKey"])
        sealed = seal_to(public, PASSWORD_INFO, memoryview(password))
        return {"session": begun["session"], "sealedPassword": base64.b64encode(sealed).decode()}

    async def restore(
        self,
        password: bytes,
        *,
        backup: bytes | None = None,
        anchor: bytes = b"",
        slot: str = "",
        accept_older: bool = False,
    ) -> Answer:
        """Restore by password, confirming the preview; return the last answer."""
        asked: dict[str, object] = {**await self.seal(RESTORE, password)}
        asked |= {"slotName": slot, "anchor": base64.b64encode(anchor).decode()}
        asked["acceptOlderStore"] = accept_older
        action = "password"
        if backup is not None:
            action, asked["backup"] = "file", base64.b64encode(backup).decode()
        target = f"/v1/operator/restore?action={action}"
        status, previewed = await self.call(RESTORE, target, asked)
        if status != 200:
            return status, previewed
        assert previewed["restored"] is False
        return await self.call(RESTORE, target, {"confirm": previewed["confirm"]})

    async def call(
        self, spiffe_id: str, target: str, message: object = None, *, raw: bytes | None = None
    ) -> Answer:
        """POST a message (or raw bytes) over a connection of its own; return status and parsed body."""
        body = raw if raw is not None else json.dumps({} if message is None else message).encode()
        return await self.request(spiffe_id, "POST", target, body)

    async def request(self, spiffe_id: str, method: str, target: str, body: bytes) -> Answer:
        """Send any method."""
        return await self.send(self.context_of(spiffe_id), method, target, body)

    async def send(self, context: ssl.SSLContext, method: str, target: str, body: bytes) -> Answer:
        """Send anything over a connection of its own made with a context."""
        # Not on the loop's own threads: Nexus runs on this loop too and needs those for itself.
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._callers, self._send, context, method, target, body)

    def _send(self, context: ssl.SSLContext, method: str, target: str, body: bytes) -> Answer:
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.server.port, context=context, timeout=30
        )
        with contextlib.closing(connection):
            connection.request(method, target, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())


@contextlib.asynccontextmanager
async def running(
    directory: Path | None = None,
    *,
    store: Store | None = None,
    place: Path | None = None,
    places: Sequence[Place] = (),
    ca: Ca | None = None,
    environment: Mapping[str, str] | None = None,
    born: bool = True,
    born_at: str = "",
    password: bytes | None = None,
    limits: Limits | None = None,
    federated: Sequence[Ca] = (),
    service: Service = Service.WHOLE,
    cipher_limit_bytes: int = 64 << 10,
    body_limit_bytes: int = 1 << 20,
    keepers: KeeperSetting = NO_KEEPERS,
    unattended: bool = False,
    witnesses: Witnesses | None = None,
    performer: Performer | None = None,
) -> AsyncIterator[RunningNexus]:
    """Run a Nexus. `born`: with a root key from a derived slot key; else as it finds the store.

    A `password` opens its slot. Without `directory` and `store` it is on the memory engine. `unattended`: the loop over
    the Keepers runs; else a test takes each step itself. `witnesses` are asked in the Keepers' place. The loop that
    carries out rotations runs with a `performer`.
    """
    async with contextlib.AsyncExitStack() as stack:
        if store is None:
            store = await open_store(
                "memory" if directory is None else "sqlite", directory or Path()
            )
            stack.push_async_callback(store.close)
        places = places if place is None else (Place(place),)
        for each in places:
            each.prepare()
        vault = Vault(store, places, lambda: UnixNs(time.time_ns()), 10)
        stack.push_async_callback(vault.close)
        roles = RoleMap.from_settings(environment or {})
        ca = ca or Ca("spike.ist")
        source = HeldSource(material(ca.svid(NEXUS), ca, *federated))
        roster = Roster(keepers, lambda peer: KeeperLink(peer, source, roles))
        keeper_desk = KeeperDesk(vault, roster)
        stack.callback(keeper_desk.close)
        if born:
            await give_birth(vault, password, keeper_desk, born_at)
        desk, restores = PasswordDesk(), RestoreDesk(vault, witnesses or keeper_desk.witnesses)
        stack.push_async_callback(desk.close)
        stack.callback(restores.forget)
        shards = ShardDesk(
            vault, desk, restores, shares=keepers.shares, threshold=keepers.threshold
        )
        stack.callback(shards.forget)
        copies = BackupWatch(vault)
        slots = SlotDesk(vault, desk, restores, argon2=lifecycle_kit.LEAST_ARGON2)
        verifier = Verifier(vault)
        stack.push_async_callback(verifier.close)
        backups = SystemBackupDesk(vault)
        stack.push_async_callback(backups.close)
        rehearser = Rehearser(keeper_desk)
        arrivals = SystemRestoreDesk(vault, restores)
        stack.callback(arrivals.forget)
        drills = DrillDesk(vault, desk, restores)
        stack.push_async_callback(drills.close)
        rotation_loop = RotationLoop(keeper_desk, desk, performer)
        rotations = RotationDesk(rotation_loop)
        handlers = {
            **SECRET_HANDLERS,
            **PolicyCalls(vault).handlers(),
            **CipherCalls(vault, cipher_limit_bytes).handlers(),
            **KeyCalls(
                keeper_desk,
                desk,
                restores,
                MemoryWatch(vault),
                verifier=verifier,
                rehearser=rehearser,
                copies=copies,
                usage=UsageBook(vault),
                rotations=rotations,
                service=service,
            ).handlers(),
            **BackupCalls(vault, slots, copies).handlers(),
            **ReportCalls(vault).handlers(),
            **KeyViewCalls(vault, verifier, UsageBook(vault), rotations).handlers(),
            **ScheduleCalls(vault, UsageBook(vault)).handlers(),
            **CipherOldestCalls(vault, UsageBook(vault)).handlers(),
            **ShardCalls(shards, MemoryWatch(vault)).handlers(),
            **KeeperCalls(keeper_desk, rehearser).handlers(),
            **DrillCalls(vault, drills, desk, rehearser).handlers(),
            **SystemBackupCalls(backups).handlers(),
            **ResetCalls(vault, ResetDesk(keeper_desk, rotation_loop)).handlers(),
            **SystemRestoreCalls(
                keeper_desk,
                desk,
                restores,
                arrivals,
                watch=MemoryWatch(vault),
                rotations=rotation_loop,
            ).handlers(),
            **RotationCalls(rotations).handlers(),
        }
        dispatcher = Dispatcher(vault, handlers, roles, body_limit_bytes, service)
        extra: dict[str, Handle] = {}

        async def handle(request: Request) -> Response:
            return await extra.get(request.path, dispatcher.handle)(request)

        server = Server(
            handle,
            server_context(source),
            "127.0.0.1",
            0,
            trust=source.still_trusts,
            limits=limits,
        )
        await server.start()
        stack.push_async_callback(server.drain, 5.0)
        if unattended:
            loop = asyncio.create_task(KeeperLoop(keeper_desk).run())
            stack.push_async_callback(_cancelled, loop)
        if performer is not None:
            carrying = asyncio.create_task(rotation_loop.run())
            stack.push_async_callback(_cancelled, carrying)
        started = RunningNexus(
            ca, server, vault, extra, keeper_desk, verifier, rehearser, drills, rotations
        )
        started.rotation_loop = rotation_loop
        started.arrivals, started.restores = arrivals, restores
        stack.callback(started.close)
        yield started


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def give_birth(
    vault: Vault,
    password: bytes | None = None,
    keepers: KeeperDesk | None = None,
    at: str = "",
) -> lifecycle_kit.Born:
    """Initialize a vault from a derived key, or from a password at the least cost of Argon2id.

    With Keepers these are given their shares as by an init. `at` is its date, by default the present one: by a real
    clock the keys of a fixed date would be due some day.
    """
    if keepers is not None and keepers.links:
        return await _born_with(keepers, password)
    born = lifecycle_kit.born(password=password, at=at or vault.moment())
    sealed = SealedStore(vault.store, born.ring)
    revision, raw = await vault.replace_keyring(
        born.ring, MUST_NOT_EXIST, beside=(PolicyBook.birth(sealed),)
    )
    await vault.open_with(born.ring, revision, raw, await PolicyBook.load(sealed))
    return born


async def _born_with(keepers: KeeperDesk, password: bytes | None) -> lifecycle_kit.Born:
    """Do what an init does, but from a derived key."""
    vault = keepers.vault
    born = lifecycle_kit.born(password=password, at=vault.moment())
    document = born.ring.document
    await require_free(keepers.links)
    dealt = new_set(
        keepers.links,
        keepers.threshold,
        born.ring.root,
        store_id=document.store_id,
        lineage=document.lineage,
        generation=FIRST,
    )
    check = document.active_root.check
    await deliver(
        keepers.links, dealt, born.ring.root, check, least=len(keepers.links), anchor_raw=None
    )
    in_force = msgspec.structs.replace(dealt.share_set, staged=False)
    ring = born.ring.replaced(msgspec.structs.replace(document, share_sets=(in_force,)))
    sealed = SealedStore(vault.store, ring)
    revision, raw = await vault.replace_keyring(
        ring, MUST_NOT_EXIST, beside=(PolicyBook.birth(sealed),)
    )
    await vault.open_with(ring, revision, raw, await PolicyBook.load(sealed))
    keepers.adopt(dealt.held)
    await keepers.look()
    return born
