"""Lite: encryption as a service and nothing else. What is served, and what is said at the start.

The store is the one that the SQLite engine keeps, with keyring, access list and history, because a root key without
them could not be backed up, restored or rotated. What differs is what exists for callers: no call on secrets or
policies, and no policy counts. Decision: docs/decision/lite-mode.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

from spike.storage.protocol import POLICY, SECRET_META, Kind
from spike.wire import call
from spike.wire.call import CALLS, CallName

LITE: Final = "lite"
"""The name that stands in the place of an engine's."""

_ENGINE_OF_LITE: Final = "sqlite"
_ALL: Final = frozenset(each.name for each in CALLS)
_NOT_LITE: Final = frozenset(
    each.name
    for each in (
        call.SECRET_PUT,
        call.SECRET_GET,
        call.SECRET_GET_MANY,
        call.SECRET_DELETE,
        call.SECRET_UNDELETE,
        call.SECRET_LIST,
        call.SECRET_METADATA_GET,
        call.POLICY_PUT,
        call.POLICY_GET,
        call.POLICY_DELETE,
        call.POLICY_LIST,
    )
)


class Service(Enum):
    """Which calls exist, whether policies count, and what an administrator is told of it (empty: nothing)."""

    WHOLE = (_ALL, True, "")
    LITE = (
        _ALL - _NOT_LITE,
        False,
        "lite mode: encrypt and decrypt are served, secrets and policies are not",
    )

    def __init__(self, calls: frozenset[CallName], believes_policies: bool, remark: str) -> None:
        self.calls = calls
        self.believes_policies = believes_policies
        self.remark = remark


def service_of(backend: str) -> tuple[Service, str]:
    """Return what SPIKE_NEXUS_BACKEND_STORE asks for: the service, and the name of the storage engine."""
    return (Service.LITE, _ENGINE_OF_LITE) if backend == LITE else (Service.WHOLE, backend)


def unserved(census: Mapping[tuple[Kind, int], int]) -> str:
    """Return what a lite Nexus adds of a store that holds secrets or policies; empty if it holds neither."""
    held = {
        name: sum(count for (kind, _), count in census.items() if kind == wanted)
        for name, wanted in (("secrets", SECRET_META), ("policies", POLICY))
    }
    told = [f"{name} ({count})" for name, count in held.items() if count]
    if not told:
        return ""
    return (
        f"; this store holds {' and '.join(told)}; they stay as they are: "
        "set SPIKE_NEXUS_BACKEND_STORE=sqlite to use them"
    )
