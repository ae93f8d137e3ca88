"""The supervisor: what starts together, what is said when one does not start, what is left."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import subprocess
from pathlib import Path

import pytest

from spike.client.launch import Command
from spike.error import SettingError
from spike.pilot.dev.part import Part, start_tethered
from spike.pilot.dev.supervisor import Death, NotStarted, Supervised, Supervisor


def part(directory: Path, name: str, script: str) -> Part:
    """A part that is a shell."""
    return Part(
        name,
        ("/bin/sh", "-c", script),
        {"PATH": os.defpath},
        directory / f"{name}.log",
        directory / f"{name}.pid",
        5.0,
        start_tethered,
    )


async def nothing() -> None:
    pass


async def never() -> None:
    await asyncio.Event().wait()


def numbers_in(directory: Path) -> list[int]:
    """The processes that have written their numbers and not ended in order."""
    return [int(file.read_text()) for file in directory.glob("*.pid")]


async def test_parts_of_one_step_start_together(tmp_path: Path) -> None:
    told: list[Death | NotStarted] = []
    supervisor = Supervisor(told.append)
    begun = {name: asyncio.Event() for name in ("one", "two")}

    def ready_after(name: str, other: str) -> Supervised:
        async def ready() -> None:
            begun[name].set()
            await begun[other].wait()

        return Supervised(part(tmp_path, name, "exec sleep 1000"), ready, nothing)

    async with asyncio.timeout(30):
        await supervisor.start(ready_after("one", "two"), ready_after("two", "one"))
        numbers = numbers_in(tmp_path)
        assert len(numbers) == 2
        await supervisor.stop()
    assert not told
    for number in numbers:
        with pytest.raises(ProcessLookupError):
            os.kill(number, 0)
    assert not numbers_in(tmp_path)


async def test_one_that_does_not_start_is_named_and_the_others_are_stopped(
    tmp_path: Path,
) -> None:
    supervisor = Supervisor(lambda _: None)
    good = Supervised(part(tmp_path, "good", "exec sleep 1000"), nothing, nothing)
    waits = Supervised(part(tmp_path, "waits", "exec sleep 1000"), never, nothing)
    bad = Supervised(part(tmp_path, "bad", "echo its last words; exit 3"), never, nothing)
    async with asyncio.timeout(30):
        with pytest.raises(SettingError, match="bad does not start: its last words"):
            await supervisor.start(good, waits, bad)
        numbers = numbers_in(tmp_path)
        await supervisor.stop()
    assert len(numbers) == 3
    for number in numbers:
        with pytest.raises(ProcessLookupError):
            os.kill(number, 0)
    assert not numbers_in(tmp_path)


async def test_one_that_cannot_be_started_again_at_once_is_started_later(tmp_path: Path) -> None:
    told: list[Death | NotStarted] = []
    supervisor = Supervisor(told.append)
    starts = 0
    back = asyncio.Event()

    def start(command: Command) -> subprocess.Popen[bytes]:
        nonlocal starts
        starts += 1
        if starts in (2, 3):
            raise SettingError("the process ended before its command could be executed")
        return start_tethered(command)

    async def ready() -> None:
        if starts > 1:
            back.set()

    fragile = dataclasses.replace(part(tmp_path, "fragile", "exec sleep 1000"), start=start)
    async with asyncio.timeout(30):
        await supervisor.start(Supervised(fragile, ready, nothing))
        (number,) = numbers_in(tmp_path)
        os.kill(number, 9)
        await back.wait()
        await supervisor.stop()
    death, *failed = told
    assert isinstance(death, Death)
    assert [type(each) for each in failed] == [NotStarted, NotStarted]
    pauses = [each.pause_s for each in told]
    assert pauses == sorted(set(pauses))
