"""Time zones by name, from the machine's own data."""

from __future__ import annotations

from datetime import UTC, tzinfo
from zoneinfo import ZoneInfo

from spike.error import InputError
from spike.lifecycle.schedule import check_zone_name


def zone_of(name: str) -> tzinfo:
    """Return a time zone.

    Raises:
        InputError: there is none of this name, or this machine does not know it.
    """
    check_zone_name(name)
    if name == "UTC":  # also where the machine has no data of time zones at all
        return UTC
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError):
        raise InputError(
            f"the machine of Nexus knows no time zone {name}",
            "use a name of the IANA list, such as Europe/Berlin; if it is one, install tzdata there",
        ) from None
