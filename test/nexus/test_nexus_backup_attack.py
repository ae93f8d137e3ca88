"""A key backup that somebody changed: each byte after the derivation, some through the whole way, and made-up costs."""

from __future__ import annotations

import base64
import random
import re
from pathlib import Path

import pytest

import lifecycle_kit
from lost_kit import PASSWORD, Lost, lose
from nexus_kit import running
from size import record, seed, size
from spike.crypto.slot import SlotKey, seal_to
from spike.error import FormatError, OpenError
from spike.lifecycle import anchor, backup, restore
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.slot import header_of, is_authentic
from spike.memory.key_memory import KeyMemory
from spike.nexus.examination import Asked
from spike.nexus.password_desk import PasswordDesk
from spike.nexus.restore_flow import RestoreDesk, RestoreInput
from spike.nexus.vault import Vault
from spike.wire.own import PASSWORD_INFO

ACTOR = "spiffe://spike.ist/spike/pilot/role/restore"
NAMED = {
    Reason.DAMAGED,
    Reason.PLANTED,
    Reason.WRONG_PASSWORD,
    Reason.NEWER_FORMAT,
    Reason.UNKNOWN_SLOT,
    Reason.FOREIGN,
}


def opened(raw: bytes, slot_key: SlotKey) -> bool:
    """Go the way of a restore from the derived slot key on; tell whether the copy was believed.

    Raises:
        RefusalError, OpenError, FormatError: it was refused.
    """
    candidate = restore.choose(None, raw)
    chosen = restore.choose_slot(candidate.held, "")
    if chosen.slot.public != slot_key.public:
        return False
    header = header_of(candidate.held.hint, chosen.slot, chosen.sealed)
    if not is_authentic(slot_key.auth, header, chosen.sealed):
        return False
    with KeyMemory.allocate(32) as root:
        slot_key.open_into(chosen.sealed.sealed, header, root)
        restore.confirm(candidate, root)
    return True


def believed(raw: bytes, slot_key: SlotKey) -> bool:
    try:
        return opened(raw, slot_key)
    except RefusalError as refusal:
        if refusal.reason not in NAMED:
            raise
    except (OpenError, FormatError):
        pass
    return False


def a_backup() -> tuple[bytes, SlotKey]:
    born = lifecycle_kit.born()
    document, root = born.ring.document, born.ring.root
    statement = anchor.encode(anchor.anchor_of(document, 0), root)
    return backup.encode(born.raw, statement, lifecycle_kit.AT, document, root), born.slot_key


def test_no_backup_with_a_changed_byte_is_believed() -> None:
    raw, slot_key = a_backup()
    assert believed(raw, slot_key)
    positions = range(0, len(raw), size(test=5, proof=1))
    for position in positions:
        changed = bytearray(raw)
        changed[position] ^= 1
        assert not believed(bytes(changed), slot_key), position
    record("bytes of a key backup flipped, after the derivation", len(positions), "each refused")


def test_no_backup_that_is_cut_or_longer_or_another_stores_is_believed() -> None:
    raw, slot_key = a_backup()
    other, _ = a_backup()
    for changed in (raw[:-1], raw[1:], raw[: len(raw) // 2], raw + b"\n", raw + raw, other, b""):
        assert not believed(changed, slot_key)


@pytest.fixture
def lost(tmp_path: Path) -> Lost:
    return lose(tmp_path)


async def refusal_of(vault: Vault, desk: PasswordDesk, raw: bytes) -> RefusalError:
    """Restore from a backup by the password, with the real child, as if no attempt had been made before."""
    session = await desk.begin(ACTOR)
    desk.take(session.id, ACTOR)
    try:
        sealed = seal_to(session.public, PASSWORD_INFO, memoryview(PASSWORD))
        given = RestoreInput(sealed, "", Asked(backup=raw, anchors=(), actor=ACTOR))
        with pytest.raises(RefusalError) as caught:
            await RestoreDesk(vault).preview(session, given)
    finally:
        await session.close()
    return caught.value


async def test_random_flips_are_refused_through_password_and_derivation(lost: Lost) -> None:
    chosen, count = seed(), size(test=4, proof=50)
    print("seed", chosen)
    chance, raw = random.Random(chosen), lost.backup_path.read_bytes()
    async with running(lost.data, born=False) as nexus:
        desk = PasswordDesk()
        for _ in range(count):
            changed = bytearray(raw)
            changed[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
            refusal = await refusal_of(nexus.vault, desk, bytes(changed))
            assert refusal.reason in NAMED
            assert not nexus.vault.is_open
        await desk.close()
    record("random flips of a key backup, through the password", count, "each refused", seed=chosen)


@pytest.mark.parametrize(
    ("cost", "reasons"),
    [
        ("m=1024,t=3,p=4", {Reason.DAMAGED}),
        ("m=65536,t=1,p=4", {Reason.DAMAGED}),
        ("m=65536,t=3,p=1", {Reason.DAMAGED}),
        ("m=9999999,t=3,p=4", {Reason.DAMAGED}),
        ("m=65536,t=999,p=4", {Reason.DAMAGED}),
        ("m=65536,t=3,p=99", {Reason.DAMAGED}),
        # Within the limits it is derived, and gives another key.
        ("m=65536,t=4,p=4", {Reason.WRONG_PASSWORD}),
    ],
)
async def test_a_cost_that_somebody_made_cheaper_or_dearer_is_refused(
    lost: Lost, cost: str, reasons: set[Reason]
) -> None:
    held = backup.decode_untrusted(lost.backup_path.read_bytes())
    keyring_raw = re.sub(rb"m=\d+,t=\d+,p=\d+", cost.encode(), held.keyring.raw, count=1)
    assert keyring_raw != held.keyring.raw
    raw = _around(lost.backup_path.read_bytes(), held.keyring.raw, keyring_raw)
    async with running(lost.data, born=False) as nexus:
        desk = PasswordDesk()
        refusal = await refusal_of(nexus.vault, desk, raw)
        await desk.close()
    assert refusal.reason in reasons, refusal


def _around(raw: bytes, old: bytes, new: bytes) -> bytes:
    """Return a backup with another keyring in it; its MAC no longer fits."""
    return raw.replace(_base64(old), _base64(new))


def _base64(raw: bytes) -> bytes:
    return base64.b64encode(raw)
