"""What was tried against the client and got further than it should have."""

from __future__ import annotations

import os
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from spiffe_kit import Ca, material
from spike.client.anchor import AnchorStore
from spike.client.pool import Pool
from spike.client.setting import Address
from spike.error import SettingError
from spike.spiffe.source import HeldSource
from spike.spiffe.tls import server_context

NEXUS = "spiffe://spike.ist/spike/nexus"
SELECT_LIMIT = 1024  # FD_SETSIZE
STORE = "0123456789abcdef" * 2


@contextmanager
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    held = [os.dup(0)]
    try:
        while held[-1] < SELECT_LIMIT:
            held.append(os.dup(0))
        yield
    finally:
        for each in held:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_kept_connection_is_used_again_in_a_program_with_a_thousand_open_files() -> None:
    ca = Ca("spike.ist")
    context = server_context(HeldSource(material(ca.svid(NEXUS), ca)))
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(20)

        def serve() -> None:
            plain, _ = listening.accept()
            with plain, context.wrap_socket(plain, server_side=True) as wire:
                for _ in range(2):
                    seen = b""
                    while not seen.endswith(b"\r\n\r\n{}"):
                        seen += wire.recv(65536)
                    wire.sendall(answer)

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        address = Address("127.0.0.1", listening.getsockname()[1])
        own = HeldSource(material(ca.svid("spiffe://spike.ist/web"), ca))
        with many_descriptors(), Pool(address, own, lambda each: str(each) == NEXUS) as pool:
            for _ in range(2):
                assert pool.exchange("/x", b"{}", repeatable=False, timeout_s=20).status == 200
        server.join(20)


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_no_anchor_is_believed_nor_its_absence_where_others_can_write(
    tmp_path: Path, mode: int
) -> None:
    """Who can take an anchor away hides that an old copy of the store was put back."""
    directory = tmp_path / "pilot"
    directory.mkdir()
    directory.chmod(mode)
    store = AnchorStore(directory)
    with pytest.raises(SettingError, match="others can write"):
        store.get(STORE)
    with pytest.raises(SettingError, match="others can write"):
        store.latest("https://localhost:8553")


def test_where_nothing_was_kept_there_is_no_anchor(tmp_path: Path) -> None:
    store = AnchorStore(tmp_path / "none")
    assert store.get(STORE) is None
    assert store.latest("https://localhost:8553") is None
