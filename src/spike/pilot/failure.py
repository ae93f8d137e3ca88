"""What a failed command says and exits with. Pure."""

from __future__ import annotations

from enum import IntEnum

import click

from spike.error import (
    NotReadyError,
    SettingError,
    SpikeError,
    WorkloadApiError,
)


class Exit(IntEnum):
    """The exit codes of `spike`; docs and help list them."""

    SUCCESS = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    ONE_WAY = 4


def exit_of(error: SpikeError | click.ClickException) -> Exit:
    """Return the exit code that goes with an error."""
    match error:
        case click.UsageError():
            return Exit.USAGE
        case NotReadyError() | WorkloadApiError():
            return Exit.UNREACHABLE
        case SettingError():
            return Exit.USAGE
        case _:
            return Exit.FAILED


def text_of(error: SpikeError) -> str:
    """Return what failed and why, and what to do next, each on a line of its own."""
    said = f"Error: {error.message}."
    return f"{said}\nNext: {error.next_step}." if error.next_step else said
