"""What is due each time Nexus is reachable: a root key for a new store; for a locked one the Keepers, or the password.

How long the Keepers are waited for is decided by what Nexus says of them, never by a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import termios
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from spike.client.launch import Command, Launcher
from spike.client.nexus import NexusClient, PasswordFor
from spike.error import NotReadyError, RefusedError, SettingError, SpikeError
from spike.lifecycle import password as passwords
from spike.pilot import prompt
from spike.pilot.dev.keeper import (
    all_looked_at,
    may_come_back,
    tally_of,
)
from spike.pilot.dev.machine import Programs
from spike.pilot.dev.part import ended, start_as, stopped
from spike.pilot.dev.place import DevPlace
from spike.pilot.dev.report import (
    RESTORE_ROLE,
    CameBack,
    Failed,
    LeftLocked,
    Locked,
    Report,
    Served,
    StillLocked,
    Unlocked,
)
from spike.pilot.failure import Exit
from spike.pilot.session import Session
from spike.wire.own import StatusAnswer

SLOT: Final = "admin"
_LOOK_AGAIN_S: Final = 0.1
# What is reported is complete then; a Keeper that does not answer takes Nexus four seconds.
_SETTLE_S: Final = 10.0
# Where nobody waits for the outcome.
_SELDOM_S: Final = 0.5
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
    init: bool = True
    """Whether an empty store gets a root key. One whose keyring alone is lost looks empty, too."""

    async def reachable(self) -> None:
        """Return once Nexus answers."""
        await self._look_until(lambda _: True)

    async def open(self) -> None:
        """Do what is due. What does not work is told; the parts go on.

        Raises:
            RefusedError: a new store got no root key. Nothing is served then, so there is nothing to go on for.
        """
        try:
            status = await asyncio.to_thread(self._status)
        except SpikeError as error:
            self.report.tell(Failed(error.message, error.next_step))
            return
        if status.state == "uninitialized" and self.init:
            await asyncio.to_thread(self._initialize)
        try:
            if status.state == "locked":
                await self._bring_back()
            status = await self._settled()
        except SpikeError as error:
            self.report.tell(Failed(error.message, error.next_step))
            return
        url = self.environment["SPIKE_NEXUS_API_URL"]
        self.report.tell(Served(self.place, url, status.state or "", tally_of(status)))
        if status.state == "locked":
            await self._look_until(_is_open, _SELDOM_S)
            self.report.tell(Unlocked())

    async def _settled(self) -> StatusAnswer:
        """Return what Nexus says once it has looked at its Keepers, or has not for a while."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE_S):
                return await self._look_until(
                    lambda found: not _is_open(found) or all_looked_at(found)
                )
        return await self._look_until(lambda _: True)

    def _status(self) -> StatusAnswer:
        patient = {**self.environment, "SPIKE_SPIFFE_SOURCE_TIMEOUT": _PATIENCE}
        with NexusClient.for_one_command(patient) as nexus:
            status = nexus.get_status()
        if status.state is None:
            raise NotReadyError("Nexus does not take this process for the superuser")
        return status

    async def _look_until(
        self, enough: Callable[[StatusAnswer], bool], pause_s: float = _LOOK_AGAIN_S
    ) -> StatusAnswer:
        """Look at Nexus again and again until what it says is enough; return that."""
        while True:
            try:
                status = await asyncio.to_thread(self._status)
            except SpikeError:
                pass  # away at present, or its identity or ours is
            else:
                if enough(status):
                    return status
            await asyncio.sleep(pause_s)

    async def _bring_back(self) -> None:
        """Wait for the Keepers for as long as they may bring the key back, then ask for the password."""
        status = await self._look_until(lambda found: not may_come_back(found))
        if status.state == "open":
            self.report.tell(CameBack())
            return
        self.report.tell(Locked(self.place, status.recovery or ""))
        if not has_terminal():
            self.report.tell(LeftLocked(self.place, "there is no terminal to ask on"))
            return
        asking = asyncio.create_task(self._unlock())
        # A restart of Keepers, or somebody at another terminal, may be quicker.
        opened = asyncio.create_task(self._look_until(_is_open, _SELDOM_S))
        try:
            await asyncio.wait((asking, opened), return_when=asyncio.FIRST_COMPLETED)
            # The answer given here opens it too, a moment before the dialogue has said so.
            await asyncio.wait((asking,), timeout=_DIALOGUE_STOP_S)
            if asking.done():
                asking.result()
            else:
                self.report.tell(Unlocked())
        finally:
            for task in (asking, opened):
                task.cancel()
            await asyncio.gather(asking, opened, return_exceptions=True)

    def _initialize(self) -> None:
        password = passwords.generate()
        try:
            # Before the key exists: were it shown after, a closed pipe would lose it for good.
            self.report.show_password(password)
            with NexusClient.for_one_command(self.environment) as nexus:
                answer = nexus.init(PasswordFor(password, SLOT))
        except SpikeError as error:
            raise RefusedError(
                f"the store was not made: {error.message}; the password shown is void, {self._unless_born()}",
                error.next_step or "start again",
            ) from error
        finally:
            prompt.wipe(password)
        Session(self.environment).keep_anchor(answer.anchor)

    def _unless_born(self) -> str:
        """Say how sure it is that an init that failed has made nothing: its answer may have been lost."""
        with contextlib.suppress(SpikeError):
            if self._status().state == "uninitialized":
                return "and the next start shows another one"
        return "unless the next start asks for it"

    async def _unlock(self) -> None:
        """Ask for the password until it is right, or until asking has no sense."""
        while True:
            code = await self._ask()
            if code == Exit.SUCCESS:
                self.report.tell(Unlocked())
                return
            if code != Exit.FAILED:
                self.report.tell(LeftLocked(self.place, "it cannot be restored here"))
                return
            # `spike restore` has said why; another answer may be better.
            self.report.tell(StillLocked(self.place))

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


def _is_open(status: StatusAnswer) -> bool:
    return status.state == "open"


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
