"""What Keepers have answered in one attempt to bring the root key back, and which of it counts.

A keyring that nobody has authenticated may name Keepers, and a storage writer may have written it: with a root key of
his own, a low threshold, and one hostile Keeper as every member. So a store must not be able to name its own judges:

* Who is known from the store alone counts once for each identity, and not beside a Keeper of the environment that has
  the same one.
* As many Keepers as the environment's threshold must stand for the root key: by a right share, or by an anchor that
  the root key authenticates.
* One of those that stand for it must be known from outside of the store: a Keeper the environment names, or a backup
  place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from spike.lifecycle import anchor as anchors
from spike.lifecycle.keyring import Keyring
from spike.lifecycle.rebuild import Rebuilt
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.share import Share
from spike.lifecycle.witness import Claim
from spike.memory.key_memory import KeyMemory
from spike.nexus.keeper_link import KeeperLink
from spike.nexus.keeper_roster import Candidate
from spike.nexus.keeper_setting import PEERS, THRESHOLD
from spike.spiffe.id import SpiffeId


class Answer(NamedTuple):
    """What one Keeper gave: who it was, and perhaps its share, the anchor it keeps, what it says it has committed."""

    asked: Candidate
    identity: SpiffeId | None
    share: Share | None
    anchor: bytes | None
    claim: Claim | None

    @property
    def name(self) -> str:
        """The Keeper's name in messages."""
        return self.asked.link.name


@dataclass(slots=True)
class Testimony:
    """The answers so far. Owns the shares."""

    answers: list[Answer] = field(default_factory=list)
    trouble: dict[KeeperLink, str] = field(default_factory=dict)
    right: frozenset[int] = frozenset()
    """The indexes whose shares were found to be right; set when the root key is there."""

    def believed(self) -> tuple[Answer, ...]:
        """Return the answers that count; see the module's docstring."""
        named = [each for each in self.answers if each.asked.named]
        heard = {each.identity for each in named}
        counted = list(named)
        for each in self.answers:
            if not each.asked.named and each.identity not in heard:
                heard.add(each.identity)
                counted.append(each)
        return tuple(counted)

    def shares(self) -> tuple[Share, ...]:
        """Return the shares that count."""
        return tuple(each.share for each in self.believed() if each.share is not None)

    def right_shares(self, rebuilt: Rebuilt, shares: Sequence[Share]) -> frozenset[int]:
        """Return the indexes of the shares that were found to be right. `shares` is what was rebuilt from."""
        wrong = {each.position for each in rebuilt.bad}
        return frozenset(share.label.index for at, share in enumerate(shares) if at not in wrong)

    def wipe(self) -> None:
        """Overwrite every share."""
        for each in self.answers:
            if each.share is not None:
                each.share.value.wipe()


def require_vouched(
    testimony: Testimony,
    confirmed: Keyring,
    root: KeyMemory,
    *,
    places: Sequence[bytes],
    least: int,
) -> None:
    """Return if enough stand for a root key, one of them known from outside of the store.

    `places` are the anchors that backup places hold, `least` is the environment's threshold.

    Raises:
        RefusalError: PLANTED; what to set if the Keepers were changed.
    """
    standing = [
        each
        for each in testimony.believed()
        if (each.share is not None and each.share.label.index in testimony.right)
        or _is_valid(each.anchor, confirmed, root)
    ]
    if len(standing) < least:
        raise RefusalError(
            Reason.PLANTED,
            f"{len(standing)} Keepers stand for the root key, and {THRESHOLD} asks for {least}",
            f"if their number was changed, set {THRESHOLD} to that of the last spike keeper reshape",
        )
    known = any(each.asked.named for each in standing)
    if not known and not any(_is_valid(raw, confirmed, root) for raw in places):
        raise RefusalError(
            Reason.PLANTED,
            "the root key comes from Keepers that the stored keyring alone names, and no backup place vouches for it",
            f"if these are the Keepers, name them in {PEERS} as the last spike keeper reshape said",
        )


def _is_valid(raw: bytes | None, confirmed: Keyring, root: KeyMemory) -> bool:
    # The rebuilt root key alone: one that the keyring keeps beside it may be known to whoever wrote the keyring.
    roots = {confirmed.active_root.number: root}
    return raw is not None and bool(anchors.weigh_untrusted((raw,), confirmed, roots).valid)
