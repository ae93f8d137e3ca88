"""What an answer means: the result, or the error that says what failed, why, and what to do. Pure."""

from __future__ import annotations

from typing import Final, TypeVar

from spike.client.advice import Advice, advice_for
from spike.client.pool import ANSWER_LIMIT_BYTES, Reply
from spike.error import (
    AnswerError,
    DeniedError,
    FormatError,
    InputError,
    NotFoundError,
    NotReadyError,
    SpikeError,
)
from spike.lifecycle.refusal import Reason, RefusalError
from spike.wire.call import AnyCall, Call
from spike.wire.go_json import decode_answer_untrusted
from spike.wire.message import Message

A = TypeVar("A", bound=Message)
Q = TypeVar("Q", bound=Message)

REFUSED_PREFIX: Final = "refused_"


class Fault(Message, frozen=True):
    """The body of any answer that is not 200: an `ErrorAnswer`, or of our own calls a `RefusalAnswer`."""

    err: str = ""
    message: str = ""
    next_step: str = ""


def result_of(call: Call[Q, A], reply: Reply, subject: str) -> A:
    """Return what a call gave. `subject` completes "… failed": what was asked, such as `get a/b`.

    Raises:
        AnswerError: the server reports a fault of its own, or the answer cannot be read.
        DeniedError, NotFoundError, NotReadyError, InputError, RefusalError: as the server answered.
    """
    if reply.status != 200:
        raise error_of(reply, subject, advice_for(call))
    try:
        return decode_answer_untrusted(call.answer, reply.body, ANSWER_LIMIT_BYTES)
    except FormatError as error:
        raise AnswerError(
            f"{subject} failed: {error.message}", "see that the server and this client fit together"
        ) from error


def raw_of(call: AnyCall, reply: Reply, subject: str) -> bytes:
    """Return the bytes that a call in its raw form gave.

    Raises what `result_of` does, but for an answer that cannot be read: any bytes are one.
    """
    if reply.status != 200:
        raise error_of(reply, subject, advice_for(call, raw=True))
    return reply.body


def error_of(reply: Reply, subject: str, advice: Advice) -> SpikeError:
    """Return the error an answer other than 200 stands for."""
    fault = _fault_untrusted(reply)
    refusal = _refusal(fault, subject)
    if refusal is not None:
        return refusal
    match reply.status:
        case 400 | 413:
            return InputError(
                f"{subject} failed: the server refuses the request",
                advice.refused,
            )
        case 401:
            return DeniedError(
                f"{subject} failed: this identity is not allowed to",
                advice.denied,
            )
        case 404:
            return NotFoundError(
                f"{subject} failed: there is no such thing",
                "check the name; what an identity may not see looks the same as what is not there",
            )
        case 503:
            return NotReadyError(
                f"{subject} failed: Nexus is not ready",
                "look at `spike status`: a new store needs `spike init`, a locked one "
                "`spike restore`, and an overloaded Nexus a little time",
            )
        case status:
            return AnswerError(
                f"{subject} failed: the server answered {status}, a fault of its own",
                "look at the server's log",
            )


def _fault_untrusted(reply: Reply) -> Fault:
    try:
        return decode_answer_untrusted(Fault, reply.body)
    except FormatError:
        return Fault()  # the status says enough


def _refusal(fault: Fault, subject: str) -> RefusalError | None:
    name = fault.err.removeprefix(REFUSED_PREFIX)
    if name == fault.err or name not in set(Reason):
        return None
    reason = Reason(name)
    said, next_step = _REFUSED[reason]
    return RefusalError(
        reason, f"{subject} was refused: {fault.message or said}", fault.next_step or next_step
    )


# What a refusal means when the server says no more than its name.
_REFUSED: Final[dict[Reason, tuple[str, str]]] = {
    Reason.ALREADY_INITIALIZED: (
        "this store has been initialized; that happens once only",
        "if it is locked, restore it: spike restore",
    ),
    Reason.ALREADY_OPEN: ("the root key is in memory; there is nothing to restore", ""),
    Reason.NOT_INITIALIZED: (
        "the store holds no key",
        "initialize it (spike init), or restore a key backup (spike restore --backup FILE)",
    ),
    Reason.STORE_NOT_EMPTY: (
        "the store holds records but no key: a new one could never open them",
        "restore a key backup (spike restore --backup FILE), or use an empty data directory",
    ),
    Reason.WEAK_PASSWORD: ("the password is too weak", "use a longer one, or --generate"),
    Reason.WRONG_PASSWORD: ("the password does not open the slot", "try again, or name --slot"),
    Reason.WRONG_SHARD: (
        "the recovery shard does not fit",
        "compare it with what was written down; use shards of the present set",
    ),
    Reason.SHARDS_EXIST: (
        "there are recovery shards already; new ones make them useless",
        "hand out new ones with: spike operator recover --yes",
    ),
    Reason.UNKNOWN_SLOT: ("there is no slot of that name", "name another one with --slot"),
    Reason.SLOT_EXISTS: ("there is a slot of that name", "take another name"),
    Reason.LAST_SLOT: ("it is the last slot that can be used", "add another slot first"),
    Reason.PASSWORD_NEEDED: (
        "without the recover role this takes an existing slot's password too",
        "name the slot whose password you have: --with-slot SLOT",
    ),
    Reason.UNHEALTHY: ("the system is not well", "see: spike status"),
    Reason.DAMAGED: ("the backup is damaged", "restore from another copy: --backup FILE"),
    Reason.NEWER_FORMAT: ("a newer SPIKE wrote it", "use a newer version of SPIKE"),
    Reason.PLANTED: (
        "it is not authentic: somebody changed it or planted another key",
        "restore from another copy (--backup FILE), and find out who can write to the store",
    ),
    Reason.FOREIGN: ("it is of another store", "use the backup that belongs to this store"),
    Reason.OLD: ("the backup is older than the store", "restore without it: spike restore"),
    Reason.PENDING: (
        "the backup was written before a rotation took effect, and nothing says that it has",
        "use the backup in force, the file without .pending",
    ),
    Reason.STALE_STORE: (
        "the store is an old copy of what it was",
        "put the newest copy of the store back and try again",
    ),
    Reason.KEY_EXPIRED: (
        "the root key is too old to wrap more keys",
        "replace it: spike key rotate",
    ),
    Reason.SCHEDULE: (
        "the schedule cannot be kept to",
        "see spike key schedule set --help",
    ),
    Reason.REMARK: ("this is no remark", "write 1 to 500 characters on one line"),
    Reason.UNKNOWN_ROTATION: ("there is no such rotation", "see spike key history"),
    Reason.CIPHER_GENERATION: (
        "the cipher key has no such generation",
        "see spike key list",
    ),
    Reason.EXPIRED: ("it took too long", "run the command again"),
    Reason.KEEPER: ("the Keepers cannot take their shares", "see spike status"),
    Reason.BUSY: ("another operation on the keys is under way", "wait, then try again"),
    Reason.ROTATION: ("it does not fit where the keys are", "see spike key status"),
    Reason.PREFLIGHT: (
        "a check failed; nothing was changed",
        "see each check and what to do: spike key rotate --dry-run",
    ),
    Reason.NOTHING_ASIDE: ("nothing is set aside", "see spike status"),
    Reason.UNSUPPORTED: ("the storage engine cannot do this", "see docs/reference/storage.md"),
    Reason.TOO_SOON: ("after wrong passwords the next attempt has to wait", "wait a minute"),
}
