"""The client's part of the password's way: sealed once, to a key that exists for this call alone."""

from __future__ import annotations

from spike.crypto.slot import seal_to
from spike.error import AnswerError, FormatError
from spike.wire.own import PASSWORD_INFO


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
