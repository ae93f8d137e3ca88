"""Messages of `/v1/system-backup`: a whole store out of Nexus, and into an empty one, in parts.

A part is a piece of the file and nothing else; put together in order they are the file. So no request and no answer is
large, whoever is slow holds nothing up but himself, and a part that got lost is asked for or sent again.
"""

from __future__ import annotations

from spike.wire.message import GoInt, Message


class SystemBackupCreateAnswer(Message, frozen=True):
    """A backup has begun: of which moment, under which session it is read, and about how large it will be."""

    session: str
    store_id: str
    lineage: str
    epoch: GoInt
    revision: GoInt
    size_bytes: GoInt


class SystemBackupReadRequest(Message, frozen=True):
    """Read a part: the next one, or the one that was read last once more. The first is 0."""

    session: str = ""
    part: GoInt = 0


class SystemBackupReadAnswer(Message, frozen=True):
    """A part of the file; behind the `last` one there is nothing."""

    data: bytes
    last: bool
