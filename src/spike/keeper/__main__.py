"""The program `spike-keeper`. Everything it is told comes from the environment."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Final

from spike.keeper.service import serve
from spike.keeper.setting import read_setting
from spike.server import log
from spike.server.program import Program, run

_HELP: Final = """\
Usage: spike-keeper [--help | --version]

A Keeper holds one share of the root key in memory, and gives it back to Nexus when Nexus has
started again. It writes nothing to a disk: stopped, it has forgotten its share and waits for
Nexus to bring it again. It is configured by environment variables:

  SPIFFE_ENDPOINT_SOCKET           the Workload API, such as unix:///run/spire/agent.sock
  SPIKE_SPIFFE_SOURCE_TIMEOUT      how long to wait for an identity           (30s)
  SPIKE_KEEPER_TLS_PORT            :PORT or HOST:PORT to listen on            (:8443)
  SPIKE_MEMORY_STRICT              refuse to start without memory protection  (false)
  SPIKE_SYSTEM_LOG_LEVEL           DEBUG, INFO, WARN, ERROR                   (WARN)
  SPIKE_TRUST_ROOT[_KEEPER|_NEXUS|_BOOTSTRAP]                                 (spike.ist)
"""


def main() -> None:
    """Run the program; exits 0 after an orderly end, 1 when it cannot start, 2 on wrong usage."""
    sys.exit(run(Program("spike-keeper", _HELP, _serve), sys.argv[1:]))


async def _serve(stop: asyncio.Event) -> None:
    setting = read_setting(os.environ)
    log.start(setting.log_level)
    await serve(setting, stop)


if __name__ == "__main__":
    main()
