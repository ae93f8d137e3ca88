"""What this machine must have before anything is started; each lack is one sentence and what to do."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from spike.error import SettingError

HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8553

_PROGRAMS: Final = ("spike", "spike-authority", "spike-keeper", "spike-nexus")
_OLDEST: Final = (3, 11)
_PORTS_TRIED: Final = 100


@dataclass(frozen=True, slots=True)
class Programs:
    """Where the programs of SPIKE are: one directory, the interpreter's own."""

    directory: Path

    def path(self, name: str) -> str:
        """Return the path of a program."""
        return str(self.directory / name)


def check_machine(platform: str, version: tuple[int, int], machine_name: str) -> None:
    """Refuse a machine that SPIKE does not run on.

    Raises:
        SettingError: another operating system, or an older Python.
    """
    if not platform.startswith("linux"):
        raise SettingError(
            f"SPIKE runs on Linux only (this is {platform})", "use a Linux machine or container"
        )
    if machine_name != "cpython" or version < _OLDEST:
        raise SettingError(
            f"SPIKE needs CPython 3.11 or newer (this is {machine_name} {version[0]}.{version[1]})",
            "install it and run: make PYTHON=python3.11 run",
        )


def check_this_machine() -> None:
    """Refuse this machine if SPIKE does not run on it; see `check_machine`."""
    check_machine(sys.platform, sys.version_info[:2], sys.implementation.name)


def find_programs(interpreter: Path) -> Programs:
    """Return the programs that stand beside the interpreter.

    Beside it and not on PATH: another installation's Nexus must not be started by this one's Pilot.

    Raises:
        SettingError: one is missing.
    """
    directory = interpreter.parent
    for name in _PROGRAMS:
        if not os.access(directory / name, os.X_OK):
            raise SettingError(
                f"the program {name} is missing in {directory}",
                "install SPIKE whole: make run does, or pip install spike",
            )
    return Programs(directory)


def choose_port(wanted: int) -> int:
    """Return the port to use: the one wanted, or any free one for 0.

    Raises:
        SettingError: it is taken; the next free one is named.
    """
    if wanted == 0 or _is_free(wanted):
        return wanted or _any_free()
    offer = next(
        (
            port
            for port in range(wanted + 1, wanted + _PORTS_TRIED)
            if port < 65536 and _is_free(port)
        ),
        0,
    )
    raise SettingError(
        f"port {wanted} is taken, or not for this user", f"choose another: spike dev --port {offer}"
    )


def choose_ports(kept: Sequence[int], count: int, but: int) -> tuple[int, ...]:
    """Return different free ports, none of them `but`: the kept ones, and another where one is taken."""
    chosen: list[int] = []
    for place in range(count):
        port = kept[place] if place < len(kept) else 0
        while port in (0, but, *chosen) or not _is_free(port):
            port = _any_free()
        chosen.append(port)
    return tuple(chosen)


def _is_free(port: int) -> bool:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _any_free() -> int:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
