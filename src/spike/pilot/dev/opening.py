"""What is due each time Nexus is reachable: a root key for a new store, the password for a locked one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import termios
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from spike.client.launch import Command, Launcher
from spike.client.nexus import NexusClient, PasswordFor
from spike.error import NotReadyError, SettingError, SpikeError
from spike.lifecycle import password as passwords
from spike.pilot import prompt
from spike.pilot.dev.machine import Programs
from spike.pilot.dev.part import ended, start_as, stopped
from spike.pilot.dev.place import DevPlace
from spike.pilot.dev.report import (
    RESTORE_ROLE,
    Failed,
    LeftLocked,
    Locked,
    Report,
    Served,
    Unlocked,
)
from spike.pilot.failure import Exit
from spike.pilot.session import Session

SLOT: Final = "admin"
_LOOK_AGAIN_S: Final = 0.1
_PATIENCE: Final = "5s"
_DIALOGUE_STOP_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Opening:
    """Speaks with the Nexus of one place, as the superuser; restores under the restore role."""

    place: DevPlace
    environment: Mapping[str, str]
    programs: Programs
    launcher: Launcher
    report: Report

    async def reachable(self) -> None:
        """Return once Nexus answers."""
        while True:
            try:
                await asyncio.to_thread(self._state)
            except SpikeError:
                await asyncio.sleep(_LOOK_AGAIN_S)
            else:
                return

    async def open(self) -> None:
        """Do what is due. What does not work is told; the parts go on."""
        try:
            state = await asyncio.to_thread(self._state)
            if state == "uninitialized":
                await asyncio.to_thread(self._initialize)
            if state == "locked":
                self.report.tell(Locked(self.place))
                await self._unlock()
            state = await asyncio.to_thread(self._state)
        except SpikeError as error:
            self.report.tell(Failed(error.message, error.next_step))
            return
        url = self.environment["SPIKE_NEXUS_API_URL"]
        self.report.tell(Served(self.place, url, state))

    def _state(self) -> str:
        patient = {**self.environment, "SPIKE_SPIFFE_SOURCE_TIMEOUT": _PATIENCE}
        with NexusClient.for_one_command(patient) as nexus:
            status = nexus.get_status()
        if status.state is None:
            raise NotReadyError("Nexus does not take this process for the superuser")
        return status.state

    def _initialize(self) -> None:
        password = passwords.generate()
        try:
            # Before the key exists: were it shown after, a closed pipe would lose it for good.
            self.report.show_password(password)
            with NexusClient.for_one_command(self.environment) as nexus:
                answer = nexus.init(PasswordFor(password, SLOT))
        finally:
            prompt.wipe(password)
        Session(self.environment).keep_anchor(answer.anchor)

    async def _unlock(self) -> None:
        """Ask for the password until it is right, or until asking has no sense."""
        if not has_terminal():
            self.report.tell(LeftLocked(self.place, "there is no terminal to ask on"))
            return
        while True:
            code = await self._ask()
            if code == Exit.SUCCESS:
                self.report.tell(Unlocked())
                return
            if code != Exit.FAILED:
                self.report.tell(LeftLocked(self.place, "it cannot be restored here"))
                return
            # `spike restore` has said why; another answer may be better.
            sys.stdout.write("Still locked. Once more (Ctrl-C stops everything).\n")
            sys.stdout.flush()

    async def _ask(self) -> int:
        """Let `spike restore` speak with the person at this terminal; return its exit code."""
        command = Command((self.programs.path("spike"), "restore"), environment=self.environment)
        with _terminal_kept():
            process = start_as(self.launcher, RESTORE_ROLE)(command)
            try:
                return await ended(process)
            finally:
                if process.returncode is None:  # cancelled: Nexus died, or everything is to stop
                    await stopped(process, _DIALOGUE_STOP_S)


@contextlib.contextmanager
def _terminal_kept() -> Iterator[None]:
    """Put the terminal back as it was: a dialogue that is ended by force leaves it without echo."""
    with prompt.terminal() as descriptor:
        before = termios.tcgetattr(descriptor)
        try:
            yield
        finally:
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def has_terminal() -> bool:
    """Tell whether this process may ask on a terminal: it has one and is in its foreground.

    A background job that reads from its terminal is stopped by the kernel.
    """
    try:
        with prompt.terminal() as descriptor:
            return os.tcgetpgrp(descriptor) == os.getpgrp()
    except (SettingError, OSError):
        return False
