"""`spike keeper`: who holds a share of the root key, and new shares for all of them."""

from __future__ import annotations

from typing import Final

import click
import msgspec

from spike.error import NotReadyError, SettingError, SpikeError
from spike.pilot import output
from spike.pilot.command.status import keeper_line, keeper_lines, rehearsal_lines
from spike.pilot.failure import Exit, text_of
from spike.pilot.output import Format
from spike.pilot.recoverability import SUCCEEDED, keepers_suffice
from spike.pilot.session import Session
from spike.wire.own import KeeperReshapeAnswer, StatusAnswer

_COUNT: Final = click.IntRange(2, 255)


@click.group()
def keeper() -> None:
    """Look after the Keepers, which bring the root key back without a person."""


@keeper.command(
    epilog="""\b
Exit codes:
  0  at least the threshold hold their shares
  1  fewer do, or there are no Keepers
  3  cannot tell: out of reach, not initialized, locked, or not the superuser role
\b
Example:
  spike keeper status --format json
"""
)
@output.option
@click.pass_context
def status(context: click.Context, output_format: Format) -> None:
    """Say which Keepers hold their shares, and how many more may be lost."""
    session = Session.of_process()
    try:
        with session.connect() as nexus:
            answer = nexus.get_status()
    except (SettingError, NotReadyError):
        raise
    except SpikeError as error:
        output.note(text_of(error))
        context.exit(Exit.UNREACHABLE)
    output.show(_data(answer), output_format, _lines(answer))
    session.keep_anchor(answer.anchor)
    context.exit(_exit(answer))


def _data(answer: StatusAnswer) -> dict[str, object]:
    return {
        "state": answer.state,
        "threshold": answer.keeper_threshold,
        "margin": answer.keeper_margin,
        "recovery": answer.recovery,
        "keepers": [msgspec.to_builtins(each) for each in answer.keepers or ()],
    }


def _lines(answer: StatusAnswer) -> list[str]:
    if answer.state is None:
        return ["CANNOT TELL: only the superuser role sees the Keepers."]
    waits = [f"LOCKED: {answer.recovery}."] if answer.recovery else []
    known = [line.removeprefix("  ") for line in keeper_lines(answer)]
    return waits + (known or ["No Keepers: nothing brings the root key back without a person."])


def _exit(answer: StatusAnswer) -> Exit:
    if answer.state != "open":
        return Exit.UNREACHABLE
    return Exit.SUCCESS if keepers_suffice(answer) else Exit.FAILED


@keeper.command(epilog="\b\nExample:\n  spike keeper refresh")
@output.option
def refresh(output_format: Format) -> None:
    """Give the Keepers new shares of the same root key; the old ones are worth nothing then.

    Do it when somebody may have seen a share: shares of before and after do not fit together.
    """
    session = Session.of_process()
    with session.connect() as nexus:
        answer = nexus.refresh_keepers()
        session.renew_anchor(nexus)
    human = [
        f"The Keepers hold new shares since epoch {answer.epoch}; the old ones are worth nothing.",
        *(f"  {keeper_line(each)}" for each in answer.keepers),
    ]
    output.show(msgspec.to_builtins(answer), output_format, human)


@keeper.command(
    epilog="""\b
Examples:
  spike keeper reshape --shares 3 --threshold 3
  spike keeper reshape --shares 2 --threshold 2 \\
    --peers https://k1.example.org:8443#spiffe://example.org/spike/keeper/1,https://k4.example.org:8443#spiffe://example.org/spike/keeper/4
"""
)
@click.option("--shares", type=_COUNT, required=True, help="How many Keepers there are to be.")
@click.option(
    "--threshold", type=_COUNT, required=True, help="How many of them bring the key back."
)
@click.option(
    "--peers",
    default="",
    help="The Keepers, written as in SPIKE_NEXUS_KEEPER_PEERS. Without it the present ones stay.",
)
@output.option
def reshape(shares: int, threshold: int, peers: str, output_format: Format) -> None:
    """Let other Keepers hold the root key, or another number of them bring it back, while Nexus serves.

    All of the new ones have to take their share, or nothing is changed. Afterwards the environment of Nexus should
    say the same; what to set is printed.
    """
    named = [each.strip() for each in peers.split(",")] if peers else []
    session = Session.of_process()
    with session.connect() as nexus:
        answer = nexus.reshape_keepers(shares, threshold, named)
        session.renew_anchor(nexus)
    output.show(msgspec.to_builtins(answer), output_format, _reshaped(answer))


def _reshaped(answer: KeeperReshapeAnswer) -> list[str]:
    count = f"{len(answer.keepers)} Keepers hold the root key, threshold {answer.threshold}"
    since = f"since epoch {answer.epoch}" if answer.changed else "already; nothing was changed"
    left = (
        f"  The Keeper at {url} has left and was not seen to erase its old share; Nexus goes on telling it."
        for url in answer.leaving
    )
    return [
        f"{count}, {since}.",
        *(f"  {keeper_line(each)}" for each in answer.keepers),
        *left,
        "Set for Nexus, before it is started again:",
        *(f"  {each}" for each in answer.setting),
    ]


@keeper.command(
    epilog="""\b
Exit codes:
  0  the Keepers would bring the root key back
  1  they would not; the answer says why
\b
Example:
  spike keeper rehearse
"""
)
@output.option
@click.pass_context
def rehearse(context: click.Context, output_format: Format) -> None:
    """Try out, without changing anything, whether the Keepers would bring the root key back.

    Nexus does it by itself every hour and after each change of keys or shares.
    """
    with Session.of_process().connect() as nexus:
        done = nexus.rehearse()
    output.show(msgspec.to_builtins(done), output_format, list(rehearsal_lines(done)))
    context.exit(Exit.SUCCESS if done.outcome == SUCCEEDED else Exit.FAILED)
