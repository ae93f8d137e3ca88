"""Sends the first parts of a system backup to Nexus and kills it: `python system_restore_probe.py FILE PARTS PID`.

Runs under the restore identity; the password comes on standard input.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from spike.client.nexus import NexusClient, PasswordFor
from spike.client.system_backup import PART_BYTES, SystemBackupParts
from spike.pilot import system_backup_file


def main() -> None:
    """Do it."""
    file, count, process = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    summary = system_backup_file.examine(file, lambda _: None)
    parts = SystemBackupParts(summary.backup_raw, summary.manifest.raw, set_aside=False)
    password = bytearray(sys.stdin.buffer.read())
    with NexusClient.from_environment(os.environ) as nexus:
        preview = nexus.preview_system_restore(PasswordFor(password), b"", parts)
        pieces = system_backup_file.pieces_of(file, PART_BYTES)
        sending = nexus.send_system_backup(preview.confirm or "", pieces)
        for _ in range(count):
            next(sending)
        os.kill(process, signal.SIGKILL)


if __name__ == "__main__":
    main()
