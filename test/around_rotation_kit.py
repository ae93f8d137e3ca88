"""What happens around the rotations of a runbook: three Keepers, some secrets, and who harms them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from process_kit import Installation, eventually
from spike.wire.rotation import KeyRotateRequest


class Around:
    """An installation, and what happens to it."""

    def __init__(self, made: Installation) -> None:
        self.made = made
        self._damaged: tuple[bytes, int] = (b"", 0)

    def furnish(self) -> None:
        """Put secrets under keys that Keepers and a password bring back."""
        self.made.init()
        self.made.wait_for_keepers()
        for number in range(20):
            self.made.client.put_secret(f"tenant/{number}", {"k": f"v{number}"})

    def happen(self, what: str) -> None:
        """Let happen what a page says."""
        word, _, which = what.partition(" ")
        known: dict[str, Callable[[], object]] = {
            "rotate": self._rotate,
            "finalize": self._finalize,
            "lose-keeper": lambda: self.made.lose_keeper(int(which)),
            "start-keeper": lambda: self._start_keeper(int(which)),
            "damage-record": self._damage_record,
            "put-record-back": self._put_record_back,
            "begin-and-kill": self._begin_and_kill,
            "start-nexus": self._start_nexus,
        }
        known[word]()

    def _rotate(self) -> None:
        self.made.client.start_rotation(KeyRotateRequest())
        self._until("verified")

    def _finalize(self) -> None:
        self.made.client.finalize_rotation()
        self._until("finalized")

    def _until(self, phase: str) -> None:
        eventually(
            f"the rotation is {phase}",
            lambda: getattr(self.made.client.get_rotation(), "phase", "") == phase,
        )

    def _start_keeper(self, index: int) -> None:
        self.made.start_keeper(index)
        self.made.wait_for_keepers()

    def _database(self) -> sqlite3.Connection:
        (path,) = self.made.store.glob("*.sqlite")
        return sqlite3.connect(path, timeout=30)

    def _damage_record(self) -> None:
        """Somebody who can write to the store changes a byte of a record."""
        with self._database() as database:
            ((row, blob),) = database.execute(
                "SELECT rowid, blob FROM record WHERE kind = 'secret' AND key = 'tenant/7'"
            )
            self._damaged = (blob, row)
            self._write(database, blob[:-1] + bytes([blob[-1] ^ 1]))
        database.close()

    def _put_record_back(self) -> None:
        with self._database() as database:
            self._write(database, self._damaged[0])
        database.close()

    def _write(self, database: sqlite3.Connection, blob: bytes) -> None:
        database.execute("UPDATE record SET blob = ? WHERE rowid = ?", (blob, self._damaged[1]))

    def _begin_and_kill(self) -> None:
        self.made.client.start_rotation(KeyRotateRequest(max_rate=1))
        self._until("re-encrypting")
        self.made.client.set_rotation_pace(0)
        self.made.kill_nexus()

    def _start_nexus(self) -> None:
        self.made.start_nexus()
        self.made.wait_until_open()
