"""`spike cipher`: encrypt and decrypt with a key that never leaves Nexus."""

from __future__ import annotations

import base64
import binascii
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from spike.error import InputError
from spike.pilot import output
from spike.pilot.file import read_bounded, write_whole
from spike.pilot.session import Session

# Above the most that any Nexus takes, 16 MiB and what sealing adds to it; as base64 with line breaks.
LIMIT_BYTES: Final = 17 << 20
TEXT_LIMIT_BYTES: Final = 24 << 20


def _streams(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option(
        "-o",
        "--out",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Write to FILE, for its owner alone; without it, to standard output.",
    )(command)
    return click.option(
        "-f",
        "--file",
        "file",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Read from FILE; without it, from standard input.",
    )(command)


def _algorithm(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--algorithm", metavar="NAME", help="JSON form: AES-256-GCM, the only one there is."
    )(command)


def _triple(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option(
        "--ciphertext",
        metavar="BASE64|@FILE|-",
        help="JSON form: the ciphertext that encrypt showed.",
    )(command)
    command = click.option(
        "--nonce", metavar="BASE64", help="JSON form: the nonce that encrypt showed."
    )(command)
    return click.option(
        "--version",
        type=click.IntRange(0, 255),
        help="JSON form: the version that encrypt showed.",
    )(command)


@click.group()
def cipher() -> None:
    """Encrypt and decrypt with a key that never leaves Nexus.

    Nexus keeps nothing of what it encrypts. Whoever may decrypt can decrypt all of it.
    """


@cipher.command(
    epilog="""\b
Examples:
  spike cipher encrypt --file report.pdf --out report.pdf.spike
  make-token | spike cipher encrypt --out token.spike
  base64 token | spike cipher encrypt --plaintext -
"""
)
@_streams
@click.option(
    "--plaintext",
    metavar="BASE64|@FILE|-",
    help="JSON form: encrypt this and show version, nonce and ciphertext.",
)
@_algorithm
def encrypt(
    file: Path | None, out: Path | None, plaintext: str | None, algorithm: str | None
) -> None:
    """Encrypt a file or standard input.

    The output is bytes for `spike cipher decrypt`. With --plaintext it is JSON with version, nonce and
    ciphertext, as the HTTP call gives it; BASE64 then stays in the shell's history and is visible
    to other users of the machine while the command runs, @FILE and - (standard input) do not.
    """
    if plaintext is None:
        _require_no_algorithm(algorithm)
        data = read_bounded(_unless_standard(file), LIMIT_BYTES)
        with Session.of_process().connect() as nexus:
            blob = nexus.encrypt(data)
        _give(blob, out)
        return
    _require_no_file(file)
    data = _from_base64(plaintext, "--plaintext")
    with Session.of_process().connect() as nexus:
        answer = nexus.encrypt_json(data, algorithm or "")
    from spike.wire.go_json import encode

    _give(encode(answer) + b"\n", out)


@cipher.command(
    epilog="""\b
Examples:
  spike cipher decrypt --file report.pdf.spike --out report.pdf
  spike cipher decrypt --version 1 --nonce MDEyMzQ1Njc4OWFi --ciphertext @ciphertext.b64
"""
)
@_streams
@_triple
@_algorithm
def decrypt(
    *,
    file: Path | None,
    out: Path | None,
    version: int | None,
    nonce: str | None,
    ciphertext: str | None,
    algorithm: str | None,
) -> None:
    """Decrypt what `spike cipher encrypt` gave, from a file or standard input.

    The output is the bytes that were encrypted. Nexus does not say why something does not decrypt.
    """
    if version is None and nonce is None and ciphertext is None:
        _require_no_algorithm(algorithm)
        blob = read_bounded(_unless_standard(file), LIMIT_BYTES)
        with Session.of_process().connect() as nexus:
            plaintext = nexus.decrypt(blob)
        _give(plaintext, out)
        return
    _require_no_file(file)
    parts = _parts(version, nonce, ciphertext)
    with Session.of_process().connect() as nexus:
        plaintext = nexus.decrypt_json(*parts, algorithm or "")
    _give(plaintext, out)


@cipher.command(
    epilog="""\b
Examples:
  spike cipher rewrap --file report.pdf.spike --out report.pdf.spike
  spike cipher rewrap --version 1 --nonce MDEyMzQ1Njc4OWFi --ciphertext @ciphertext.b64
"""
)
@_streams
@_triple
@_algorithm
def rewrap(
    *,
    file: Path | None,
    out: Path | None,
    version: int | None,
    nonce: str | None,
    ciphertext: str | None,
    algorithm: str | None,
) -> None:
    """Bring what `spike cipher encrypt` gave under the newest key, without its plaintext leaving Nexus.

    What is under that key already comes back as it is. Rewrap all you keep before the oldest accepted
    generation is raised (spike key cipher-oldest): what is left behind never opens again.
    """
    if version is None and nonce is None and ciphertext is None:
        _require_no_algorithm(algorithm)
        blob = read_bounded(_unless_standard(file), LIMIT_BYTES)
        with Session.of_process().connect() as nexus:
            rewrapped = nexus.rewrap(blob)
        _give(rewrapped, out)
        return
    _require_no_file(file)
    parts = _parts(version, nonce, ciphertext)
    with Session.of_process().connect() as nexus:
        answer = nexus.rewrap_json(*parts, algorithm or "")
    from spike.wire.go_json import encode

    _give(encode(answer) + b"\n", out)


def _parts(
    version: int | None, nonce: str | None, ciphertext: str | None
) -> tuple[int, bytes, bytes]:
    if version is None or nonce is None or ciphertext is None:
        raise click.UsageError("Give --version, --nonce and --ciphertext together.")
    return version, _decoded(nonce, "--nonce"), _from_base64(ciphertext, "--ciphertext")


def _unless_standard(path: Path | None) -> Path | None:
    """Return the file that an option names, None where it names standard input or output."""
    return None if path is None or str(path) == "-" else path


def _require_no_algorithm(algorithm: str | None) -> None:
    if algorithm is not None:
        raise click.UsageError("--algorithm belongs to the JSON form.")


def _require_no_file(file: Path | None) -> None:
    if file is not None:
        raise click.UsageError("Give --file or the options of the JSON form, not both.")


def _from_base64(given: str, option: str) -> bytes:
    """Return what an option stands for: base64, or base64 in a file or on standard input."""
    if given == "-":
        return _decoded(_ascii(read_bounded(None, TEXT_LIMIT_BYTES)), option)
    if given.startswith("@"):
        return _decoded(_ascii(read_bounded(Path(given[1:]), TEXT_LIMIT_BYTES)), option)
    return _decoded(given, option)


def _ascii(raw: bytes) -> str:
    return raw.decode("ascii", "replace")


def _decoded(text: str, option: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        # What was given is not repeated: it may be a secret that somebody forgot to encode.
        raise click.UsageError(f"What {option} gives is not base64 with padding.") from None


def _give(data: bytes, out: Path | None) -> None:
    target = _unless_standard(out)
    if target is not None:
        write_whole(target, data)
        return
    sys.stdout.buffer.write(for_terminal(data) if sys.stdout.isatty() else data)
    sys.stdout.buffer.flush()


def for_terminal(data: bytes) -> bytes:
    """Return data that a terminal shows and does not act on.

    Raises:
        InputError: they are no text.
    """
    try:
        return output.printable(data.decode(), terminal=True).encode()
    except UnicodeDecodeError:
        raise InputError(
            "the result is no text, and a terminal would act on it",
            "write it to a file: --out FILE",
        ) from None
