"""Lite mode as it is shipped: init, restart, restore, and the way there and back with secrets in the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from process_kit import Installation
from spike.error import InputError, NotReadyError

WORKLOAD = "spiffe://spike.ist/spike/workload/role/lite/one"


def test_a_lite_nexus_is_initialized_lost_and_restored_like_any(tmp_path: Path) -> None:
    with Installation(tmp_path, SPIKE_NEXUS_BACKEND_STORE="lite") as spike:
        spike.init()
        blob = spike.client.encrypt(b"kept by the caller")
        with pytest.raises(InputError):
            spike.client.put_secret("a", {"k": "v"})
        spike.kill_nexus()
        spike.start_nexus()
        with pytest.raises(NotReadyError):
            spike.client.decrypt(blob)
        spike.restore()
        assert spike.client.decrypt(blob) == b"kept by the caller"
        assert spike.spike("status").returncode in (0, 4)
        sealed = spike.spike("cipher", "encrypt", stdin=b"by its role", identity=WORKLOAD)
        assert sealed.returncode == 0, sealed.stderr
        opened = spike.spike("cipher", "decrypt", stdin=sealed.stdout, identity=WORKLOAD)
        assert opened.stdout == b"by its role"
        told = (spike.log / "nexus").read_text()
        assert "lite mode: encrypt and decrypt are served" in told
        assert "this store holds" not in told
        assert b"Remark: lite mode" in spike.spike("status").stdout


def test_secrets_of_a_store_that_is_opened_lite_are_named_kept_and_come_back(
    tmp_path: Path,
) -> None:
    with Installation(tmp_path) as spike:
        spike.init()
        spike.client.put_secret("a", {"k": "v"})
        spike.client.put_secret("b", {"k": "v"})
        blob = spike.client.encrypt(b"of the whole service")
        spike.stop_nexus()
        spike.start_nexus(SPIKE_NEXUS_BACKEND_STORE="lite")
        told = (spike.log / "nexus").read_text()
        assert "this store holds secrets (2); they stay as they are" in told
        spike.restore()
        records = spike.client.get_status().storage
        assert records is not None
        assert records.records["secret-meta"] == 2
        assert spike.client.decrypt(blob) == b"of the whole service"
        with pytest.raises(InputError):
            spike.client.get_secret("a")
        spike.stop_nexus()
        spike.start_nexus()
        spike.restore()
        assert spike.client.get_secret("a") == {"k": "v"}


def test_with_keepers_a_lite_nexus_that_was_killed_decrypts_again_by_itself(tmp_path: Path) -> None:
    with Installation(tmp_path, keepers=2, SPIKE_NEXUS_BACKEND_STORE="lite") as spike:
        spike.init()
        spike.wait_for_keepers()
        blob = spike.client.encrypt(b"kept by the caller")
        spike.kill_nexus()
        spike.start_nexus()
        spike.wait_until_open()
        assert spike.client.decrypt(blob) == b"kept by the caller"
