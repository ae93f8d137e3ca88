"""What each call of a Keeper does: message in, what is held changed or shown, status and message out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from typing import Any, Final, NamedTuple

from spike.crypto.shamir import proof_of
from spike.keeper import holding as rules
from spike.keeper.access import Grant
from spike.keeper.anchor import HeldAnchor
from spike.keeper.holding import Holding, Label, Refusal, Share
from spike.keeper.safe import Safe
from spike.memory.key_memory import KeyMemory
from spike.wire import keeper, validate
from spike.wire.call import CallName
from spike.wire.code import ErrorCode
from spike.wire.message import Empty, ErrorAnswer, Message


class Answer(NamedTuple):
    """The status of an answer and its body."""

    status: int
    message: Message


Handler = Callable[[Grant, Safe, Any], Answer]

_DONE: Final = Answer(200, Empty())


def contribute(_grant: Grant, safe: Safe, message: keeper.ContributeRequest) -> Answer:
    """Take a share without set and generation."""
    validate.check_shard(message.shard)
    safe.become(rules.contribute(safe.holding, _locked(message.shard or ())))
    return _DONE


def shard(_grant: Grant, safe: Safe, _message: Empty) -> Answer:
    """Give the bytes that Go's Nexus asks for."""
    value = safe.holding.plain()
    if value is None:
        code = ErrorCode.NOT_FOUND
        return Answer(code.status, keeper.ShardAnswer(None, code.text))
    return Answer(200, keeper.ShardAnswer(_octets(value)))


def stage(_grant: Grant, safe: Safe, message: keeper.StageRequest) -> Answer:
    """Put a share beside the committed one."""
    _check_owner(message.store_id, message.lineage)
    validate.check_id(message.set_id, "setId")
    validate.check_generation(message.generation)
    validate.check_shard_id(message.index)
    validate.check_shard_id(message.threshold)
    validate.check_tag(message.tag)
    validate.check_shard(message.shard)
    label = Label(
        message.store_id,
        message.lineage,
        message.set_id,
        message.generation,
        message.index,
        message.threshold,
    )
    share = Share(label, _locked(message.shard or ()), message.tag)
    try:
        return _change(safe, rules.stage(safe.holding, share))
    finally:
        if safe.holding.staged is not share:
            share.value.wipe()


def commit(_grant: Grant, safe: Safe, message: keeper.CommitRequest) -> Answer:
    """Let the staged share of a set count."""
    _check_owner(message.store_id, message.lineage)
    validate.check_id(message.set_id, "setId")
    validate.check_epoch(message.epoch)
    owner = (message.store_id, message.lineage)
    return _change(safe, rules.commit(safe.holding, owner, message.set_id, message.epoch))


def erase(_grant: Grant, safe: Safe, message: keeper.SetRequest) -> Answer:
    """Forget the share of a set."""
    validate.check_id(message.set_id, "setId")
    return _change(safe, rules.erase(safe.holding, message.set_id))


def get(_grant: Grant, safe: Safe, message: keeper.SetRequest) -> Answer:
    """Give the share of a set, wherever it is."""
    validate.check_id(message.set_id, "setId")
    found = safe.holding.share(message.set_id)
    if found is None:
        code = ErrorCode.NOT_FOUND
        return Answer(code.status, ErrorAnswer(code.text))
    place, share = found
    answer = keeper.ShareAnswer(
        place=place,
        **asdict(share.label),
        epoch=share.epoch,
        shard=_octets(share.value),
        tag=share.tag,
    )
    return Answer(200, answer)


def status(_grant: Grant, safe: Safe, message: keeper.KeeperStatusRequest) -> Answer:
    """Show what is held, and keep a newer anchor."""
    validate.check_challenge(message.nonce)
    if message.anchor is not None:
        anchor = HeldAnchor.parse_untrusted(message.anchor)
        safe.become(rules.keep_anchor(safe.holding, anchor))
    held = safe.holding
    answer = keeper.KeeperStatusAnswer(
        committed=_shown(held.committed, message.nonce),
        staged=_shown(held.staged, message.nonce),
        anchor=None if held.anchor is None else held.anchor.raw,
        version=running_version(),
    )
    return Answer(200, answer)


HANDLERS: Final[Mapping[CallName, Handler]] = {
    keeper.CONTRIBUTE.name: contribute,
    keeper.SHARD.name: shard,
    keeper.STAGE.name: stage,
    keeper.COMMIT.name: commit,
    keeper.ERASE.name: erase,
    keeper.GET.name: get,
    keeper.STATUS.name: status,
}


def _change(safe: Safe, outcome: Holding[KeyMemory] | Refusal[KeyMemory]) -> Answer:
    match outcome:
        case Refusal(reason=reason, held=held):
            label = (
                None if held is None else keeper.HeldLabel(**asdict(held.label), epoch=held.epoch)
            )
            answer = keeper.KeeperRefusalAnswer(f"refused_{reason}", reason.meaning, label)
            return Answer(ErrorCode.BAD_REQUEST.status, answer)
        case Holding():
            safe.become(outcome)
            return _DONE


@cache
def running_version() -> str:
    """Return this program's version, as the disk had it at the first call: the service makes that at its start."""
    return version("spike")


def _check_owner(store_id: str, lineage: str) -> None:
    validate.check_id(store_id, "storeId")
    validate.check_id(lineage, "lineage")


def _locked(octets: Sequence[int]) -> KeyMemory:
    value = KeyMemory.allocate(len(octets))
    with value.view() as view:
        for position, octet in enumerate(octets):
            view[position] = octet
    return value


def _octets(value: KeyMemory) -> list[int]:
    with value.view() as view:
        return list(view)


def _shown(share: Share[KeyMemory] | None, nonce: bytes) -> keeper.Holding | None:
    if share is None:
        return None
    return keeper.Holding(
        **asdict(share.label), epoch=share.epoch, proof=proof_of(share.value, nonce).hex()
    )
