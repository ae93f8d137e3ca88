"""The Python client: pooled connections to Nexus over SPIFFE mutual TLS.

    from spike.client import NexusClient

    with NexusClient.from_environment() as nexus:
        password = nexus.get_secret("tenant/acme/database")["password"]

Names are loaded when they are first used, so that `import spike.client` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spike.client.nexus import NexusClient

__all__ = ["NexusClient"]


def __getattr__(name: str) -> object:
    if name == "NexusClient":
        from spike.client.nexus import NexusClient

        return NexusClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
