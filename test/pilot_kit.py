"""What a test of Pilot needs around it: a Workload API for each role and a Nexus, both real servers.

    with site(SmallNexus()) as made:
        run = made.spike("superuser", "secret", "list")
        assert run.exit == 0

The Workload API is gRPC on a Unix socket, the Nexus is HTTPS over SPIFFE mutual TLS and speaks the wire
contract; `spike` runs as a process of its own. The small Nexus keeps its secrets in a dict and has
no root key: it is there to show what Pilot sends and does with each answer, not what Nexus decides.
`ShippedNexus` is the real one.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import grpclib.server
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from process_kit import free_port
from spiffe_kit import Ca, material, response
from spike.crypto.slot import OneTimeKey
from spike.error import (
    FormatError,
    InputError,
    NotFoundError,
    NotReadyError,
    OpenError,
    SpikeError,
)
from spike.lifecycle import anchor
from spike.lifecycle.anchor import Anchor
from spike.lifecycle.password import TooWeak, verdict
from spike.lifecycle.refusal import Reason, RefusalError
from spike.memory.key_memory import KeyMemory
from spike.policy.role import Role, RoleMap
from spike.secret.cipher_blob import (
    CipherTriple,
    join_untrusted,
    open_blob_untrusted,
    seal_blob,
    split,
)
from spike.server import BINARY_HEADERS, Request, Response, Server
from spike.spiffe.source import HeldSource
from spike.spiffe.tls import server_context
from spike.spiffe.workload.workload_grpc import SpiffeWorkloadAPIBase
from spike.wire import call as calls
from spike.wire import cipher, own, policy, secret, validate
from spike.wire.code import ErrorCode, code_of
from spike.wire.go_json import decode_untrusted, encode
from spike.wire.message import Empty, ErrorAnswer, GoTime, Message
from spike.wire.own import PASSWORD_INFO
from spike_fork import Run, SpikeFork

R = TypeVar("R")
MOMENT = GoTime("2026-11-23T12:00:00Z")
ROLES = {
    "nexus": "spiffe://spike.ist/spike/nexus",
    "superuser": "spiffe://spike.ist/spike/pilot/role/superuser",
    "restore": "spiffe://spike.ist/spike/pilot/role/restore",
    "recover": "spiffe://spike.ist/spike/pilot/role/recover",
    "workload": "spiffe://spike.ist/workload/web",
}
PATIENCE_S = 60.0


class LoopThread:
    """An event loop on a thread of its own, for servers beside a test that blocks."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE_S)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE_S)
        self.loop.close()


class WorkloadApi(SpiffeWorkloadAPIBase):  # type: ignore[misc]  # generated code, seen as Any
    """Gives whoever asks the one identity it has, or none."""

    def __init__(self, path: Path, spiffe_id: str, ca: Ca) -> None:
        self.endpoint = f"unix://{path}"
        self.ca = ca
        self.denies = False
        self._path = path
        self._id = spiffe_id
        self._server: grpclib.server.Server | None = None

    async def start(self) -> None:
        self._server = grpclib.server.Server([self])
        await self._server.start(path=str(self._path))

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def FetchX509SVID(self, stream: Any) -> None:
        await stream.recv_message()
        if self.denies:
            raise GRPCError(Status.PERMISSION_DENIED)
        await stream.send_message(response(self.ca.svid(self._id), self._id, self.ca))
        await asyncio.Event().wait()

    async def FetchX509Bundles(self, _stream: Any) -> None:
        raise GRPCError(Status.UNIMPLEMENTED)

    FetchJWTSVID = FetchJWTBundles = ValidateJWTSVID = FetchX509Bundles


@dataclass
class Version:
    values: dict[str, str]
    deleted: bool = False


@dataclass
class Ledger:
    """Which store the small Nexus pretends to be, and how far it is."""

    store_id: str = "0123456789abcdef0123456789abcdef"
    lineage: str = "f" * 32
    epoch: int = 1
    revision: int = 1
    access_generation: int = 0
    root: KeyMemory = field(default_factory=KeyMemory.generate)

    def anchor(self) -> bytes:
        statement = Anchor(
            self.store_id, self.lineage, self.epoch, self.revision, self.access_generation, "", 1
        )
        return anchor.encode(statement, self.root)


class SomeNexus(Protocol):
    """A Nexus under a site, and what can happen to it."""

    @property
    def url(self) -> str: ...

    def start(self, site: Site[Any]) -> None: ...

    def stop(self) -> None: ...

    def lose_memory(self) -> None:
        """The process is killed and comes up again."""

    def copy_store(self) -> None:
        """Somebody takes a copy of the store."""

    def put_old_copy_back(self) -> None:
        """The process is killed, the store replaced by the copy taken before, the process started."""


class ShippedNexus:
    """`spike-nexus` as it is shipped: a process on SQLite."""

    def __init__(self) -> None:
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._directory = Path()
        self._environment: dict[str, str] = {}

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._port}"

    def start(self, site: Site[Any]) -> None:
        self._directory = site.directory
        self._environment = {
            **site.environment("nexus"),
            "SPIKE_NEXUS_TLS_PORT": f"127.0.0.1:{self._port}",
            "SPIKE_NEXUS_DATA_DIR": str(site.directory / "data"),
            "SPIKE_NEXUS_BACKUP_DIR": str(site.directory / "backup"),
        }
        self._run()

    def _run(self) -> None:
        with (self._directory / "nexus.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "spike.nexus"], env=self._environment, stderr=log
            )
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port)).close()
            except ConnectionRefusedError:
                said = (self._directory / "nexus.log").read_text()
                assert self._process.poll() is None, said
                assert time.monotonic() < end, said
                time.sleep(0.01)
            else:
                return

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def lose_memory(self) -> None:
        self.stop()
        self._run()

    def copy_store(self) -> None:
        self.stop()
        shutil.copytree(self._directory / "data", self._directory / "copy")
        self._run()

    def put_old_copy_back(self) -> None:
        self.stop()
        shutil.rmtree(self._directory / "data")
        shutil.copytree(self._directory / "copy", self._directory / "data")
        self._run()


class SmallNexus:
    """The wire contract over dicts. `password` is what it was initialized with."""

    def __init__(self) -> None:
        self.server: Server | None = None
        self._loop: LoopThread | None = None
        self._copy = (1, 1)
        self.state = "uninitialized"
        self.slot = ""
        self.password = b""
        self.seen_anchor = b""
        self.sealed: list[bytes] = []
        self.ledger = Ledger()
        self.secrets: dict[str, dict[int, Version]] = {}
        self.policies: dict[str, policy.PolicyPutRequest] = {}
        self.answers: list[Response | None] = []  # given instead of the next ones, where not None
        self.targets: list[str] = []
        self.bodies: list[bytes] = []
        self._one_time: dict[str, OneTimeKey] = {}
        self._confirm = ""
        self._roles = RoleMap.from_settings({})
        self._calls: dict[str, Callable[..., Message]] = {
            calls.SECRET_PUT.name: self.secret_put,
            calls.SECRET_GET.name: self.secret_get,
            calls.SECRET_GET_MANY.name: self.secret_get_many,
            calls.SECRET_DELETE.name: self.secret_delete,
            calls.SECRET_UNDELETE.name: self.secret_undelete,
            calls.SECRET_LIST.name: self.secret_list,
            calls.SECRET_METADATA_GET.name: self.metadata_get,
            calls.POLICY_PUT.name: self.policy_put,
            calls.POLICY_GET.name: self.policy_get,
            calls.POLICY_DELETE.name: self.policy_delete,
            calls.POLICY_LIST.name: self.policy_list,
            calls.CIPHER_ENCRYPT.name: self.cipher_encrypt,
            calls.CIPHER_DECRYPT.name: self.cipher_decrypt,
            calls.OPERATOR_STATUS.name: self.status,
            calls.OPERATOR_PASSWORD_BEGIN.name: self.password_begin,
            calls.OPERATOR_INIT.name: self.init,
            calls.OPERATOR_RESTORE_PASSWORD.name: self.restore,
            calls.OPERATOR_RESTORE_FILE.name: self.restore,
        }

    @property
    def url(self) -> str:
        assert self.server is not None
        return f"https://127.0.0.1:{self.server.port}"

    def start(self, site: Site[Any]) -> None:
        source = HeldSource(material(site.ca.svid(ROLES["nexus"]), site.ca))
        trust = source.still_trusts
        self.server = Server(self.handle, server_context(source), "127.0.0.1", 0, trust=trust)
        self._loop = site.loop
        site.loop.run(self.server.start())

    def stop(self) -> None:
        if self.server is not None and self._loop is not None:
            self._loop.run(self.server.drain(0.1))
        self.ledger.root.wipe()

    def lose_memory(self) -> None:
        if self.state == "open":
            self.state = "locked"

    def copy_store(self) -> None:
        self._copy = (self.ledger.epoch, self.ledger.revision)

    def put_old_copy_back(self) -> None:
        self.lose_memory()
        self.ledger.epoch, self.ledger.revision = self._copy

    async def handle(self, request: Request) -> Response:
        query = request.query.decode() if isinstance(request.query, bytes) else request.query
        path = request.path.decode() if isinstance(request.path, bytes) else request.path
        self.targets.append(f"{path}?{query}" if query else path)
        body = await request.body(1 << 20)
        self.bodies.append(body)
        if self.answers and (planned := self.answers.pop(0)) is not None:
            return planned
        try:
            call = calls.call_at(path, query.removeprefix("action="))
            if call is None:
                raise InputError("no such call")
            if call.needs_root_key and self.state != "open":
                raise NotReadyError("no root key")
            self._authorize(call, request)
            if request.header(b"content-type") == b"application/octet-stream":
                return Response(200, self.cipher_raw(call, body), BINARY_HEADERS)
            answer = self._calls[call.name](decode_untrusted(call.request, body), request)
            return Response(200, encode(answer))
        except RefusalError as error:
            refusal = own.RefusalAnswer(f"refused_{error.reason}", error.message, error.next_step)
            return Response(400, encode(refusal))
        except PermissionError:
            return _error(ErrorCode.UNAUTHORIZED)
        except SpikeError as error:
            return _error(code_of(error))

    def _authorize(self, call: calls.AnyCall, request: Request) -> None:
        roles = self._roles.roles_of(request.peer.id)
        if call is calls.OPERATOR_STATUS or call is calls.SECRET_GET_MANY:
            return
        restoring = call in (calls.OPERATOR_RESTORE_PASSWORD, calls.OPERATOR_RESTORE_FILE)
        if call is calls.OPERATOR_PASSWORD_BEGIN and roles & {Role.RESTORE, Role.SUPERUSER}:
            return
        if (Role.RESTORE if restoring else Role.SUPERUSER) not in roles:
            raise PermissionError

    def _is_superuser(self, request: Request) -> bool:
        return Role.SUPERUSER in self._roles.roles_of(request.peer.id)

    # Secrets

    def _versions(self, path: str) -> dict[int, Version]:
        validate.check_path(path)
        if path not in self.secrets:
            raise NotFoundError("no such secret")
        return self.secrets[path]

    def _current(self, path: str) -> int:
        return max((n for n, v in self._versions(path).items() if not v.deleted), default=0)

    def secret_put(self, asked: secret.SecretPutRequest, _: Request) -> Message:
        validate.check_path(asked.path)
        versions = self.secrets.setdefault(asked.path, {})
        versions[max(versions, default=0) + 1] = Version(asked.values)
        return Empty()

    def secret_get(self, asked: secret.SecretGetRequest, _: Request) -> Message:
        found = self._versions(asked.path).get(asked.version or self._current(asked.path))
        if found is None or found.deleted:
            raise NotFoundError("no such version")
        return secret.SecretGetAnswer(found.values)

    def secret_get_many(self, asked: secret.SecretGetManyRequest, request: Request) -> Message:
        validate.check_item_count(len(asked.items))
        items: list[secret.SecretGetAnswer | None] = []
        for item in asked.items:
            held = self.secrets.get(item.path, {}).get(item.version or 1)
            shown = held is not None and self._is_superuser(request)
            items.append(secret.SecretGetAnswer(held.values) if held and shown else None)
        return secret.SecretGetManyAnswer(items)

    def secret_delete(self, asked: secret.SecretVersionsRequest, _: Request) -> Message:
        current = self._current(asked.path)
        for number in asked.versions or [0]:
            found = self._versions(asked.path).get(number or current)
            if found:
                found.deleted = True
        return Empty()

    def secret_undelete(self, asked: secret.SecretVersionsRequest, _: Request) -> Message:
        versions = self._versions(asked.path)
        found = [versions[n] for n in asked.versions or [max(versions)] if versions[n].deleted]
        if not found:
            raise NotFoundError("nothing to undelete")
        for version in found:
            version.deleted = False
        return Empty()

    def secret_list(self, _asked: Empty, _: Request) -> Message:
        return secret.SecretListAnswer(sorted(self.secrets))

    def metadata_get(self, asked: secret.SecretGetRequest, _: Request) -> Message:
        versions = self._versions(asked.path)
        infos = {
            n: secret.SecretVersionInfo(MOMENT, n, MOMENT if v.deleted else None)
            for n, v in versions.items()
        }
        whole = secret.SecretMetadataInfo(
            self._current(asked.path), min(versions), MOMENT, MOMENT, 10
        )
        return secret.SecretMetadataAnswer(infos, whole)

    # Policies

    def policy_put(self, asked: policy.PolicyPutRequest, _: Request) -> Message:
        self.policies[asked.name] = asked
        self.ledger.access_generation += 1
        return Empty()

    def policy_get(self, asked: policy.PolicyNameRequest, _: Request) -> Message:
        found = self._policy(asked.id)
        return policy.PolicyGetAnswer(
            found.name,
            found.spiffeid_pattern,
            found.path_pattern,
            found.permissions,
            MOMENT,
            MOMENT,
        )

    def policy_delete(self, asked: policy.PolicyNameRequest, _: Request) -> Message:
        del self.policies[self._policy(asked.id).name]
        self.ledger.access_generation += 1
        return Empty()

    def policy_list(self, asked: policy.PolicyListRequest, _: Request) -> Message:
        names = [
            each.name
            for each in self.policies.values()
            if asked.path_pattern in ("", each.path_pattern)
            and asked.spiffeid_pattern in ("", each.spiffeid_pattern)
        ]
        return policy.PolicyListAnswer([policy.PolicyListItem(name) for name in sorted(names)])

    def _policy(self, name: str) -> policy.PolicyPutRequest:
        if name not in self.policies:
            raise NotFoundError("no such policy")
        return self.policies[name]

    # Encryption as a service

    def _sealed(self, plaintext: bytes) -> bytes:
        return seal_blob(self.ledger.root, 1, bytes.fromhex(self.ledger.store_id), plaintext)

    def _opened(self, blob: bytes) -> bytes:
        try:
            store_id = bytes.fromhex(self.ledger.store_id)
            return open_blob_untrusted(lambda _: self.ledger.root, store_id, blob)
        except (OpenError, FormatError) as error:
            raise InputError(error.message) from error

    def cipher_raw(self, call: calls.AnyCall, body: bytes) -> bytes:
        return self._sealed(body) if call is calls.CIPHER_ENCRYPT else self._opened(body)

    def cipher_encrypt(self, asked: cipher.CipherEncryptRequest, _: Request) -> Message:
        validate.check_algorithm(asked.algorithm)
        return cipher.CipherEncryptAnswer(*split(self._sealed(asked.plaintext)))

    def cipher_decrypt(self, asked: cipher.CipherDecryptRequest, _: Request) -> Message:
        validate.check_nonce(asked.nonce)
        if asked.version != 1:
            raise InputError("no such version")
        triple = CipherTriple(asked.version, asked.nonce, asked.ciphertext)
        return cipher.CipherDecryptAnswer(self._opened(join_untrusted(triple)))

    # The root key

    def status(self, _asked: Empty, request: Request) -> Message:
        ready = self.state == "open"
        if not self._is_superuser(request):
            return own.StatusAnswer(ready)
        if not ready:
            return own.StatusAnswer(ready, state=self.state, version="0.1.0")
        return own.StatusAnswer(
            ready,
            state=self.state,
            version="0.1.0",
            store_id=self.ledger.store_id,
            lineage=self.ledger.lineage,
            epoch=self.ledger.epoch,
            revision=self.ledger.revision,
            root_generation=1,
            slots=[
                own.StatusSlot(
                    self.slot,
                    "password",
                    "usable",
                    MOMENT,
                    MOMENT,
                    last_verified_by=ROLES["superuser"],
                )
            ],
            backup=own.StatusBackup(copies=[], retired=[], verified_at=MOMENT),
            memory=[own.StatusMeasure("no core file", True)],
            storage=own.StatusStorage("small", True, records={"secret": len(self.secrets)}),
            places=[own.BackupPlace("/backup", "current")],
            anchor=self.ledger.anchor(),
        )

    def password_begin(self, _asked: Empty, _: Request) -> Message:
        session = secrets.token_hex(16)
        self._one_time[session] = OneTimeKey.generate()
        return own.PasswordBeginAnswer(session, self._one_time[session].public)

    def _password(self, session: str, sealed: bytes) -> bytes:
        self.sealed.append(sealed)
        one_time = self._one_time.pop(session)
        return bytes(one_time.open_untrusted(sealed, PASSWORD_INFO))

    def init(self, asked: own.InitRequest, _: Request) -> Message:
        if self.state != "uninitialized":
            raise RefusalError(Reason.ALREADY_INITIALIZED, "that happens once only")
        self.password = self._password(asked.session, asked.sealed_password)
        judged = verdict(self.password, (asked.slot_name,))
        if isinstance(judged, TooWeak):
            raise RefusalError(Reason.WEAK_PASSWORD, judged.reason, judged.next_step)
        self.state, self.slot = "open", asked.slot_name
        places = [own.BackupPlace("/backup", "current")]
        ledger = self.ledger
        return own.InitAnswer(
            ledger.store_id, ledger.lineage, 1, 1, self.slot, ledger.anchor(), places
        )

    def restore(
        self, asked: own.PasswordRestoreRequest | own.FileRestoreRequest, _: Request
    ) -> Message:
        if self.state == "open":
            raise RefusalError(Reason.ALREADY_OPEN, "the root key is in memory")
        ledger = self.ledger
        if asked.confirm:
            if asked.confirm != self._confirm:
                raise RefusalError(Reason.EXPIRED, "this restore is no longer awaited")
            self.state = "open"
            ledger.epoch, ledger.revision = ledger.epoch + 1, ledger.revision + 1
            return own.RestoreAnswer(True, anchor=ledger.anchor())
        self.seen_anchor = asked.anchor
        if isinstance(asked, own.FileRestoreRequest) and asked.backup != b"a key backup\n":
            raise RefusalError(Reason.DAMAGED, "the key backup is damaged", "use another copy")
        if self._password(asked.session, asked.sealed_password) != self.password:
            raise RefusalError(
                Reason.WRONG_PASSWORD, "the password does not open slot 'admin'", "try again"
            )
        self._confirm = secrets.token_hex(16)
        preview = own.RestorePreview(
            ledger.store_id, ledger.lineage, 1, ledger.epoch, ledger.revision, MOMENT, self.slot
        )
        return own.RestoreAnswer(False, preview, self._confirm, ["an old anchor was ignored"])


def _error(code: ErrorCode) -> Response:
    return Response(code.status, encode(ErrorAnswer(code.text)))


N = TypeVar("N", bound=SomeNexus)


@dataclass
class Site(Generic[N]):
    """A Nexus and, for each role, a Workload API; all of one trust domain."""

    nexus: N
    directory: Path
    apis: Mapping[str, WorkloadApi]
    ca: Ca
    loop: LoopThread
    fork: SpikeFork

    def environment(self, role: str) -> dict[str, str]:
        """The environment of a command under this role, and nothing of ours that could matter."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        return {
            **kept,
            "HOME": str(self.directory),
            "SPIKE_PILOT_STATE_DIR": str(self.directory / "state"),
            "SPIFFE_ENDPOINT_SOCKET": self.apis[role].endpoint,
            "SPIKE_NEXUS_API_URL": self.nexus.url,
            "SPIKE_SPIFFE_SOURCE_TIMEOUT": "20s",
        }

    def spike(
        self,
        role: str,
        *arguments: str,
        stdin: bytes = b"",
        more: Mapping[str, str | None] | None = None,
    ) -> Run:
        """Run `spike` with these arguments, in the site's directory, without a terminal.

        `more` is added to the environment; None takes a variable out.
        """
        environment = {**self.environment(role), **(more or {})}
        kept = {name: value for name, value in environment.items() if value is not None}
        return self.fork.run(arguments, kept, self.directory, stdin)


@contextmanager
def site(nexus: N) -> Iterator[Site[N]]:
    """Run a Nexus and its Workload APIs."""
    fork, loop, ca = SpikeFork(), LoopThread(), Ca("spike.ist")
    # Not tmp_path: a socket's path has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="spike-") as name:
        apis = {role: WorkloadApi(Path(name, role), id_, ca) for role, id_ in ROLES.items()}
        try:
            for api in apis.values():
                loop.run(api.start())
            made = Site(nexus, Path(name), apis, ca, loop, fork)
            nexus.start(made)
            yield made
        finally:
            nexus.stop()
            for api in apis.values():
                loop.run(api.stop())
            loop.stop()
            fork.close()
