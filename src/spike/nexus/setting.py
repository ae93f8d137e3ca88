"""Nexus's settings, all from the environment. An invalid value is an error that names the variable, never a default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from spike.nexus.keeper_setting import KeeperSetting, read_keeper_setting
from spike.policy.role import RoleMap
from spike.secret.cipher_blob import SIZE_LIMIT_BYTES as CIPHER_LIMIT_BYTES
from spike.server.setting import SettingReader


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
    cipher_limit_bytes: int
    source_timeout_s: float
    endpoint: str
    log_level: int
    strict_memory: bool
    drain_s: float
    roles: RoleMap
    keepers: KeeperSetting


def read_setting(environment: Mapping[str, str], home: Path) -> NexusSetting:
    """Read the settings from an environment.

    Raises:
        SettingError: a value is not as it must be; the variable is named.
    """
    read = SettingReader(environment)
    host, port = read.address("SPIKE_NEXUS_TLS_PORT", ":8553")
    data_directory = read.path("SPIKE_NEXUS_DATA_DIR", home / ".spike" / "data")
    return NexusSetting(
        host=host,
        port=port,
        engine=read.text("SPIKE_NEXUS_BACKEND_STORE", "sqlite"),
        data_directory=data_directory,
        backup_directories=read.paths("SPIKE_NEXUS_BACKUP_DIR", home / ".spike" / "backup"),
        max_versions=read.integer("SPIKE_NEXUS_MAX_SECRET_VERSIONS", 10, 1, 1000),
        body_limit_bytes=read.integer("SPIKE_NEXUS_BODY_LIMIT", 1 << 20, 1024, 64 << 20),
        cipher_limit_bytes=read.integer(
            "SPIKE_NEXUS_CRYPTO_MAX_CIPHERTEXT_SIZE", 64 << 10, 1, CIPHER_LIMIT_BYTES
        ),
        source_timeout_s=read.duration("SPIKE_SPIFFE_SOURCE_TIMEOUT", "30s"),
        endpoint=read.text("SPIFFE_ENDPOINT_SOCKET", ""),
        log_level=read.level("SPIKE_SYSTEM_LOG_LEVEL", "WARN"),
        strict_memory=read.truth("SPIKE_MEMORY_STRICT", default="false"),
        drain_s=read.duration("SPIKE_NEXUS_DRAIN_TIMEOUT", "10s"),
        roles=RoleMap.from_settings(environment),
        keepers=read_keeper_setting(read),
    )
