"""One look at the schedule: which keys are how far, what comes next, and what a person has to be told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

from spike.error import InputError
from spike.lifecycle import due
from spike.lifecycle.believed_time import Belief
from spike.lifecycle.due import KeyUse, Planned, Standing
from spike.lifecycle.keyring import Keyring
from spike.lifecycle.schedule import Schedule
from spike.nexus.opened import Opened
from spike.nexus.recent_event import recent_events
from spike.nexus.time_zone import zone_of
from spike.nexus.usage_book import UsageBook
from spike.nexus.vault import Vault


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen. `zone` is None where the machine does not know the schedule's time zone."""

    document: Keyring
    schedule: Schedule
    zone: tzinfo | None
    belief: Belief
    uses: tuple[KeyUse, ...]
    planned: Planned | None
    alerts: tuple[str, ...]

    @property
    def now(self) -> datetime:
        """The moment that is believed."""
        return self.belief.at

    def standing(self, use: KeyUse) -> Standing:
        """Return how far a key is."""
        return use.standing(self.now, may_expire=self.belief.may_expire)


async def look(vault: Vault, usage: UsageBook) -> Look:
    """Look at the keyring in force.

    Raises:
        NotReadyError: there is no root key.
        StoreError: the usage cannot be read.
    """
    used = await usage.now()
    document = vault.opened.document
    schedule = due.schedule_of(document)
    belief = vault.life.belief(document)
    zone, fault = _zone(schedule)
    uses = due.uses(document, used)
    planned = None
    if zone is not None:
        planned = due.next_rotation(document, used, zone, belief.at, may_expire=belief.may_expire)
    alerts = tuple(
        filter(None, (belief.fault, fault, *_warnings(uses, belief.at, belief.may_expire)))
    )
    return Look(document, schedule, zone, belief, uses, planned, alerts)


def _zone(schedule: Schedule) -> tuple[tzinfo | None, str]:
    if not schedule.windows:
        return UTC, ""
    try:
        return zone_of(schedule.zone), ""
    except InputError as error:
        return None, f"{error.message}: no rotation begins by itself"


def _warnings(uses: tuple[KeyUse, ...], now: datetime, may_expire: bool) -> Iterator[str]:
    for use in uses:
        standing = use.standing(now, may_expire=may_expire)
        if standing is not Standing.CURRENT:
            spent = f"{use.share(now):.0%} of its time or use is spent"
            yield f"the {use.purpose} key {use.generation} is {_WORD[standing]}: {spent}"


_WORD = {
    Standing.WARNING: "due soon",
    Standing.DUE: "due",
    Standing.EXPIRED: "too old to be used",
}


async def measured_rate_per_s(opened: Opened) -> int | None:
    """Return how many records a second the last rotation sealed again, or None where none is known.

    Raises:
        StoreError: the history cannot be read.
    """
    async for event in recent_events(opened):
        if event.kind != "rotation-re-encrypted":
            continue
        try:
            records = int(event.detail["re_encrypted"])
            seconds = float(event.detail["seconds"])
        except (KeyError, ValueError):
            continue
        if records > 0 and seconds > 0:
            return max(1, round(records / seconds))
    return None
