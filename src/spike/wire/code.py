"""Error codes on the wire and the HTTP status of each.

Go's clients understand 200, 400, 401, 404 and 503 and read the body of a 200 alone: so 401, never
403, and every other code only for faults of ours.
"""

from __future__ import annotations

from enum import Enum

from spike.error import (
    InputError,
    NotFoundError,
    NotReadyError,
    RefusedError,
    SpikeError,
    StoreUnavailableError,
)


class ErrorCode(Enum):
    """A code as it stands in `err`, with the HTTP status it goes with."""

    BAD_REQUEST = ("api_bad_request", 400)
    UNAUTHORIZED = ("access_unauthorized", 401)
    NOT_FOUND = ("api_not_found", 404)
    INTERNAL = ("api_internal_error", 500)
    NOT_READY = ("state_not_ready", 503)

    def __init__(self, text: str, status: int) -> None:
        self.text = text
        self.status = status


def code_of(error: Exception) -> ErrorCode:
    """Return what a caller is told of `error`: by whose fault it is, and nothing more.

    A refused operation on keys is the caller's input: repeated unchanged it will be refused again.
    A store that does not answer is 503, because the same call may succeed later.
    """
    match error:
        case InputError() | RefusedError():
            return ErrorCode.BAD_REQUEST
        case NotFoundError():
            return ErrorCode.NOT_FOUND
        case NotReadyError() | StoreUnavailableError():
            return ErrorCode.NOT_READY
        case SpikeError() | Exception():
            return ErrorCode.INTERNAL


def code_for_status(status: int) -> ErrorCode | None:
    """Return the code that goes with an HTTP status, None for a status no answer of ours has."""
    return next((code for code in ErrorCode if code.status == status), None)
