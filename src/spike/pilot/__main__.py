"""The program `spike`."""

from __future__ import annotations

import logging
import os
import sys

import click

from spike.error import SpikeError
from spike.pilot.app import spike
from spike.pilot.failure import Exit, exit_of, text_of
from spike.pilot.output import note


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code. What failed goes to standard error."""
    try:
        code = spike.main(arguments, prog_name="spike", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.ClickException as error:
        error.show()
        return exit_of(error)
    except SpikeError as error:
        note(text_of(error))
        return exit_of(error)
    except (click.Abort, KeyboardInterrupt):
        click.echo("\nStopped; nothing more was done.", err=True)
        return Exit.FAILED
    except BrokenPipeError:
        # Who reads the output has gone (`spike secret list | head`): say nothing, and keep the
        # interpreter from saying it when it closes standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED
    return code if isinstance(code, int) else Exit.SUCCESS


def main() -> None:
    """Run the command that the command line names, and exit with its code."""
    # What goes wrong below is told once, as an error of the command; no log line beside it.
    logging.getLogger("spike").addHandler(logging.NullHandler())
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
