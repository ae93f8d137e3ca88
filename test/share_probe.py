"""Asks Keepers for their shares as Nexus would: to be run under a Nexus identity. Tests learn the root key so.

python share_probe.py SET PORT …      prints each share in hexadecimal, one a line, in the order of the ports
"""

from __future__ import annotations

import asyncio
import sys

from spike.client.keeper import KeeperClient
from spike.client.setting import Address
from spike.spiffe.peer import any_peer
from spike.spiffe.workload_source import X509Source
from spike.wire.keeper import GET, SetRequest


async def main() -> None:
    """Ask each Keeper and print."""
    set_id, *ports = sys.argv[1:]
    source = await X509Source.open(None, 10.0)
    try:
        for port in ports:
            client = KeeperClient(Address("127.0.0.1", int(port)), source, any_peer, 10.0)
            told = await client.ask(GET, SetRequest(set_id=set_id))
            print(bytes(told.shard).hex())
    finally:
        await source.close()


if __name__ == "__main__":
    asyncio.run(main())
