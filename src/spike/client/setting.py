"""What a client is told by its environment. Pure: the environment is a parameter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from spike.error import InputError, SettingError
from spike.policy.role import Role, RoleMap, roots_from
from spike.spiffe.id import SpiffeId
from spike.wire.duration import parse_duration_untrusted

API_URL: Final = "SPIKE_NEXUS_API_URL"
SOCKET: Final = "SPIFFE_ENDPOINT_SOCKET"
SOURCE_TIMEOUT: Final = "SPIKE_SPIFFE_SOURCE_TIMEOUT"

_DEFAULT_URL: Final = "https://localhost:8553"
_HTTPS_PORT: Final = 443


@dataclass(frozen=True, slots=True)
class Address:
    """Where Nexus listens."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ClientSetting:
    """Everything a client needs to know before it begins.

    `nexus` holds the base IDs of the only servers it speaks with. `socket` is None where the
    environment names no Workload API: whoever needs one says so.
    """

    address: Address
    socket: str | None
    source_timeout_s: float
    nexus: RoleMap

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> ClientSetting:
        """Read the variables of wire contract section 8; what is not set has its default.

        Raises:
            SettingError: a variable has an invalid value; the message names it.
        """
        roots = roots_from(environment, Role.NEXUS.variable)
        bases = tuple((Role.NEXUS, f"spiffe://{root}/{Role.NEXUS.base_path}") for root in roots)
        return cls(
            address=parse_address(environment.get(API_URL, _DEFAULT_URL)),
            socket=environment.get(SOCKET),
            source_timeout_s=_parse_timeout(environment.get(SOURCE_TIMEOUT, "30s")),
            nexus=RoleMap(bases),
        )

    def is_nexus(self, spiffe_id: SpiffeId) -> bool:
        """Tell whether an ID has the nexus role."""
        return Role.NEXUS in self.nexus.roles_of(spiffe_id)


def parse_address(url: str) -> Address:
    """Return host and port of a URL of Nexus.

    Raises:
        SettingError: it is not https://HOST[:PORT].
    """
    try:
        parts = urlsplit(url)
        port = _HTTPS_PORT if parts.port is None else parts.port
        plain = parts.path in ("", "/") and not (
            parts.query or parts.fragment or "@" in parts.netloc
        )
        good = parts.scheme == "https" and plain and port > 0
        host = parts.hostname
    except ValueError:
        good, host = False, None
    if not good or not host:
        raise SettingError(
            f"{API_URL} is not the address of a Nexus",
            f"set {API_URL} to https://HOST:PORT, such as {_DEFAULT_URL}",
        )
    return Address(host, port)


def _parse_timeout(text: str) -> float:
    try:
        seconds = parse_duration_untrusted(text)
    except InputError:
        seconds = 0.0
    if seconds <= 0:
        raise SettingError(
            f"{SOURCE_TIMEOUT} is not a duration above zero",
            f"set {SOURCE_TIMEOUT} to one such as 30s or 1m30s",
        )
    return seconds
