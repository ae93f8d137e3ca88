"""First secret, first policy, first reader."""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path

from spike.pilot.demo.claim import claim, require, require_equal
from spike.pilot.demo.main.world import (
    HIDDEN_PATH,
    PATH,
    POLICY,
    WORKLOAD,
    MainWorld,
)
from spike.pilot.demo.stage import files_below


@claim("Authority and Nexus run as processes of their own")
def parts_are_processes(world: MainWorld) -> None:
    """See both in /proc."""
    authority, nexus = world.stage.part("spike-authority"), world.stage.part("spike-nexus")
    require(authority != nexus, "one process runs both")


@claim("everything lies in one directory that nobody else can enter")
def directory_is_private(world: MainWorld) -> None:
    """Look at owner and rights of each file."""
    top = world.stage.place.directory
    require_equal(stat.S_IMODE(top.stat().st_mode), 0o700, f"the mode of {top}")
    for path in files_below(top):
        found = path.stat()
        require(found.st_uid == os.geteuid(), f"{path} belongs to another user")
        require(not stat.S_IMODE(found.st_mode) & 0o077, f"others can use {path}")


@claim("a secret that is put with the command spike comes back with it")
def first_secret(world: MainWorld) -> None:
    """Put and get; the value goes through standard input, not through the command line."""
    stage = world.stage
    stage.run_well("spike", "secret", "put", PATH, "password=-", given=world.value)
    stage.run_well("spike", "secret", "put", HIDDEN_PATH, "code=hidden-from-the-shop")
    world.acknowledged[PATH] = world.value
    got = stage.run_well("spike", "secret", "get", PATH, "password")
    require_equal(got.rstrip("\n"), world.value, "the secret")


@claim("no file holds the secret or the password in plain text, base64 or hex")
def nothing_is_on_disk(world: MainWorld) -> None:
    """Search every file of the directory."""
    _require_nowhere(world)


@claim("after all of that, still no file holds the secret or the password")
def still_nothing_is_on_disk(world: MainWorld) -> None:
    """Search again: store, write-ahead log, backups, logs, anchors."""
    _require_nowhere(world)


@claim("a second init is refused: the root key is made once")
def second_init_is_refused(world: MainWorld) -> None:
    """Try it."""
    ran = world.stage.run("spike", "init", "--generate")
    require_equal(ran.code, 1, "the exit code of a second spike init")
    require("already" in ran.errors, f"the reason given is: {ran.errors.strip()}")


@claim("a workload without a policy reads nothing")
def nothing_without_policy(world: MainWorld) -> None:
    """Ask before there is any policy."""
    ran = world.stage.run_as(WORKLOAD, "spike", "secret", "get", PATH)
    require_equal(ran.code, 1, "the exit code of a workload without a policy")
    require(world.value not in ran.output, "the secret was shown")


@claim("a policy lets that workload read it, the value coming from its own process")
def workload_reads(world: MainWorld) -> None:
    """Create the policy; read with the workload's identity."""
    world.stage.run_well(
        *("spike", "policy", "create", "--name", POLICY, "--path-pattern", "^shop/"),
        *("--spiffeid-pattern", f"^{WORKLOAD}$", "--permissions", "read"),
    )
    ran = world.stage.run_as(WORKLOAD, "spike", "secret", "get", PATH, "password")
    require(ran.code == 0, f"the workload is refused: {ran.errors.strip()}")
    require_equal(ran.output.rstrip("\n"), world.value, "what the workload reads")


@claim("it reads, and cannot write or read elsewhere")
def workload_does_no_more(world: MainWorld) -> None:
    """Try both; a path that exists and one that does not get the same answer."""
    ran = world.stage.run_as(WORKLOAD, "spike", "secret", "put", PATH, "password=changed")
    require_equal(ran.code, 1, "the exit code of a write without the right to")
    hidden, absent = (
        world.stage.run_as(WORKLOAD, "spike", "secret", "get", path)
        for path in (HIDDEN_PATH, "bank/no-such-thing")
    )
    require_equal(hidden.code, 1, "the exit code of a read elsewhere")
    require_equal(
        hidden.errors.replace(HIDDEN_PATH, "…"),
        absent.errors.replace("bank/no-such-thing", "…"),
        "the answer for a path that exists",
    )
    got = world.stage.run_well("spike", "secret", "get", PATH, "password")
    require_equal(got.rstrip("\n"), world.value, "the secret after the attempts")


def _require_nowhere(world: MainWorld) -> None:
    for name, text in (("the secret", world.value), ("the password", world.stage.password)):
        for path in files_below(world.stage.place.directory):
            content = path.read_bytes()
            for form in _forms(text):
                require(form not in content, f"{path} holds {name}")


def _forms(text: str) -> tuple[bytes, ...]:
    raw = text.encode()
    return raw, base64.b64encode(raw), raw.hex().encode("ascii")


def leak(world: MainWorld) -> None:
    """Sabotage: write the password where a careless program would."""
    log: Path = world.stage.place.log / "nexus.log"
    with log.open("a", encoding="utf-8") as file:
        file.write(f"opened the slot with {world.stage.password}\n")
