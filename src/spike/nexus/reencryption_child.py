"""The process in which the records of a large store go from one record key to the next.

`python -m spike.nexus.reencryption_child`. It is started by exec, hardens itself, and finds the two keys in locked
pages that Nexus shares with it. It answers frames on one socket, each a length (4 bytes, big-endian) and MessagePack:

    → Begin     which keys, and the check values that confirm them
    ← Done      nothing, or in `damaged` which key is not the one that was named
    → Batch     records of one kind, sealed under the old key
    ← Done      each sealed under the new key, or empty with its reason in `failed`; nothing at all with `damaged`

What crosses the socket is sealed. It ends when the socket is closed, and so never outlives Nexus.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from typing import Final

import msgspec

from spike.lifecycle.progress import Reason
from spike.memory.key_memory import KeyMemory
from spike.memory.process import harden
from spike.nexus.reencryption_seal import KeyPair, Passage, damaged, resealed

KEY_SIZE_BYTES: Final = 32
FRAME_LIMIT_BYTES: Final = 64 << 20
LENGTH: Final = struct.Struct(">I")
_NICENESS: Final = 15
"""Requests come first, also on the other processor; a machine with nothing else to do gives it all there is."""


class Begin(msgspec.Struct, frozen=True, tag=True):
    """Which keys lie in the pages."""

    passage: Passage


class Batch(msgspec.Struct, frozen=True, tag=True):
    """Records of one kind: key, version and blob of each."""

    kind: str
    rows: list[tuple[str, str, bytes]]

    def __repr__(self) -> str:
        return f"Batch({self.kind}, {len(self.rows)} rows)"


class Done(msgspec.Struct, frozen=True, omit_defaults=True):
    """The new blobs in the order of the rows. `failed`: by position, those that have none."""

    blobs: list[bytes] = []
    failed: dict[int, Reason] = {}
    damaged: str = ""

    def __repr__(self) -> str:
        return f"Done({len(self.blobs)} blobs)"


def serve(connection: socket.socket, keys: KeyPair) -> None:
    """Answer until the other side closes."""
    decoder = msgspec.msgpack.Decoder(Begin | Batch)
    encoder = msgspec.msgpack.Encoder()
    passage: Passage | None = None
    with connection.makefile("rb") as file:
        while head := file.read(LENGTH.size):
            (length,) = LENGTH.unpack(head)
            asked = decoder.decode(file.read(length))
            if isinstance(asked, Begin):
                passage = asked.passage
                answer = Done(damaged=damaged(passage, keys))
            elif passage is None:
                return
            else:
                answer = _done(passage, keys, asked)
            raw = encoder.encode(answer)
            connection.sendall(LENGTH.pack(len(raw)) + raw)


def _done(passage: Passage, keys: KeyPair, batch: Batch) -> Done:
    store_id = bytes.fromhex(passage.store_id)
    blobs: list[bytes] = []
    failed: dict[int, Reason] = {}
    for position, (key, version, blob) in enumerate(batch.rows):
        found = resealed(keys, passage.after, store_id, (batch.kind, key, version), blob)
        if isinstance(found, Reason):
            failed[position] = found
            blobs.append(b"")
        else:
            blobs.append(found)
    wrong = damaged(passage, keys)
    return Done(damaged=wrong) if wrong else Done(blobs, failed)


def main() -> None:
    """Serve on the three descriptors named in the arguments: socket, page of the old key, page of the new one."""
    harden()
    os.nice(_NICENESS)
    channel_fd, old_fd, new_fd = (int(argument) for argument in sys.argv[1:4])
    with (
        socket.socket(fileno=channel_fd) as connection,
        KeyMemory.adopt(old_fd, KEY_SIZE_BYTES) as old,
        KeyMemory.adopt(new_fd, KEY_SIZE_BYTES) as new,
    ):
        serve(connection, KeyPair(old, new))


if __name__ == "__main__":
    main()
