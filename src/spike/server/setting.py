"""Reads a program's settings from the environment. An invalid value is an error naming the variable, never a default.

An empty value counts as not set.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from spike.error import InputError, SettingError
from spike.server.log import LEVELS
from spike.wire.duration import parse_duration_untrusted

_TRUE: Final = frozenset({"1", "t", "true"})
_FALSE: Final = frozenset({"0", "f", "false"})


class SettingReader:
    """Reads variables of one environment, each as what it has to be; every method raises SettingError."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def text(self, name: str, default: str) -> str:
        """Return the value as it stands."""
        return self._environment.get(name, "") or default

    def path(self, name: str, default: Path) -> Path:
        """Return a path; a leading ~ is the home directory."""
        return _expanded(name, self.text(name, str(default)))

    def paths(self, name: str, default: Path) -> tuple[Path, ...]:
        """Return several paths, between which `:` stands."""
        text = self.text(name, str(default))
        if not all(parts := text.split(":")):
            raise SettingError(
                f"{name} is {text!r}", "name directories, with : between two of them"
            )
        return tuple(_expanded(name, part) for part in parts)

    def integer(self, name: str, default: int, least: int, most: int) -> int:
        """Return a whole number between two bounds, both included."""
        text = self.text(name, str(default))
        if not (text.isascii() and text.isdigit() and least <= int(text[:20]) <= most):
            raise SettingError(
                f"{name} is {text!r}", f"set it to a whole number from {least} to {most}"
            )
        return int(text)

    def duration(self, name: str, default: str) -> float:
        """Return a duration above zero, in seconds."""
        text = self.text(name, default)
        try:
            seconds = parse_duration_untrusted(text)
        except InputError as error:
            raise SettingError(
                f"{name} is {text!r}", "set it to a duration such as 90s or 1h30m"
            ) from error
        if seconds <= 0:
            raise SettingError(f"{name} is {text!r}", "set it to a duration above zero")
        return seconds

    def truth(self, name: str, default: str) -> bool:
        """Return whether a switch is on."""
        text = self.text(name, default).lower()
        if text not in _TRUE | _FALSE:
            raise SettingError(f"{name} is {text!r}", "set it to true or false")
        return text in _TRUE

    def level(self, name: str, default: str) -> int:
        """Return a level of the log."""
        text = self.text(name, default).upper()
        if text not in LEVELS:
            raise SettingError(f"{name} is {text!r}", f"set it to one of {', '.join(LEVELS)}")
        return LEVELS[text]

    def address(self, name: str, default: str) -> tuple[str, int]:
        """Return host and port; an empty host is every address."""
        text = self.text(name, default)
        host, colon, port = text.rpartition(":")
        if not (colon and port.isascii() and port.isdigit() and int(port[:6]) <= 65535):
            raise SettingError(f"{name} is {text!r}", "set it to :PORT or HOST:PORT, such as :8553")
        return host.strip("[]"), int(port)


def _expanded(name: str, text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise SettingError(
            f"{name} is {text!r}, and there is no such home directory", f"set {name}, or HOME"
        ) from None
