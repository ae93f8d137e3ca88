"""The client's part of the password's way: sealed once, to a key that exists for this call alone."""

from __future__ import annotations

from dataclasses import dataclass

from spike.client.caller import KEY_TIMEOUT_S, Caller
from spike.crypto.slot import seal_to
from spike.error import AnswerError, FormatError
from spike.wire import call as calls
from spike.wire.message import Empty
from spike.wire.own import PASSWORD_INFO


@dataclass(frozen=True, slots=True)
class PasswordFor:
    """A password and the slot it is for; an empty name is the first slot. The holder wipes `password`."""

    password: bytearray
    slot_name: str = ""

    def __repr__(self) -> str:
        return f"PasswordFor(slot_name={self.slot_name!r})"


class PasswordCaller(Caller):
    """Makes calls that take a password."""

    def _seal(self, password: bytearray) -> tuple[str, bytes]:
        """Return a fresh session for a password and the password, sealed to its one-time key."""
        begun = self._call(
            calls.OPERATOR_PASSWORD_BEGIN,
            Empty(),
            "handing over the password",
            KEY_TIMEOUT_S,
            repeatable=False,
        )
        return begun.session, seal_password(begun.public_key, password)


def seal_password(public_key: bytes, password: bytearray) -> bytes:
    """Return the password sealed (HPKE) to a one-time public key, without another copy of it.

    The caller wipes `password` when it is no longer needed; a password is never sent otherwise.

    Raises:
        AnswerError: the server's public key is none.
    """
    try:
        with memoryview(password) as view:
            return seal_to(public_key, PASSWORD_INFO, view)
    except FormatError as error:
        raise AnswerError(
            "the server's one-time key is not one a password can be sealed to",
            "see that the server and this client fit together",
        ) from error
