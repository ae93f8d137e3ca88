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
from spike.pilot.dev.machine import HOST, Programs, check_this_machine, choose_port, find_programs
from spike.pilot.dev.opening import Opening
from spike.pilot.dev.part import Part, start_as, start_tethered
from spike.pilot.dev.place import (
    DevPlace,
    default_directory,
    require_empty,
    throw_away_directory,
)
from spike.pilot.dev.report import Report, Stopped, Stopping
from spike.pilot.dev.supervisor import Supervised, Supervisor

NEXUS_ID: Final = "spiffe://spike.ist/spike/nexus"

_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOOK_AGAIN_S: Final = 0.05
# Nexus gives answers in progress 10 s (SPIKE_NEXUS_DRAIN_TIMEOUT) before it ends.
_NEXUS_STOP_S: Final = 15.0
_AUTHORITY_STOP_S: Final = 5.0


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
            own = place.client_environment(port, programs.directory)
            place.write_environment(own)
            inherited = _without_ours(environment)
            variables = {**inherited, **own, "PATH": f"{own['PATH']}:{outer}"}
            world = _World(place, programs, variables, setting, port)
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


def _without_ours(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without what says where SPIKE's parts and stores are, and whom to trust.

    Those of another SPIKE must not reach the parts started here.
    """
    foreign = (
        "SPIFFE_ENDPOINT_SOCKET",
        "SPIKE_TRUST_ROOT",
        "SPIKE_AUTHORITY",
        "SPIKE_NEXUS_API_URL",
        "SPIKE_NEXUS_BACKEND_STORE",
        "SPIKE_NEXUS_BACKUP_DIR",
        "SPIKE_NEXUS_DATA_DIR",
        "SPIKE_NEXUS_TLS_PORT",
        "SPIKE_PILOT_STATE_DIR",
    )
    return {name: value for name, value in environment.items() if not name.startswith(foreign)}


@dataclass(frozen=True, slots=True)
class _World:
    """All that the parts are made from."""

    place: DevPlace
    programs: Programs
    variables: Mapping[str, str]
    setting: DevSetting
    port: int

    def authority(self) -> Part:
        """Return the Workload API server."""
        return Part(
            "Authority",
            (
                *(self.programs.path("spike-authority"), "serve"),
                *("--socket", str(self.place.workload_socket)),
                *("--control", str(self.place.control_socket)),
                *("--data", str(self.place.authority)),
                *("--svid-lifetime", self.setting.svid_lifetime),
            ),
            self.variables,
            self.place.log / "authority.log",
            _AUTHORITY_STOP_S,
            start_tethered,
        )

    def nexus(self, launcher: Launcher) -> Part:
        """Return the store, under its identity."""
        variables = {
            "SPIKE_NEXUS_TLS_PORT": f"{HOST}:{self.port}",
            "SPIKE_NEXUS_DATA_DIR": str(self.place.store),
            "SPIKE_NEXUS_BACKUP_DIR": str(self.place.backup),
        }
        return Part(
            "Nexus",
            (self.programs.path("spike-nexus"),),
            {**self.variables, **variables},
            self.place.log / "nexus.log",
            _NEXUS_STOP_S,
            start_as(launcher, NEXUS_ID),
        )


async def _serve(world: _World, report: Report) -> None:
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


async def _run(world: _World, supervisor: Supervisor, launcher: Launcher, report: Report) -> None:
    """Start the parts and keep them. Ends only by cancellation or an error."""
    opening = Opening(world.place, world.variables, world.programs, launcher, report)
    parts = (
        Supervised(world.authority(), lambda: _authority_answers(world.place), _nothing),
        Supervised(world.nexus(launcher), opening.reachable, opening.open),
    )
    await supervisor.start(parts)
    await supervisor.failed()


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


async def _nothing() -> None:
    """Do nothing."""
