"""Authority at work: everything is made here, in order, and let go of in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from spike.authority.archive import FileArchive
from spike.authority.book import Book, Entry, Identity, superuser_of
from spike.authority.control import ControlServer
from spike.authority.desk import Desk
from spike.authority.listener import listening
from spike.authority.office import Office
from spike.authority.process import (
    Uid,
    boot_id,
    overflow_uid,
    processes_can_be_told_apart,
)
from spike.authority.traffic import Traffic
from spike.authority.workload import WorkloadService
from spike.error import SettingError, SpikeError
from spike.memory.process import harden
from spike.spiffe.id import TrustDomain

# To connect is to write: who may reach the Workload API is decided by its directory, and who gets
# an identity there by the kernel's word on the caller.
_SOCKET_MODE: Final = 0o777
_CONTROL_MODE: Final = 0o600
# Enough for every connection the limits allow, two descriptors each, and every grant.
_DESCRIPTORS: Final = 8192
_TICK_S: Final = 5.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Setting:
    """What the command line says. Paths are absolute."""

    socket: Path
    control: Path
    data: Path
    trust_domain: TrustDomain
    svid_lifetime: timedelta
    authority_lifetime: timedelta


def serve(setting: Setting, say: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; `say` gets a few lines when callers can come.

    Raises:
        SpikeError: it cannot begin; nothing is left behind.
    """
    for measure in harden():
        if not measure.applied:
            _log.warning("not in force: %s (%s)", measure.name, measure.detail)
    _raise_descriptor_limit()
    with FileArchive(setting.data, boot_id()) as archive:
        office = _open_office(setting, archive)
        with contextlib.closing(office):
            asyncio.run(_serve(setting, archive, office, say))


def utc_now() -> datetime:
    """Return the present time, aware."""
    return datetime.now(UTC)


def _open_office(setting: Setting, archive: FileArchive) -> Office:
    book = archive.read_book(overflow_uid())
    if book is None:
        book = _first_book(setting.trust_domain)
        archive.write_book(book)
    _check_trust_domain(book, setting)
    office = Office(
        book,
        archive,
        setting.svid_lifetime,
        setting.authority_lifetime,
        utc_now,
        grants_possible=processes_can_be_told_apart(),
    )
    office.remember(archive.recall())
    return office


def _first_book(trust_domain: TrustDomain) -> Book:
    """Return the book of a new Authority: its own user administers SPIKE, and nothing else."""
    superuser = Entry(Uid(os.geteuid()), Identity(superuser_of(trust_domain)))
    return Book(trust_domain, overflow_uid()).with_entry(superuser)


def _check_trust_domain(book: Book, setting: Setting) -> None:
    if book.trust_domain != setting.trust_domain:
        raise SettingError(
            f"the entries in {setting.data} are of the trust domain {book.trust_domain}",
            f"use --trust-domain {book.trust_domain}, or another directory with --data",
        )


async def _serve(
    setting: Setting, archive: FileArchive, office: Office, say: Callable[[str], None]
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, _reload, setting, archive, office)
    service = WorkloadService(office)
    traffic = Traffic(service)
    desk = Desk(office, traffic, setting.socket, utc_now())
    with (
        listening(setting.socket, _SOCKET_MODE) as workload,
        listening(setting.control, _CONTROL_MODE) as control,
    ):
        server = await traffic.open(workload)
        background = (
            asyncio.create_task(ControlServer(desk, os.geteuid()).serve(control)),
            asyncio.create_task(_tick(office)),
        )
        stopping = asyncio.create_task(stop.wait())
        try:
            say(_greeting(setting, office))
            await asyncio.wait((stopping, *background), return_when=asyncio.FIRST_COMPLETED)
        finally:
            server.close()
            traffic.close()
            for task in (stopping, *background):
                task.cancel()
            ended = await asyncio.gather(*background, return_exceptions=True)
        for outcome in ended:
            if isinstance(outcome, Exception):
                raise outcome


async def _tick(office: Office) -> None:
    while True:
        left_s = office.tick().total_seconds()
        await asyncio.sleep(min(max(left_s, 0.05), _TICK_S))


def _reload(setting: Setting, archive: FileArchive, office: Office) -> None:
    """Take over what somebody has written into the entry file, or say why not."""
    try:
        book = archive.read_book(overflow_uid())
        if book is None:
            raise SettingError("the entry file is missing")
        _check_trust_domain(book, setting)
        office.change_book(book)
    except SpikeError as error:
        _log.error("the entries stay as they were: %s", error.message)
    else:
        _log.warning("took over %d entries from the file", len(book.entries))


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _greeting(setting: Setting, office: Office) -> str:
    lines = [
        f"Authority of the trust domain {setting.trust_domain}, for this one machine:",
        "development, tests, first steps.",
        "In production SPIRE takes its place, and only SPIFFE_ENDPOINT_SOCKET changes.",
        f"Workload API:   SPIFFE_ENDPOINT_SOCKET=unix://{setting.socket}",
        f"Control socket: SPIKE_AUTHORITY_CONTROL={setting.control}",
        f"Entries:        {len(office.book.entries)} in {setting.data}",
    ]
    if not office.grants_possible:
        lines.append(
            "This kernel is older than Linux 6.5: `spike-authority run` is not possible, "
            "entries are."
        )
    return "\n".join(lines)
