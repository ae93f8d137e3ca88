"""The office: everything Authority knows, and every change to it.

Belongs to one event loop. A change is checked, written to disk, put in the place of the old state, and
then every open stream is woken to look again: that order is the commit line.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from spike.authority.book import Book, Identity, check_issuable
from spike.authority.grant import Grant, GrantTable, LauncherNumber, Unlaunched, Withdrawn
from spike.authority.issuer import CertificateAuthority, generate_key, generate_serial, pkcs8_of
from spike.authority.process import Caller, ProcessHandle
from spike.authority.ring import AuthorityRing
from spike.error import InputError, SettingError
from spike.spiffe.id import SpiffeId
from spike.spiffe.svid import X509Svid

Clock = Callable[[], datetime]


class Archive(Protocol):
    """What outlives the process: the book, and which processes had a grant."""

    def write_book(self, book: Book) -> None:
        """Make the book durable, or raise StoreUnavailableError and leave the old one."""

    def write_memory(self, processes: tuple[ProcessHandle, ...]) -> None:
        """Note which processes had a grant, or raise StoreUnavailableError."""


@dataclass(frozen=True, slots=True)
class Entitled:
    """The caller gets these identities, the first by default; never empty."""

    identities: tuple[Identity, ...]


@dataclass(frozen=True, slots=True)
class Denied:
    """The caller gets nothing. `reason` is for the log and for the caller."""

    reason: str


@dataclass(frozen=True, slots=True)
class Issued:
    """An SVID with its key as PKCS#8 DER; at `renew_at` half of its life is over."""

    identity: Identity
    svid: X509Svid
    key_der: bytes = field(repr=False)
    renew_at: datetime

    def is_due(self, now: datetime) -> bool:
        """Tell whether another is needed; also when the clock was set back to before this one."""
        return not self.svid.chain[0].not_valid_before_utc <= now < self.renew_at


class Office:
    """The state of Authority."""

    def __init__(
        self,
        book: Book,
        archive: Archive,
        svid_lifetime: timedelta,
        authority_lifetime: timedelta,
        clock: Clock,
        *,
        grants_possible: bool,
    ) -> None:
        """`grants_possible`: the kernel tells processes apart (SO_PEERPIDFD)."""
        self._book = book
        self._archive = archive
        self._clock = clock
        self._grants = GrantTable()
        self._launchers = itertools.count(1)
        self._change = asyncio.Event()
        self._ring = AuthorityRing.create(clock(), authority_lifetime, self._make_authority)
        self.svid_lifetime = svid_lifetime
        self.grants_possible = grants_possible

    @property
    def book(self) -> Book:
        """The entries and foreign bundles in force."""
        return self._book

    @property
    def authorities(self) -> tuple[CertificateAuthority, ...]:
        """The authorities in the own bundle, oldest first."""
        return self._ring.authorities

    @property
    def grants(self) -> GrantTable:
        """Grants in force, to look at."""
        return self._grants

    def now(self) -> datetime:
        """Return the present time (aware, UTC)."""
        return self._clock()

    def next_change(self) -> asyncio.Event:
        """Return what is set at the next change. Take it before looking, and none is missed."""
        return self._change

    def entitlement_of(self, caller: Caller) -> Entitled | Denied:
        """Say what a caller gets: its own grant, or its user's entries if it never had one."""
        known = self._grants.find(caller.process) if caller.process else Unlaunched()
        match known:
            case Grant(id=spiffe_id):
                return Entitled((Identity(spiffe_id),))
            case Withdrawn():
                return Denied("the launcher of this process does not vouch for it at present")
            case Unlaunched():
                identities = self._book.identities_of(caller.uid)
                return Entitled(identities) if identities else Denied("no identity issued")

    def issue(self, identity: Identity) -> Issued:
        """Issue an SVID under a fresh key."""
        now = self._clock()
        key = generate_key()
        authority = self._ring.signing(now)
        svid = authority.issue(
            identity.id, key.public_key(), now, self.svid_lifetime, generate_serial()
        )
        return Issued(identity, svid, pkcs8_of(key), now + (svid.expires_at - now) / 2)

    def change_book(self, book: Book) -> None:
        """Replace the book, durably.

        Raises:
            StoreUnavailableError: it cannot be written; the old one stays in force.
        """
        self._archive.write_book(book)
        self._book = book
        self._announce()

    def open_launcher(self) -> LauncherNumber:
        """Give a control connection a number of its own."""
        return LauncherNumber(next(self._launchers))

    def grant(self, spiffe_id: SpiffeId, process: ProcessHandle, launcher: LauncherNumber) -> None:
        """Give a process an identity. Takes over the pidfd, unless it raises.

        Raises:
            SettingError: this kernel does not tell processes apart.
            InputError: the ID cannot be issued here, or the process has ended.
            StoreUnavailableError: the grant cannot be remembered; it is withdrawn again.
        """
        if not self.grants_possible:
            raise SettingError(
                "this kernel cannot name the process behind a connection (SO_PEERPIDFD), so no "
                "single process can be given an identity",
                "use Linux 6.5 or newer, or give the identity to a user with `spike-authority "
                "entry add`",
            )
        check_issuable(spiffe_id, self._book.trust_domain)
        self._grants.drop_ended()
        # Remembered before it counts: a restart in between must not make it its user's again.
        self._archive.write_memory((*self._grants.processes(), process))
        self._grants.put(process, Grant(spiffe_id, launcher))
        self._announce()

    def withdraw(self, process: ProcessHandle, launcher: LauncherNumber) -> None:
        """Take back a grant of this launcher.

        Raises:
            InputError: the launcher made none for this process.
        """
        if not self._grants.withdraw(process.key, launcher):
            raise InputError("this connection granted nothing to this process")
        self._announce()

    def close_launcher(self, launcher: LauncherNumber) -> None:
        """Take back all grants of a launcher that has gone."""
        if self._grants.withdraw_all(launcher):
            self._announce()

    def remember(self, processes: tuple[ProcessHandle, ...]) -> None:
        """Note processes that had a grant before a restart. Takes over the pidfds."""
        for process in processes:
            self._grants.remember(process)

    def tick(self) -> timedelta:
        """Do what time asks for, and return how long nothing more can be due."""
        self._grants.drop_ended()
        ring = self._ring.at(self._clock(), self._make_authority)
        if ring is not self._ring:
            self._ring = ring
            self._announce()
        return self._ring.next_change_at() - self._clock()

    def close(self) -> None:
        """Let go of all processes."""
        self._grants.close()

    def _make_authority(self, now: datetime, lifetime: timedelta) -> CertificateAuthority:
        return CertificateAuthority.create(
            self._book.trust_domain, generate_key(), now, lifetime, generate_serial()
        )

    def _announce(self) -> None:
        woken, self._change = self._change, asyncio.Event()
        woken.set()
