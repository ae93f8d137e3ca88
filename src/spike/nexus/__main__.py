"""The program `spike-nexus`. Everything it is told comes from the environment."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Final

from spike.nexus.service import serve
from spike.nexus.setting import read_setting
from spike.server import log
from spike.server.program import Program, run

_HELP: Final = """\
Usage: spike-nexus [--help | --version]

Nexus keeps secrets for workloads that prove who they are with SPIFFE, and owns the root key that
protects them. It is configured by environment variables:

  SPIFFE_ENDPOINT_SOCKET           the Workload API, such as unix:///run/spire/agent.sock
  SPIKE_SPIFFE_SOURCE_TIMEOUT      how long to wait for an identity           (30s)
  SPIKE_NEXUS_TLS_PORT             :PORT or HOST:PORT to listen on            (:8553)
  SPIKE_NEXUS_BACKEND_STORE        storage engine: sqlite, memory; or lite    (sqlite)
  SPIKE_NEXUS_DATA_DIR             where the store lies                       (~/.spike/data)
  SPIKE_NEXUS_BACKUP_DIR           where key backups lie, several with ":"    (~/.spike/backup)
  SPIKE_NEXUS_MAX_SECRET_VERSIONS  versions kept of a secret                  (10)
  SPIKE_NEXUS_BODY_LIMIT           largest request in bytes                   (1048576)
  SPIKE_NEXUS_CRYPTO_MAX_CIPHERTEXT_SIZE  largest plaintext to encrypt, bytes (65536)
  SPIKE_NEXUS_KEEPER_PEERS         https://HOST:PORT[#spiffe://ID],...        (none)
  SPIKE_NEXUS_SHAMIR_SHARES        shares, one for each Keeper                (3)
  SPIKE_NEXUS_SHAMIR_THRESHOLD     shares that bring the root key back        (2)
  SPIKE_NEXUS_KEEPER_UPDATE_INTERVAL  time between two looks at the Keepers   (5s)
  SPIKE_NEXUS_DRAIN_TIMEOUT        time for answers in progress at SIGTERM    (10s)
  SPIKE_MEMORY_STRICT              refuse to start without memory protection  (false)
  SPIKE_SYSTEM_LOG_LEVEL           DEBUG, INFO, WARN, ERROR                   (WARN)
  SPIKE_TRUST_ROOT[_NEXUS|_PILOT|_KEEPER|_BOOTSTRAP|_LITE_WORKLOAD]           (spike.ist)
"""


def main() -> None:
    """Run the program; exits 0 after an orderly end, 1 when it cannot start, 2 on wrong usage."""
    sys.exit(run(Program("spike-nexus", _HELP, _serve), sys.argv[1:]))


async def _serve(stop: asyncio.Event) -> None:
    setting = read_setting(os.environ, Path("~"))
    log.start(setting.log_level)
    await serve(setting, stop, asyncio.Event())


if __name__ == "__main__":
    main()
