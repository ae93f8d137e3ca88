"""A Keeper that lies: it takes the share it is given, says that it holds it, and gives another one.

    spike-authority run --id ID -- python -m spike.pilot.demo.keeper.liar PORT ACCOUNT

It is a real server with a real identity, in the place of a Keeper. The file ACCOUNT gets a line when it listens, and
one for each call that it is made.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from pathlib import Path
from typing import Final

from spike.pilot.demo.knock import HOST
from spike.server.query import action_untrusted
from spike.server.request import Request
from spike.server.response import BAD_REQUEST, Response
from spike.server.server import Server
from spike.spiffe.tls import server_context
from spike.spiffe.workload_source import X509Source
from spike.wire.go_json import decode_untrusted, encode
from spike.wire.keeper import (
    BODY_LIMIT_BYTES,
    COMMIT,
    GET,
    STAGE,
    STATUS,
    CommitRequest,
    Holding,
    KeeperStatusAnswer,
    Place,
    ShareAnswer,
    StageRequest,
    keeper_call_at,
)
from spike.wire.message import Empty, Message

LISTENS: Final = "listens"
_TIMEOUT_S: Final = 10.0
_PROOF_BYTES: Final = 32


class Liar:
    """What the liar was given, and its answers."""

    def __init__(self, account: Path) -> None:
        """`account` gets the lines."""
        self._account = account
        self._given: StageRequest | None = None
        self._epoch = 0

    async def handle(self, request: Request) -> Response:
        """Answer one request."""
        call = keeper_call_at(request.path, action_untrusted(request.query))
        if call is None:
            return BAD_REQUEST
        self.note(call.name)
        message = decode_untrusted(call.request, await request.body(BODY_LIMIT_BYTES))
        if isinstance(message, StageRequest):
            self._given = message
        if isinstance(message, CommitRequest):
            self._epoch = message.epoch
        answer = self._answer(call.name)
        return (
            Response(404, b'{"err":"api_not_found"}')
            if answer is None
            else Response(200, encode(answer))
        )

    def note(self, line: str) -> None:
        """Write a line to the account."""
        with self._account.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    def _answer(self, name: str) -> Message | None:
        if name == STATUS.name:
            return KeeperStatusAnswer(self._claim(), None, None, "0.0.0")
        if name in (STAGE.name, COMMIT.name):
            return Empty()
        return self._another_share() if name == GET.name else None

    def _claim(self) -> Holding | None:
        """Name the share it was given, with a proof that is none."""
        given = self._given
        if given is None:
            return None
        return Holding(
            store_id=given.store_id,
            lineage=given.lineage,
            set_id=given.set_id,
            generation=given.generation,
            index=given.index,
            threshold=given.threshold,
            epoch=self._epoch,
            proof=secrets.token_hex(_PROOF_BYTES),
        )

    def _another_share(self) -> ShareAnswer | None:
        """Give the share it was given with every bit turned around."""
        given = self._given
        if given is None or given.shard is None:
            return None
        return ShareAnswer(
            place=Place.COMMITTED,
            store_id=given.store_id,
            lineage=given.lineage,
            set_id=given.set_id,
            generation=given.generation,
            index=given.index,
            threshold=given.threshold,
            epoch=self._epoch,
            shard=[octet ^ 0xFF for octet in given.shard],
            tag=given.tag,
        )


async def serve(port: int, account: Path) -> None:
    """Lie until killed.

    Raises:
        SettingError: the port is taken.
    """
    source = await X509Source.open(None, _TIMEOUT_S)
    liar = Liar(account)
    server = Server(liar.handle, server_context(source), HOST, port, trust=source.still_trusts)
    await server.start()
    liar.note(LISTENS)
    await asyncio.Event().wait()


def main() -> None:
    """Lie."""
    asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2])))


if __name__ == "__main__":
    main()
