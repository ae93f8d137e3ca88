"""A new backup password: asked for twice, read, or made; judged here before anything is sent, and again by Nexus."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from spike.error import InputError, RefusedError
from spike.lifecycle import password as policy
from spike.lifecycle.password import Accepted, TooWeak
from spike.pilot import prompt, source
from spike.pilot.source import FromDescriptor, FromFile, FromTerminal, Generated, Source, wiped


@contextmanager
def ready(chosen: Source) -> Iterator[None]:
    """See before anything else that a password can be had from where it shall come from."""
    if isinstance(chosen, FromTerminal):
        with prompt.terminal():
            pass
    yield


def obtain(chosen: Source, slot_name: str) -> bytearray:
    """Return a new password for a slot, which the policy accepts. The caller wipes it.

    Raises:
        InputError: it is refused, with the reason; or the two that were typed differ.
        RefusedError: nobody has written down the one that was made.
        SettingError: it cannot be read.
    """
    match chosen:
        case Generated():
            return _generate()
        case FromTerminal():
            return _ask_twice(slot_name)
        case FromFile() | FromDescriptor():
            password = source.read(chosen)
            return _judged(password, slot_name)


def _generate() -> bytearray:
    password = policy.generate()
    try:
        _show_once(password)
    except BaseException:
        prompt.wipe(password)
        raise
    return password


def _show_once(password: bytearray) -> None:
    # Before the key exists: were it shown after, a closed pipe would lose it for good.
    sys.stdout.flush()
    sys.stdout.buffer.write(password)
    sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()
    if sys.stdout.isatty() and not prompt.confirm("Have you written it down?"):
        raise RefusedError("nothing was done: the password is not written down", "begin again")


def _ask_twice(slot_name: str) -> bytearray:
    with prompt.terminal() as terminal:
        password = _judged(prompt.ask_hidden(terminal, "New password: "), slot_name)
        try:
            _ask_again(terminal, password)
        except BaseException:
            prompt.wipe(password)
            raise
    return password


def _ask_again(terminal: int, password: bytearray) -> None:
    with wiped(prompt.ask_hidden(terminal, "The same again: ")) as again:
        if again != password:
            raise InputError("the two passwords differ; nothing was done", "begin again")


def _judged(password: bytearray, slot_name: str) -> bytearray:
    """Return the password if the policy accepts it. Nexus judges again, whatever was found here."""
    match policy.verdict(password, (slot_name,)):
        case Accepted():
            return password
        case TooWeak(reason, next_step):
            prompt.wipe(password)
            raise InputError(f"the password is refused: {reason}", next_step)
