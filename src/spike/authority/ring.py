"""Which authorities of the trust domain are there at a time, and which of them signs. Pure.

An authority is replaced while everything runs: at half of its life its successor enters the bundle;
when everybody has had time to take that bundle, the successor signs; the old one leaves the bundle
when it ends, after the last SVID it has signed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from spike.authority.issuer import CertificateAuthority

# Makes an authority that begins at a time and lives as long as said.
MakeAuthority = Callable[[datetime, timedelta], CertificateAuthority]


@dataclass(frozen=True, slots=True)
class AuthorityRing:
    """The authorities of one trust domain, oldest first; never empty.

    `lifetime` is that of each; an SVID should live at most a quarter of it, or it ends early.
    """

    authorities: tuple[CertificateAuthority, ...]
    lifetime: timedelta

    @classmethod
    def create(cls, now: datetime, lifetime: timedelta, make: MakeAuthority) -> AuthorityRing:
        """Begin with one authority, which signs at once: nobody knows another one."""
        return cls((make(now, lifetime),), lifetime)

    @property
    def spread(self) -> timedelta:
        """How long a new authority stands in the bundle before it signs."""
        return min(timedelta(seconds=10), self.lifetime / 8)

    def at(self, now: datetime, make: MakeAuthority) -> AuthorityRing:
        """Return the ring as it should be at `now`: this very one, if nothing is due.

        An authority that has not begun was made while the clock was ahead: nobody would believe it.
        """
        living = tuple(each for each in self.authorities if each.is_good_at(now))
        if not living or now >= living[-1].created_at + self.lifetime / 2:
            living = (*living, make(now, self.lifetime))
        if living == self.authorities:
            return self
        return AuthorityRing(living, self.lifetime)

    def signing(self, now: datetime) -> CertificateAuthority:
        """Return the newest authority that everybody has had time to learn of."""
        for authority in reversed(self.authorities):
            if now >= authority.created_at + self.spread:
                return authority
        return self.authorities[0]

    def next_change_at(self) -> datetime:
        """Return when `at` may give another ring."""
        renewal = self.authorities[-1].created_at + self.lifetime / 2
        return min(renewal, self.authorities[0].expires_at)
