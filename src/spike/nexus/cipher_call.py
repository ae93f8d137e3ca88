"""The cipher calls: encryption as a service. Nothing is stored, and the keys stay here.

A refused decrypt is 400 whatever the cause: another version, an unknown or no longer accepted generation, another
store, a changed byte. Encrypting is a write as far as the vault goes: what is encrypted while a key in memory is wrong
would be lost.
"""

from __future__ import annotations

from collections.abc import Mapping

from spike.error import FormatError, InputError, OpenError
from spike.lifecycle.keyring import KeyPurpose
from spike.lifecycle.ring import KeyRing
from spike.nexus.handler import Handler, InTwoForms
from spike.nexus.vault import Vault
from spike.policy.access import Grant
from spike.secret.cipher_blob import (
    CipherTriple,
    blob_generation_untrusted,
    blob_size_bytes,
    join_untrusted,
    open_blob_untrusted,
    seal_blob,
    split,
)
from spike.wire import call
from spike.wire.call import CallName
from spike.wire.cipher import (
    CipherDecryptAnswer,
    CipherDecryptRequest,
    CipherEncryptAnswer,
    CipherEncryptRequest,
    CipherRewrapAnswer,
)
from spike.wire.validate import check_algorithm

_ROOM_BYTES = 4096
"""What a JSON body may have beside its base64: names, an algorithm, a nonce, white space."""


class CipherCalls:
    """Encrypts and decrypts with one vault's cipher keys, up to a number of bytes of plaintext."""

    def __init__(self, vault: Vault, plaintext_limit_bytes: int) -> None:
        self._vault = vault
        self._limit_bytes = plaintext_limit_bytes
        self._blob_limit_bytes = blob_size_bytes(plaintext_limit_bytes)

    def handlers(self) -> Mapping[CallName, Handler]:
        """Return the handler of each call. Whatever encrypts also decrypts: the limits follow from one."""
        return {
            call.CIPHER_ENCRYPT.name: InTwoForms(
                self.encrypt,
                self.encrypt_raw,
                _base64_size(self._limit_bytes) + _ROOM_BYTES,
                self._limit_bytes,
            ),
            call.CIPHER_DECRYPT.name: InTwoForms(
                self.decrypt,
                self.decrypt_raw,
                _base64_size(self._blob_limit_bytes) + _ROOM_BYTES,
                self._blob_limit_bytes,
            ),
            call.CIPHER_REWRAP.name: InTwoForms(
                self.rewrap,
                self.rewrap_raw,
                _base64_size(self._blob_limit_bytes) + _ROOM_BYTES,
                self._blob_limit_bytes,
            ),
        }

    async def encrypt(self, _grant: Grant, asked: CipherEncryptRequest) -> CipherEncryptAnswer:
        """Encrypt, in JSON."""
        check_algorithm(asked.algorithm)
        return CipherEncryptAnswer(*split(self._sealed(asked.plaintext)))

    async def encrypt_raw(self, _grant: Grant, plaintext: bytes) -> bytes:
        """Encrypt, bytes to bytes."""
        return self._sealed(plaintext)

    async def decrypt(self, _grant: Grant, asked: CipherDecryptRequest) -> CipherDecryptAnswer:
        """Decrypt, in JSON."""
        return CipherDecryptAnswer(self._opened(_blob_of(asked)))

    async def decrypt_raw(self, _grant: Grant, blob: bytes) -> bytes:
        """Decrypt, bytes to bytes."""
        return self._opened(blob)

    async def rewrap(self, _grant: Grant, asked: CipherDecryptRequest) -> CipherRewrapAnswer:
        """Bring a blob under the active generation, in JSON."""
        blob = _blob_of(asked)
        rewrapped = self._rewrapped(blob)
        return CipherRewrapAnswer(*split(rewrapped), rewrapped=rewrapped != blob)

    async def rewrap_raw(self, _grant: Grant, blob: bytes) -> bytes:
        """Bring a blob under the active generation, bytes to bytes."""
        return self._rewrapped(blob)

    def _rewrapped(self, blob: bytes) -> bytes:
        """Return the blob itself where it is current: then the same call again changes nothing."""
        plaintext = self._opened(blob)  # also of one that is current: what does not open is refused
        active = self._vault.opened.ring.active_cipher.generation
        return blob if blob_generation_untrusted(blob) == active else self._sealed(plaintext)

    def _sealed(self, plaintext: bytes) -> bytes:
        if len(plaintext) > self._limit_bytes:
            raise InputError(f"the plaintext has more than {self._limit_bytes} bytes")
        ring = self._vault.require_writable(KeyPurpose.CIPHER).ring
        active = ring.active_cipher
        self._vault.seal_count.cipher[active.generation] += 1
        return seal_blob(active.key, active.generation, _store_id(ring), plaintext)

    def _opened(self, blob: bytes) -> bytes:
        if len(blob) > self._blob_limit_bytes:
            raise InputError(f"the blob has more than {self._blob_limit_bytes} bytes")
        ring = self._vault.opened.ring
        try:
            return open_blob_untrusted(ring.cipher, _store_id(ring), blob)
        except (OpenError, FormatError) as error:
            # The caller's doing, not ours: 400, and to the log alone what it was.
            raise InputError(f"a cipher blob does not open: {error.message}") from error


def _blob_of(asked: CipherDecryptRequest) -> bytes:
    check_algorithm(asked.algorithm)
    triple = CipherTriple(asked.version, asked.nonce, asked.ciphertext)
    try:
        return join_untrusted(triple)
    except FormatError as error:
        raise InputError(error.message) from error


def _store_id(ring: KeyRing) -> bytes:
    return bytes.fromhex(ring.document.store_id)


def _base64_size(size_bytes: int) -> int:
    return (size_bytes + 2) // 3 * 4
