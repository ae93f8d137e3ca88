"""The short-lived process that a slot is opened in, by a password or a recovery secret.

`python -m spike.nexus.password_child`. Argon2id and HPKE leave copies of what they were given on the heap; this process
ends seconds later and takes them with it. It is started by exec, holds the one-time private key a password is sealed
to, and answers on one socket:

    ← {"answer":"ready","public":…}             the one-time public key
    → {"job":"derive",…}                         open the password, judge it if asked to, derive the slot's key pair
    ← {"answer":"derived","public":…}            and the slot's backup-auth key in the first shared page
      or {"answer":"weak","message":…,"next_step":…}, {"answer":"unsealed"} (not sealed to this key)
    → {"job":"secret",…}                         derive the slot's key pair from the slot secret in the second page
    ← {"answer":"derived","public":…}            as above; the secret is gone from the page
    → {"job":"open",…}                           verify a sealed copy's MAC, then open it
    ← {"answer":"opened"}                        and the root key in the second shared page
      or {"answer":"not-authentic"}, {"answer":"unopened"}

It ends when the socket is closed, after an answer that ends the matter, or after LIFE_S.
"""

from __future__ import annotations

import signal
import socket
import sys
from typing import Final

import msgspec

from spike.crypto.mac import mac_matches
from spike.crypto.slot import (
    Argon2Setting,
    OneTimeKey,
    SlotKey,
    derive_slot_secret,
)
from spike.error import FormatError, InputError, OpenError
from spike.lifecycle import password
from spike.lifecycle.slot import covered
from spike.memory.key_memory import KeyMemory
from spike.memory.process import harden
from spike.wire.own import PASSWORD_INFO

LIFE_S: Final = 120
KEY_SIZE_BYTES: Final = 32
LINE_LIMIT_BYTES: Final = 1 << 20
_SAME: Final = "it is the one that the slot has already"


class Former(msgspec.Struct, frozen=True):
    """What a slot was opened with until now: the new password must not give the same public key."""

    argon2: str
    salt: bytes
    public: bytes


class Derive(msgspec.Struct, frozen=True, tag_field="job", tag="derive"):
    """Open the sealed password and derive the slot's keys. `judge`: apply the password policy first.

    `former`: refuse the password that the slot has already. It costs one more derivation.
    """

    sealed_password: bytes
    argon2: str
    salt: bytes
    store_id: bytes
    slot_id: bytes
    judge: tuple[str, ...] | None
    former: Former | None = None

    def __repr__(self) -> str:
        return "Derive(…)"


class FromSecret(msgspec.Struct, frozen=True, tag_field="job", tag="secret"):
    """Derive a slot's keys from its secret, which stands in the second page."""

    store_id: bytes
    slot_id: bytes


class Open(msgspec.Struct, frozen=True, tag_field="job", tag="open"):
    """Verify and open one sealed copy of the root key."""

    header: bytes
    sealed: bytes
    tag_bytes: bytes


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the child says; see the module's docstring."""

    answer: str
    public: bytes = b""
    message: str = ""
    next_step: str = ""


Job = Derive | FromSecret | Open


class Channel:
    """JSON lines over a socket, blocking."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._file = connection.makefile("rb")

    def receive(self) -> Job | None:
        """Return the next job, or None at the end."""
        line = self._file.readline(LINE_LIMIT_BYTES)
        return msgspec.json.decode(line, type=Job) if line.endswith(b"\n") else None

    def send(self, answer: Answer) -> None:
        """Send one answer."""
        self._connection.sendall(msgspec.json.encode(answer) + b"\n")


def serve(channel: Channel, one_time: OneTimeKey, auth: KeyMemory, root: KeyMemory) -> None:
    """Answer jobs until the matter is ended."""
    channel.send(Answer("ready", public=one_time.public))
    slot_key: SlotKey | None = None
    try:
        while (job := channel.receive()) is not None:
            if isinstance(job, Open):
                if slot_key is None:
                    return
                channel.send(_open(job, slot_key, root))
                continue
            if slot_key is not None:
                return
            derived = _derive(job, one_time) if isinstance(job, Derive) else _unlock(job, root)
            if isinstance(derived, Answer):
                channel.send(derived)
                return
            slot_key = derived
            _copy(slot_key.auth, auth)
            channel.send(Answer("derived", public=slot_key.public))
    finally:
        if slot_key is not None:
            slot_key.wipe()


def _derive(job: Derive, one_time: OneTimeKey) -> SlotKey | Answer:
    try:
        raw = one_time.open_untrusted(job.sealed_password, PASSWORD_INFO)
    except (OpenError, FormatError):
        return Answer("unsealed")
    try:
        if job.judge is not None:
            verdict = password.verdict(raw, job.judge)
            if isinstance(verdict, password.TooWeak):
                return Answer("weak", message=verdict.reason, next_step=verdict.next_step)
        normal = password.normalize_untrusted(raw)
    except InputError as error:
        return Answer("weak", message=error.message, next_step=error.next_step)
    finally:
        raw[:] = b"\0" * len(raw)
    try:
        if job.former is not None and _is_former(job, job.former, normal):
            return Answer("weak", message=_SAME, next_step="choose one that was never used here")
        return _slot_key(job, normal, job.argon2, job.salt)
    finally:
        normal[:] = b"\0" * len(normal)


def _slot_key(job: Derive, normal: bytearray, argon2: str, salt: bytes) -> SlotKey:
    setting = Argon2Setting.parse_untrusted(argon2)
    with derive_slot_secret(normal, salt, setting) as secret:
        return SlotKey.from_slot_secret(secret, job.store_id, job.slot_id)


def _is_former(job: Derive, former: Former, normal: bytearray) -> bool:
    key = _slot_key(job, normal, former.argon2, former.salt)
    key.wipe()
    return key.public == former.public


def _unlock(job: FromSecret, page: KeyMemory) -> SlotKey:
    with KeyMemory.allocate(KEY_SIZE_BYTES) as secret:
        _copy(page, secret)
        with page.view() as view:
            view[:] = bytes(len(view))
        return SlotKey.from_slot_secret(secret, job.store_id, job.slot_id)


def _open(job: Open, slot_key: SlotKey, root: KeyMemory) -> Answer:
    if not mac_matches(slot_key.auth, covered(job.header, job.sealed), job.tag_bytes):
        return Answer("not-authentic")
    try:
        slot_key.open_into(job.sealed, job.header, root)
    except (OpenError, FormatError):
        return Answer("unopened")
    return Answer("opened")


def _copy(source: KeyMemory, target: KeyMemory) -> None:
    with source.view() as from_view, target.view() as to_view:
        to_view[:] = from_view


def main() -> None:
    """Serve on the three descriptors named in the arguments: socket, page for auth, page for secret and root."""
    harden()
    signal.alarm(LIFE_S)
    channel_fd, auth_fd, root_fd = (int(argument) for argument in sys.argv[1:4])
    with (
        socket.socket(fileno=channel_fd) as connection,
        KeyMemory.adopt(auth_fd, KEY_SIZE_BYTES) as auth,
        KeyMemory.adopt(root_fd, KEY_SIZE_BYTES) as root,
    ):
        serve(Channel(connection), OneTimeKey.generate(), auth, root)


if __name__ == "__main__":
    main()
