"""A ring whose keyring takes the present one's place while requests are served, and who wipes which keys then."""

from __future__ import annotations

from spike.lifecycle.ring import KeyRing
from spike.nexus.opened import Opened, Stop
from spike.nexus.vault import Vault


async def commit(vault: Vault, present: Opened, ring: KeyRing) -> Opened:
    """Put `ring`, made from the present one, in its place; wipe what the other one of the two alone holds.

    Takes `ring` over, also when it fails. Hold the vault's lock.

    Raises:
        StoreError: the keyring was not replaced; or, with writes stopped until it is known, perhaps it was.
    """
    try:
        opened = await vault.advance(ring)
    except BaseException:
        # Unless it may yet turn out that this very keyring was written.
        if vault.is_open and Stop.UNSURE not in vault.stops:
            ring.wipe_except(vault.opened.ring)
        raise
    present.ring.wipe_except(opened.ring)
    return opened
