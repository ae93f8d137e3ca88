"""What there is while the root key is in memory, and the words for how a vault is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from spike.lifecycle import anchor
from spike.lifecycle.keyring import Keyring
from spike.lifecycle.ring import KeyRing
from spike.nexus.policy_book import PolicyBook
from spike.nexus.sealed import SealedStore
from spike.nexus.secret_book import SecretBook
from spike.storage.protocol import Revision


class Phase(StrEnum):
    """What the vault can do."""

    UNINITIALIZED = "uninitialized"
    LOCKED = "locked"
    OPEN = "open"


class Stop(StrEnum):
    """Why nothing is written."""

    WRONG_KEY = "a key in memory is not what it was"
    NO_ANCHOR = "neither a backup place nor enough Keepers hold the newest anchor"
    UNSURE = "it is not known which keyring the store holds"
    OVERTAKEN = "another Nexus has changed this store's keys"


@dataclass(frozen=True, slots=True)
class Opened:
    """All that exists only while the root key is in memory."""

    ring: KeyRing
    keyring_revision: Revision
    keyring_raw: bytes
    sealed: SealedStore
    secrets: SecretBook
    policies: PolicyBook

    @property
    def document(self) -> Keyring:
        """The keyring in force."""
        return self.ring.document

    def anchor_raw(self) -> bytes:
        """Return the anchor of this moment, authenticated."""
        statement = anchor.anchor_of(self.document, self.policies.access_generation)
        return anchor.encode(statement, self.ring.root)
