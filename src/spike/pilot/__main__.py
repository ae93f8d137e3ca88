"""The program `spike`."""

from __future__ import annotations

import logging
import sys

import click

from spike.error import SpikeError
from spike.memory import standard_stream
from spike.pilot.app import spike
from spike.pilot.failure import Exit, exit_of, text_of
from spike.pilot.output import note


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code. What failed goes to standard error."""
    try:
        return _run(arguments)
    except BrokenPipeError:
        # Who reads the output has gone (`spike secret list | head`): say nothing.
        standard_stream.silence(1)
    except OSError as error:
        standard_stream.silence(1)
        _say(f"Error: {error.filename or 'standard input or output'}: {error.strerror}.")
    return Exit.FAILED


def _run(arguments: list[str]) -> int:
    try:
        code = spike.main(arguments, prog_name="spike", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as exit_:
        sys.stdout.flush()
        return exit_.exit_code
    except click.ClickException as error:
        with standard_stream.heard_or_not():
            error.show()
        return exit_of(error)
    except SpikeError as error:
        _say(text_of(error))
        return exit_of(error)
    except (click.Abort, KeyboardInterrupt):
        _say("\nStopped; nothing more was done.")
        return Exit.FAILED
    return code if isinstance(code, int) else Exit.SUCCESS


def _say(text: str) -> None:
    with standard_stream.heard_or_not():
        note(text)


def main() -> None:
    """Run the command that the command line names, and exit with its code."""
    standard_stream.occupy()
    # What goes wrong below is told once, as an error of the command; no log line beside it.
    logging.getLogger("spike").addHandler(logging.NullHandler())
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
