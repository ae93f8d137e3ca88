"""Recovery shards with real processes: what of them, and of the root key, is left in the memory of Nexus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from memory_scan import find_in_process, patterns_of
from process_kit import PASSWORD, RESTORE, Installation
from size import record, size
from spike.crypto import shamir
from spike.crypto.slot import Argon2Setting, SlotKey, derive_slot_secret
from spike.lifecycle import backup
from spike.lifecycle.restore import choose_shard_slot, choose_slot
from spike.lifecycle.shard_text import decode_shard_text_untrusted
from spike.lifecycle.slot import header_of
from spike.memory.key_memory import KeyMemory

RECOVER = "spiffe://spike.ist/spike/pilot/role/recover"


@pytest.fixture
def spike(tmp_path: Path) -> Iterator[Installation]:
    with Installation(tmp_path) as started:
        started.init()
        yield started


def handed_out(spike: Installation, directory: Path) -> list[bytes]:
    done = spike.spike("operator", "recover", "--yes", "--dir", str(directory), identity=RECOVER)
    assert done.returncode == 0, done.stderr.decode()
    return [path.read_bytes() for path in sorted(directory.iterdir())]


def learned(place: Path, texts: list[bytes]) -> Mapping[str, bytes]:
    """Return what nobody may find: learned from the key backup, with the password and with the shards."""
    (path,) = place.glob("*.key-backup")
    held = backup.decode_untrusted(path.read_bytes()).keyring
    chosen, store_id = choose_slot(held, ""), bytes.fromhex(held.hint.store_id)
    setting = Argon2Setting.parse_untrusted(chosen.slot.argon2)
    with derive_slot_secret(PASSWORD, chosen.slot.salt, setting) as slot_secret:
        key = SlotKey.from_slot_secret(slot_secret, store_id, bytes.fromhex(chosen.slot.id))
    shards = [decode_shard_text_untrusted(text) for text in texts[:2]]
    slot = choose_shard_slot(held).slot
    with (
        KeyMemory.allocate(32) as root,
        shamir.interpolate({shard.index: shard.value for shard in shards}) as secret,
    ):
        key.open_into(chosen.sealed.sealed, header_of(held.hint, chosen.slot, chosen.sealed), root)
        by_shards = SlotKey.from_slot_secret(secret, store_id, bytes.fromhex(slot.id))
        assert by_shards.public == slot.public
        return {
            "root key": copied(root),
            "recovery secret": copied(secret),
            "backup-auth key": copied(by_shards.auth),
        }


def copied(key: KeyMemory) -> bytes:
    with key.view() as view:
        return bytes(view)


def patterns(secrets: Mapping[str, bytes]) -> dict[str, bytes]:
    return {
        f"{name}, {form}": pattern
        for name, secret in secrets.items()
        for form, pattern in patterns_of(secret).items()
    }


def test_shards_bring_a_killed_nexus_back(spike: Installation, tmp_path: Path) -> None:
    spike.client.put_secret("a", {"k": "v"})
    texts = handed_out(spike, tmp_path / "shard")
    spike.kill_nexus()
    spike.drop_client()
    spike.start_nexus()
    for text in texts[:2]:
        arguments = ("operator", "restore", "--yes")
        done = spike.spike(*arguments, stdin=text, identity=RESTORE)
    assert done.returncode == 0, done.stderr.decode()
    assert spike.client.get_secret("a") == {"k": "v"}


@pytest.mark.root
def test_no_recovery_secret_or_key_is_left_in_memory_by_handing_out_and_bringing_back(
    spike: Installation, tmp_path: Path
) -> None:
    rounds = size(test=1, proof=5)
    for number in range(rounds):
        texts = handed_out(spike, tmp_path / f"shard-{number}")
        secret = patterns(learned(spike.place, texts))
        assert spike.nexus is not None
        assert find_in_process(spike.nexus.pid, secret) == []
        spike.kill_nexus()
        spike.drop_client()
        spike.start_nexus()
        given = b"".join(texts)
        done = spike.spike("operator", "restore", "--yes", stdin=given, identity=RESTORE)
        assert done.returncode == 0, done.stderr.decode()
        assert find_in_process(spike.nexus.pid, secret) == []
    record(
        "memory searched after shards", rounds, "no recovery secret or key outside of locked pages"
    )


def test_no_file_that_spike_wrote_holds_a_recovery_secret(
    spike: Installation, tmp_path: Path
) -> None:
    texts = handed_out(spike, tmp_path / "shard")
    wanted = patterns(learned(spike.place, texts))
    values = [text.split(b":")[5] for text in texts]
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.parent.name != "shard":
            content = path.read_bytes()
            assert not any(pattern in content for pattern in (*wanted.values(), *values)), path
