"""What a client takes from its environment."""

from __future__ import annotations

import subprocess
import sys

import pytest

from spike.client.setting import Address, ClientSetting, parse_address
from spike.error import SettingError
from spike.spiffe.id import SpiffeId


def test_what_is_not_set_has_the_default_of_the_contract() -> None:
    setting = ClientSetting.from_environment({})
    assert setting.address == Address("localhost", 8553)
    assert setting.socket is None
    assert setting.source_timeout_s == 30.0
    assert setting.is_nexus(SpiffeId.parse_untrusted("spiffe://spike.ist/spike/nexus"))


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://nexus.example:8553", Address("nexus.example", 8553)),
        ("https://nexus.example/", Address("nexus.example", 443)),
        ("https://[::1]:1", Address("::1", 1)),
    ],
)
def test_an_address_is_host_and_port(url: str, address: Address) -> None:
    assert parse_address(url) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "url",
    [
        "", "localhost:8553", "http://localhost", "https://", "https://h/v1", "https://h?x",
        "https://u@h", "https://h:0", "https://h:65536", "https://h:x", "https://[::1", "HTTPS",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_by_the_variable_s_name(url: str) -> None:
    with pytest.raises(SettingError, match="SPIKE_NEXUS_API_URL"):
        parse_address(url)


@pytest.mark.parametrize("value", ["", "30", "0s", "-1s", "soon"])
def test_a_time_out_that_is_none_is_refused_by_the_variable_s_name(value: str) -> None:
    with pytest.raises(SettingError, match="SPIKE_SPIFFE_SOURCE_TIMEOUT"):
        ClientSetting.from_environment({"SPIKE_SPIFFE_SOURCE_TIMEOUT": value})


@pytest.mark.parametrize(
    ("spiffe_id", "is_nexus"),
    [
        ("spiffe://a.example/spike/nexus", True),
        ("spiffe://a.example/spike/nexus/one", True),
        ("spiffe://b.example/tenant/x/spike/nexus", True),
        ("spiffe://a.example/spike/nexusx", False),
        ("spiffe://a.example/spike/keeper", False),
        ("spiffe://b.example/spike/nexus", False),
        ("spiffe://spike.ist/spike/nexus", False),
    ],
)
def test_only_the_nexus_of_the_roots_named_counts(spiffe_id: str, is_nexus: bool) -> None:
    setting = ClientSetting.from_environment(
        {"SPIKE_TRUST_ROOT_NEXUS": "a.example,b.example/tenant/x"}
    )
    assert setting.is_nexus(SpiffeId.parse_untrusted(spiffe_id)) is is_nexus


@pytest.mark.parametrize("roots", ["", "a.example,", "A.example", "spiffe://a"])
def test_a_root_that_is_none_is_refused_by_the_variable_s_name(roots: str) -> None:
    with pytest.raises(SettingError, match="SPIKE_TRUST_ROOT_NEXUS"):
        ClientSetting.from_environment({"SPIKE_TRUST_ROOT_NEXUS": roots})


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, spike, spike.client; "
        "print([m for m in ('ssl', 'cryptography', 'grpclib', 'msgspec') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_name_the_package_does_not_have_is_an_attribute_error() -> None:
    import spike.client

    with pytest.raises(AttributeError):
        _ = spike.client.nothing
