"""What every command that speaks with Nexus needs: the client, and the anchors seen before."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from spike.error import SpikeError
from spike.pilot import output

# TLS, gRPC and cryptography take 0.2 s to import. Help and wrong usage do without them, so they are
# imported where a server is first spoken with.
if TYPE_CHECKING:
    from spike.client.anchor import AnchorStore, SeenAnchor
    from spike.client.nexus import NexusClient


_ID: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Session:
    """One command's dealings with one Nexus."""

    environment: Mapping[str, str]

    @classmethod
    def of_process(cls) -> Session:
        """Return the session that this process's environment describes."""
        return cls(os.environ)

    def connect(self) -> NexusClient:
        """Return a client for this command; use it as a context manager.

        Raises:
            SettingError: a variable is missing or wrong.
            WorkloadApiError: this process gets no identity.
        """
        from spike.client.nexus import NexusClient

        return NexusClient.for_one_command(self.environment)

    def connect_for_dialogue(self) -> NexusClient:
        """Return a client whose identity stays fresh however long a person takes to answer.

        Raises what `connect` does.
        """
        from spike.client.nexus import NexusClient

        return NexusClient.from_environment(self.environment)

    @property
    def server(self) -> str:
        """The address of Nexus, as anchors are filed under it."""
        from spike.client.setting import ClientSetting

        return str(ClientSetting.from_environment(self.environment).address)

    @property
    def state_directory(self) -> Path:
        """Where Pilot keeps what it saw and did."""
        from spike.client.anchor import directory_of

        return directory_of(self.environment)

    @property
    def anchors(self) -> AnchorStore:
        """The anchors Pilot saw."""
        from spike.client.anchor import AnchorStore, directory_of

        return AnchorStore(directory_of(self.environment))

    def keep_anchor(self, raw: bytes | None) -> None:
        """Remember an anchor that an answer held; warn if it cannot be, or is behind the one held.

        What was asked for has been done by then, so this fails nothing.
        """
        from spike.client.anchor import Behind, Kept, SeenAnchor

        if not raw:
            return
        try:
            seen = SeenAnchor.of_untrusted(raw, datetime.now(UTC), self.server)
            kept = self.anchors.keep(seen)
        except SpikeError as error:
            output.note(f"Warning: the anchor was not kept: {error.message}.")
            return
        match kept:
            case Behind(held):
                output.note(behind_text(seen, held))
            case Kept():
                pass

    def bring_anchor_back(self, store_id: str | None, lineage: str | None) -> None:
        """Go back to the anchor of the lineage that is in force again after an undo; warn if that cannot be."""
        # They become the name of a file.
        if not _ID.fullmatch(store_id or "") or not _ID.fullmatch(lineage or ""):
            return
        try:
            self.anchors.bring_back(store_id or "", lineage or "")
        except SpikeError as error:
            output.note(f"Warning: the anchor seen before was not put back: {error.message}.")

    def renew_anchor(self, nexus: NexusClient) -> None:
        """Ask for the present anchor after a change that moved it, and remember it."""
        try:
            self.keep_anchor(nexus.get_status().anchor)
        except SpikeError as error:
            output.note(
                f"Warning: the change is made; its anchor was not fetched: {error.message}."
            )


def behind_text(shown: SeenAnchor, held: SeenAnchor) -> str:
    """Return the warning that a store shows less than was seen of it."""
    now, before = shown.statement, held.statement
    if now.lineage != before.lineage:
        what = f"lineage {now.lineage}, and {before.lineage} was seen"
    else:
        what = (
            f"epoch {now.epoch}, revision {now.revision}, access generation "
            f"{now.access_generation}; seen were {before.epoch}, {before.revision}, "
            f"{before.access_generation}"
        )
    return (
        f"Warning: store {now.store_id} is behind what Pilot saw of it on {held.seen_at}: it is at "
        f"{what}.\nNext: find out whether an old copy of the store was put back, before anything "
        "is written to it."
    )
