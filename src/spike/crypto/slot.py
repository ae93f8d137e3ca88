"""Backup slots: from a password to a key pair, and sealing to its public half (key hierarchy, section 5).

    password ─Argon2id─► slot secret (32) ─HKDF-SHA512─► ML-KEM-768 seed (64) · X25519 key (32) · auth (32)

Sealing is HPKE (RFC 9180) with MLKEM768-X25519, HKDF-SHA256 and AES-256-GCM, base mode, no associated
data; what must be authenticated goes into `info`. A sealed message is the encapsulated key (1,120
bytes), the ciphertext and its tag (16).

Sealing needs nothing secret but the plaintext and leaves no copy of it. Whatever opens (Argon2id, the
key pair, HPKE's decryption) does leave copies on the heap: it belongs into a short-lived process that
was executed, not forked, and that runs one derivation at a time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.utils import Buffer

from spike.crypto.derivation import derive_into
from spike.crypto.purpose import STORE_ID_BYTES
from spike.error import FormatError, InputError, OpenError, WipedError
from spike.memory import KEY_BYTES, KeyMemory

SLOT_ID_BYTES: Final = 16
SALT_BYTES: Final = 16
PUBLIC_KEY_BYTES: Final = 1184 + 32  # ML-KEM-768, then X25519
SEALED_OVERHEAD_BYTES: Final = 1088 + 32 + 16
SEALED_LIMIT_BYTES: Final = 64 * 1024
_MLKEM_SEED_BYTES: Final = 64
_MLKEM_PUBLIC_BYTES: Final = 1184
_PHC: Final = re.compile(
    r"\$argon2id\$v=19\$m=([1-9][0-9]{0,9}),t=([1-9][0-9]{0,9}),p=([1-9][0-9]{0,9})\Z", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Argon2Setting:
    """The cost of one Argon2id derivation (RFC 9106). Constructing one outside the limits fails.

    Never weaker than 64 MiB, 3 passes, 4 lanes; never above 4 GiB, 64 passes, 16 lanes, so that a
    planted setting cannot take the machine down.

    Raises (on construction):
        InputError: outside the limits.
    """

    memory_kib: int = 256 * 1024
    passes: int = 3
    lanes: int = 4

    def __post_init__(self) -> None:
        if not 64 * 1024 <= self.memory_kib <= 4 * 1024 * 1024:
            raise InputError("Argon2id memory is 64 MiB to 4 GiB")
        if not 3 <= self.passes <= 64:
            raise InputError("Argon2id makes 3 to 64 passes")
        if not 4 <= self.lanes <= 16:
            raise InputError("Argon2id has 4 to 16 lanes")

    def phc(self) -> str:
        """Return the canonical PHC string, without salt and hash: `$argon2id$v=19$m=…,t=…,p=…`."""
        return f"$argon2id$v=19$m={self.memory_kib},t={self.passes},p={self.lanes}"

    @classmethod
    def parse_untrusted(cls, text: str) -> Self:
        """Read the one canonical form that `phc` gives.

        Raises:
            FormatError: any other form, algorithm or version, or outside the limits.
        """
        match = _PHC.match(text)
        if match is None:
            raise FormatError("not a PHC string of Argon2id version 19 with m, t and p")
        try:
            return cls(*map(int, match.groups()))
        except InputError as error:
            raise FormatError(error.message) from None


def derive_slot_secret(password: Buffer, salt: bytes, setting: Argon2Setting) -> KeyMemory:
    """Return the 32-byte slot secret of a normalized password; about 0.6 s with the default setting.

    Raises:
        ValueError: a salt not of 16 bytes.
        MemoryError: the machine has not the memory of `setting`.
    """
    if len(salt) != SALT_BYTES:
        raise ValueError("the salt of a slot is 16 bytes")
    secret = KeyMemory.allocate(KEY_BYTES)
    try:
        with secret.view() as view, memoryview(password) as source:
            Argon2id(
                salt=salt,
                length=KEY_BYTES,
                iterations=setting.passes,
                lanes=setting.lanes,
                memory_cost=setting.memory_kib,
            ).derive_into(source, view)  # type: ignore[arg-type]  # takes any buffer; the stub says bytes
    except BaseException:
        secret.wipe()
        raise
    return secret


class SlotKey:
    """The private half of a slot: opens what was sealed to `public`; `auth` authenticates backups.

    Its key objects live on OpenSSL's heap, which clears them when they are freed.
    """

    __slots__ = ("_private", "auth", "public")

    def __init__(self, private: MLKEM768X25519PrivateKey, public: bytes, auth: KeyMemory) -> None:
        """Private: use `from_slot_secret`."""
        self._private: MLKEM768X25519PrivateKey | None = private
        self.public = public
        self.auth = auth

    @classmethod
    def from_slot_secret(cls, secret: KeyMemory, store_id: bytes, slot_id: bytes) -> Self:
        """Derive the key pair and the authentication key of one slot of one store.

        HKDF-SHA512, info "spike/slot/v1/" ‖ label ‖ store id (16) ‖ slot id (16), labels "mlkem768"
        (64 bytes, d ‖ z), "x25519" and "auth" (32 bytes each).

        Raises:
            WipedError: `secret` is gone.
            ValueError: a secret not of 32, or an id not of 16 bytes.
        """
        if secret.size_bytes != KEY_BYTES:
            raise ValueError("a slot secret is 32 bytes")
        if len(store_id) != STORE_ID_BYTES or len(slot_id) != SLOT_ID_BYTES:
            raise ValueError("store ids and slot ids are 16 bytes")

        def derive(label: bytes, out: KeyMemory) -> None:
            derive_into(secret, b"spike/slot/v1/" + label + store_id + slot_id, out)

        auth = KeyMemory.allocate(KEY_BYTES)
        try:
            with KeyMemory.allocate(_MLKEM_SEED_BYTES) as seed, KeyMemory.allocate(32) as scalar:
                derive(b"mlkem768", seed)
                derive(b"x25519", scalar)
                derive(b"auth", auth)
                with seed.view() as seed_view, scalar.view() as scalar_view:
                    mlkem = MLKEM768PrivateKey.from_seed_bytes(seed_view)
                    x25519 = X25519PrivateKey.from_private_bytes(scalar_view)
            return cls(MLKEM768X25519PrivateKey(mlkem, x25519), _public_bytes(mlkem, x25519), auth)
        except BaseException:
            auth.wipe()
            raise

    def open_into(self, sealed: Buffer, info: bytes, out: KeyMemory) -> None:
        """Fill `out` with what was sealed to `public` with this `info`; it must be of that size.

        Raises:
            OpenError: another key or info, not the bytes that were sealed, or of another size.
            WipedError: this key or `out` is gone.
        """
        if memoryview(sealed).nbytes != SEALED_OVERHEAD_BYTES + out.size_bytes:
            raise OpenError
        if self._private is None:
            raise WipedError("a slot key was used after it was wiped")
        with out.view() as view:
            view[:] = _decrypt(sealed, self._private, info)

    def wipe(self) -> None:
        """Drop the private keys and overwrite `auth`. Idempotent."""
        self._private = None
        self.auth.wipe()

    def __repr__(self) -> str:
        return "SlotKey(…)"


class OneTimeKey:
    """A key pair for one message, for a password on its way to the process that derives from it."""

    __slots__ = ("_private", "public")

    def __init__(self, private: MLKEM768X25519PrivateKey, public: bytes) -> None:
        """Private: use `generate`."""
        self._private: MLKEM768X25519PrivateKey | None = private
        self.public = public

    @classmethod
    def generate(cls) -> Self:
        """Return a fresh pair, made by OpenSSL's generator, which the kernel seeds."""
        mlkem, x25519 = MLKEM768PrivateKey.generate(), X25519PrivateKey.generate()
        return cls(MLKEM768X25519PrivateKey(mlkem, x25519), _public_bytes(mlkem, x25519))

    def open_untrusted(self, sealed: Buffer, info: bytes) -> bytearray:
        """Return what was sealed to `public`, for the caller to overwrite. Works once, also if it fails.

        Raises:
            OpenError: another key or info, not the bytes that were sealed, or above 64 KiB.
            WipedError: it was used before.
        """
        private, self._private = self._private, None
        if private is None:
            raise WipedError("a one-time key was used twice")
        if not SEALED_OVERHEAD_BYTES <= memoryview(sealed).nbytes <= SEALED_LIMIT_BYTES:
            raise OpenError
        return bytearray(_decrypt(sealed, private, info))

    def __repr__(self) -> str:
        return "OneTimeKey(…)"


def seal_to(public: bytes, info: bytes, plaintext: memoryview) -> bytes:
    """Return `plaintext` sealed to a slot's or a one-time public key: 1,136 bytes more than it.

    Raises:
        FormatError: not a public key.
        ValueError: a plaintext that would give more than 64 KiB.
    """
    if plaintext.nbytes > SEALED_LIMIT_BYTES - SEALED_OVERHEAD_BYTES:
        raise ValueError("too large to be sealed to a public key")
    key = _public_key_untrusted(public)
    try:
        return _suite().encrypt(plaintext, key, info)
    except ValueError:  # an X25519 point of small order: the shared secret would be all zeros
        raise FormatError("not a public key of a slot") from None


def _suite() -> Suite:
    return Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def _decrypt(sealed: Buffer, private: MLKEM768X25519PrivateKey, info: bytes) -> bytes:
    try:
        return _suite().decrypt(sealed, private, info)
    except InvalidTag:
        raise OpenError from None


def _public_bytes(mlkem: MLKEM768PrivateKey, x25519: X25519PrivateKey) -> bytes:
    return mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()


def _public_key_untrusted(public: bytes) -> MLKEM768X25519PublicKey:
    if len(public) != PUBLIC_KEY_BYTES:
        raise FormatError("a public key of a slot is 1,216 bytes")
    try:
        return MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(public[:_MLKEM_PUBLIC_BYTES]),
            X25519PublicKey.from_public_bytes(public[_MLKEM_PUBLIC_BYTES:]),
        )
    except ValueError:
        raise FormatError("not a public key of a slot") from None
