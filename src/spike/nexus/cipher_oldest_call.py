"""The call that raises the oldest cipher generation accepted; without a confirmation it only tells what that costs."""

from __future__ import annotations

from collections.abc import Mapping

from spike.error import InputError
from spike.lifecycle.cipher_oldest import ended_by, raised
from spike.lifecycle.keyring import KeyPurpose
from spike.lifecycle.ring import KeyRing
from spike.nexus.handler import Handler, Reading
from spike.nexus.key_view_call import generations
from spike.nexus.opened import Opened
from spike.nexus.usage_book import UsageBook
from spike.nexus.vault import Vault
from spike.policy.access import Grant
from spike.wire import call
from spike.wire.call import CallName
from spike.wire.key import KeyCipherOldestAnswer, KeyCipherOldestRequest, KeyGeneration
from spike.wire.validate import GENERATION_LIMIT


class CipherOldestCalls:
    """Handlers bound to one vault."""

    def __init__(self, vault: Vault, usage: UsageBook) -> None:
        self._vault = vault
        self._usage = usage

    def handlers(self) -> Mapping[CallName, Handler]:
        """Return the handler of each call served here."""
        return {call.KEY_CIPHER_OLDEST.name: Reading(self.cipher_oldest)}

    async def cipher_oldest(
        self, grant: Grant, opened: Opened, asked: KeyCipherOldestRequest
    ) -> KeyCipherOldestAnswer:
        """Accept nothing older than a generation, and destroy the keys below it; or tell which these are.

        Raises:
            RefusalError: CIPHER_GENERATION, BUSY or ROTATION; nothing was changed.
        """
        if not 0 <= asked.oldest <= GENERATION_LIMIT:
            raise InputError(f"a generation is 1 to {GENERATION_LIMIT}")
        oldest = asked.oldest or opened.document.oldest_cipher
        told = await self._ended(opened, oldest)
        if asked.confirm and oldest != opened.document.oldest_cipher:
            opened = await self._raise(oldest, str(grant.peer))
        document = opened.document
        return KeyCipherOldestAnswer(
            oldest=document.oldest_cipher,
            active=document.active_key(KeyPurpose.CIPHER).number,
            destroyed=told,
            done=document.oldest_cipher == oldest,
            epoch=document.epoch,
        )

    async def _ended(self, opened: Opened, oldest: int) -> list[KeyGeneration]:
        if oldest == opened.document.oldest_cipher:
            return []
        numbers = {key.number for key in ended_by(opened.document, oldest)}
        now = self._vault.life.belief(opened.document).at
        return [
            each
            for each in generations(opened.document, await self._usage.now(), now)
            if each.purpose == KeyPurpose.CIPHER and each.generation in numbers
        ]

    async def _raise(self, oldest: int, actor: str) -> Opened:
        vault = self._vault

        def step(ring: KeyRing) -> KeyRing:
            before.append(ring)
            return ring.changed(raised(ring.document, oldest, vault.moment(), actor), {})

        before: list[KeyRing] = []
        async with vault.lock:
            opened = await vault.change(step)
        # Whoever decrypts does so between two turns of the loop: nothing holds one of these keys now.
        before[0].wipe_except(opened.ring)
        await vault.guard.anchored()
        return opened
