"""The program `spike-authority`."""

from __future__ import annotations

import sys

import click

from spike.authority.app import authority
from spike.error import NotReadyError, SettingError, SpikeError
from spike.memory import standard_stream

_FAILED, _USAGE, _UNREACHABLE = 1, 2, 3


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code. What failed goes to standard error.

    0 success, 1 refused or failed, 2 wrong usage or setting, 3 Authority is out of reach; the code of
    `run` is its command's.
    """
    try:
        return _run(arguments)
    except BrokenPipeError:
        standard_stream.silence(1)  # who read it has gone: say nothing
    except OSError as error:
        standard_stream.silence(1)
        _say(f"Error: {error.filename or 'standard input or output'}: {error.strerror}.")
    return _FAILED


def _run(arguments: list[str]) -> int:
    try:
        code = authority.main(arguments, prog_name="spike-authority", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as exit_:
        sys.stdout.flush()
        return exit_.exit_code
    except click.ClickException as error:
        with standard_stream.heard_or_not():
            error.show()
        return error.exit_code
    except SpikeError as error:
        _say(f"Error: {error.message}.")
        if error.next_step:
            _say(f"Next: {error.next_step}.")
        return _code_of(error)
    except (click.Abort, KeyboardInterrupt):
        return _FAILED
    return code if isinstance(code, int) else 0


def _say(text: str) -> None:
    with standard_stream.heard_or_not():
        click.echo(text, err=True)


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
    standard_stream.occupy()
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
