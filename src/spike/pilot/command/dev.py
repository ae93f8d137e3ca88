"""`spike dev`: every part on this machine, in one terminal; and the demo."""

from __future__ import annotations

import os
from pathlib import Path

import click

from spike.pilot.dev.machine import DEFAULT_PORT
from spike.pilot.dev.report import HumanReport, JsonReport
from spike.pilot.dev.run import DevSetting, Store, run_dev
from spike.pilot.output import Format

_ALL = "all"


@click.command(
    epilog="""\b
Examples:
  spike dev
  spike dev --ephemeral --port 0
  spike dev --fresh --no-init
  spike dev --demo
  spike dev --demo main --sabotage lost-secret
  spike dev --demo --sabotage list
"""
)
@click.option(
    "--data",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Keep everything in DIR [$XDG_STATE_HOME/spike/dev].",
)
@click.option("--fresh", is_flag=True, help="Begin with an empty store in a new directory.")
@click.option("--ephemeral", is_flag=True, help="The same, and delete everything at the end.")
@click.option(
    "--no-init",
    is_flag=True,
    help="Make no root key for an empty store: spike init or restore will.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    help="Where Nexus listens on this machine; 0 is any free port.",
)
@click.option("--svid-lifetime", default="1h", show_default=True, help="Lifetime of identities.")
@click.option(
    "--demo",
    "story",
    is_flag=False,
    flag_value=_ALL,
    metavar="[STORY]",
    help="Play the demo instead, all chapters or one: it tells the story, checks every claim, "
    "and ends with code 1 at the first false one.",
)
@click.option(
    "--sabotage",
    metavar="NAME",
    help="With --demo: break one thing on purpose, to see the demo notice; `list` shows the names.",
)
@click.option(
    "-f",
    "--format",
    "output_format",
    type=click.Choice([Format.HUMAN, Format.JSON], case_sensitive=False),
    default=Format.HUMAN,
    show_default=True,
    help="Form of the output; json is one object a line.",
)
def dev(
    *,
    directory: Path | None,
    fresh: bool,
    ephemeral: bool,
    no_init: bool,
    port: int,
    svid_lifetime: str,
    story: str | None,
    sabotage: str | None,
    output_format: Format,
) -> int:
    """Run every part of SPIKE on this machine, each as a process of its own.

    The first start makes a store and shows its password, once. Three Keepers hold shares of its root
    key: a Nexus that dies is started again and has the key back by itself. A later start finds the
    store locked, because all memory that held its key is gone, and asks for the password. Nothing
    runs any more when this command has ended, however it ends.
    """
    if story is not None:
        from spike.pilot.demo.play import play

        return play(None if story == _ALL else story, sabotage)
    if sabotage is not None:
        raise click.UsageError("--sabotage belongs to --demo.")
    store = Store.EPHEMERAL if ephemeral else Store.FRESH if fresh else Store.KEPT
    report = JsonReport() if output_format is Format.JSON else HumanReport()
    run_dev(DevSetting(directory, store, port, svid_lifetime, not no_init), os.environ, report)
    return 0
