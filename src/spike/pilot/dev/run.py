"""One `spike dev`, from its options to its end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from spike.client.launch import Launcher
from spike.pilot.dev.keeper import COUNT, KeeperSite, sites_at
from spike.pilot.dev.machine import (
    Programs,
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
    unused_directory,
)
from spike.pilot.dev.ready import authority_answers, keeper_answers
from spike.pilot.dev.report import Report, Stopped, Stopping
from spike.pilot.dev.supervisor import Supervised, Supervisor
from spike.pilot.dev.world import World, without_ours

_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Store(StrEnum):
    """What becomes of the store."""

    KEPT = "kept"
    FRESH = "fresh"  # begins empty
    EPHEMERAL = "ephemeral"  # begins empty and is deleted at the end


@dataclass(frozen=True, slots=True)
class DevSetting:
    """What `spike dev` is asked for. `directory` None: the default one, or a new one for a fresh store.

    `svid_lifetime` is a duration such as `1h`; port 0 is any free one. `init`: an empty store gets a root key.
    """

    directory: Path | None
    store: Store
    port: int
    svid_lifetime: str
    init: bool = True


def run_dev(setting: DevSetting, environment: Mapping[str, str], report: Report) -> None:
    """Start everything, keep it running until a signal comes, stop everything.

    Raises:
        SettingError: this machine, directory or port cannot be used, or a part does not start.
    """
    check_this_machine()
    programs = find_programs(Path(sys.executable))
    place = DevPlace(_directory(setting, environment))
    with place.claimed():
        if setting.store is not Store.KEPT:
            require_empty(place.directory)  # it is ours alone now: so it stays
        port = choose_port(setting.port)
        try:
            world = _world(setting, environment, programs, place, port)
            asyncio.run(_serve(world, setting, report))
        finally:
            if setting.store is Store.EPHEMERAL:
                place.empty()
    report.tell(Stopped(None if setting.store is Store.EPHEMERAL else place.directory))


def _directory(setting: DevSetting, environment: Mapping[str, str]) -> Path:
    if setting.directory is not None:
        return setting.directory.absolute()
    return default_directory(environment) if setting.store is Store.KEPT else unused_directory()


def _world(
    setting: DevSetting,
    environment: Mapping[str, str],
    programs: Programs,
    place: DevPlace,
    port: int,
) -> World:
    """Make what the parts need in their directory, which is claimed, and say what they are made from."""
    place.prepare()
    outer = environment.get("PATH", os.defpath)
    keepers = sites_at(choose_ports(place.keeper_ports(), COUNT, port))
    place.keep_keeper_ports([site.port for site in keepers])
    own = place.client_environment(port, programs.directory)
    place.write_environment(own)
    inherited = without_ours(environment)
    variables = {**inherited, **own, "PATH": f"{own['PATH']}:{outer}"}
    return World(place, programs, variables, setting.svid_lifetime, port, keepers)


async def _serve(world: World, setting: DevSetting, report: Report) -> None:
    """Run the parts until a signal to stop comes.

    Raises:
        SettingError: a part does not start.
    """
    supervisor = Supervisor(report.tell)
    launcher = Launcher(world.place.control_socket)
    stop = _stop_event(supervisor)
    running = asyncio.create_task(_run(world, setting, supervisor, launcher, report))
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


async def _run(
    world: World,
    setting: DevSetting,
    supervisor: Supervisor,
    launcher: Launcher,
    report: Report,
) -> None:
    """Start the parts and keep them. Ends only by cancellation or an error."""
    opening = Opening(
        world.place, world.variables, world.programs, launcher, report, init=setting.init
    )
    await supervisor.start(
        Supervised(world.authority(), lambda: authority_answers(world.place), _nothing)
    )
    # A Nexus that finds the Keepers there has no reason to wait before it looks again.
    await supervisor.start(*(_keeper(world, site, launcher) for site in world.keepers))
    await supervisor.start(Supervised(world.nexus(launcher), opening.reachable, opening.open))
    await supervisor.failed()


def _keeper(world: World, site: KeeperSite, launcher: Launcher) -> Supervised:
    part = world.keeper(site, launcher)
    return Supervised(part, lambda: keeper_answers(world.place, site), _nothing)


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


async def _nothing() -> None:
    """Do nothing."""
