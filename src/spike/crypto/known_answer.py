"""Known-answer tests: one for every primitive that keys depend on.

They run when a process starts and before each rotation; one that fails stops it, because a wrong
primitive would make data that nothing can open again. All together take about 10 ms.

Sources: FIPS 180-4 (SHA-512, "abc"), RFC 9106 section 5.3 (Argon2id); HMAC and HKDF values computed with
CPython's own `hmac` and `hashlib`; AES-256-GCM from NIST's GCM specification, test case 14; the shares from
polynomials multiplied out and reduced by long division (test/crypto/test_shamir.py); the record and the HPKE
message were sealed by the first version of this code, so they also show that it still opens what was written then.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from spike.crypto.derivation import derive_into
from spike.crypto.mac import mac
from spike.crypto.record import RecordContext, open_untrusted, seal
from spike.crypto.shamir import interpolate
from spike.crypto.slot import SlotKey, seal_to
from spike.error import KnownAnswerError, SpikeError
from spike.memory import KeyMemory

_MESSAGE: Final = b"known answer"
_STORE: Final = bytes(range(16))
_CONTEXT: Final = RecordContext(_STORE, "known-answer", "key", "version", "field")
_RECORD: Final = (
    "0101000000075dff67d858a3c961bb27ab82af9a28d9ca0d63f8906f10a9622624cdc652f202708e"
    "90227364fedf66e1ca769476af8e8f59fce3708aef1c946ec48a3c1e769126a6b3a51a64fe5d2c21"
    "eeb8e7f1953da28b8c05"
)
_SHARES: Final = {  # of the key of the tests, threshold 3
    1: "c84c55ded7b079b2dbd45d463ff8c15a43dce5ae6740c9c22b642dd6cf4851aa",
    2: "8b7629e8b6cc18697f2ed1fdf52f8d5c1786b4ee068a45344fb3d7cdb3727d6c",
    200: "71c14c15a05a37010ebc3108bb78885a5780605289e3d103f7907683029ec9a3",
    255: "638b7d7418aeca5d0a39d0a2ffaf4a0bc1afad7eee569ec043e9da0207fb6e42",
}
_SEALED_PLAINTEXT: Final = bytes(range(100, 132))
_SEALED: Final = (
    "tY0G2430gOBrRm3B60rEQ9G5VigVqp7qvPcTMS1LLsLqSDYYtlosaZT1CiIHVjAHgvrKwGMY5kxvVkCuZn4evk8I"
    "Qjlp8KBzEsIehCvRM1U3IMKlxbaAHFP4P9gpSF8MCrViUBs+DSG97qNFIW/ZSIXext04tvJHPQlvfyt4a5mKDddN"
    "yJJB59RJnlDyrJzxZjK1LYUdGGwzwvDEbkU1+q2Y0081AV1xspei52bSkz/uajxzlpMx9hpVvaq42ih/Fvz96Qf0"
    "P6ttlc5Q/NkBmqwvg8y6hJ+JOE9xU8Piw+plzVxlytP5ixDFPqIqJrtrO3VH+y2cXrhNHQR5ucf+4Gdg1Rr8rfmk"
    "UEY2MbQEyl7boYBubZPQf0RObAFfLblhmD2/9wJnHgTqm0rGkl54ZBuJQWN7QV7m73/sH8wcQ/a/ejL5xSimxu2L"
    "6rr30J7MdS/orZfKe2hSkG89Viqva2lIbo0wqAtNOX/AATIMsA/GIZ5UtKB/3I+aUG+I9CoE54O5GK4BZUgLVBYB"
    "+ktlJCFKPIW0pi76hvSbog+hv+DMgiY7lFXxzD7uD1ybBPlMedXzdDcTvkVQ1xY30a1M4kImkoIwcN9SrztsRw6+"
    "c/N8N8a4GOEdKey8AvmpSo58L9hCfckzQpOdluIM7Ur5zhHWuZSVVe9XO8HTcG5NMhNmJYVbYFEIVjDvOoZCI5oq"
    "ft63bqs2anlJ3X44bAL7MSqQVBabUZeOLOdNtDDZuZ9jqsaUrt+bwXfLrndn1pQiV9ogQKgfJ5fAoJrHWFFme9Q2"
    "YatUJkNDuMjXGH33yLILA/6nuXL+vIK1ccu49nOjeF/uL+l03wUBUkCTyxibFkvbaQUijxKvbf6ZIjAnFJ12gnUu"
    "/h/imyBjQsHTyquEVPXMj0d7KLP4ItcexdjSyGHjDRFV5HS5YYGihXUM6yQ58COUglGmsAiLPdnui01M+Deqz671"
    "REMUE9Iy9mrce2XPxg7TN/FW07KSeICf/x+gn3apxcLGDyoEpLC/DmYo9MaZft1c7S0jjzCke5MC2EZEacXB3eQu"
    "UKagF5NQdnXx+xhq4YIfb0fgDsmarOG6Jf3xMzECwzvy/kAge1X/MmqwGnaJAdBdjcgsDHWOvmiHIiu3B8s+vRyk"
    "gj99mUCYqzXFYEGLjZFuFS13zxpYRwWtirf+B4an6PY+Sk63bvCTUWOJx5CB6+eHOptsFgpI4jHa39QI3rx9EMYy"
    "GQh28nne4r8++Hzc2QIpxs+1JBaGStKoR8CSTU3MLPKmBpaqOShVSqTzq50Q4tGhL2C1wiY2SE99LXphq8T7r5IN"
    "e2f20hhfxdpu+HarB9HAfxzdQWlo2Y9WVzq9nMvzcNEmFEvEDM4sfroHS2MKxER6LyoHXvtyrcTgCwehOlCr3U7l"
    "Tfzz/NeIiq0c4uFKyGVxPgEkxmQpzmON2/BaKBnUIEZm45sLzqKfjuSvMjbwtnV/kGY0HfnpIW4bjN+hGKRsTot4"
    "gZCsXJaB8UbZhDNTmZnH7+b7gQgPVA9mW7oyDq+shXDAJUb5GII4PMcvHzQUbQ=="
)


def run() -> None:
    """Run all of them.

    Raises:
        KnownAnswerError: a primitive gives a wrong answer; its name is in the message.
    """
    with KeyMemory.allocate(32) as key:
        with key.view() as view:
            view[:] = bytes(range(32))  # public: the key of the tests
        checks: dict[str, Callable[[KeyMemory], bool]] = {
            "SHA-512": _sha512,
            "HMAC-SHA-512": _hmac,
            "HKDF-SHA512": _hkdf,
            "AES-256-GCM": _aes_gcm,
            "Argon2id": _argon2id,
            "Shamir": _shamir,
            "record": _record,
            "HPKE": _hpke,
        }
        for name, check in checks.items():
            try:
                right = check(key)
            except (SpikeError, ValueError) as error:
                raise KnownAnswerError(f"the known-answer test of {name} failed") from error
            if not right:
                raise KnownAnswerError(f"the known-answer test of {name} gave a wrong answer")


def _sha512(_: KeyMemory) -> bool:
    return hashlib.sha512(b"abc").digest()[:32] == bytes.fromhex(
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
    )


def _hmac(key: KeyMemory) -> bool:
    return mac(key, _MESSAGE) == bytes.fromhex(
        "5c3cafcb874eced576c3d02ca63aaf5aeb72cfbdf996e45608ec3eb471dc6bd9"
    )


def _hkdf(key: KeyMemory) -> bool:
    expected = bytes.fromhex("4bf45e09cfdd6a8c91eaf6391d14b9e756f18083d03adf0304a33e6a562b195c")
    with KeyMemory.allocate(32) as out:
        derive_into(key, _MESSAGE, out)
        with out.view() as view:
            return view == expected


def _aes_gcm(_: KeyMemory) -> bool:
    return AESGCM(bytes(32)).encrypt(bytes(12), bytes(16), None) == bytes.fromhex(
        "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"
    )


def _argon2id(_: KeyMemory) -> bool:
    tag = Argon2id(
        salt=b"\x02" * 16,
        length=32,
        iterations=3,
        lanes=4,
        memory_cost=32,
        ad=b"\x04" * 12,
        secret=b"\x03" * 8,
    ).derive(b"\x01" * 32)
    return tag == bytes.fromhex("0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659")


def _shamir(key: KeyMemory) -> bool:
    shares = {index: KeyMemory.allocate(32) for index in _SHARES}
    for index, share in shares.items():
        with share.view() as view:
            view[:] = bytes.fromhex(_SHARES[index])
    last = shares.pop(255)
    with last, interpolate(shares) as secret, interpolate(shares, 255) as another:
        right = secret.same_as(key) and another.same_as(last)
    for share in shares.values():
        share.wipe()
    return right


def _record(key: KeyMemory) -> bool:
    again = seal(key, 7, _CONTEXT, _MESSAGE)
    return (
        open_untrusted(key, _CONTEXT, bytes.fromhex(_RECORD)) == _MESSAGE
        and open_untrusted(key, _CONTEXT, again) == _MESSAGE
    )


def _hpke(key: KeyMemory) -> bool:
    slot = SlotKey.from_slot_secret(key, _STORE, bytes(16))
    try:
        with KeyMemory.allocate(32) as out:
            slot.open_into(base64.b64decode(_SEALED), _MESSAGE, out)
            with out.view() as view:
                old_opens = view == _SEALED_PLAINTEXT
            again = seal_to(slot.public, _MESSAGE, memoryview(_SEALED_PLAINTEXT))
            slot.open_into(again, _MESSAGE, out)
            with out.view() as view:
                return old_opens and view == _SEALED_PLAINTEXT
    finally:
        slot.wipe()
