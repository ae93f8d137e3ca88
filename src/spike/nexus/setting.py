"""Nexus's settings, all from the environment. An invalid value is an error that names the variable, never a default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from spike.error import InputError, SettingError
from spike.nexus.log import LEVELS
from spike.policy.role import RoleMap
from spike.wire.duration import parse_duration_untrusted

_TRUE: Final = frozenset({"1", "t", "true"})
_FALSE: Final = frozenset({"0", "f", "false"})


@dataclass(frozen=True, slots=True)
class NexusSetting:
    """Everything Nexus is told at its start. Times in seconds, sizes in bytes."""

    host: str
    port: int
    engine: str
    data_directory: Path
    backup_directories: tuple[Path, ...]
    max_versions: int
    body_limit_bytes: int
    source_timeout_s: float
    endpoint: str
    log_level: int
    strict_memory: bool
    drain_s: float
    roles: RoleMap


def read_setting(environment: Mapping[str, str], home: Path) -> NexusSetting:
    """Read the settings from an environment.

    Raises:
        SettingError: a value is not as it must be; the variable is named.
    """
    read = _Reader(environment)
    host, port = read.address("SPIKE_NEXUS_TLS_PORT", ":8553")
    data_directory = read.path("SPIKE_NEXUS_DATA_DIR", home / ".spike" / "data")
    return NexusSetting(
        host=host,
        port=port,
        engine=environment.get("SPIKE_NEXUS_BACKEND_STORE", "") or "sqlite",
        data_directory=data_directory,
        backup_directories=read.paths("SPIKE_NEXUS_BACKUP_DIR", home / ".spike" / "backup"),
        max_versions=read.integer("SPIKE_NEXUS_MAX_SECRET_VERSIONS", 10, 1, 1000),
        body_limit_bytes=read.integer("SPIKE_NEXUS_BODY_LIMIT", 1 << 20, 1024, 64 << 20),
        source_timeout_s=read.duration("SPIKE_SPIFFE_SOURCE_TIMEOUT", "30s"),
        endpoint=environment.get("SPIFFE_ENDPOINT_SOCKET", ""),
        log_level=read.level("SPIKE_SYSTEM_LOG_LEVEL", "WARN"),
        strict_memory=read.truth("SPIKE_MEMORY_STRICT", default="false"),
        drain_s=read.duration("SPIKE_NEXUS_DRAIN_TIMEOUT", "10s"),
        roles=RoleMap.from_settings(environment),
    )


class _Reader:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def _text(self, name: str, default: str) -> str:
        return self._environment.get(name, "") or default

    def path(self, name: str, default: Path) -> Path:
        return Path(self._text(name, str(default))).expanduser()

    def paths(self, name: str, default: Path) -> tuple[Path, ...]:
        text = self._text(name, str(default))
        if not all(parts := text.split(":")):
            raise SettingError(
                f"{name} is {text!r}", "name directories, with : between two of them"
            )
        return tuple(Path(part).expanduser() for part in parts)

    def integer(self, name: str, default: int, least: int, most: int) -> int:
        text = self._text(name, str(default))
        if not (text.isascii() and text.isdigit() and least <= int(text[:20]) <= most):
            raise SettingError(
                f"{name} is {text!r}", f"set it to a whole number from {least} to {most}"
            )
        return int(text)

    def duration(self, name: str, default: str) -> float:
        text = self._text(name, default)
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
        text = self._text(name, default).lower()
        if text not in _TRUE | _FALSE:
            raise SettingError(f"{name} is {text!r}", "set it to true or false")
        return text in _TRUE

    def level(self, name: str, default: str) -> int:
        text = self._text(name, default).upper()
        if text not in LEVELS:
            raise SettingError(f"{name} is {text!r}", f"set it to one of {', '.join(LEVELS)}")
        return LEVELS[text]

    def address(self, name: str, default: str) -> tuple[str, int]:
        text = self._text(name, default)
        host, colon, port = text.rpartition(":")
        if not (colon and port.isascii() and port.isdigit() and int(port[:6]) <= 65535):
            raise SettingError(f"{name} is {text!r}", "set it to :PORT or HOST:PORT, such as :8553")
        return host.strip("[]"), int(port)
