"""Values of a secret as the command line gives them: `key=value`, `key=@file`, `key=-`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Final

import click

from spike.error import InputError, SettingError
from spike.wire.validate import check_name

LIMIT_BYTES: Final = 1 << 20


def read_values(arguments: Iterable[str], standard_input: BinaryIO) -> dict[str, str]:
    """Return the values that the arguments name. Files and standard input are taken as they are.

    A value that begins with `@` itself, or is `-`, is written with a backslash before it.

    Raises:
        click.UsageError: an argument of another form, a key twice, two values from standard input.
        SettingError: a file or standard input cannot be read.
        InputError: a value is larger than 1 MiB or not UTF-8.
    """
    values: dict[str, str] = {}
    input_taken = False
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals:
            # The argument is not repeated: it may be a value whose key was forgotten.
            raise click.UsageError("Each value is given as KEY=VALUE, KEY=@FILE or KEY=-.")
        try:
            check_name(key, "key")
        except InputError as error:
            raise click.UsageError(f"A key is refused: {error.message}.") from error
        if key in values:
            raise click.UsageError(f"The key {key} is given twice.")
        if text == "-":
            if input_taken:
                raise click.UsageError("Only one value can come from standard input.")
            input_taken = True
            values[key] = _text(_rest_of(standard_input), key)
        elif text.startswith("@"):
            values[key] = _text(_content(Path(text[1:])), key)
        else:
            # An argument that is no UTF-8 comes with stand-ins for its bytes (PEP 383).
            plain = text[1:] if text.startswith(("\\@", "\\-")) else text
            values[key] = _text(plain.encode("utf-8", "surrogateescape"), key)
    return values


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise SettingError(
            f"the file {path} cannot be read: {error.strerror}", "check the path after @"
        ) from error


def _rest_of(standard_input: BinaryIO) -> bytes:
    try:
        return standard_input.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise SettingError(
            f"standard input cannot be read: {error.strerror}", "give the value there, or KEY=@FILE"
        ) from error


def _text(raw: bytes, key: str) -> str:
    if len(raw) > LIMIT_BYTES:
        raise InputError(f"the value of {key} is larger than 1 MiB", "store less, or in parts")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise InputError(
            f"the value of {key} is not UTF-8 text", "encode it, for example with base64"
        ) from None
