"""Identities that change while everything runs."""

from __future__ import annotations

import os
import signal
import time

from spike.pilot.demo.claim import claim, require, require_equal
from spike.pilot.demo.knock import Answered, Visitor, knock, knock_again, look
from spike.pilot.demo.load import Load
from spike.pilot.demo.main.world import PATH, MainWorld, reading
from spike.pilot.demo.stage import is_there, wait_until
from spike.pilot.dev.world import NEXUS_ID
from spike.spiffe.workload_source import fetch_material

_TIMEOUT_S = 10.0
_SWAP_LIMIT_S = 20.0
_AFTERWARDS_S = 1.0
# What SPIKE promises: every part takes over a restarted Authority's new CA within this time.
_TAKE_OVER_S = 5.0


@claim("Nexus changes its SVID under load: no request fails, no kept connection ends")
def svid_is_swapped(world: MainWorld) -> None:
    """Look at the served certificate from outside until it is another one."""
    source = world.source
    load = Load(world.stage.port, source, *reading(PATH))
    before = look(world.stage.port, source.material)
    try:
        load.start()
        wait_until(
            lambda: look(world.stage.port, source.material).serial != before.serial,
            _SWAP_LIMIT_S,
            f"Nexus still shows certificate {before.serial:x} after {_SWAP_LIMIT_S:.0f} s",
        )
        swapped_s = time.monotonic()
        time.sleep(_AFTERWARDS_S)
    finally:
        load.stop()
    require(not load.failures, f"{len(load.failures)} requests failed: {load.failures[:3]}")
    require(load.answered > 0, "no request was answered")
    require(load.spanning(swapped_s) > 0, "no connection was kept over the change")


@claim("Authority is killed: it comes back, and Nexus shows an SVID of the new CA within 5 s")
def authority_is_replaced(world: MainWorld) -> None:
    """Kill it; look at processes and at the issuer of the served certificate."""
    old = world.stage.part("spike-authority")
    nexus = world.stage.part("spike-nexus")
    material = world.source.material
    before = look(world.stage.port, material)
    kept = Visitor(world.stage.port, material)
    with kept:
        os.kill(old, signal.SIGKILL)
        wait_until(lambda: not is_there(old), _TIMEOUT_S, "Authority survives SIGKILL")
        wait_until(
            lambda: world.stage.run("spike-authority", "status").code == 0,
            _TIMEOUT_S,
            "Authority does not come back",
        )
        wait_until(
            lambda: look(world.stage.port, material).issuer != before.issuer,
            _TAKE_OVER_S,
            f"Nexus still shows an SVID of {before.issuer}",
        )
        after = look(world.stage.port, material)
        # Its verified root has left the bundle.
        outcome = knock_again(kept, *reading(PATH))
        require(
            not (isinstance(outcome, Answered) and outcome.status == 200),
            "a connection that the old CA vouched for is still served",
        )
    require_equal(str(after.id), NEXUS_ID, "the identity Nexus shows")
    require_equal(world.stage.part("spike-nexus"), nexus, "the process of Nexus")
    fresh = fetch_material(world.socket, _TIMEOUT_S)
    require_equal(
        knock(world.stage.port, fresh, *reading(PATH)).__class__.__name__,
        Answered.__name__,
        "what an SVID of the new CA gets",
    )
    got = world.stage.run_well("spike", "secret", "get", PATH, "password")
    require_equal(got.rstrip("\n"), world.value, "the secret after it")


def stop_renewal(world: MainWorld) -> None:
    """Sabotage: Authority is frozen and renews nothing."""
    os.kill(world.stage.part("spike-authority"), signal.SIGSTOP)


def block_authority(world: MainWorld) -> None:
    """Sabotage: its sockets lie where others could replace them, so that it does not start again."""
    world.stage.place.run.chmod(0o777)
