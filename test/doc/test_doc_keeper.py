"""What the pages say of a Keeper is what the code does."""

from __future__ import annotations

import msgspec
import pytest

from doc_kit import codes, page, rows, sections
from spike.keeper.__main__ import _HELP
from spike.keeper.access import TABLE
from spike.keeper.setting import read_setting
from spike.policy.role import Role
from spike.wire.keeper import KEEPER_CALLS, KeeperReason
from spike.wire.message import Message

ROLES = {"Nexus": Role.NEXUS, "bootstrap": Role.BOOTSTRAP}


def fields(message: type[Message]) -> list[str]:
    """Return a message's fields as they are spelled on the wire."""
    return [field.encode_name for field in msgspec.structs.fields(message)]


def keeper_rows() -> list[list[str]]:
    """Return the rows of the wire contract's section on Keepers, of both its tables."""
    found = sections(page("docs/reference/wire.md"))
    (text,) = [text for name, text in found.items() if name.startswith("5. ")]
    return rows(text)


def test_every_keeper_call_stands_in_the_page_with_its_fields_and_callers() -> None:
    told = {
        row[0]: (
            codes(row[1])[0],
            {ROLES[name] for name in row[2].split(", ")},
            codes(row[3]),
            codes(row[4]),
        )
        for row in keeper_rows()
        if len(row) == 5
    }
    assert told == {
        call.name: (
            call.target,
            set(TABLE[call.name]),
            fields(call.request),
            fields(call.answer),
        )
        for call in KEEPER_CALLS
    }


def test_every_refusal_of_a_keeper_is_explained() -> None:
    told = [codes(row[0])[0] for row in keeper_rows() if len(row) == 2]
    assert told == [f"refused_{reason}" for reason in KeeperReason]


def test_the_defaults_of_a_keeper_are_those_of_the_page() -> None:
    told = {
        codes(row[0])[0]: codes(row[1])[0]
        for row in rows(sections(page("docs/reference/environment.md"))["Keeper"])
    }
    assert told
    assert read_setting(told) == read_setting({})


def test_a_keeper_takes_no_options_but_help_and_version() -> None:
    text = sections(page("docs/reference/command.md"))["spike-keeper"]
    assert _HELP.splitlines()[0].removeprefix("Usage: ") in text


@pytest.mark.parametrize("measure", ["LimitCORE=0", "LimitMEMLOCK=", "NoNewPrivileges=yes"])
def test_the_example_of_a_unit_protects_the_process(measure: str) -> None:
    assert measure in page("docs/guide/keeper.md")
