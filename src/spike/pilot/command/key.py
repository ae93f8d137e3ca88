"""`spike key`: the life of the keys. Each command is in a module of its own; here they are put together."""

from __future__ import annotations

from typing import Final

import click

from spike.pilot.command.key_cipher_oldest import cipher_oldest
from spike.pilot.command.key_report import note, report
from spike.pilot.command.key_rotate import rotate
from spike.pilot.command.key_schedule import schedule
from spike.pilot.command.key_status import status, watch
from spike.pilot.command.key_steer import abort, finalize, pace, pause, resume, rollback
from spike.pilot.command.key_verify import verify
from spike.pilot.command.key_view import history, list_


@click.group()
def key() -> None:
    """Look at the keys, replace them, and verify what is stored under them."""


# One line makes a command part of `spike key`.
_COMMANDS: Final = (
    *(list_, history, verify, schedule, cipher_oldest, report, note),
    *(rotate, status, watch, pause, resume, pace, abort, rollback, finalize),
)
for _command in _COMMANDS:
    key.add_command(_command)
