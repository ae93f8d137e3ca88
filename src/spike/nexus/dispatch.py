"""From a request to its handler: the one way in, in the order of the wire contract.

    method → readiness → route → authentication → authorization → body limit → parse → validate → act

* The peer was authenticated by the TLS handshake; the server hands it over with the request.
* A handler's first parameter is what only spike.policy.access can make: a call cannot be written that acts without
  having been authorized.
* Answers hold a code and nothing else, but for our own key operations, which say why they were refused: who may
  make them has to know what to do next. The detail goes to the log, under the request's trail id.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Any, Final, assert_never

from spike.error import FenceError, InputError, NotReadyError, OpenError, SpikeError, WipedError
from spike.lifecycle import backup
from spike.lifecycle.refusal import RefusalError
from spike.nexus.handler import Handler, InTwoForms, OnKey, Reading, ReadingEach, Writing
from spike.nexus.lite import Service
from spike.nexus.opened import Opened
from spike.nexus.vault import Vault
from spike.policy.access import DenialReason, Denied, Grant, NeedsPath, authorize
from spike.policy.compiled import CompiledPolicies
from spike.policy.role import RoleMap
from spike.server.answer import ERROR_ANSWERS, answer_of
from spike.server.query import action_untrusted
from spike.server.request import Request
from spike.server.response import BINARY_HEADERS, Response
from spike.wire.call import CALLS, SYSTEM_BACKUP_RECEIVE, AnyCall, CallName, call_at
from spike.wire.cipher import RAW_CONTENT_TYPE
from spike.wire.code import ErrorCode
from spike.wire.go_json import decode_untrusted, encode
from spike.wire.message import Message
from spike.wire.own import RefusalAnswer

_log = logging.getLogger("spike.nexus.dispatch")
_REMEMBERED_PEERS: Final = 4096
# Changes of keys that may overtake one write.
_OVERTAKEN_LIMIT: Final = 8
# In base64, with room for the other fields.
_BACKUP_BODY_BYTES: Final = (backup.LIMIT_BYTES + 2) // 3 * 4 + (16 << 10)
_PART_BODY_BYTES: Final = 1 << 20
"""A part of a system backup, in base64."""
_RAW: Final = RAW_CONTENT_TYPE.encode("ascii")
_NO_POLICIES: Final = CompiledPolicies(())


class _DeniedError(Exception):
    """The caller may not; ends as 401 in this module."""

    def __init__(self, call: AnyCall, denied: Denied) -> None:
        super().__init__()
        self.call = call
        self.reason: DenialReason = denied.reason


class Dispatcher:
    """Serves every call of Nexus for one vault."""

    def __init__(
        self,
        vault: Vault,
        handlers: Mapping[CallName, Handler],
        roles: RoleMap,
        body_limit_bytes: int,
        service: Service = Service.WHOLE,
    ) -> None:
        """Take one handler for each call; `service` says which of them exist.

        Raises:
            LookupError: a call has no handler.
        """
        missing = {call.name for call in CALLS} - handlers.keys()
        if missing:
            raise LookupError(f"calls without a handler: {sorted(missing)}")
        self._vault = vault
        self._handlers = {name: handlers[name] for name in service.calls}
        self._service = service
        # A few identities make nearly all requests; what a name says of its role never changes.
        self._roles_of = lru_cache(_REMEMBERED_PEERS)(roles.roles_of)
        self._body_limit_bytes = body_limit_bytes

    async def handle(self, request: Request) -> Response:
        """Answer one request. What a peer sends raises nothing here."""
        self._vault.served += 1
        try:
            return await self._answer(request)
        except _DeniedError as denied:
            _log.warning(
                "%s %s denied to %s: %s",
                request.trail_id,
                denied.call.name,
                request.peer.id,
                denied.reason.value,
            )
            return ERROR_ANSWERS[ErrorCode.UNAUTHORIZED]
        except RefusalError as error:
            _log.warning("%s refused: %s: %s", request.trail_id, error.reason, error.message)
            body = RefusalAnswer(f"refused_{error.reason}", error.message, error.next_step)
            return Response(ErrorCode.BAD_REQUEST.status, encode(body))
        except SpikeError as error:
            return answer_of(error, request, _log)

    async def _answer(self, request: Request) -> Response:
        if request.method != "POST":
            raise InputError("every call is a POST")
        call = self._call_at(request)
        if not self._vault.is_open and (call is None or call.needs_root_key):
            raise NotReadyError("there is no root key")
        if call is None:
            raise InputError("there is no such call")
        handler = self._handlers[call.name]
        if isinstance(handler, InTwoForms):
            return await self._answer_in_its_form(call, handler, request)
        limit_bytes = self._limit_of(call)
        decision, body = await self._authorized_body(call, request, limit_bytes)
        message = decode_untrusted(call.request, body, limit_bytes)
        with self._vault.in_use.one():
            return Response(200, encode(await self._act(call, handler, decision, message)))

    def _call_at(self, request: Request) -> AnyCall | None:
        call = call_at(request.path, action_untrusted(request.query))
        return call if call is not None and call.name in self._handlers else None

    def _limit_of(self, call: AnyCall) -> int:
        """Return the largest body of a call in bytes: whatever key backup there can be has to get in."""
        if "backup" in call.request.__struct_fields__:
            return max(self._body_limit_bytes, _BACKUP_BODY_BYTES)
        if call.name == SYSTEM_BACKUP_RECEIVE.name:
            return max(self._body_limit_bytes, _PART_BODY_BYTES)
        return self._body_limit_bytes

    async def _answer_in_its_form(
        self, call: AnyCall, handler: InTwoForms[Any], request: Request
    ) -> Response:
        is_raw = request.header(b"content-type") == _RAW
        limit_bytes = handler.raw_limit_bytes if is_raw else handler.limit_bytes
        grant, body = await self._authorized_body(call, request, limit_bytes)
        if isinstance(grant, NeedsPath):
            raise TypeError(f"{call.name} names its path in its body")
        with self._vault.in_use.one():
            if is_raw:
                return Response(200, await handler.act_raw(grant, body), BINARY_HEADERS)
            message = decode_untrusted(call.request, body, limit_bytes)
            return Response(200, encode(await handler.act(grant, message)))

    async def _authorized_body(
        self, call: AnyCall, request: Request, limit_bytes: int
    ) -> tuple[Grant | NeedsPath, bytes]:
        """Decide, and only then let a body come in: nobody without a right takes up memory.

        A body may be long on its way: if the policies were others when it had come, these decide.
        """
        policies = self._policies()
        decision = self._authorized(call, request, policies)
        body = await request.body(limit_bytes)
        if self._policies() is not policies:
            decision = self._authorized(call, request, self._policies())
        return decision, body

    def _policies(self) -> CompiledPolicies:
        believed = self._vault.is_open and self._service.believes_policies
        return self._vault.opened.policies.compiled if believed else _NO_POLICIES

    def _authorized(
        self, call: AnyCall, request: Request, policies: CompiledPolicies
    ) -> Grant | NeedsPath:
        peer = request.peer.id
        decision = authorize(call, peer, self._roles_of(peer), policies)
        if isinstance(decision, Denied):
            raise _DeniedError(call, decision)
        return decision

    async def _act(
        self,
        call: AnyCall,
        handler: OnKey[Any] | Reading[Any] | Writing[Any] | ReadingEach[Any],
        decision: Grant | NeedsPath,
        message: Any,
    ) -> Message:
        if isinstance(handler, ReadingEach):
            if isinstance(decision, Grant):
                raise TypeError(f"{call.name} decides on each path")
            each, undecided = handler.act, decision
            return await self._read(lambda opened: each(undecided, opened, message))
        if isinstance(decision, NeedsPath):
            on_path = decision.decide(message.path)
            if isinstance(on_path, Denied):
                raise _DeniedError(call, on_path)
            decision = on_path
        match handler:
            case OnKey(act=act):
                return await act(decision, message)
            case Reading(act=act):
                grant = decision
                return await self._read(lambda opened: act(grant, opened, message))
            case Writing():
                return await self._write(handler, decision, message)
            case _:
                assert_never(handler)

    async def _read(self, act: Callable[[Opened], Awaitable[Message]]) -> Message:
        """Read; and read again what a change of keys overtook: a record may be under a key that came only then."""
        for _ in range(_OVERTAKEN_LIMIT):
            opened = self._vault.opened
            try:
                return await act(opened)
            except (OpenError, WipedError):
                if self._vault.opened.ring is opened.ring:
                    raise
        raise NotReadyError("the keys change faster than this can be read")

    async def _write(self, writing: Writing[Any], grant: Grant, message: Any) -> Message:
        """Write; and write again what a change of keys overtook: the store refused it whole, or it could not be read.

        Nothing is acknowledged before the anchor of each change of keys and rights so far is held.
        """
        for _ in range(_OVERTAKEN_LIMIT):
            opened = self._vault.require_writable()
            try:
                answer = await writing.act(grant, opened, message)
            except FenceError:
                await self._vault.settled()
            except (OpenError, WipedError):
                if self._vault.opened.ring is opened.ring:
                    raise
            else:
                await self._vault.guard.anchored()
                return answer
        raise NotReadyError("the keys change faster than this can be written")
