"""`spike key cipher-oldest`: end the generations of the cipher key that nobody needs any more."""

from __future__ import annotations

from collections.abc import Iterator

import click
import msgspec

from spike.error import RefusedError
from spike.pilot import output, prompt
from spike.pilot.output import Format
from spike.pilot.session import Session
from spike.wire.key import KeyCipherOldestAnswer, KeyGeneration


@click.command(
    "cipher-oldest",
    epilog="""\b
Examples:
  spike key cipher-oldest          # which generations are accepted
  spike key cipher-oldest 3        # asks, then ends generations 1 and 2
  spike key cipher-oldest 3 --yes
""",
)
@click.argument("generation", required=False, type=click.IntRange(1, 0xFFFF_FFFF))
@click.option("--yes", is_flag=True, help="Do not ask; what is lost is shown all the same.")
@output.option
def cipher_oldest(generation: int | None, yes: bool, output_format: Format) -> None:
    """Accept no cipher generation older than GENERATION, and destroy the keys below it.

    What they encrypted can never be decrypted again. First bring all of it under the newest key, wherever
    it is kept: spike cipher rewrap. Without GENERATION, show which are accepted.
    """
    session = Session.of_process()
    with session.connect_for_dialogue() as nexus:
        told = nexus.raise_oldest_cipher(generation or 0, confirm=False)
        if generation is not None and not told.done:
            output.note("\n".join(_cost(told, generation)))
            if not yes:
                _confirm(generation)
            told = nexus.raise_oldest_cipher(generation, confirm=True)
            session.renew_anchor(nexus)
    output.show(msgspec.to_builtins(told), output_format, [_line(told)])


def _line(told: KeyCipherOldestAnswer) -> str:
    accepted = f"generations {told.oldest} to {told.active} are accepted"
    if told.oldest == told.active:
        accepted = f"generation {told.active} alone is accepted"
    ended = ", ".join(str(each.generation) for each in told.destroyed)
    return f"Cipher key: {accepted}." + (f" Destroyed: {ended}." if ended else "")


def _cost(told: KeyCipherOldestAnswer, generation: int) -> Iterator[str]:
    yield f"These cipher keys will be DESTROYED; generations {generation} to {told.active} go on:"
    for each in told.destroyed:
        yield f"  {_ended(each)}"
    yield (
        "Whatever they encrypted can NEVER be decrypted again, wherever it is kept. Nexus keeps none of it and cannot "
        "tell whether some is left that was not rewrapped."
    )
    yield "This is not undone: only a store and a root key from a backup made before bring them back."


def _ended(each: KeyGeneration) -> str:
    since = next((step.at for step in each.transitions if step.state == "active"), None)
    used = f"encrypted with from {since}" if since else "never used"
    counted = "" if each.sealed is None else f", {each.sealed} times as far as was counted"
    return f"cipher {each.generation}: {each.state}, {used}{counted}"


def _confirm(generation: int) -> None:
    """Return once the phrase was typed.

    Raises:
        RefusedError: something else was.
        SettingError: there is no terminal to ask on.
    """
    phrase = f"destroy below {generation}"
    with prompt.terminal("confirm beforehand: --yes") as terminal:
        given = prompt.ask(terminal, f'To go on type "{phrase}": ')
    if given != phrase:
        raise RefusedError("nothing was changed: the phrase is another one", f'it is "{phrase}"')
