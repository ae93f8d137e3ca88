"""The PyPI package `spiffe`, unchanged, against Authority; in a process of its own, because its messages
have the names of ours."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from authority_kit import SUPERUSER, WAIT_S, AuthorityProcess
from spiffe_kit import Ca
from spike.authority.book import pem_of
from spike.client.control import BundleAddRequest, Done, EntryRemoveRequest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("spiffe") is None, reason="the foreign client is not installed"
)

READ = """
import threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from spiffe import TrustDomain, WorkloadApiClient, X509Source
with WorkloadApiClient() as client:
    svid = client.fetch_x509_svid()
    print(svid.spiffe_id, svid.leaf.serial_number != 0)
    print(*sorted(str(each.trust_domain) for each in client.fetch_x509_bundles().bundles))
    try:
        client.fetch_jwt_svid(audience={"a"}, timeout=5)
    except Exception as error:
        print("no JWT:", type(error).__name__)
renewed = threading.Event()
with X509Source(timeout_in_seconds=10) as source:
    first = source.svid
    source.subscribe_for_updates(renewed.set)
    while source.svid.leaf.serial_number == first.leaf.serial_number:
        assert renewed.wait(10), "no renewal"
        renewed.clear()
    print("renewed", source.svid.spiffe_id)
    own = source.get_bundle_for_trust_domain(TrustDomain("spike.ist"))
    print(len(own.x509_authorities))
"""

DENIED = """
from spiffe import WorkloadApiClient
with WorkloadApiClient() as client:
    try:
        client.fetch_x509_svid(timeout=5)
    except Exception as error:
        print(error)
"""


def say(code: str, authority: AuthorityProcess) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=authority.environment,
        capture_output=True,
        text=True,
        timeout=2 * WAIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_it_fetches_svid_and_bundles_and_follows_a_renewal(tmp_path: Path) -> None:
    with AuthorityProcess(tmp_path, "--svid-lifetime", "4s") as authority:
        with authority.ask() as control:
            pem = pem_of((Ca("other.org").cert,))
            control.call(BundleAddRequest("other.org", pem), Done)
        assert say(READ, authority) == [
            f"{SUPERUSER} True",
            "other.org spike.ist",
            "no JWT: FetchJwtSvidError",
            f"renewed {SUPERUSER}",
            "1",
        ]


def test_it_is_told_that_it_is_denied(tmp_path: Path) -> None:
    with AuthorityProcess(tmp_path) as authority:
        with authority.ask() as control:
            control.call(EntryRemoveRequest(os.geteuid(), SUPERUSER), Done)
        (error,) = say(DENIED, authority)
        assert "no identity issued" in error
