"""The command tree of `spike`. Commands are loaded when they are used, so that help is quick."""

from __future__ import annotations

from importlib import import_module
from typing import Final, NamedTuple

import click


class Entry(NamedTuple):
    """A command: where it is, and the line help shows for it without loading it."""

    target: str
    summary: str


# One line makes a command part of `spike`.
COMMANDS: Final = {
    "secret": Entry("spike.pilot.command.secret:secret", "Put, get, list, delete secrets."),
    "policy": Entry("spike.pilot.command.policy:policy", "Say which workload may do what."),
    "cipher": Entry("spike.pilot.command.cipher:cipher", "Encrypt and decrypt data."),
    "init": Entry("spike.pilot.command.init:init", "Make the root key of a new store."),
    "status": Entry("spike.pilot.command.status:status", "Say whether the key would come back."),
    "keeper": Entry("spike.pilot.command.keeper:keeper", "Look after those who hold shares."),
    "key": Entry("spike.pilot.command.key:key", "Look at the keys; verify what is stored."),
    "system-backup": Entry(
        "spike.pilot.command.system_backup:system_backup", "Make one file of the whole store."
    ),
    "backup": Entry(
        "spike.pilot.command.backup:backup", "Look after the root key's backup and its passwords."
    ),
    "drill": Entry("spike.pilot.command.drill:drill", "Prove that a recovery would work."),
    "restore": Entry("spike.pilot.command.restore:restore", "Bring the root key back."),
    "factory-reset": Entry(
        "spike.pilot.command.factory_reset:factory_reset", "Erase the whole store."
    ),
    "operator": Entry(
        "spike.pilot.command.operator:operator", "Hand out and bring recovery shards."
    ),
    "dev": Entry("spike.pilot.command.dev:dev", "Run every part on this machine; play the demo."),
    "version": Entry("spike.pilot.command.version:version", "Show the version and its formats."),
}

EPILOG: Final = """\b
Environment:
  SPIFFE_ENDPOINT_SOCKET       the Workload API, such as unix:///run/spire/agent.sock
  SPIKE_NEXUS_API_URL          Nexus [https://localhost:8553]
  SPIKE_SPIFFE_SOURCE_TIMEOUT  how long to wait for an identity [30s]
  SPIKE_TRUST_ROOT_NEXUS       trust roots Nexus may be of [spike.ist]
  SPIKE_PILOT_STATE_DIR        where Pilot keeps the anchors it saw
                               [$XDG_STATE_HOME/spike/pilot]
  SPIKE_PILOT_RECOVERY_DIR     where recovery shards are written [~/.spike/recover]

\b
Exit codes:
  0  success
  1  refused or failed
  2  wrong usage
  3  the server is not ready or out of reach (status: cannot tell)
  4  status alone: recoverable by one way only
"""


class LazyGroup(click.Group):
    """A group whose commands are modules that are imported when one of them is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of the table."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None for a name that is not in the table."""
        del ctx
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.target.partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table, importing none."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
def spike() -> None:
    """SPIKE keeps secrets for workloads that prove who they are with SPIFFE.

    Each command has its own help with examples: spike COMMAND --help.
    """
