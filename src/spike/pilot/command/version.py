"""`spike version`."""

from __future__ import annotations

from importlib.metadata import version as installed_version

import click

from spike.pilot import output
from spike.pilot.output import Format


@click.command(epilog="\b\nExample:\n  spike version --format json")
@output.option
def version(output_format: Format) -> None:
    """Show the version, and the format of each document that it writes and reads."""
    from spike.client import anchor as anchor_file
    from spike.crypto import record
    from spike.lifecycle import anchor, backup, keyring, system_backup

    formats = {
        "record": record.RECORD_FORMAT,
        "keyring": keyring.FORMAT,
        "backup": backup.FORMAT,
        "system backup": system_backup.FORMAT,
        "anchor": anchor.FORMAT,
        "anchor file": anchor_file.FORMAT,
    }
    number = installed_version("spike")
    human = [f"spike {number}", *(f"  {name} format {known}" for name, known in formats.items())]
    output.show({"version": number, "formats": formats}, output_format, human)
