"""A key has leaked; and what is written down of all that."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

from spike.lifecycle.password import generate
from spike.pilot.demo.claim import claim, require, require_equal
from spike.pilot.demo.keeper_stage import RECOVER
from spike.pilot.demo.ledger import require_all_secrets
from spike.pilot.demo.rotation.world import RotationWorld
from spike.pilot.demo.stage import descendants, is_there

_REASON = "a dump of the old host was found"
_EMERGENCY = ("--emergency", "--leaked", "root", "--reason", _REASON)


@claim("the root key has leaked: what that exposes is told, and every key is replaced at once")
def emergency(world: RotationWorld) -> str:
    """Look at the exposure; run the command; count in the file; read the states of the keys."""
    since = world.requests.answered
    checked = json.loads(world.key("rotate", *_EMERGENCY, "--dry-run", "--format", "json"))
    require(bool(checked.get("exposure")), "no exposure is told")
    world.key("rotate", *_EMERGENCY, "--yes", "--wait=finalized")
    world.rotation_id = world.rotation().id
    world.require_all_under(4)
    world.require_states(root_3="destroyed", record_3="destroyed", root_4="active")
    require_all_secrets(world.stage, world.acknowledged)
    return world.require_served(since)


@claim("a report for an auditor is written, with who, why, what leaked, and what was destroyed")
def report_is_written(world: RotationWorld) -> str:
    """Run the command in both forms."""
    path = world.directory / "report.md"
    told = json.loads(world.key("report", world.rotation_id, "--format", "json"))
    require_equal(told["id"], world.rotation_id, "the rotation it is about")
    world.key("report", world.rotation_id, "--out", str(path))
    text = path.read_text(encoding="utf-8")
    for word in (world.rotation_id, _REASON, "superuser", "leaked: root", "destroyed"):
        require(word in text, f"the report does not hold {word!r}")
    return f"{len(text.splitlines())} lines"


@claim("the password counts as known, and as no way back; with a new one there are two ways again")
def new_password_makes_it_whole(world: RotationWorld) -> str:
    """Run `spike status`; give the slot a new password under the recover role; run it again."""
    code, told = world.stage.status()
    require_equal(code, 4, f"the exit code of spike status ({told['summary']})")
    change = ("spike", "backup", "slot", "change-password", "admin", "--password-stdin")
    words = generate().decode()
    ran = world.stage.run_as(RECOVER, *change, "--no-rotate", given=words)
    require(ran.code == 0, f"the new password is refused: {ran.errors.strip()}")
    world.stage.password = words
    code, told = world.stage.status()
    require_equal(code, 0, f"the exit code of spike status ({told['summary']})")
    return str(told["summary"])


@claim("the store is verified, two ways lead back, and stopped in order nothing runs any more")
def nothing_is_left(world: RotationWorld) -> str:
    """Run `spike key verify` and `spike status`; stop as Ctrl-C does and look for survivors in /proc."""
    figures = world.require_served(0)
    world.requests.stop()
    world.key("verify")
    code, told = world.stage.status()
    require_equal(code, 0, f"the exit code of spike status ({told['summary']})")
    numbers = descendants(world.stage.number)
    world.stage.stop()
    left = [number for number in numbers if is_there(number)]
    require(not left, f"processes {left} still run")
    told_figures = (world.figures[name] for name in ("records", "back", "rate"))
    return "; ".join((*told_figures, f"{figures}, none failed"))


def lose_history(world: RotationWorld) -> None:
    """Sabotage: a storage writer deletes the history's newest entries behind Nexus's back."""
    with closing(sqlite3.connect(world.database, timeout=10.0)) as connection, connection:
        connection.execute(
            "DELETE FROM record WHERE id IN (SELECT id FROM record WHERE kind = 'history'"
            " ORDER BY key DESC LIMIT 3)"
        )
