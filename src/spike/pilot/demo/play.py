"""Plays chapters: one line for each claim, the end at the first false one."""

from __future__ import annotations

import signal
import time
from importlib import import_module
from types import FrameType
from typing import Any, Final

import click

from spike.error import ClaimError, SettingError, SpikeError
from spike.pilot.demo.claim import Chapter, Claim, Sabotage
from spike.pilot.failure import Exit

# One line makes a chapter part of the demo; it is played in this order.
CHAPTERS: Final = {
    "main": "spike.pilot.demo.main.chapter:CHAPTER",
    "keeper": "spike.pilot.demo.keeper.chapter:CHAPTER",
    "rotation": "spike.pilot.demo.rotation.chapter:CHAPTER",
    "recovery": "spike.pilot.demo.recovery.chapter:CHAPTER",
}

LIST: Final = "list"


def play(story: str | None, sabotage: str | None) -> int:
    """Play one chapter, or all; return the exit code. `sabotage` breaks one thing on purpose.

    Raises:
        SettingError: there is no such chapter or sabotage, or the parts cannot be started.
    """
    chapters = _chapters(story)
    if sabotage == LIST:
        for chapter in chapters:
            for each in chapter.sabotages:
                click.echo(each.name)
        return Exit.SUCCESS
    broken = None
    if sabotage is not None:
        chapter, broken = _find(chapters, sabotage)
        chapters = (chapter,)
    # Whoever stops the demo, in whichever way, finds nothing left of it.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    return play_all(chapters, broken)


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt


def play_all(chapters: tuple[Chapter[Any], ...], broken: Sabotage[Any] | None) -> int:
    """Play chapters one after the other until a claim is false; return the exit code."""
    started_s = time.monotonic()
    count = 0
    for chapter in chapters:
        click.echo(f"Chapter {chapter.name}: {chapter.says}")
        told = _Telling(chapter, broken)
        try:
            told.tell()
        except _FalseError as false:
            _say_false(false, broken)
            return Exit.FAILED
        finally:
            count += told.count
    took_s = time.monotonic() - started_s
    click.echo(f"\n{count} claims, all true, checked in {took_s:.0f} s.")
    if broken is not None:
        click.echo(f"Sabotaged with {broken.name}, and no claim was false.")
    return Exit.SUCCESS


def _say_false(false: _FalseError, broken: Sabotage[Any] | None) -> None:
    click.echo(f"FALSE  {false.claim.says}  [{false.claim.name}]")
    click.echo(f"       {false.reason}")
    if broken is not None:
        click.echo(f"       Sabotaged on purpose with {broken.name}: {broken.says}.")


class _FalseError(Exception):
    """A claim is false; ends as output and exit code in this module."""

    def __init__(self, claim: Claim[Any], reason: str) -> None:
        super().__init__()
        self.claim = claim
        self.reason = reason


class _Telling:
    """One chapter as it is told; `count` is the number of claims found true so far."""

    def __init__(self, chapter: Chapter[Any], broken: Sabotage[Any] | None) -> None:
        self._chapter = chapter
        self._broken = broken
        self.count = 0

    def tell(self) -> None:
        with self._chapter.world() as world:
            for scene in self._chapter.scenes:
                click.echo(f"\n{scene.title}")
                for claim in scene.claims:
                    if self._broken is not None and self._broken.before is claim:
                        self._broken.act(world)
                    self._check(claim, world)

    def _check(self, claim: Claim[Any], world: object) -> None:
        started_s = time.monotonic()
        try:
            seen = claim.check(world)
        except ClaimError as error:
            raise _FalseError(claim, error.message) from error
        except SpikeError as error:
            raise _FalseError(claim, f"it could not be checked: {error.message}") from error
        took_s = time.monotonic() - started_s
        self.count += 1
        click.echo(f"  ok  {claim.says} ({took_s:.1f} s)")
        if seen:
            click.echo(f"      {seen}")


def _chapters(story: str | None) -> tuple[Chapter[Any], ...]:
    if story is not None and story not in CHAPTERS:
        raise SettingError(
            f"there is no chapter {story!r}", f"choose one of: {', '.join(CHAPTERS)}"
        )
    names = tuple(CHAPTERS) if story is None else (story,)
    return tuple(_load(CHAPTERS[name]) for name in names)


def _load(target: str) -> Chapter[Any]:
    module, _, attribute = target.partition(":")
    chapter = getattr(import_module(module), attribute)
    assert isinstance(chapter, Chapter)
    return chapter


def _find(chapters: tuple[Chapter[Any], ...], name: str) -> tuple[Chapter[Any], Sabotage[Any]]:
    for chapter in chapters:
        for each in chapter.sabotages:
            if each.name == name:
                return chapter, each
    known = ", ".join(each.name for chapter in chapters for each in chapter.sabotages)
    raise SettingError(f"there is no sabotage {name!r}", f"choose one of: {known}")
