"""How a rotation is followed: a bar on a terminal, plain lines where there is none, JSON lines for programs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import msgspec

from spike.error import NotFoundError
from spike.pilot import output, rotation_text
from spike.pilot.failure import Exit
from spike.pilot.output import Format
from spike.pilot.progress import Line
from spike.wire.rotation import Rotation

if TYPE_CHECKING:
    from spike.client.nexus import NexusClient

WAITS: Final = ("verified", "finalized")
_STEPS: Final = 10
"""Where there is no terminal, a line for each so many parts of the records."""
_HISTORY: Final = 1_000
_BEGIN: Final = "rotation-started"
_ENDS: Final = (
    "rotation-finalized",
    "rotation-dropped",
    "rotation-superseded",
    "rotation-rolled-back",
)


def follow(
    nexus: NexusClient, rotation_id: str, until: str, form: Format, seen: Rotation | None = None
) -> Exit:
    """Show a rotation until it is `until`, has ended, or has a fault that stays; return what it comes to.

    `seen` is how it was told just before, if it was. Ctrl-C ends the looking and not the rotation.

    Raises:
        NotReadyError: Nexus was silent for too long.
        NotFoundError: another one is told of by now, and the history does not say how this one ended.
    """
    screen = _Screen(form)
    try:
        last = _last(nexus, rotation_id, until, screen, seen)
    except KeyboardInterrupt:
        screen.clear()
        output.note(f"Rotation {rotation_id} goes on in Nexus. Look again: {rotation_text.WATCH}")
        return Exit.FAILED
    finally:
        screen.clear()
    if form is Format.HUMAN:
        output.show(None, form, rotation_text.outcome(last))
    return Exit.FAILED if rotation_text.has_failed(last) else Exit.SUCCESS


def _last(
    nexus: NexusClient, rotation_id: str, until: str, screen: _Screen, seen: Rotation | None
) -> Rotation:
    """Show it until the end and return how it is then."""
    from spike.client.rotation import Silent, Until

    last = seen
    for told in nexus.follow_rotation(Until(until)):
        if isinstance(told, Silent):
            screen.silent(told.error.message)
            continue
        if told is None or told.id != rotation_id:
            # It has ended, and Nexus was started again or another one was begun since.
            last = _told_by_history(nexus, rotation_id, last)
            screen.show(last)
            break
        last = told
        screen.show(told)
    assert last is not None
    return last


class _Screen:
    """Where it is shown while it goes on. Data of JSON lines alone go to standard output."""

    def __init__(self, form: Format) -> None:
        self._form = form
        self._line = Line()
        self._is_terminal = sys.stderr.isatty()
        self._before: tuple[object, ...] = ()

    def show(self, told: Rotation) -> None:
        """Show how it is."""
        if self._form is Format.JSON:
            output.show_line(msgspec.to_builtins(told))
        elif self._is_terminal:
            self._line.draw(output.printable(rotation_text.progress(told), terminal=True))
        else:
            self._say(told)

    def _say(self, told: Rotation) -> None:
        """Say it in a line of its own when it is another phase, or a tenth of the records further."""
        walk = told.progress
        part = walk.scanned * _STEPS // walk.expected if walk is not None and walk.expected else 0
        now = (told.phase, told.paused, told.fault, min(part, _STEPS), told.verification is None)
        if now != self._before:
            output.note(rotation_text.progress(told))
        self._before = now

    def silent(self, why: str) -> None:
        """Say that Nexus does not answer, and that it is asked on."""
        self._line.clear()
        output.note(f"Nexus is away: {why}. The rotation goes on when it is back; asking again.")

    def clear(self) -> None:
        """Take away what was drawn."""
        self._line.clear()


def _told_by_history(nexus: NexusClient, rotation_id: str, seen: Rotation | None) -> Rotation:
    """Return how a rotation ended that Nexus tells no more of: as it was last `seen`, with its end."""
    for event in reversed(nexus.get_key_history(_HISTORY).events):
        if seen is None or event.detail.get("id") != rotation_id:
            continue
        if event.kind == _BEGIN:
            break  # what ended before is an earlier try of it
        if event.kind in _ENDS:
            ending = event.kind.removeprefix("rotation-")
            return msgspec.structs.replace(
                seen, phase=ending, fault=event.detail.get("why", ""), paused=False
            )
    raise NotFoundError(
        f"rotation {rotation_id} is not the one that goes on now",
        "see spike key status and spike key history",
    )
