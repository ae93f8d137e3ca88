"""From a request to its handler, in the order of the wire contract.

    method → route → body limit → authentication → authorization → parse → validate → act

The peer was authenticated by the TLS handshake, which lets in only roles that may make a call here. Nothing that is
sent ends the process: what it is worth is an answer, and a line in the log under the request's trail id.
"""

from __future__ import annotations

import logging

from spike.error import InputError, SpikeError
from spike.keeper.access import authorize
from spike.keeper.call import HANDLERS, Answer
from spike.keeper.safe import Safe
from spike.policy.role import RoleMap
from spike.server.answer import ERROR_ANSWERS, answer_of
from spike.server.query import action_untrusted
from spike.server.request import Request
from spike.server.response import Response
from spike.wire.call import AnyCall
from spike.wire.code import ErrorCode
from spike.wire.go_json import decode_untrusted, encode
from spike.wire.keeper import BODY_LIMIT_BYTES, KeeperRefusalAnswer, keeper_call_at

_log = logging.getLogger("spike.keeper.dispatch")


class Dispatcher:
    """Serves every call of a Keeper."""

    def __init__(self, safe: Safe, roles: RoleMap) -> None:
        self._safe = safe
        self._roles = roles

    async def handle(self, request: Request) -> Response:
        """Answer one request. What a peer sends raises nothing here."""
        try:
            return await self._answer(request)
        except SpikeError as error:
            return answer_of(error, request, _log)

    async def _answer(self, request: Request) -> Response:
        if request.method != "POST":
            raise InputError("every call is a POST")
        call = keeper_call_at(request.path, action_untrusted(request.query))
        if call is None:
            raise InputError("there is no such call")
        body = await request.body(BODY_LIMIT_BYTES)
        grant = authorize(call, request.peer.id, self._roles)
        if grant is None:
            _log.warning("%s %s denied to %s", request.trail_id, call.name, request.peer.id)
            return ERROR_ANSWERS[ErrorCode.UNAUTHORIZED]
        message = decode_untrusted(call.request, body, BODY_LIMIT_BYTES)
        answer = HANDLERS[call.name](grant, self._safe, message)
        _note(request, call, answer)
        return Response(answer.status, encode(answer.message))


def _note(request: Request, call: AnyCall, answer: Answer) -> None:
    if isinstance(answer.message, KeeperRefusalAnswer):
        why = answer.message.err
        _log.warning("%s %s of %s: %s", request.trail_id, call.name, request.peer.id, why)
    else:
        _log.info("%s %s of %s: %d", request.trail_id, call.name, request.peer.id, answer.status)
