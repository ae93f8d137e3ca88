"""`spike cipher rewrap` and `spike key cipher-oldest` against a shipped Nexus."""

from __future__ import annotations

import json
from pathlib import Path

from process_kit import Installation


def test_a_file_is_rewrapped_in_place_and_the_oldest_generation_is_told(tmp_path: Path) -> None:
    with Installation(tmp_path) as made:
        made.init()
        blob = made.directory / "blob"
        blob.write_bytes(made.client.encrypt(b"any bytes"))
        before = blob.read_bytes()
        done = made.spike("cipher", "rewrap", "--file", str(blob), "--out", str(blob))
        assert done.returncode == 0, done.stderr
        assert blob.read_bytes() == before
        assert made.client.rewrap(before) == before

        told = made.client.encrypt_json(b"more")
        answer = made.client.rewrap_json(told.version, told.nonce, told.ciphertext)
        assert (answer.rewrapped, answer.ciphertext) == (False, told.ciphertext)

        blob.write_bytes(before[:-1])
        refused = made.spike("cipher", "rewrap", "--file", str(blob))
        assert refused.returncode == 1
        assert b"the server refuses the request" in refused.stderr
        half = made.spike("cipher", "rewrap", "--version", "1")
        assert half.returncode == 2

        shown = made.spike("key", "cipher-oldest")
        assert shown.stdout == b"Cipher key: generation 1 alone is accepted.\n"
        above = made.spike("key", "cipher-oldest", "2", "--yes")
        assert above.returncode == 1
        assert b"above the active one" in above.stderr
        same = json.loads(made.spike("key", "cipher-oldest", "1", "--format", "json").stdout)
        assert (same["done"], same["destroyed"]) == (True, [])
