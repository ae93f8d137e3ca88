"""The reference pages name what the code has, no less and no more."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from doc_kit import ROOT, SOURCE, codes, page, rows, sections
from spike.authority import book
from spike.client import anchor as anchor_file
from spike.crypto import record
from spike.lifecycle import (
    anchor,
    backup,
    keyring,
    manifest,
    progress,
    shard_text,
    system_backup,
    usage,
)
from spike.lifecycle.refusal import Reason
from spike.nexus.setting import read_setting
from spike.policy import access_list
from spike.policy import encoding as policy_encoding
from spike.policy.role import Role
from spike.secret import cipher_blob
from spike.secret import encoding as secret_encoding
from spike.wire.call import CALLS, AnyCall
from spike.wire.code import ErrorCode
from spike.wire.message import Message

VARIABLE = re.compile(r"\b(?:SPIKE|SPIFFE)_[A-Z_]*[A-Z]\b")
PREFIXES = frozenset({"SPIKE_AUTHORITY", "SPIKE_KEEPER", "SPIKE_NEXUS_SHAMIR"})
"""Beginnings of names, by which `spike dev` keeps another SPIKE's variables away."""


def texts(path: Path) -> list[str]:
    """Return every text constant of a module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return [str(node.value) for node in nodes]


def variables(*directories: Path) -> set[str]:
    """Return the environment variables that the modules below some directories name."""
    paths = [p for d in directories for p in d.rglob("*.py") if not p.name.startswith("workload_")]
    assert paths
    return {name for path in paths for text in texts(path) for name in VARIABLE.findall(text)}


def test_every_variable_stands_in_the_page_and_no_other() -> None:
    told = {name for row in rows(page("docs/reference/environment.md")) for name in codes(row[0])}
    named = variables(SOURCE) | variables(ROOT / "test", ROOT / "tool")
    assert told == named - PREFIXES


def test_the_defaults_of_nexus_are_those_of_the_page() -> None:
    told = {
        codes(row[0])[0]: codes(row[1])[0]
        for row in rows(sections(page("docs/reference/environment.md"))["Nexus"])
        if row[1] != "none"
    }
    told = {name: value.replace("~", "/somebody") for name, value in told.items()}
    assert read_setting(told, Path("/somebody")) == read_setting({}, Path("/somebody"))


def fields(message: type[Message]) -> list[str]:
    return [field.encode_name for field in msgspec.structs.fields(message)]


def expected_call(call: AnyCall) -> tuple[list[str], list[str]]:
    return fields(call.request), fields(call.answer)


def told_calls() -> dict[str, tuple[str, list[str], list[str]]]:
    """Return what sections 4 and 7 of the page say of each call: target, request, answer."""
    found = sections(page("docs/reference/wire.md"))
    (known,) = [text for name, text in found.items() if name.startswith("4. ")]
    (own,) = [text for name, text in found.items() if name.startswith("7. ")]
    lines = [*rows(known), *([row[0], row[1], row[4], row[5]] for row in rows(own))]
    return {row[0]: (codes(row[1])[0], codes(row[2]), codes(row[3])) for row in lines}


def test_every_call_stands_in_the_page_with_its_fields() -> None:
    assert told_calls() == {call.name: (call.target, *expected_call(call)) for call in CALLS}


def test_the_page_says_which_of_our_calls_need_no_root_key() -> None:
    found = sections(page("docs/reference/wire.md"))
    (own,) = [text for name, text in found.items() if name.startswith("7. ")]
    told = {row[0]: row[3] == "yes" for row in rows(own)}
    needed = {str(call.name): not call.needs_root_key for call in CALLS}
    assert told == {name: needed[name] for name in told}
    # Go's two stand in section 4, whose text says it of them.
    of_go = {"operator recover", "operator restore"}
    assert {name for name, free in needed.items() if free} <= set(told) | of_go


def test_status_codes_and_roles_are_those_of_the_code() -> None:
    found = sections(page("docs/reference/wire.md"))
    transport = {row[0]: codes(row[1]) for row in rows(found["1. Transport"])}
    assert {code.status: code.text for code in ErrorCode} == {
        int(status): names[0] for status, names in transport.items() if names
    }
    roles = [row for row in rows(found["2. Identities"]) if len(row) == 3 and "spiffe" in row[1]]
    assert [(codes(row[1])[0], codes(row[2])[0]) for row in roles] == [
        (f"spiffe://R/{role.base_path}", role.variable) for role in Role
    ]


def test_every_refusal_is_explained_and_no_other() -> None:
    lines = rows(page("docs/reference/refusal.md"))
    assert [codes(row[0])[0] for row in lines] == [reason.value for reason in Reason]
    assert all(row[1] and row[2] for row in lines)


FORMATS = {
    "record": (record.RECORD_FORMAT, record.PLAINTEXT_LIMIT_BYTES),
    "cipher blob": (cipher_blob.BLOB_VERSION, cipher_blob.SIZE_LIMIT_BYTES),
    "keyring": (keyring.FORMAT, keyring.LIMIT_BYTES),
    "anchor": (anchor.FORMAT, anchor.LIMIT_BYTES),
    "backup": (backup.FORMAT, backup.LIMIT_BYTES),
    "system backup": (system_backup.FORMAT, None),
    "manifest": (manifest.FORMAT, manifest.LIMIT_BYTES),
    "recovery shard": (shard_text.FORMAT, shard_text.LIMIT_BYTES),
    "secret metadata": (secret_encoding.META_FORMAT, secret_encoding.META_LIMIT_BYTES),
    "secret": (secret_encoding.VALUES_FORMAT, secret_encoding.VALUES_LIMIT_BYTES),
    "policy": (policy_encoding.POLICY_FORMAT, policy_encoding.POLICY_LIMIT_BYTES),
    "access list": (access_list.ACCESS_LIST_FORMAT, access_list.ACCESS_LIST_LIMIT_BYTES),
    "usage": (usage.FORMAT, usage.LIMIT_BYTES),
    "progress of a re-encryption": (progress.FORMAT, progress.LIMIT_BYTES),
    "store": (len(list((SOURCE / "storage" / "migration").glob("*.sql"))), None),
    "anchor file": (anchor_file.FORMAT, anchor_file.LIMIT_BYTES),
    "entry file": (book.FORMAT, book.BOOK_LIMIT_BYTES),
}
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20}


def test_the_formats_and_limits_are_those_of_the_code() -> None:
    told = {}
    for thing, number, limit, _where in rows(page("docs/reference/format.md").split("\n## ")[0]):
        size, unit = limit.split() if limit else ("", "")
        newest = int(number.split(", ")[-1])
        told[thing] = (newest, int(size) * UNITS[unit] if limit else None)
    told.pop("history entry")  # written only; its limit is the store's
    assert told == FORMATS


def test_the_keyring_s_fields_are_those_of_the_code() -> None:
    told = {
        name
        for row in rows(
            sections(page("docs/reference/format.md"))["Documents: keyring, anchor, backup"]
        )
        for name in codes(row[0])
    }
    assert told == {field.name for field in msgspec.structs.fields(keyring.Keyring)}


FIXTURE = ROOT / "test" / "fixture" / "installation-1"
PASSWORD = "the password of a fixture, no secret\n"


def opened_alone(tmp_path: Path, password: str) -> subprocess.CompletedProcess[str]:
    """Run the page's program, in isolation from SPIKE, on copies of a kept installation."""
    program = shutil.copy(ROOT / "tool" / "open_backup.py", tmp_path)
    store = shutil.copy(FIXTURE / "data" / "store.sqlite", tmp_path)
    (backup_file,) = (FIXTURE / "backup").glob("*.key-backup")
    return subprocess.run(
        [sys.executable, "-I", program, str(backup_file), "admin", store, "fixture/one"],
        input=password,
        capture_output=True,
        text=True,
        start_new_session=True,  # without a terminal it reads the password from standard input
        env={"PATH": os.environ["PATH"]},
        check=False,
        cwd=tmp_path,
    )


def test_a_program_without_spike_opens_backup_and_secret(tmp_path: Path) -> None:
    done = opened_alone(tmp_path, PASSWORD)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith('{"key": "one 2"}\n')


def test_that_program_is_short_and_refuses_another_password(tmp_path: Path) -> None:
    text = (ROOT / "tool" / "open_backup.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 150
    assert "import spike" not in text
    assert "from spike" not in text
    done = opened_alone(tmp_path, "another password of 15 characters\n")
    assert done.returncode == 1
    assert "the password does not open this slot" in done.stderr


@pytest.mark.parametrize(
    ("heading", "files"), [("To run", ("run",)), ("To build and test", ("build", "dev"))]
)
def test_every_dependency_has_its_reason_and_no_other(heading: str, files: tuple[str, ...]) -> None:
    told = {row[0] for row in rows(sections(page("docs/decision/dependency.md"))[heading])}
    wanted = set()
    for name in files:
        for line in page(f"requirement/{name}.in").splitlines():
            if line and not line.startswith(("-r", "#")):
                wanted.add(re.split(r"[<>=;\s]", line)[0])
    assert told == wanted
