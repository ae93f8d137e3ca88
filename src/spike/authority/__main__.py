"""The program `spike-authority`."""

from __future__ import annotations

import sys

import click

from spike.authority.app import authority
from spike.error import NotReadyError, SettingError, SpikeError

_FAILED, _USAGE, _UNREACHABLE = 1, 2, 3


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code. What failed goes to standard error.

    0 success, 1 refused or failed, 2 wrong usage or setting, 3 Authority is out of reach; the code of
    `run` is its command's.
    """
    try:
        code = authority.main(arguments, prog_name="spike-authority", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except SpikeError as error:
        click.echo(f"Error: {error.message}.", err=True)
        if error.next_step:
            click.echo(f"Next: {error.next_step}.", err=True)
        return _code_of(error)
    except (click.Abort, KeyboardInterrupt):
        return _FAILED
    except BrokenPipeError:
        # Who read the output has gone; closing it again at the end would complain.
        sys.stderr.close()
        return _FAILED
    return code if isinstance(code, int) else 0


def _code_of(error: SpikeError) -> int:
    match error:
        case NotReadyError():
            return _UNREACHABLE
        case SettingError():
            return _USAGE
        case _:
            return _FAILED


def main() -> None:
    """Run the command that the command line names, and exit with its code."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
