"""Where a process's own identity comes from, as the rest of SPIKE sees it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from spike.spiffe.peer import Peer, still_trusts
from spike.spiffe.svid import X509Material

Callback = Callable[[X509Material], None]
Unsubscribe = Callable[[], None]

_log = logging.getLogger(__name__)


class MaterialSource(Protocol):
    """The identity of this process, as it is now."""

    @property
    def material(self) -> X509Material:
        """The newest good material. Each object is immutable; a change brings another object."""

    def subscribe(self, callback: Callback) -> Unsubscribe:
        """Call back with each material after the present one, on the source's own thread."""

    def still_trusts(self, peer: Peer, now: datetime) -> bool:
        """Tell whether a peer verified earlier would still be trusted now."""


class HeldSource:
    """A source whose material is set by its owner: Authority for itself, tests, the live sources.

    One thread sets; any thread may read.
    """

    def __init__(self, material: X509Material) -> None:
        self._material = material
        self._callbacks: list[Callback] = []

    @property
    def material(self) -> X509Material:
        """The material last set."""
        return self._material

    def subscribe(self, callback: Callback) -> Unsubscribe:
        """Call back, on the setting thread, with each material set from now on."""
        self._callbacks.append(callback)

        def unsubscribe() -> None:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

        return unsubscribe

    def still_trusts(self, peer: Peer, now: datetime) -> bool:
        """Tell whether a peer verified earlier would still be trusted now."""
        return still_trusts(self._material, peer, now)

    def replace(self, material: X509Material) -> None:
        """Make `material` the present one and tell all subscribers."""
        self._material = material
        for callback in tuple(self._callbacks):
            try:
                callback(material)
            except Exception:  # noqa: BLE001  a subscriber may raise anything
                # One subscriber's fault must not keep a new identity from the others.
                _log.exception("a subscriber failed to take a new SVID")
