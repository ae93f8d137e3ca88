"""Raising the oldest cipher generation that is accepted: what was encrypted before it never opens again. Pure.

SPIKE keeps none of what it encrypts and so cannot encrypt it again: only who holds the blobs can (`spike cipher
rewrap`). Therefore old keys stay until a person ends them. The keys below the new oldest are destroyed by the same
write: a key that opens nothing any more is a risk and no use.
"""

from __future__ import annotations

import msgspec

from spike.lifecycle.keyring import Event, KeyPurpose, Keyring, WrappedKey
from spike.lifecycle.operation import require_idle
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.state import Operation, State, Transition, enter, require


def ended_by(document: Keyring, oldest: int) -> tuple[WrappedKey, ...]:
    """Return the keys that accepting nothing older than `oldest` destroys.

    Raises:
        RefusalError: CIPHER_GENERATION, there is no such generation, or it would be lowered; BUSY or ROTATION, a
            rotation is in progress or can still be rolled back, and would need them.
    """
    active = document.active_key(KeyPurpose.CIPHER).number
    if oldest > active:
        raise RefusalError(
            Reason.CIPHER_GENERATION,
            f"generation {oldest} is above the active one, {active}: nothing would open any more",
            f"name one up to {active}; a rotation makes a new one: spike key rotate --data-only",
        )
    if oldest < document.oldest_cipher:
        raise RefusalError(
            Reason.CIPHER_GENERATION,
            f"generations below {document.oldest_cipher} are not accepted any more; their keys are destroyed",
            f"name one from {document.oldest_cipher} to {active}",
        )
    require_idle(document)
    if document.rotation is not None:
        raise RefusalError(
            Reason.ROTATION,
            f"rotation {document.rotation.id} can still be rolled back, to a key this would destroy",
            "finalize it first (spike key finalize), or roll it back",
        )
    return tuple(
        key
        for key in document.keys
        if key.purpose is KeyPurpose.CIPHER and key.number < oldest and key.is_live
    )


def raised(document: Keyring, oldest: int, at: str, actor: str) -> Keyring:
    """Return the keyring that accepts nothing older than `oldest`, one epoch higher: it must not be undone.

    Raises:
        RefusalError: as `ended_by`.
    """
    ended = ended_by(document, oldest)
    reason = f"cipher generations below {oldest} are not accepted any more"
    keys = tuple(_ended(key, at, actor, reason) if key in ended else key for key in document.keys)
    event = Event(
        sequence=document.next_event,
        at=at,
        kind="cipher-oldest-raised",
        actor=actor,
        detail={
            "oldest": str(oldest),
            "before": str(document.oldest_cipher),
            "destroyed": ", ".join(f"{key.purpose} {key.number}" for key in ended),
        },
    )
    return msgspec.structs.replace(
        document,
        revision=document.revision + 1,
        epoch=document.epoch + 1,
        replaced_at=at,
        keys=keys,
        oldest_cipher=oldest,
        next_event=document.next_event + 1,
        outbox=(*document.outbox, event),
    )


def _ended(key: WrappedKey, at: str, actor: str, reason: str) -> WrappedKey:
    history = key.history
    if key.state is State.SUSPENDED:
        history = enter(history, Transition(State.DEACTIVATED, at, actor, reason))
    require(history, Operation.DESTROY)
    history = enter(history, Transition(State.DESTROYED, at, actor, reason))
    return msgspec.structs.replace(key, history=history, wrapped=b"")
