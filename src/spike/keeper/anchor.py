"""How old an anchor is, as a Keeper can tell: it has no key, so it confirms nothing.

It reads of the document what it has to compare and lets the rest be, so that it also keeps anchors of a format that
came after it. The text is docs/reference/format.md's: a first line with the format, a second with the body.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Final

import msgspec

from spike.error import InputError
from spike.wire.keeper import ANCHOR_LIMIT_BYTES

_HEAD: Final = re.compile(rb"spike-anchor [1-9][0-9]{0,8}\Z")


class _Body(msgspec.Struct, frozen=True):
    store_id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
    lineage: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
    epoch: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
    revision: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
    access_generation: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


@dataclass(frozen=True, slots=True)
class HeldAnchor:
    """An anchor as it came, and how new the store was by its word. `age` is epoch and revision."""

    raw: bytes = field(repr=False)
    owner: tuple[str, str]
    age: tuple[int, int]
    access_generation: int

    @classmethod
    def parse_untrusted(cls, raw: bytes) -> HeldAnchor:
        """Read an anchor of at most 4 KiB.

        Raises:
            InputError: it is too large, or says not how new the store was.
        """
        if len(raw) > ANCHOR_LIMIT_BYTES:
            raise InputError(f"the anchor is larger than {ANCHOR_LIMIT_BYTES} bytes")
        head, _, rest = raw.partition(b"\n")
        line, _, _ = rest.partition(b"\n")
        if _HEAD.match(head) is None:
            raise InputError("this is no anchor")
        try:
            body = msgspec.json.decode(line, type=_Body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise InputError("the anchor does not say how new its store was") from None
        return cls(
            raw,
            (body.store_id, body.lineage),
            (body.epoch, body.revision),
            body.access_generation,
        )

    def follows(self, held: HeldAnchor) -> bool:
        """Tell whether this is of the same store and lineage and nowhere older."""
        return (
            self.owner == held.owner
            and self.age >= held.age
            and self.access_generation >= held.access_generation
        )
