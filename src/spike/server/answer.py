"""Answers that are a code and nothing else; the detail goes to the log, under the request's trail id."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from spike.error import BodyTooLargeError, SpikeError
from spike.server.request import Request
from spike.server.response import Response
from spike.wire.code import ErrorCode, code_of
from spike.wire.go_json import encode
from spike.wire.message import ErrorAnswer

ERROR_ANSWERS: Final[Mapping[ErrorCode, Response]] = {
    code: Response(code.status, encode(ErrorAnswer(code.text))) for code in ErrorCode
}


def answer_of(error: SpikeError, request: Request, log: logging.Logger) -> Response:
    """Return the answer that `error` stands for, and log it: as an error if the fault is ours."""
    code = code_of(error)
    level = logging.ERROR if code is ErrorCode.INTERNAL else logging.INFO
    log.log(level, "%s %s: %s", request.trail_id, type(error).__name__, error.message)
    answer = ERROR_ANSWERS[code]
    return answer._replace(close=True) if isinstance(error, BodyTooLargeError) else answer
