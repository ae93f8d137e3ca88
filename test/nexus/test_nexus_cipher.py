"""Encrypt and decrypt over real TLS sockets, in JSON and raw; and lite mode."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import random
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import NamedTuple

import pytest
import pytest_asyncio

import lifecycle_kit
from lost_kit import PASSWORD, lose
from nexus_kit import LITE, SUPERUSER, WORKLOAD, RunningNexus, running
from size import record, seed, size
from spike.error import SettingError
from spike.nexus.lite import LITE as LITE_BACKEND
from spike.nexus.lite import Service, service_of, unserved
from spike.nexus.opened import Stop
from spike.nexus.setting import read_setting
from spike.policy.rule import new_policy
from spike.secret.cipher_blob import CipherTriple, blob_size_bytes, join_untrusted, split
from spike.storage.protocol import HISTORY, KEYRING, POLICY, SECRET, SECRET_META
from spike.wire.call import CALLS
from spike.wire.go_time import UnixNs

ENCRYPT = "/v1/cipher/encrypt"
DECRYPT = "/v1/cipher/decrypt"
LIMIT_BYTES = 64 << 10
RAW = "application/octet-stream"
JSON = "application/json"
BAD = (400, {"err": "api_bad_request"})
DENIED = (401, {"err": "access_unauthorized"})
NOT_READY = (503, {"err": "state_not_ready"})
SECRETS = "/v1/store/secrets"
POLICIES = "/v1/acl/policy"
CATCH_ALL = {
    "name": "everybody",
    "spiffeidPattern": "^spiffe://.*$",
    "pathPattern": "^spike/system/cipher/exec$",
    "permissions": ["execute"],
}


class Reply(NamedTuple):
    """An answer, all of it but the date."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def content_type(self) -> str:
        return dict(self.headers)["content-type"]


@pytest_asyncio.fixture
async def nexus() -> AsyncIterator[RunningNexus]:
    async with running() as started:
        yield started


async def send(
    nexus: RunningNexus,
    target: str,
    body: bytes | Iterable[bytes],
    *,
    who: str = SUPERUSER,
    content_type: str | None = RAW,
) -> Reply:
    """POST bytes, chunked if they are given in pieces."""
    context = nexus.context_of(who)

    def exchange() -> Reply:
        wire = http.client.HTTPSConnection(
            "127.0.0.1", nexus.server.port, context=context, timeout=30
        )
        headers = {} if content_type is None else {"Content-Type": content_type}
        with contextlib.closing(wire):
            wire.request("POST", target, body, headers, encode_chunked=not isinstance(body, bytes))
            answer = wire.getresponse()
            told = tuple((n.lower(), v) for n, v in answer.getheaders() if n.lower() != "date")
            return Reply(answer.status, told, answer.read())

    return await asyncio.to_thread(exchange)


async def encrypted(nexus: RunningNexus, plaintext: bytes, who: str = SUPERUSER) -> bytes:
    reply = await send(nexus, ENCRYPT, plaintext, who=who)
    assert reply.status == 200, reply
    return reply.body


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def triple_of(answer: dict[str, object]) -> CipherTriple:
    nonce, ciphertext = (base64.b64decode(str(answer[name])) for name in ("nonce", "ciphertext"))
    assert answer["version"] == 1
    return CipherTriple(1, nonce, ciphertext)


# The two forms


async def test_json_is_spelled_as_go_spells_it(nexus: RunningNexus) -> None:
    reply = await send(nexus, ENCRYPT, b'{"plaintext":"aGVsbG8="}', content_type=JSON)
    assert reply.status == 200
    assert reply.content_type == JSON
    answer = json.loads(reply.body)
    assert list(answer) == ["version", "nonce", "ciphertext"]
    assert len(base64.b64decode(answer["nonce"])) == 12
    back = await send(nexus, DECRYPT, reply.body, content_type=JSON)
    assert back.body == b'{"plaintext":"aGVsbG8="}'


async def test_raw_takes_and_gives_bytes(nexus: RunningNexus) -> None:
    reply = await send(nexus, ENCRYPT, b"hello")
    assert (reply.status, reply.content_type) == (200, RAW)
    assert dict(reply.headers)["cache-control"].startswith("no-store")
    assert len(reply.body) == blob_size_bytes(5)
    back = await send(nexus, DECRYPT, reply.body)
    assert (back.status, back.content_type, back.body) == (200, RAW, b"hello")


async def test_what_one_form_encrypted_the_other_decrypts(nexus: RunningNexus) -> None:
    _, answer = await nexus.call(SUPERUSER, ENCRYPT, {"plaintext": b64(b"one")})
    assert (await send(nexus, DECRYPT, join_untrusted(triple_of(answer)))).body == b"one"
    triple = split(await encrypted(nexus, b"two"))
    asked = {"version": 1, "nonce": b64(triple.nonce), "ciphertext": b64(triple.ciphertext)}
    assert await nexus.call(SUPERUSER, DECRYPT, asked) == (200, {"plaintext": b64(b"two")})


async def test_a_body_in_chunks_is_taken_as_go_streams_it(nexus: RunningNexus) -> None:
    plaintext = random.Random(1).randbytes(LIMIT_BYTES)
    pieces = [plaintext[n : n + 7001] for n in range(0, LIMIT_BYTES, 7001)]
    sealed = await send(nexus, ENCRYPT, iter(pieces))
    assert sealed.status == 200
    opened = await send(nexus, DECRYPT, iter([sealed.body[:1], sealed.body[1:]]))
    assert opened.body == plaintext
    assert (await send(nexus, ENCRYPT, iter([]))).status == 200


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "application/octet-stream; charset=utf-8",
        "Application/Octet-Stream",
        "application/octet-stream2",
        "text/plain",
    ],
)
async def test_only_the_exact_content_type_is_raw(
    nexus: RunningNexus, content_type: str | None
) -> None:
    raw = await send(nexus, ENCRYPT, b"hello", content_type=content_type)
    assert (raw.status, json.loads(raw.body)) == BAD
    told = await send(nexus, ENCRYPT, b'{"plaintext":""}', content_type=content_type)
    assert told.status == 200


async def test_no_other_call_has_a_raw_form(nexus: RunningNexus) -> None:
    reply = await send(nexus, f"{SECRETS}?action=list", b"raw")
    assert (reply.status, json.loads(reply.body)) == BAD
    assert (await send(nexus, f"{SECRETS}?action=list", b"{}")).body == b'{"keys":[]}'


@pytest.mark.parametrize(
    ("algorithm", "status"),
    [("", 200), ("AES-256-GCM", 200), ("AES-GCM", 200), ("aes-256-gcm", 400), ("ROT13", 400)],
)
async def test_an_algorithm_is_accepted_if_it_names_the_one_there_is(
    nexus: RunningNexus, algorithm: str, status: int
) -> None:
    asked = {"plaintext": "aGVsbG8=", "algorithm": algorithm}
    assert (await nexus.call(SUPERUSER, ENCRYPT, asked))[0] == status
    triple = split(await encrypted(nexus, b"hello"))
    parts = {
        "version": 1,
        "nonce": b64(triple.nonce),
        "ciphertext": b64(triple.ciphertext),
        "algorithm": algorithm,
    }
    assert (await nexus.call(SUPERUSER, DECRYPT, parts))[0] == status


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"plaintext":1}', b'{"plaintext":"a"}', b'{"plaintext":"aGVsbG8="} x'],
)
async def test_json_that_is_none_is_400(nexus: RunningNexus, body: bytes) -> None:
    assert await nexus.call(SUPERUSER, ENCRYPT, raw=body) == BAD


async def test_null_and_no_plaintext_are_the_empty_one(nexus: RunningNexus) -> None:
    for body in (b'{"plaintext":null}', b"{}", b'{"PlainText":"","more":1}'):
        status, answer = await nexus.call(SUPERUSER, ENCRYPT, raw=body)
        assert status == 200
        assert (await send(nexus, DECRYPT, join_untrusted(triple_of(answer)))).body == b""


# Limits


async def test_the_limit_is_one_of_plaintext_and_whatever_encrypts_decrypts(
    nexus: RunningNexus,
) -> None:
    largest = random.Random(2).randbytes(LIMIT_BYTES)
    blob = await encrypted(nexus, largest)
    assert (await send(nexus, DECRYPT, blob)).body == largest
    status, answer = await nexus.call(SUPERUSER, ENCRYPT, {"plaintext": b64(largest)})
    assert status == 200
    assert await nexus.call(SUPERUSER, DECRYPT, answer) == (200, {"plaintext": b64(largest)})


async def test_one_byte_more_is_400_in_every_form(nexus: RunningNexus) -> None:
    too_large = bytes(LIMIT_BYTES + 1)
    for body in (too_large, iter([too_large])):
        reply = await send(nexus, ENCRYPT, body)
        assert (reply.status, json.loads(reply.body)) == BAD
    assert await nexus.call(SUPERUSER, ENCRYPT, {"plaintext": b64(too_large)}) == BAD
    blob = await encrypted(nexus, bytes(LIMIT_BYTES))
    assert (await send(nexus, DECRYPT, blob + b"\0")).status == 400
    assert (await send(nexus, ENCRYPT, b"x")).status == 200


async def test_the_limit_is_a_setting() -> None:
    async with running(cipher_limit_bytes=3) as nexus:
        assert (await send(nexus, DECRYPT, await encrypted(nexus, b"abc"))).body == b"abc"
        assert (await send(nexus, ENCRYPT, b"abcd")).status == 400
        assert await nexus.call(SUPERUSER, ENCRYPT, {"plaintext": b64(b"abcd")}) == BAD


def test_the_setting_is_bytes_up_to_what_a_record_holds(tmp_path: Path) -> None:
    name = "SPIKE_NEXUS_CRYPTO_MAX_CIPHERTEXT_SIZE"
    assert read_setting({}, tmp_path).cipher_limit_bytes == LIMIT_BYTES
    assert read_setting({name: ""}, tmp_path).cipher_limit_bytes == LIMIT_BYTES
    for good in (1, 16 << 20):
        assert read_setting({name: str(good)}, tmp_path).cipher_limit_bytes == good
    for bad in ("0", "-1", "64k", "1.5", " 1", str((16 << 20) + 1)):
        with pytest.raises(SettingError, match=name):
            read_setting({name: bad}, tmp_path)


# Who may, and when


async def test_lite_workloads_and_whom_a_policy_names_may_and_nobody_else(
    nexus: RunningNexus,
) -> None:
    blob = await encrypted(nexus, b"x", LITE)
    assert (await send(nexus, DECRYPT, blob, who=LITE)).body == b"x"
    for body in (b"x", b"x" * (LIMIT_BYTES - 1)):
        reply = await send(nexus, ENCRYPT, body, who=WORKLOAD)
        assert (reply.status, json.loads(reply.body)) == DENIED
    assert await nexus.call(SUPERUSER, POLICIES, CATCH_ALL) == (200, {})
    assert (await send(nexus, DECRYPT, blob, who=WORKLOAD)).body == b"x"


async def test_who_may_not_learns_nothing_of_his_body(nexus: RunningNexus) -> None:
    blob = await encrypted(nexus, b"x")
    replies = {
        await send(nexus, DECRYPT, body, who=WORKLOAD, content_type=kind)
        for body in (blob, b"", b"{")
        for kind in (RAW, JSON)
    }
    assert len(replies) == 1
    assert replies.pop().status == 401


async def test_without_a_root_key_every_form_is_503() -> None:
    async with running(born=False) as nexus:
        for target in (ENCRYPT, DECRYPT):
            for kind in (RAW, JSON):
                reply = await send(nexus, target, b"{", content_type=kind)
                assert (reply.status, json.loads(reply.body)) == NOT_READY


async def test_nothing_is_encrypted_while_a_key_is_wrong_and_what_was_still_decrypts(
    nexus: RunningNexus,
) -> None:
    blob = await encrypted(nexus, b"x")
    nexus.vault.stop_writes(Stop.WRONG_KEY)
    reply = await send(nexus, ENCRYPT, b"x")
    assert (reply.status, json.loads(reply.body)) == NOT_READY
    assert await nexus.call(SUPERUSER, ENCRYPT, {"plaintext": ""}) == NOT_READY
    assert (await send(nexus, DECRYPT, blob)).body == b"x"


async def test_nothing_is_stored(nexus: RunningNexus) -> None:
    before = await nexus.store.census()
    await send(nexus, DECRYPT, await encrypted(nexus, b"x"))
    assert await nexus.store.census() == before


# Generations, and what is wrong


async def test_old_blobs_open_under_a_newer_key_until_the_oldest_accepted_one_is_raised(
    nexus: RunningNexus,
) -> None:
    old = await encrypted(nexus, b"old")
    async with nexus.vault.lock:
        await nexus.vault.advance(lifecycle_kit.with_next_cipher(nexus.vault.opened.ring))
    new = await encrypted(nexus, b"new")
    assert (old[3:7], new[3:7]) == (b"\0\0\0\1", b"\0\0\0\2")
    assert (await send(nexus, DECRYPT, old)).body == b"old"
    assert (await send(nexus, DECRYPT, new)).body == b"new"
    async with nexus.vault.lock:
        await nexus.vault.advance(lifecycle_kit.accepting_from(nexus.vault.opened.ring, 2))
    reply = await send(nexus, DECRYPT, old)
    assert (reply.status, json.loads(reply.body)) == BAD
    assert (await send(nexus, DECRYPT, new)).body == b"new"


async def test_nothing_of_a_wrong_blob_can_be_told_from_another(nexus: RunningNexus) -> None:
    first = await encrypted(nexus, b"first")
    async with nexus.vault.lock:
        ring = lifecycle_kit.with_next_cipher(nexus.vault.opened.ring)
        await nexus.vault.advance(lifecycle_kit.accepting_from(ring, 2))
    good = await encrypted(nexus, b"good")
    async with running() as another:
        foreign = await encrypted(another, b"foreign")
    wrong = {
        "an older generation than accepted": first,
        "another store": foreign,
        "an unknown generation": good[:3] + b"\0\0\0\x63" + good[7:],
        "the generation 0": good[:3] + bytes(4) + good[7:],
        "another version": b"\2" + good[1:],
        "a newer record format": good[:1] + b"\2" + good[2:],
        "another suite": good[:2] + b"\2" + good[3:],
        "another salt": good[:7] + bytes(24) + good[31:],
        "another commitment": good[:31] + bytes(32) + good[63:],
        "another tag": good[:-1] + bytes([good[-1] ^ 1]),
        "cut off": good[:-1],
        "continued": good + b"\0",
        "one byte": b"\1",
        "nothing": b"",
    }
    raw = {cause: await send(nexus, DECRYPT, blob) for cause, blob in wrong.items()}
    assert len(set(raw.values())) == 1, raw
    assert raw["cut off"].body == b'{"err":"api_bad_request"}'
    triples = {cause: split(blob) for cause, blob in wrong.items() if len(blob) > 90}
    good_triple = split(good)
    triples["a short nonce"] = good_triple._replace(nonce=bytes(11))
    triples["no ciphertext"] = good_triple._replace(ciphertext=b"")
    triples["no version"] = good_triple._replace(version=0)
    told = set()
    for triple in triples.values():
        asked = {
            "version": triple.version,
            "nonce": b64(triple.nonce),
            "ciphertext": b64(triple.ciphertext),
        }
        told.add(await send(nexus, DECRYPT, json.dumps(asked).encode(), content_type=JSON))
    assert told == set(raw.values())
    assert (await send(nexus, DECRYPT, good)).body == b"good"


async def test_many_at_once_each_get_their_own(nexus: RunningNexus) -> None:
    chosen, count = seed(), size(test=150, proof=2_000)
    print("seed", chosen)
    source = random.Random(chosen)
    plaintexts = [source.randbytes(source.randint(0, LIMIT_BYTES)) for _ in range(count)]

    async def there_and_back(plaintext: bytes, form: int) -> bytes:
        if form:
            _, parts = await nexus.call(LITE, ENCRYPT, {"plaintext": b64(plaintext)})
            status, answer = await nexus.call(LITE, DECRYPT, parts)
            assert status == 200
            return base64.b64decode(answer["plaintext"])
        return (await send(nexus, DECRYPT, await encrypted(nexus, plaintext))).body

    for start in range(0, count, 50):
        batch = plaintexts[start : start + 50]
        back = await asyncio.gather(*(there_and_back(p, n % 2) for n, p in enumerate(batch)))
        assert back == batch
    record("cipher calls over TLS, 50 at once", count, "each got its own back", seed=chosen)


async def test_the_key_may_change_while_everybody_encrypts(nexus: RunningNexus) -> None:
    changed = asyncio.Event()
    generations: set[bytes] = set()

    async def one(number: int) -> None:
        first = True
        while first or not changed.is_set():
            first = False
            plaintext = b"%d" % number
            blob = await encrypted(nexus, plaintext, LITE)
            generations.add(blob[3:7])
            assert (await send(nexus, DECRYPT, blob, who=LITE)).body == plaintext

    async def change() -> None:
        for _ in range(3):
            async with nexus.vault.lock:
                await nexus.vault.advance(lifecycle_kit.with_next_cipher(nexus.vault.opened.ring))
            await encrypted(nexus, b"between")
        changed.set()

    await asyncio.gather(change(), *(one(number) for number in range(6)))
    generations.add((await encrypted(nexus, b"last"))[3:7])
    assert b"\0\0\0\4" in generations
    assert len(generations) >= 2


# Lite mode


def test_lite_is_the_same_engine_with_fewer_calls() -> None:
    assert service_of(LITE_BACKEND) == (Service.LITE, "sqlite")
    assert service_of("memory") == (Service.WHOLE, "memory")
    assert Service.WHOLE.calls == {call.name for call in CALLS}
    gone = Service.WHOLE.calls - Service.LITE.calls
    assert gone == {call.name for call in CALLS if call.path.startswith((SECRETS, POLICIES))}


def test_a_store_with_secrets_is_served_lite_restored_and_served_whole_again(
    tmp_path: Path,
) -> None:
    held = lose(tmp_path)

    async def live() -> None:
        async with running(held.data, place=held.place, born=False, service=Service.LITE) as nexus:
            before = await nexus.store.census()
            assert "this store holds secrets (2) and policies (1); they stay" in unserved(before)
            assert (await send(nexus, ENCRYPT, b"x")).status == 503
            assert (await nexus.restore(PASSWORD))[0] == 200
            blob = await encrypted(nexus, b"x", LITE)
            assert await nexus.call(SUPERUSER, f"{SECRETS}?action=get", {"path": "a"}) == BAD
            kept = await nexus.store.census()
            assert {kind: kept[kind] for kind in before if kind[0] != HISTORY} == {
                kind: count for kind, count in before.items() if kind[0] != HISTORY
            }
        async with running(held.data, place=held.place, born=False) as nexus:
            assert (await nexus.restore(PASSWORD))[0] == 200
            got = await nexus.call(WORKLOAD, f"{SECRETS}?action=get", {"path": "a"})
            assert got == (200, {"data": {"k": "1"}})
            assert (await send(nexus, DECRYPT, blob)).body == b"x"

    asyncio.run(live())


@pytest.mark.parametrize("who", [SUPERUSER, LITE, WORKLOAD])
async def test_in_lite_mode_a_call_on_secrets_or_policies_is_none(who: str) -> None:
    async with running(service=Service.LITE) as nexus:
        for call in CALLS:
            if call.path.startswith((SECRETS, POLICIES)):
                assert await nexus.call(who, call.target, {"path": "a"}) == BAD, call.name
        told = await nexus.call(who, "/v1/operator/status")
        assert told[1]["ready"] is True
        if who == SUPERUSER:
            assert told[1]["remarks"] == [Service.LITE.remark]


async def test_in_lite_mode_the_superuser_and_lite_workloads_encrypt_and_no_policy_counts() -> None:
    async with running(service=Service.LITE) as nexus:
        policy = new_policy(
            "everybody",
            "^spiffe://.*$",
            "^spike/system/cipher/exec$",
            ["execute"],
            now=UnixNs(1),
            replaced=None,
        )
        await nexus.vault.opened.policies.put(policy)
        for who in (SUPERUSER, LITE):
            assert (
                await send(nexus, DECRYPT, await encrypted(nexus, b"x", who), who=who)
            ).body == b"x"
        assert (await send(nexus, ENCRYPT, b"x", who=WORKLOAD)).status == 401


def test_what_a_lite_nexus_does_not_serve_it_names() -> None:
    assert unserved({}) == ""
    assert unserved({(KEYRING, 1): 1, (HISTORY, 1): 7}) == ""
    told = unserved({(SECRET_META, 1): 2, (SECRET_META, 2): 3, (SECRET, 1): 99})
    assert "this store holds secrets (5); they stay as they are" in told
    assert "policies (4)" in unserved({(POLICY, 1): 4})
