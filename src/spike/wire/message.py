"""What every message of the wire has in common."""

from __future__ import annotations

from typing import Annotated, Any, NewType

import msgspec

# Go's `int` on the machines Nexus runs on.
GoInt = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]

# An element of a Go `[32]byte`, which JSON shows as an array of integers.
Octet = Annotated[int, msgspec.Meta(ge=0, le=255)]

# RFC 3339 with zone; see spike.wire.go_time.
GoTime = NewType("GoTime", str)


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Base of every message. Each field of a request has Go's zero value as its default.

    Unknown fields are forbidden to the decoder only to learn that they are there: they, and fields
    in another case, are sorted out by `spike.wire.go_json`, which is slower.
    """


class ConfidentialMessage(Message, frozen=True):
    """A message that holds something secret. What prints it sees its type and nothing else."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        # msgspec gives one to every struct, and traceback formatters prefer it to __repr__.
        return []


class Empty(Message, frozen=True):
    """`{}`: a call without parameters, or an answer that says only that it was done."""


class ErrorAnswer(Message, frozen=True):
    """The body of every answer that is not 200: a code of `spike.wire.code`, and no more."""

    err: str = ""
