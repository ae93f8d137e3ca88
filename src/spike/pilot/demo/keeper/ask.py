"""Asks Keepers what they hold, as Nexus would: only who has the identity of Nexus gets an answer.

    spike-authority run --id spiffe://spike.ist/spike/nexus -- python -m spike.pilot.demo.keeper.ask PORT…

Prints one line of JSON, a list with an object for each port. No share is asked for.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from typing import Final

from spike.client.keeper import KeeperClient
from spike.client.setting import Address
from spike.error import SpikeError
from spike.lifecycle.anchor import decode_untrusted
from spike.pilot.demo.knock import HOST
from spike.spiffe.source import HeldSource
from spike.spiffe.workload_source import fetch_material
from spike.wire.keeper import NONCE_BYTES, STATUS, KeeperStatusRequest

_TIMEOUT_S: Final = 5.0


async def ask(port: int, source: HeldSource) -> dict[str, object]:
    """Return what the Keeper at a port holds, or why it does not say."""
    try:
        client = KeeperClient(Address(HOST, port), source, lambda _: True, _TIMEOUT_S)
        told = await client.ask(STATUS, KeeperStatusRequest(secrets.token_bytes(NONCE_BYTES)))
        anchor = None if told.anchor is None else decode_untrusted(told.anchor)
    except SpikeError as error:
        return {"fault": error.message}
    held = told.committed
    return {
        "set_id": "" if held is None else held.set_id,
        "index": 0 if held is None else held.index,
        "threshold": 0 if held is None else held.threshold,
        "epoch": 0 if held is None else held.epoch,
        "access_generation": 0 if anchor is None else anchor.access_generation,
    }


async def ask_all(ports: list[int]) -> list[dict[str, object]]:
    """Ask the Keepers at these ports, all at once."""
    source = HeldSource(await asyncio.to_thread(fetch_material, None, _TIMEOUT_S))
    return list(await asyncio.gather(*(ask(port, source) for port in ports)))


def main() -> None:
    """Ask and say what came of it."""
    told = asyncio.run(ask_all([int(port) for port in sys.argv[1:]]))
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
