"""Who may stay connected when there is no room for all. Pure: no clock, no socket.

The rule: of the trust domain with the most connections, the identity with the most gives one up, its
own idle ones first. So whoever opens many connections only ever loses its own, one identity never locks
out another, and a client that leaves idle connections behind (the Go SDK makes one for each call) is not
refused for it. Identities alone would not do: a federated trust domain makes as many as it likes.
"""

from __future__ import annotations

from collections import Counter
from typing import Generic, Protocol, TypeVar

from spike.spiffe.id import SpiffeId, TrustDomain


class Guest(Protocol):
    """A connection, as far as its right to stay goes."""

    def claim(self) -> tuple[int, float] | None:
        """Return how much it has to stay for: who has least leaves first.

        (0, since) is idle, (1, since) waits for its peer in the middle of a request or an answer,
        None is being answered and is never sent away.
        """


GuestT = TypeVar("GuestT", bound=Guest)


class Admission(Generic[GuestT]):
    """Counts the connections of each identity."""

    def __init__(self, max_total: int, max_per_identity: int) -> None:
        self._max_total = max_total
        self._max_per_identity = max_per_identity
        self._of_domain: Counter[TrustDomain] = Counter()
        self._guests: dict[SpiffeId, dict[GuestT, None]] = {}

    def __len__(self) -> int:
        return self._of_domain.total()

    def all(self) -> list[GuestT]:
        """Return all connections."""
        return [guest for guests in self._guests.values() for guest in guests]

    def admit(self, identity: SpiffeId, guest: GuestT) -> tuple[GuestT, ...]:
        """Add a connection and return those to be closed for it: none, another, or itself.

        What is returned is no longer counted. At most one connection is returned.
        """
        self._guests.setdefault(identity, {})[guest] = None
        self._of_domain[identity.trust_domain] += 1
        if len(self._guests[identity]) > self._max_per_identity:
            crowd = identity
        elif len(self) > self._max_total:
            crowd = self._most_crowded()
        else:
            return ()
        leaving = self._least_needed(crowd, guest) or guest
        self.leave(crowd if leaving is not guest else identity, leaving)
        return (leaving,)

    def leave(self, identity: SpiffeId, guest: GuestT) -> None:
        """Forget a connection; nothing happens if it is not counted."""
        guests = self._guests.get(identity)
        if guests is not None and guest in guests:
            del guests[guest]
            self._of_domain[identity.trust_domain] -= 1
            if not guests:
                del self._guests[identity]

    def _most_crowded(self) -> SpiffeId:
        domain = max(self._of_domain, key=lambda each: self._of_domain[each])
        own = (each for each in self._guests if each.trust_domain == domain)
        return max(own, key=lambda each: len(self._guests[each]))

    def _least_needed(self, identity: SpiffeId, newcomer: GuestT) -> GuestT | None:
        claims = [
            (claim, guest)
            for guest in self._guests[identity]
            if guest is not newcomer and (claim := guest.claim()) is not None
        ]
        return min(claims, key=lambda each: each[0])[1] if claims else None
