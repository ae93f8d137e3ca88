"""A Keeper's settings, all from the environment: its port and its identity, and no more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from spike.policy.role import RoleMap
from spike.server.setting import SettingReader


@dataclass(frozen=True, slots=True)
class KeeperSetting:
    """Everything a Keeper is told at its start. Times in seconds."""

    host: str
    port: int
    endpoint: str
    source_timeout_s: float
    log_level: int
    strict_memory: bool
    roles: RoleMap


def read_setting(environment: Mapping[str, str]) -> KeeperSetting:
    """Read the settings from an environment.

    Raises:
        SettingError: a value is not as it must be; the variable is named.
    """
    read = SettingReader(environment)
    host, port = read.address("SPIKE_KEEPER_TLS_PORT", ":8443")
    return KeeperSetting(
        host=host,
        port=port,
        endpoint=read.text("SPIFFE_ENDPOINT_SOCKET", ""),
        source_timeout_s=read.duration("SPIKE_SPIFFE_SOURCE_TIMEOUT", "30s"),
        log_level=read.level("SPIKE_SYSTEM_LOG_LEVEL", "WARN"),
        strict_memory=read.truth("SPIKE_MEMORY_STRICT", default="false"),
        roles=RoleMap.from_settings(environment),
    )
