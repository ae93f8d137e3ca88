"""Who holds the anchor of the last change of keys and rights outside of the store: a backup place, or enough Keepers.

Until somebody does, an old copy of the store could not be told from the present one, and writes are stopped.
"""

from __future__ import annotations

from typing import Final

from spike.error import NotReadyError
from spike.nexus.anchor_gate import AnchorGate
from spike.nexus.opened import Stop
from spike.nexus.place_desk import PlaceDesk
from spike.nexus.write_stop import WriteStops

# How long an acknowledgement waits for somebody to hold an anchor: longer than one look at the Keepers takes.
_ANCHOR_WAIT_S: Final = 10.0


class AnchorGuard:
    """Counts changes of keys and rights, and knows up to which one an anchor is held."""

    def __init__(self, places: PlaceDesk, stops: WriteStops) -> None:
        self._places = places
        self._stops = stops
        self._gate = AnchorGate()
        self.has_keepers = False
        """Whether Keepers keep anchors; set once by who looks after them."""

    @property
    def turn(self) -> int:
        """The number of the last change of keys or rights. Read it together with what an anchor is made of."""
        return self._gate.turn

    @property
    def is_anchored(self) -> bool:
        """Whether the anchor of the last change of keys and rights is held outside of the store."""
        return self._gate.is_open

    def change(self) -> None:
        """Count a change that has just been committed."""
        self._gate.change()

    async def anchored(self) -> None:
        """Return once the anchor of every change of keys and rights until now is held outside of the store.

        Until then nothing may be acknowledged.

        Raises:
            NotReadyError: neither a backup place nor enough Keepers take it; what was to be acknowledged may be done.
        """
        if self._gate.is_open or not self._is_guarded:
            return
        # Without Keepers nothing but the places could take it, and these have been tried.
        is_tried = Stop.NO_ANCHOR in self._stops.reasons and not self.has_keepers
        try:
            await self._gate.wait(0 if is_tried else _ANCHOR_WAIT_S)
        except TimeoutError:
            raise NotReadyError(f"it may be done, but {Stop.NO_ANCHOR}") from None

    def note_keepers(self, turn: int, *, hold_anchor: bool) -> None:
        """Take note whether enough Keepers hold the anchor of a turn: all but threshold - 1 of them."""
        if hold_anchor:
            self._hold(turn)
        elif not self._places.one_holds:
            self._miss()

    def note_places(self, turn: int) -> None:
        """Take note whether a backup place holds the anchor of a turn, which every place was just given."""
        if self._places.one_holds:
            self._hold(turn)
        else:
            self._miss()

    @property
    def _is_guarded(self) -> bool:
        """Whether anything outside of the store keeps anchors. A store that keeps nothing needs none."""
        return bool(self._places.states) or self.has_keepers

    def _hold(self, turn: int) -> None:
        self._gate.hold(turn)
        if self._gate.is_open:
            self._stops.lift(Stop.NO_ANCHOR)

    def _miss(self) -> None:
        if self._is_guarded:
            self._stops.add(Stop.NO_ANCHOR)
