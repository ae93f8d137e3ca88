"""Messages of `/v1/operator/factory-reset`: what would be lost, and the phrase that Nexus wants to hear for it."""

from __future__ import annotations

import msgspec

from spike.wire.message import GoInt, Message
from spike.wire.own import BackupPlace


class ResetKeeper(Message, frozen=True):
    """One Keeper: `state` is holding, empty, foreign (another store's share), erased or unreachable."""

    index: GoInt
    url: str
    state: str
    detail: str = ""


class FactoryResetRequest(Message, frozen=True):
    """Without `phrase` nothing is changed: the answer says what would be lost, and gives the phrase for this once.

    `store_id` names the store where its records are gone already, as after a reset that was killed.
    """

    phrase: str = ""
    store_id: str = ""


class FactoryResetAnswer(Message, frozen=True, omit_defaults=True):
    """What would be lost, or was: `done` tells.

    `records` are counted by kind. `places`: where key backups of the store lie; they stay, and so does what is set
    aside (`asides`).
    """

    done: bool
    state: str
    phrase: str | None = None
    store_id: str | None = None
    lineage: str | None = None
    epoch: GoInt | None = None
    records: dict[str, GoInt] = msgspec.field(default_factory=dict)
    keepers: list[ResetKeeper] = msgspec.field(default_factory=list)
    places: list[BackupPlace] = msgspec.field(default_factory=list)
    asides: list[str] = msgspec.field(default_factory=list)
