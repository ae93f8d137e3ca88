"""Encryption as a service through the client, in both forms."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from pilot_kit import ROLES, Site, SmallNexus, site
from spiffe_kit import material
from spike.client import NexusClient
from spike.client.answer import raw_of
from spike.client.nexus import PasswordFor
from spike.client.pool import Pool, Reply
from spike.client.setting import ClientSetting
from spike.error import AnswerError, DeniedError, InputError, NotReadyError, SpikeError
from spike.secret.cipher_blob import CipherTriple, join_untrusted, split
from spike.server import Response
from spike.spiffe.source import HeldSource
from spike.wire.call import CIPHER_DECRYPT, CIPHER_ENCRYPT, AnyCall

ANY_BYTES = bytes(range(256)) * 300


@pytest.fixture(scope="module")
def made() -> Iterator[Site[SmallNexus]]:
    with site(SmallNexus()) as made, client(made, "superuser") as nexus:
        nexus.init(PasswordFor(bytearray(b"seven otters juggle turnips"), "admin"))
        yield made


def client(made: Site[SmallNexus], role: str) -> NexusClient:
    setting = ClientSetting.from_environment(made.environment(role))
    source = HeldSource(material(made.ca.svid(ROLES[role]), made.ca))
    return NexusClient(Pool(setting.address, source, setting.is_nexus))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_of_any_kind_go_there_and_back_as_they_are(
    made: Site[SmallNexus], kind: type[bytes] | type[bytearray] | type[memoryview]
) -> None:
    with client(made, "superuser") as nexus:
        blob = nexus.encrypt(kind(ANY_BYTES))
        assert made.nexus.bodies[-1] == ANY_BYTES
        assert nexus.decrypt(kind(blob)) == ANY_BYTES
        assert nexus.decrypt(nexus.encrypt(kind(b""))) == b""


def test_the_json_form_gives_the_parts_of_the_same_bytes(made: Site[SmallNexus]) -> None:
    with client(made, "superuser") as nexus:
        parts = nexus.encrypt_json(b"one", "AES-256-GCM")
        assert made.nexus.bodies[-1] == b'{"plaintext":"%b","algorithm":"AES-256-GCM"}' % (
            base64.b64encode(b"one")
        )
        triple = CipherTriple(parts.version, parts.nonce, parts.ciphertext)
        assert nexus.decrypt(join_untrusted(triple)) == b"one"
        assert nexus.decrypt_json(*split(nexus.encrypt(b"two"))) == b"two"


def test_a_refused_decrypt_says_what_to_look_at(made: Site[SmallNexus]) -> None:
    with client(made, "superuser") as nexus:
        with pytest.raises(InputError, match="decrypt failed") as raw:
            nexus.decrypt(b"nothing")
        with pytest.raises(InputError, match="decrypt failed") as in_json:
            nexus.decrypt_json(1, bytes(12), bytes(99))
        for said in (raw, in_json):
            assert "exactly what encrypt gave" in said.value.next_step
    with client(made, "workload") as nexus, pytest.raises(DeniedError, match="encrypt failed"):
        nexus.encrypt(b"x")


def test_what_is_encrypted_can_be_asked_for_again_on_a_fresh_connection(
    made: Site[SmallNexus],
) -> None:
    with client(made, "superuser") as nexus:
        blob = nexus.encrypt(b"x")
        made.nexus.answers.append(Response(200, b"last", close=True))
        assert nexus.encrypt(b"y") == b"last"
        assert nexus.decrypt(blob) == b"x"


def test_many_threads_encrypt_over_a_few_connections(made: Site[SmallNexus]) -> None:
    with client(made, "superuser") as nexus, ThreadPoolExecutor(8) as pool:
        given = [bytes([number]) * number * 100 for number in range(64)]
        assert list(pool.map(nexus.decrypt, pool.map(nexus.encrypt, given))) == given


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, InputError), (401, DeniedError), (503, NotReadyError), (500, AnswerError)],
)
@pytest.mark.parametrize("call", [CIPHER_ENCRYPT, CIPHER_DECRYPT], ids=lambda call: call.path)
def test_an_error_is_never_taken_for_bytes(
    status: int, kind: type[SpikeError], call: AnyCall
) -> None:
    with pytest.raises(kind):
        raw_of(call, Reply(status, b"\1\1\1"), "encrypt")
    assert raw_of(call, Reply(200, b""), "encrypt") == b""
