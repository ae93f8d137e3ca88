"""Cipher generations: blobs are brought under the newest key, and old keys are ended, only on purpose and for good."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

import lifecycle_kit
from lifecycle_kit import ADMIN
from nexus_kit import KEEPER, LITE, SUPERUSER, WORKLOAD, RunningNexus, running
from spike.error import OpenError, WipedError
from spike.lifecycle.cipher_oldest import raised
from spike.lifecycle.keyring import Keyring, Phase, Rotation, RotationKind, Scope, Succession
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.ring import KeyRing
from spike.lifecycle.state import State, Transition
from spike.secret.cipher_blob import CipherTriple, join_untrusted, split

ENCRYPT, DECRYPT, REWRAP = "/v1/cipher/encrypt", "/v1/cipher/decrypt", "/v1/cipher/rewrap"
OLDEST = "/v1/key?action=cipher-oldest"
RAW = "application/octet-stream"
BAD = (400, {"err": "api_bad_request"})
AT = "2026-11-27T12:00:00Z"


@pytest_asyncio.fixture
async def nexus(tmp_path: Path) -> AsyncIterator[RunningNexus]:
    async with running(tmp_path) as made:
        yield made


async def next_cipher(nexus: RunningNexus, times: int = 1) -> None:
    for _ in range(times):
        async with nexus.vault.lock:
            await nexus.vault.advance(lifecycle_kit.with_next_cipher(nexus.vault.opened.ring))


async def encrypted(nexus: RunningNexus, plaintext: bytes) -> bytes:
    asked = {"plaintext": base64.b64encode(plaintext).decode()}
    status, answer = await nexus.call(SUPERUSER, ENCRYPT, asked)
    assert status == 200
    return join_untrusted(parts_of(answer))


def parts_of(answer: dict[str, Any]) -> CipherTriple:
    nonce, ciphertext = (base64.b64decode(answer[name]) for name in ("nonce", "ciphertext"))
    return CipherTriple(answer["version"], nonce, ciphertext)


def asked_of(blob: bytes) -> dict[str, object]:
    triple = split(blob)
    return {
        "version": triple.version,
        "nonce": base64.b64encode(triple.nonce).decode(),
        "ciphertext": base64.b64encode(triple.ciphertext).decode(),
    }


async def rewrapped(nexus: RunningNexus, blob: bytes) -> tuple[bytes, bool]:
    status, answer = await nexus.call(SUPERUSER, REWRAP, asked_of(blob))
    assert status == 200, answer
    return join_untrusted(parts_of(answer)), answer["rewrapped"]


async def decrypted(nexus: RunningNexus, blob: bytes) -> bytes | None:
    status, answer = await nexus.call(SUPERUSER, DECRYPT, asked_of(blob))
    return base64.b64decode(answer["plaintext"]) if status == 200 else None


def generation(blob: bytes) -> int:
    return int.from_bytes(blob[3:7], "big")


async def test_an_old_blob_is_brought_under_the_newest_key_after_any_number_of_rotations(
    nexus: RunningNexus,
) -> None:
    old = await encrypted(nexus, b"hello")
    await next_cipher(nexus, 7)
    new, changed = await rewrapped(nexus, old)
    assert (generation(old), generation(new), changed) == (1, 8, True)
    assert await decrypted(nexus, new) == await decrypted(nexus, old) == b"hello"


async def test_what_is_current_comes_back_as_it_is(nexus: RunningNexus) -> None:
    blob = await encrypted(nexus, b"hello")
    assert await rewrapped(nexus, blob) == (blob, False)
    await next_cipher(nexus)
    once, _ = await rewrapped(nexus, blob)
    assert await rewrapped(nexus, once) == (once, False)


async def test_the_raw_form_takes_and_gives_a_blob_and_never_plaintext(nexus: RunningNexus) -> None:
    plaintext = b"a plaintext that must not leave"
    old = await encrypted(nexus, plaintext)
    await next_cipher(nexus)
    status, body = await raw(nexus, REWRAP, old)
    assert status == 200
    assert (generation(body), plaintext in body) == (2, False)
    assert await raw(nexus, DECRYPT, body) == (200, plaintext)
    assert await raw(nexus, REWRAP, body) == (200, body)


async def raw(nexus: RunningNexus, target: str, body: bytes) -> tuple[int, bytes]:
    import asyncio
    import http.client

    def exchange() -> tuple[int, bytes]:
        context = nexus.context_of(SUPERUSER)
        wire = http.client.HTTPSConnection("127.0.0.1", nexus.server.port, context=context)
        wire.request("POST", target, body, {"Content-Type": RAW})
        answer = wire.getresponse()
        told = answer.status, answer.read()
        wire.close()
        return told

    return await asyncio.to_thread(exchange)


async def test_what_does_not_decrypt_is_not_rewrapped_though_it_says_it_is_current(
    nexus: RunningNexus,
) -> None:
    blob = await encrypted(nexus, b"hello")
    spoilt = blob[:-1] + bytes([blob[-1] ^ 1])
    assert await nexus.call(SUPERUSER, REWRAP, asked_of(spoilt)) == BAD
    for body in (b"", b"\1", b"\2" + blob[1:], blob + b"\0"):
        status, told = await raw(nexus, REWRAP, body)
        assert (status, json.loads(told)) == BAD


async def test_the_right_is_that_of_decrypt(nexus: RunningNexus) -> None:
    asked = asked_of(await encrypted(nexus, b"hello"))
    assert (await nexus.call(WORKLOAD, REWRAP, asked))[0] == 401
    assert (await nexus.call(KEEPER, REWRAP, asked))[0] == 401
    assert (await nexus.call(LITE, REWRAP, asked))[0] == 200


# The oldest accepted generation


async def test_without_a_confirmation_the_cost_is_told_and_nothing_changed(
    nexus: RunningNexus,
) -> None:
    old = await encrypted(nexus, b"hello")
    await next_cipher(nexus, 2)
    before = nexus.vault.opened.document
    status, told = await nexus.call(SUPERUSER, OLDEST, {"oldest": 3})
    assert status == 200
    assert (told["oldest"], told["active"], told["done"]) == (1, 3, False)
    assert [(k["generation"], k["sealed"]) for k in told["destroyed"]] == [(1, 1), (2, 0)]
    assert nexus.vault.opened.document == before
    assert await decrypted(nexus, old) == b"hello"


async def test_raising_it_destroys_the_keys_below_in_one_replacement_an_epoch_higher(
    nexus: RunningNexus,
) -> None:
    blobs = [await encrypted(nexus, b"one")]
    await next_cipher(nexus)
    blobs.append(await encrypted(nexus, b"two"))
    await next_cipher(nexus)
    old = nexus.vault.opened
    asked = {"oldest": 2, "confirm": True}
    status, told = await nexus.call(SUPERUSER, OLDEST, asked)
    assert status == 200
    assert (told["oldest"], told["active"], told["done"]) == (2, 3, True)
    assert [key["generation"] for key in told["destroyed"]] == [1]
    assert told["epoch"] == old.document.epoch + 1
    assert await nexus.call(SUPERUSER, DECRYPT, asked_of(blobs[0])) == BAD
    assert await nexus.call(SUPERUSER, REWRAP, asked_of(blobs[0])) == BAD
    assert await decrypted(nexus, blobs[1]) == b"two"
    (key,) = (
        key
        for key in nexus.vault.opened.document.keys
        if (key.purpose, key.number) == ("cipher", 1)
    )
    assert key.state is State.DESTROYED
    assert key.wrapped == b""
    # Its memory is wiped, and that of no other key.
    with pytest.raises(WipedError), old.ring.cipher(1).view():
        pass
    assert nexus.vault.opened.ring.mismatches() == ()
    with pytest.raises(OpenError):
        nexus.vault.opened.ring.cipher(1)
    _, history = await nexus.call(SUPERUSER, "/v1/key?action=history")
    last = history["events"][-1]
    assert (last["kind"], last["actor"]) == ("cipher-oldest-raised", SUPERUSER)
    assert last["detail"] == {"oldest": "2", "before": "1", "destroyed": "cipher 1"}

    again = await nexus.call(SUPERUSER, OLDEST, asked)
    assert again == (200, {**told, "destroyed": []})


async def test_what_is_out_of_reach_is_refused_by_name(nexus: RunningNexus) -> None:
    await next_cipher(nexus)
    await nexus.call(SUPERUSER, OLDEST, {"oldest": 2, "confirm": True})
    before = nexus.vault.opened.document
    for oldest in (1, 3):
        for confirm in (False, True):
            asked = {"oldest": oldest, "confirm": confirm}
            status, told = await nexus.call(SUPERUSER, OLDEST, asked)
            assert (status, told["err"]) == (400, "refused_cipher_generation")
    for oldest in (-1, 1 << 32):
        assert await nexus.call(SUPERUSER, OLDEST, {"oldest": oldest}) == BAD
    assert nexus.vault.opened.document == before
    for who in (WORKLOAD, LITE):
        assert (await nexus.call(who, OLDEST, {"oldest": 2}))[0] == 401


def two_generations() -> Keyring:
    return lifecycle_kit.with_next_cipher(lifecycle_kit.born().ring).document


def rotation(phase: Phase) -> Rotation:
    same = Succession(1, 1)
    return Rotation(
        id="ab" * 16, kind=RotationKind.ROTATION, scope=Scope.DATA_ONLY, phase=phase, started_at=AT,
        actor=ADMIN, reason="", root=same, record=same, cipher=same, window_s=0, max_rate=0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("phase", "reason"),
    [(Phase.RE_ENCRYPTING, Reason.BUSY), (Phase.VERIFIED, Reason.ROTATION)],
)
def test_a_rotation_that_may_need_an_old_key_keeps_it(phase: Phase, reason: Reason) -> None:
    document = msgspec.structs.replace(two_generations(), rotation=rotation(phase))
    with pytest.raises(RefusalError) as refused:
        raised(document, 2, AT, ADMIN)
    assert refused.value.reason is reason


def test_a_compromised_generation_is_destroyed_too() -> None:
    document = two_generations()
    keys = tuple(
        msgspec.structs.replace(
            key, history=(*key.history, Transition(State.COMPROMISED, AT, ADMIN, "leaked"))
        )
        if (key.purpose, key.number) == ("cipher", 1)
        else key
        for key in document.keys
    )
    after = raised(msgspec.structs.replace(document, keys=keys), 2, AT, ADMIN)
    states = {key.number: key.state for key in after.keys if key.purpose == "cipher"}
    assert states == {1: State.DESTROYED, 2: State.ACTIVE}


def test_the_keyring_after_it_opens_again_without_the_destroyed_key() -> None:
    ring = lifecycle_kit.with_next_cipher(lifecycle_kit.born().ring)
    after = raised(ring.document, 2, AT, ADMIN)
    again = KeyRing.open(after, lifecycle_kit.copy_of(ring.root))
    assert again.cipher(2).same_as(ring.cipher(2))
    assert again.mismatches() == ()
    again.wipe()
