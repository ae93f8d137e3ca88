"""What programs that serve have in common: their command line, their end, and what they insist on at their start."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import uvloop

from spike.error import SettingError, SpikeError
from spike.memory import standard_stream
from spike.memory.key_memory import wipe_all
from spike.memory.process import Measure
from spike.policy.role import Role, RoleMap
from spike.spiffe.id import SpiffeId


@dataclass(frozen=True, slots=True)
class Program:
    """A program that takes no arguments. `serve` returns soon after its event is set."""

    name: str
    usage: str
    serve: Callable[[asyncio.Event], Awaitable[None]]


def run(program: Program, arguments: Sequence[str]) -> int:
    """Run a program until SIGTERM or SIGINT and return its exit code; at the end its keys are wiped.

    0 after an orderly end, 1 when it cannot start or say something, 2 on wrong usage.
    """
    standard_stream.occupy()
    match list(arguments):
        case []:
            return _serve(program)
        case ["--help"] | ["-h"]:
            return _tell(program, program.usage)
        case ["--version"]:
            return _tell(program, f"{program.name} {version('spike')}\n")
        case _:
            _say(f"{program.name} takes no arguments; see {program.name} --help\n")
            return 2


def _tell(program: Program, text: str) -> int:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        standard_stream.silence(1)
        _say(f"{program.name}: standard output: {error.strerror}\n")
        return 1
    return 0


def _say(text: str) -> None:
    with standard_stream.heard_or_not():
        sys.stderr.write(text)
        sys.stderr.flush()


def _serve(program: Program) -> int:
    try:
        uvloop.run(_until_signalled(program))
    except SpikeError as error:
        _say(f"{program.name}: {error.message}\n")
        if error.next_step:
            _say(f"next: {error.next_step}\n")
        return 1
    finally:
        wipe_all()
    return 0


async def _until_signalled(program: Program) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await program.serve(stop)


def require_role(own: SpiffeId, roles: RoleMap, role: Role) -> None:
    """Return if this process has the identity that its work needs.

    Raises:
        SettingError: its SPIFFE ID has not the role.
    """
    if role not in roles.roles_of(own):
        raise SettingError(
            f"this process is {own}, which is not a {role.name.capitalize()}",
            f"give it the identity spiffe://<trust root>/{role.base_path}, or set {role.variable}",
        )


def require_measures(measures: tuple[Measure, ...], *, strict: bool) -> None:
    """Return unless strict mode is on and a protection is missing.

    Raises:
        SettingError: one is; each is named.
    """
    missing = [f"{m.name} ({m.detail})" for m in measures if not m.applied]
    if missing and strict:
        raise SettingError(
            f"memory protection is incomplete: {'; '.join(missing)}",
            "raise the limits of this process (see docs/guide/limit.md), or unset SPIKE_MEMORY_STRICT",
        )
