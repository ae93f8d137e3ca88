"""Speaking with Authority's control socket: its messages, and a client that waits for answers.

A Unix socket for its owner and root. Each request and each answer is one line of JSON; a `grant`
carries the pidfd of the process it is for (SCM_RIGHTS). Grants end with the connection that made them.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Final, Literal, TypeVar, cast

import msgspec

from spike.error import (
    AnswerError,
    DeniedError,
    InputError,
    NotFoundError,
    SettingError,
    SpikeError,
    UnreachableError,
)

CONTROL_VARIABLE: Final = "SPIKE_AUTHORITY_CONTROL"
# Enough for a foreign bundle of 64 KiB, whose line ends take two bytes each in JSON.
REQUEST_LIMIT_BYTES: Final = 160 * 1024
# Enough for sixteen such bundles.
ANSWER_LIMIT_BYTES: Final = 4 * 1024 * 1024
DEFAULT_TIMEOUT_S: Final = 5.0


class _Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="request"):
    pass


class GrantRequest(_Request, frozen=True, tag="grant"):
    """Give the process whose pidfd comes with this line the identity `id`."""

    id: str


class WithdrawRequest(_Request, frozen=True, tag="withdraw"):
    """Take back the grant this connection made to the process whose pidfd comes with this line."""


class EntryAddRequest(_Request, frozen=True, tag="entry-add"):
    """Give every process of a user an identity; `place` says whether before or after the others."""

    uid: int
    id: str
    hint: str = ""
    place: Literal["first", "last"] = "last"


class EntryListRequest(_Request, frozen=True, tag="entry-list"):
    """List all entries."""


class EntryRemoveRequest(_Request, frozen=True, tag="entry-remove"):
    """Remove one entry."""

    uid: int
    id: str


class BundleAddRequest(_Request, frozen=True, tag="bundle-add"):
    """Trust the CA certificates in `pem` for identities of a foreign trust domain."""

    trust_domain: str
    pem: str


class BundleListRequest(_Request, frozen=True, tag="bundle-list"):
    """List the foreign bundles."""


class BundleRemoveRequest(_Request, frozen=True, tag="bundle-remove"):
    """Trust a foreign trust domain no longer."""

    trust_domain: str


class BundleShowRequest(_Request, frozen=True, tag="bundle-show"):
    """Show the own trust domain's bundle."""


class StatusRequest(_Request, frozen=True, tag="status"):
    """Say how Authority is."""


Request = (
    GrantRequest
    | WithdrawRequest
    | EntryAddRequest
    | EntryListRequest
    | EntryRemoveRequest
    | BundleAddRequest
    | BundleListRequest
    | BundleRemoveRequest
    | BundleShowRequest
    | StatusRequest
)


class _Answer(msgspec.Struct, frozen=True, tag_field="answer"):
    pass


class Done(_Answer, frozen=True, tag="done"):
    """It is done, and will still be after a restart where that is promised."""


class Granted(_Answer, frozen=True, tag="granted"):
    """The process has its identity; `socket` is the path of the Workload API."""

    socket: str


class EntryItem(msgspec.Struct, frozen=True):
    """One entry. A user's first one is the default."""

    uid: int
    id: str
    hint: str = ""


class EntryList(_Answer, frozen=True, tag="entries"):
    """All entries, in order."""

    entries: list[EntryItem]


class BundleItem(msgspec.Struct, frozen=True):
    """One trust domain's CA certificates."""

    trust_domain: str
    pem: str


class BundleList(_Answer, frozen=True, tag="bundles"):
    """Bundles, by trust domain."""

    bundles: list[BundleItem]


class GrantItem(msgspec.Struct, frozen=True):
    """A process and its identity."""

    pid: int
    id: str


class Status(_Answer, frozen=True, tag="status"):
    """How Authority is. Times are RFC 3339 in UTC."""

    trust_domain: str
    socket: str
    pid: int
    started_at: str
    authority_expires_at: str
    svid_lifetime_s: float
    entries: int
    foreign_trust_domains: list[str]
    grants: list[GrantItem]
    grants_possible: bool
    connections: int
    streams: int


class Fault(_Answer, frozen=True, tag="fault"):
    """The request is refused; nothing was changed."""

    kind: Literal["input", "not-found", "denied", "setting"]
    message: str
    next_step: str = ""


Answer = Done | Granted | EntryList | BundleList | Status | Fault
_Wanted = TypeVar("_Wanted", Done, Granted, EntryList, BundleList, Status)

_ERROR_OF_KIND: Final[dict[str, type[SpikeError]]] = {
    "input": InputError,
    "not-found": NotFoundError,
    "denied": DeniedError,
    "setting": SettingError,
}


def decode_request_untrusted(line: bytes) -> Request:
    """Read one request, without its final newline, of at most 160 KiB.

    Raises:
        InputError: it is none.
    """
    if len(line) > REQUEST_LIMIT_BYTES:
        raise InputError(f"a request has at most {REQUEST_LIMIT_BYTES} bytes")
    try:
        # The cast: mypy cannot read a union as the type to decode.
        return cast("Request", msgspec.json.decode(line, type=Request))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # The library names the place and what it expected there, never the value.
        raise InputError(f"not a request: {error}") from None


def decode_answer_untrusted(line: bytes) -> Answer:
    """Read one answer, without its final newline, of at most 4 MiB.

    Raises:
        AnswerError: it is none.
    """
    if len(line) > ANSWER_LIMIT_BYTES:
        raise AnswerError(f"Authority's answer has more than {ANSWER_LIMIT_BYTES} bytes")
    try:
        return cast("Answer", msgspec.json.decode(line, type=Answer))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AnswerError(f"Authority's answer cannot be read: {error}") from None


def encode_line(message: Request | Answer) -> bytes:
    """Return a message as one line."""
    return msgspec.json.encode(message) + b"\n"


class ControlClient:
    """One connection to Authority; closing it withdraws what was granted over it.

    Not for several threads at once.
    """

    def __init__(self, connection: socket.socket, path: Path) -> None:
        """Use `connect`."""
        self._connection = connection
        self._path = path
        self._read = bytearray()

    @classmethod
    def connect(cls, path: Path, timeout_s: float = DEFAULT_TIMEOUT_S) -> ControlClient:
        """Connect to the control socket; every later answer may take `timeout_s` too.

        Raises:
            UnreachableError: nobody listens there, or not for this user.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(timeout_s)
            connection.connect(str(path))
        except OSError as error:
            connection.close()
            raise _unreachable(path, error) from error
        return cls(connection, path)

    def grant(self, spiffe_id: str, process: int) -> Granted:
        """Give the process behind a pidfd an identity, until this connection ends.

        Raises:
            SpikeError: as `call`.
        """
        return self.call(GrantRequest(spiffe_id), Granted, process)

    def withdraw(self, process: int) -> None:
        """Take back what was granted to the process behind a pidfd over this connection.

        Raises:
            SpikeError: as `call`.
        """
        self.call(WithdrawRequest(), Done, process)

    def call(self, request: Request, wanted: type[_Wanted], process: int | None = None) -> _Wanted:
        """Send a request and wait for its answer.

        Raises:
            InputError, NotFoundError, DeniedError, SettingError: refused; nothing was changed.
            UnreachableError: the connection broke; whether Authority acted is not known.
            AnswerError: it answers with something else than `wanted`.
        """
        descriptors = [] if process is None else [process]
        line = encode_line(request)
        try:
            sent = socket.send_fds(self._connection, [line], descriptors)
            self._connection.sendall(line[sent:])
            answer = decode_answer_untrusted(self._receive_line())
        except OSError as error:
            raise _unreachable(self._path, error) from error
        if isinstance(answer, Fault):
            raise _ERROR_OF_KIND[answer.kind](answer.message, answer.next_step)
        if not isinstance(answer, wanted):
            raise AnswerError("Authority answers another question than the one asked")
        return answer

    def fileno(self) -> int:
        """Return the socket: between calls it becomes readable when Authority hangs up."""
        return self._connection.fileno()

    def close(self) -> None:
        """Hang up. Idempotent."""
        self._connection.close()

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _receive_line(self) -> bytes:
        while (end := self._read.find(b"\n")) < 0:
            if len(self._read) > ANSWER_LIMIT_BYTES:
                raise AnswerError(f"Authority's answer has more than {ANSWER_LIMIT_BYTES} bytes")
            piece = self._connection.recv(64 * 1024)
            if not piece:
                raise ConnectionResetError
            self._read += piece
        line = bytes(self._read[:end])
        del self._read[: end + 1]
        return line


def _unreachable(path: Path, error: OSError) -> UnreachableError:
    match error:
        case FileNotFoundError():
            why = "there is no such socket"
        case PermissionError():
            return UnreachableError(
                f"this user may not speak with Authority at {path}",
                "use the account that Authority runs as, or root",
            )
        case TimeoutError():
            why = "it does not answer in time"
        case ConnectionRefusedError():
            why = "nobody listens there"
        case _:
            why = "the connection broke"
    return UnreachableError(
        f"Authority is out of reach at {path}: {why}",
        f"start `spike-authority serve`, or name its control socket with {CONTROL_VARIABLE}",
    )
