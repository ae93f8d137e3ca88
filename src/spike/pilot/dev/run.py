"""One `spike dev`, from its options to its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from spike.client.control import ControlClient, Status, StatusRequest
from spike.client.launch import Launcher
from spike.error import SpikeError
from spike.pilot.dev.keeper import COUNT, KeeperSite, sites_at
from spike.pilot.dev.machine import (
    HOST,
    check_this_machine,
    choose_port,
    choose_ports,
    find_programs,
)
from spike.pilot.dev.opening import Opening
from spike.pilot.dev.place import (
    DevPlace,
    default_directory,
    require_empty,
    throw_away_directory,
)
from spike.pilot.dev.report import Report, Stopped, Stopping
from spike.pilot.dev.supervisor import Supervised, Supervisor
from spike.pilot.dev.world import World, without_ours

_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOOK_AGAIN_S: Final = 0.05


class Store(StrEnum):
    """What becomes of the store."""

    KEPT = "kept"
    FRESH = "fresh"  # begins empty
    EPHEMERAL = "ephemeral"  # begins empty and is deleted at the end


@dataclass(frozen=True, slots=True)
class DevSetting:
    """What `spike dev` is asked for. `directory` None: the default one, or a new one for a fresh store.

    `svid_lifetime` is a duration such as `1h`; port 0 is any free one.
    """

    directory: Path | None
    store: Store
    port: int
    svid_lifetime: str


def run_dev(setting: DevSetting, environment: Mapping[str, str], report: Report) -> None:
    """Start everything, keep it running until a signal comes, stop everything.

    Raises:
        SettingError: this machine, directory or port cannot be used, or a part does not start.
    """
    check_this_machine()
    programs = find_programs(Path(sys.executable))
    with _directory(setting, environment) as directory:
        place = DevPlace(directory)
        place.prepare()
        with place.claimed():
            port = choose_port(setting.port)
            outer = environment.get("PATH", os.defpath)
            keepers = sites_at(choose_ports(place.keeper_ports(), COUNT, port))
            place.keep_keeper_ports([site.port for site in keepers])
            own = place.client_environment(port, programs.directory)
            place.write_environment(own)
            inherited = without_ours(environment)
            variables = {**inherited, **own, "PATH": f"{own['PATH']}:{outer}"}
            world = World(place, programs, variables, setting.svid_lifetime, port, keepers)
            asyncio.run(_serve(world, report))
    report.tell(Stopped(None if setting.store is Store.EPHEMERAL else directory))


@contextlib.contextmanager
def _directory(setting: DevSetting, environment: Mapping[str, str]) -> Iterator[Path]:
    """Give the directory, and delete in the end what was made in it if nothing shall be left."""
    if setting.store is Store.KEPT:
        yield (setting.directory or default_directory(environment)).absolute()
        return
    was_there = False
    if setting.directory is None:
        directory = throw_away_directory()
    else:
        directory = setting.directory.absolute()
        require_empty(directory)
        was_there = directory.is_dir()
    try:
        yield directory
    finally:
        if setting.store is Store.EPHEMERAL:
            _delete(directory)
            if was_there:
                directory.mkdir(mode=0o700)


def _delete(directory: Path) -> None:
    """Delete what this run made. It began in an empty directory, so nothing else is in there."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(directory)


async def _serve(world: World, report: Report) -> None:
    """Run the parts until a signal to stop comes.

    Raises:
        SettingError: a part does not start.
    """
    supervisor = Supervisor(report.tell)
    launcher = Launcher(world.place.control_socket)
    stop = _stop_event(supervisor)
    running = asyncio.create_task(_run(world, supervisor, launcher, report))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            report.tell(Stopping())
        else:
            running.result()
    finally:
        running.cancel()
        stopping.cancel()
        await asyncio.gather(running, stopping, return_exceptions=True)
        await supervisor.stop()
        launcher.close()


async def _run(world: World, supervisor: Supervisor, launcher: Launcher, report: Report) -> None:
    """Start the parts and keep them. Ends only by cancellation or an error."""
    opening = Opening(world.place, world.variables, world.programs, launcher, report)
    await supervisor.start(
        Supervised(world.authority(), lambda: _authority_answers(world.place), _nothing)
    )
    # A Nexus that finds the Keepers there has no reason to wait before it looks again.
    await supervisor.start(*(_keeper(world, site, launcher) for site in world.keepers))
    await supervisor.start(Supervised(world.nexus(launcher), opening.reachable, opening.open))
    await supervisor.failed()


def _keeper(world: World, site: KeeperSite, launcher: Launcher) -> Supervised:
    return Supervised(world.keeper(site, launcher), lambda: _listens(site.port), _nothing)


def _stop_event(supervisor: Supervisor) -> asyncio.Event:
    """Return the event that the first signal to stop sets; a second one ends everything at once."""
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            supervisor.kill()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, on_signal)
    return stop


async def _authority_answers(place: DevPlace) -> None:
    """Return once Authority answers on its control socket."""

    def ask() -> None:
        with ControlClient.connect(place.control_socket) as control:
            control.call(StatusRequest(), Status)

    while True:
        try:
            await asyncio.to_thread(ask)
        except SpikeError:
            await asyncio.sleep(_LOOK_AGAIN_S)
        else:
            return


async def _listens(port: int) -> None:
    """Return once a port of this machine takes connections."""
    while True:
        try:
            _, writer = await asyncio.open_connection(HOST, port)
        except OSError:
            await asyncio.sleep(_LOOK_AGAIN_S)
        else:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            return


async def _nothing() -> None:
    """Do nothing."""
