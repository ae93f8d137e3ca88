"""What a handler looks like. Its first parameter is what the access layer made: nothing acts without it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from spike.nexus.opened import Opened
from spike.policy.access import Grant, NeedsPath
from spike.wire.message import Message

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class OnKey(Generic[M]):
    """Acts on the vault itself, open or not."""

    act: Callable[[Grant, M], Awaitable[Message]]


@dataclass(frozen=True, slots=True)
class Reading(Generic[M]):
    """Reads what an open vault holds. Where the call names a path, the grant is for that path."""

    act: Callable[[Grant, Opened, M], Awaitable[Message]]


@dataclass(frozen=True, slots=True)
class Writing(Generic[M]):
    """Changes what an open vault holds; refused while writes are stopped."""

    act: Callable[[Grant, Opened, M], Awaitable[Message]]


@dataclass(frozen=True, slots=True)
class ReadingEach(Generic[M]):
    """Reads several paths, and decides on each of them alone."""

    act: Callable[[NeedsPath, Opened, M], Awaitable[Message]]


@dataclass(frozen=True, slots=True)
class InTwoForms(Generic[M]):
    """Answers JSON with JSON and raw bytes with raw bytes; acts on the vault itself, which is open.

    Each form has a limit of its own for the size of the body, in bytes.
    """

    act: Callable[[Grant, M], Awaitable[Message]]
    act_raw: Callable[[Grant, bytes], Awaitable[bytes]]
    limit_bytes: int
    raw_limit_bytes: int


Handler = OnKey[Any] | Reading[Any] | Writing[Any] | ReadingEach[Any] | InTwoForms[Any]
