"""The client of Nexus: one method for each call, blocking, for any number of threads.

The calls on keys have modules of their own; here are those that workloads make.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Final, Protocol, Self

from spike.client.answer import raw_of
from spike.client.backup import BackupCalls
from spike.client.caller import ANSWER_TIMEOUT_S, A, Exchange, Q
from spike.client.drill import DrillCalls
from spike.client.key import KeyCalls
from spike.client.password import PasswordFor
from spike.client.pool import Body, Pool
from spike.client.root_key import RootKeyCalls, ShardOf
from spike.client.rotation import RotationCalls
from spike.client.setting import ClientSetting
from spike.client.system_backup import SystemBackupCalls
from spike.spiffe.background_source import BackgroundSource
from spike.spiffe.source import HeldSource
from spike.spiffe.workload_source import fetch_material
from spike.wire import call as calls
from spike.wire.call import Call
from spike.wire.cipher import (
    RAW_CONTENT_TYPE,
    CipherDecryptRequest,
    CipherEncryptAnswer,
    CipherEncryptRequest,
    CipherRewrapAnswer,
)
from spike.wire.message import Empty
from spike.wire.policy import (
    PolicyGetAnswer,
    PolicyListRequest,
    PolicyNameRequest,
    PolicyPutRequest,
)
from spike.wire.secret import (
    SecretGetAnswer,
    SecretGetManyRequest,
    SecretGetRequest,
    SecretItem,
    SecretMetadataAnswer,
    SecretPutRequest,
    SecretVersionsRequest,
)

__all__ = ["CURRENT", "NexusClient", "PasswordFor", "ShardOf"]

CURRENT: Final = 0


class Source(Protocol):
    """What has to be closed with the client."""

    def close(self) -> None:
        """Stop."""


class NexusClient(
    RootKeyCalls, BackupCalls, DrillCalls, KeyCalls, RotationCalls, SystemBackupCalls
):
    """Speaks with one Nexus under this process's SPIFFE identity.

        with NexusClient.from_environment() as nexus:
            nexus.put_secret("tenant/acme/database", {"user": "acme", "password": generated})
            nexus.get_secret("tenant/acme/database")["user"]

    Connections and identity are kept and renewed while it is open. Make a new one after `fork`.

    Every method raises, besides what it names:
        UnreachableError: Nexus does not answer. Whether it acted on a write is then not known.
        NotReadyError: Nexus has no root key yet, or is overloaded.
        DeniedError: this identity is not allowed to.
        InputError: Nexus refuses a name, path, pattern or size.
        IdentityError: the other side is not Nexus.
        AnswerError: a fault on the side of Nexus.
    """

    def __init__(self, exchange: Exchange, source: Source | None = None) -> None:
        """Speak through `exchange`; both are closed with the client."""
        super().__init__(exchange)
        self._source = source

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Return a client for the Nexus and the Workload API that the environment names.

        Raises:
            SettingError: a variable is missing or wrong.
            WorkloadApiError: no identity within SPIKE_SPIFFE_SOURCE_TIMEOUT.
        """
        setting = ClientSetting.from_environment(environment)
        source = BackgroundSource.open(setting.socket, setting.source_timeout_s)
        try:
            return cls(Pool(setting.address, source, setting.is_nexus), source)
        except BaseException:
            source.close()
            raise

    @classmethod
    def for_one_command(cls, environment: Mapping[str, str]) -> Self:
        """Return a client that keeps the identity it begins with: no thread, for seconds, not hours.

        Raises what `from_environment` does.
        """
        setting = ClientSetting.from_environment(environment)
        source = HeldSource(fetch_material(setting.socket, setting.source_timeout_s))
        return cls(Pool(setting.address, source, setting.is_nexus))

    def close(self) -> None:
        """Close connections and stop following the identity. Idempotent."""
        self._exchange.close()
        if self._source is not None:
            self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # Secrets

    def put_secret(self, path: str, values: Mapping[str, str]) -> None:
        """Write a new version of a secret."""
        self._write(calls.SECRET_PUT, SecretPutRequest(path, dict(values)), f"put {path}")

    def get_secret(self, path: str, version: int = CURRENT) -> dict[str, str]:
        """Return the values of a version; 0 is the current one.

        Raises:
            NotFoundError: no such secret or version, or it is deleted.
        """
        request = SecretGetRequest(path, version)
        return self._read(calls.SECRET_GET, request, f"get {path}").data

    def get_secrets(self, paths: Iterable[str]) -> list[dict[str, str] | None]:
        """Return the current values of up to 1,000 secrets by one request, in their order.

        None stands where there is nothing, or nothing that this identity may see.
        """
        request = SecretGetManyRequest([SecretItem(path) for path in paths])
        answer = self._read(calls.SECRET_GET_MANY, request, "get many")
        return [_data(item) for item in answer.items]

    def get_secret_metadata(self, path: str, version: int = CURRENT) -> SecretMetadataAnswer:
        """Return the versions of a secret, without any value.

        Raises:
            NotFoundError: no such secret or version, or nothing current.
        """
        request = SecretGetRequest(path, version)
        return self._read(calls.SECRET_METADATA_GET, request, f"get metadata of {path}")

    def list_secrets(self) -> list[str]:
        """Return the paths of all secrets, sorted by bytes."""
        return self._read(calls.SECRET_LIST, Empty(), "list secrets").keys

    def delete_secret(self, path: str, versions: Sequence[int] = ()) -> None:
        """Delete versions, none = the current one. They can be undeleted.

        Raises:
            NotFoundError: no such secret.
        """
        request = SecretVersionsRequest(path, list(versions))
        self._write(calls.SECRET_DELETE, request, f"delete {path}")

    def undelete_secret(self, path: str, versions: Sequence[int] = ()) -> None:
        """Undelete versions, none = the current or, if there is none, the highest deleted one.

        Raises:
            NotFoundError: no such secret, or nothing was undeleted.
        """
        request = SecretVersionsRequest(path, list(versions))
        self._write(calls.SECRET_UNDELETE, request, f"undelete {path}")

    # Policies

    def put_policy(
        self, name: str, spiffeid_pattern: str, path_pattern: str, permissions: Sequence[str]
    ) -> None:
        """Create a policy, or replace the one of this name."""
        request = PolicyPutRequest(name, spiffeid_pattern, path_pattern, list(permissions))
        self._write(calls.POLICY_PUT, request, f"put policy {name}")

    def get_policy(self, name: str) -> PolicyGetAnswer:
        """Return a policy.

        Raises:
            NotFoundError: there is none of this name.
        """
        return self._read(calls.POLICY_GET, PolicyNameRequest(name), f"get policy {name}")

    def delete_policy(self, name: str) -> None:
        """Delete a policy.

        Raises:
            NotFoundError: there is none of this name.
        """
        self._write(calls.POLICY_DELETE, PolicyNameRequest(name), f"delete policy {name}")

    def list_policies(self, spiffeid_pattern: str = "", path_pattern: str = "") -> list[str]:
        """Return the names of policies, all or those with exactly this pattern."""
        request = PolicyListRequest(spiffeid_pattern, path_pattern)
        answer = self._read(calls.POLICY_LIST, request, "list policies")
        return [item.name for item in answer.policies]

    # Encryption as a service

    def encrypt(self, plaintext: Body) -> bytes:
        """Return `plaintext` encrypted: one piece of bytes for `decrypt`. Nexus keeps nothing of it.

        Raises:
            InputError: it is larger than Nexus encrypts at once.
        """
        return self._raw(calls.CIPHER_ENCRYPT, plaintext, "encrypt")

    def decrypt(self, blob: Body) -> bytes:
        """Return what had been encrypted.

        Raises:
            InputError: these are not, or are no longer, bytes that this Nexus decrypts; it does not say why.
        """
        return self._raw(calls.CIPHER_DECRYPT, blob, "decrypt")

    def rewrap(self, blob: Body) -> bytes:
        """Return what had been encrypted, encrypted under the active generation of the key; itself where it is so.

        Raises:
            InputError: it does not decrypt; Nexus does not say why.
        """
        return self._raw(calls.CIPHER_REWRAP, blob, "rewrap")

    def rewrap_json(
        self, version: int, nonce: bytes, ciphertext: bytes, algorithm: str = ""
    ) -> CipherRewrapAnswer:
        """`rewrap` in the JSON form."""
        request = CipherDecryptRequest(version, nonce, ciphertext, algorithm)
        return self._read(calls.CIPHER_REWRAP, request, "rewrap")

    def encrypt_json(self, plaintext: bytes, algorithm: str = "") -> CipherEncryptAnswer:
        """Encrypt like `encrypt`, in the JSON form: what it gave, in three parts."""
        request = CipherEncryptRequest(plaintext, algorithm)
        return self._read(calls.CIPHER_ENCRYPT, request, "encrypt")

    def decrypt_json(
        self, version: int, nonce: bytes, ciphertext: bytes, algorithm: str = ""
    ) -> bytes:
        """Decrypt like `decrypt`, in the JSON form."""
        request = CipherDecryptRequest(version, nonce, ciphertext, algorithm)
        return self._read(calls.CIPHER_DECRYPT, request, "decrypt").plaintext

    def _raw(self, call: Call[Q, A], body: Body, subject: str) -> bytes:
        reply = self._exchange.exchange(
            call.target,
            body,
            repeatable=True,
            timeout_s=ANSWER_TIMEOUT_S,
            content_type=RAW_CONTENT_TYPE,
        )
        return raw_of(call, reply, subject)


def _data(item: SecretGetAnswer | None) -> dict[str, str] | None:
    return None if item is None else item.data
