"""What the parts of one `spike dev` are made from: programs, variables, ports, identities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from spike.client.launch import Launcher
from spike.pilot.dev.keeper import KeeperSite, nexus_variables
from spike.pilot.dev.machine import HOST, Programs
from spike.pilot.dev.part import Part, start_as, start_tethered
from spike.pilot.dev.place import DevPlace

NEXUS_ID: Final = "spiffe://spike.ist/spike/nexus"

# Nexus gives answers in progress 10 s (SPIKE_NEXUS_DRAIN_TIMEOUT) before it ends.
_NEXUS_STOP_S: Final = 15.0
_AUTHORITY_STOP_S: Final = 5.0
_KEEPER_STOP_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class World:
    """All that the parts are made from. `variables` are those that every part gets."""

    place: DevPlace
    programs: Programs
    variables: Mapping[str, str]
    svid_lifetime: str
    port: int
    keepers: tuple[KeeperSite, ...]

    def authority(self) -> Part:
        """Return the Workload API server."""
        return Part(
            "Authority",
            (
                *(self.programs.path("spike-authority"), "serve"),
                *("--socket", str(self.place.workload_socket)),
                *("--control", str(self.place.control_socket)),
                *("--data", str(self.place.authority)),
                *("--svid-lifetime", self.svid_lifetime),
            ),
            self.variables,
            self.place.log / "authority.log",
            self.place.run / "authority.pid",
            _AUTHORITY_STOP_S,
            start_tethered,
        )

    def keeper(self, site: KeeperSite, launcher: Launcher) -> Part:
        """Return one Keeper, under its own identity."""
        variables = {"SPIKE_KEEPER_TLS_PORT": f"{HOST}:{site.port}"}
        return Part(
            site.name,
            (self.programs.path("spike-keeper"),),
            {**self.variables, **variables},
            self.place.log / f"keeper-{site.index}.log",
            self.place.run / f"keeper-{site.index}.pid",
            _KEEPER_STOP_S,
            start_as(launcher, site.spiffe_id),
        )

    def nexus(self, launcher: Launcher) -> Part:
        """Return the store, under its identity."""
        variables = {
            "SPIKE_NEXUS_TLS_PORT": f"{HOST}:{self.port}",
            "SPIKE_NEXUS_DATA_DIR": str(self.place.store),
            "SPIKE_NEXUS_BACKUP_DIR": str(self.place.backup),
            **nexus_variables(self.keepers),
        }
        return Part(
            "Nexus",
            (self.programs.path("spike-nexus"),),
            {**self.variables, **variables},
            self.place.log / "nexus.log",
            self.place.run / "nexus.pid",
            _NEXUS_STOP_S,
            start_as(launcher, NEXUS_ID),
        )


def without_ours(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without what says where SPIKE's parts and stores are, and whom to trust.

    Those of another SPIKE must not reach the parts started here.
    """
    foreign = (
        "SPIFFE_ENDPOINT_SOCKET",
        "SPIKE_TRUST_ROOT",
        "SPIKE_AUTHORITY",
        "SPIKE_KEEPER",
        "SPIKE_NEXUS_API_URL",
        "SPIKE_NEXUS_BACKEND_STORE",
        "SPIKE_NEXUS_BACKUP_DIR",
        "SPIKE_NEXUS_DATA_DIR",
        "SPIKE_NEXUS_KEEPER_PEERS",
        "SPIKE_NEXUS_SHAMIR",
        "SPIKE_NEXUS_TLS_PORT",
        "SPIKE_PILOT_STATE_DIR",
    )
    return {name: value for name, value in environment.items() if not name.startswith(foreign)}
