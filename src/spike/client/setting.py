"""What a client is told by its environment. Pure: the environment is a parameter."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from spike.error import SettingError, SpiffeIdError
from spike.spiffe.id import SpiffeId

API_URL: Final = "SPIKE_NEXUS_API_URL"
SOCKET: Final = "SPIFFE_ENDPOINT_SOCKET"
SOURCE_TIMEOUT: Final = "SPIKE_SPIFFE_SOURCE_TIMEOUT"
NEXUS_ROOT: Final = "SPIKE_TRUST_ROOT_NEXUS"
ANY_ROOT: Final = "SPIKE_TRUST_ROOT"

_DEFAULT_PORT: Final = 8553
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h)")
_UNIT_S: Final = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0,
}  # fmt: skip


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

    `nexus_roots` are the trust roots under which `spike/nexus` counts as Nexus.
    """

    address: Address
    socket: str | None
    source_timeout_s: float
    nexus_roots: tuple[str, ...]

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> ClientSetting:
        """Read the variables of wire contract section 8; what is not set has its default.

        Raises:
            SettingError: a variable has an invalid value; the message names it.
        """
        root_name = NEXUS_ROOT if environment.get(NEXUS_ROOT) else ANY_ROOT
        return cls(
            address=parse_address(environment.get(API_URL) or f"https://localhost:{_DEFAULT_PORT}"),
            socket=environment.get(SOCKET) or None,
            source_timeout_s=parse_duration(
                environment.get(SOURCE_TIMEOUT) or "30s", SOURCE_TIMEOUT
            ),
            nexus_roots=parse_roots(environment.get(root_name) or "spike.ist", root_name),
        )

    def is_nexus(self, spiffe_id: SpiffeId) -> bool:
        """Tell whether an ID has the nexus role: `R/spike/nexus` or below, for one of the roots R."""
        text = str(spiffe_id)
        bases = [f"spiffe://{root}/spike/nexus" for root in self.nexus_roots]
        return any(text == base or text.startswith(base + "/") for base in bases)


def parse_address(url: str) -> Address:
    """Return host and port of a URL of Nexus.

    Raises:
        SettingError: it is not https://HOST[:PORT].
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    plain = parts.path in ("", "/") and not (parts.query or parts.fragment or parts.username)
    if parts.scheme != "https" or not parts.hostname or not plain:
        raise SettingError(
            f"{API_URL} is not the address of a Nexus",
            f"set {API_URL} to https://HOST:PORT, such as https://localhost:{_DEFAULT_PORT}",
        )
    return Address(parts.hostname, 443 if port is None else port)


def parse_duration(text: str, name: str) -> float:
    """Return the seconds of a Go duration such as `90s`, `1h30m` or `1.5s`; more than zero.

    Raises:
        SettingError: it is none; the message names the variable.
    """
    parts = _DURATION.findall(text)
    seconds = 0.0
    for part in parts:
        number, unit = re.fullmatch(r"([0-9.]+)(.+)", part).groups()  # type: ignore[union-attr]
        seconds += float(number) * _UNIT_S[unit]
    if "".join(parts) != text or seconds <= 0:
        raise SettingError(
            f"{name} is not a duration above zero", f"set {name} to one such as 30s or 1m30s"
        )
    return seconds


def parse_roots(text: str, name: str) -> tuple[str, ...]:
    """Return the trust roots of a comma-separated list; each may hold path segments.

    Raises:
        SettingError: an element is empty or cannot begin a SPIFFE ID.
    """
    roots = tuple(root.strip() for root in text.split(","))
    for root in roots:
        try:
            SpiffeId.parse_untrusted(f"spiffe://{root}/spike")
        except SpiffeIdError as error:
            raise SettingError(
                f"{name} has an element that is no trust root: {error.message}",
                f"set {name} to trust roots such as example.org or example.org/tenant/a",
            ) from error
    return roots
