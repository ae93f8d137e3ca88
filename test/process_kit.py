"""Real processes for tests: Authority, Nexus and Keepers as they are shipped, on loopback, in one directory.

with Installation(tmp_path) as spike:
    spike.init()
    spike.client.put_secret("a", {"k": "v"})
    spike.kill_nexus()
    spike.start_nexus()
    spike.restore()

with Installation(tmp_path, keepers=3, threshold=2) as spike:
    spike.init()
    spike.wait_for_keepers()
    spike.kill_nexus()
    spike.start_nexus()
    spike.wait_until_open()
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from spike.client.launch import Command, Launcher
from spike.client.nexus import NexusClient
from spike.spiffe.id import SpiffeId

NEXUS = "spiffe://spike.ist/spike/nexus"
KEEPER = "spiffe://spike.ist/spike/keeper"
RESTORE = "spiffe://spike.ist/spike/pilot/role/restore"
PASSWORD = b"zebra lamp orbit cactus 71 violin"
BIN = Path(sys.executable).parent
START_TIMEOUT_S = 60.0


def eventually(
    what: str, condition: Callable[[], bool], timeout_s: float = START_TIMEOUT_S
) -> None:
    """Wait until a condition holds; fail, naming it, when it never does."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"never happened: {what}"
        time.sleep(0.02)


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    assert process.poll() is None, "it ended"
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def free_port() -> int:
    """Return a port nobody listens on now."""
    return free_ports(1)[0]


FIRST_PORT = 20_000
LAST_PORT = 32_000
"""Below the ports that the kernel hands out by itself: none of those is taken between this choice and its use."""
WORKERS = 8
"""Workers of one run that choose from ranges of their own."""


def _own_range() -> Iterator[int]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
    width = (LAST_PORT - FIRST_PORT) // WORKERS
    begin = secrets.randbelow(width)
    return (FIRST_PORT + worker * width + (begin + n) % width for n in itertools.count())


_PORTS = _own_range()


def free_ports(count: int) -> list[int]:
    """Return different ports nobody listens on now, each given out once for long."""
    found: list[int] = []
    while len(found) < count:
        port = next(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
    return found


class Installation:
    """Authority, Nexus and, if wanted, Keepers in one directory; the test's own uid is the superuser.

    `keepers` is how many there are, with indexes from 1; `threshold` how many bring the key back.
    """

    def __init__(
        self, directory: Path, *, keepers: int = 0, threshold: int = 2, **environment: str
    ) -> None:
        self.directory = directory
        self.port, *ports = free_ports(1 + keepers)
        self.keeper_port = dict(enumerate(ports, start=1))
        self.threshold = threshold
        self.authority_arguments: list[str] = []
        self.nexus_command: list[str] = []
        """What is started in the place of spike-nexus, if anything."""
        self._extra = environment
        self._authority: subprocess.Popen[bytes] | None = None
        self._launcher: Launcher | None = None
        self.nexus: subprocess.Popen[bytes] | None = None
        self.keeper: dict[int, subprocess.Popen[bytes]] = {}
        self._client: NexusClient | None = None
        self.log = directory / "log"

    @property
    def store(self) -> Path:
        return self.directory / "store"

    @property
    def place(self) -> Path:
        return self.directory / "backup"

    @property
    def control(self) -> Path:
        return self.directory / "run" / "control.sock"

    @property
    def environment(self) -> Mapping[str, str]:
        """What a user's shell would hold."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.directory),
            "SPIFFE_ENDPOINT_SOCKET": f"unix://{self.directory}/run/agent.sock",
            "SPIKE_AUTHORITY_CONTROL": str(self.control),
            "SPIKE_NEXUS_API_URL": f"https://127.0.0.1:{self.port}",
            "SPIKE_PILOT_STATE_DIR": str(self.directory / "pilot"),
        }

    def __enter__(self) -> Self:
        for name in ("run", "log"):
            (self.directory / name).mkdir(mode=0o700)
        self.start_authority()
        self._launcher = Launcher(self.control)
        for index in self.keeper_port:
            self.start_keeper(index)
        self.start_nexus()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            for path in sorted(self.log.iterdir()):
                sys.stderr.write(f"--- {path.name}\n{path.read_text(errors='replace')[-4000:]}\n")
        self.drop_client()
        self.stop_nexus()
        for index in self.keeper:
            self.kill_keeper(index)
        if self._launcher is not None:
            self._launcher.close()
        if self._authority is not None:
            self._authority.terminate()
            self._authority.wait(30)

    def start_authority(self) -> None:
        """Start Authority and wait until it answers."""
        run = self.directory / "run"
        with (self.log / "authority").open("ab") as log:
            self._authority = subprocess.Popen(
                [
                    str(BIN / "spike-authority"),
                    "serve",
                    *("--socket", str(run / "agent.sock")),
                    *("--control", str(self.control)),
                    *("--data", str(self.directory / "authority")),
                    *self.authority_arguments,
                ],
                stdout=log,
                stderr=log,
                env=dict(self.environment),
            )
        eventually("Authority listens", lambda: _answers(self.control))

    def kill_authority(self) -> None:
        """SIGKILL."""
        assert self._authority is not None
        self._authority.kill()
        self._authority.wait()

    def start_nexus(self, **more: str) -> None:
        """Start Nexus, with more in its environment, and wait until it answers."""
        assert self._launcher is not None
        environment = {
            **self.environment,
            "SPIKE_NEXUS_TLS_PORT": f"127.0.0.1:{self.port}",
            "SPIKE_NEXUS_DATA_DIR": str(self.store),
            "SPIKE_NEXUS_BACKUP_DIR": str(self.place),
            **self.keeper_setting,
            **self._extra,
            **more,
        }
        with (self.log / "nexus").open("ab") as log:
            program = self.nexus_command or [str(BIN / "spike-nexus")]
            command = Command(program, environment, stdout=log, stderr=log)
            self.nexus = self._launcher.start(SpiffeId.parse_untrusted(NEXUS), command)
        process = self.nexus
        eventually("Nexus listens", lambda: _listens(process, self.port))

    @property
    def keeper_setting(self) -> dict[str, str]:
        """What Nexus is told of the Keepers, their identities pinned; nothing when there are none."""
        if not self.keeper_port:
            return {}
        peers = [f"{self.keeper_url(index)}#{self.keeper_id(index)}" for index in self.keeper_port]
        return {
            "SPIKE_NEXUS_KEEPER_PEERS": ",".join(peers),
            "SPIKE_NEXUS_SHAMIR_SHARES": str(len(peers)),
            "SPIKE_NEXUS_SHAMIR_THRESHOLD": str(self.threshold),
        }

    def keeper_url(self, index: int) -> str:
        """Where a Keeper listens."""
        return f"https://127.0.0.1:{self.keeper_port[index]}"

    def keeper_id(self, index: int) -> str:
        """A Keeper's own identity."""
        return f"{KEEPER}/{index}"

    def start_keeper(self, index: int) -> None:
        """Start a Keeper and wait until it answers; it holds nothing."""
        assert self._launcher is not None
        environment = {
            **self.environment,
            "SPIKE_KEEPER_TLS_PORT": f"127.0.0.1:{self.keeper_port[index]}",
        }
        with (self.log / f"keeper-{index}").open("ab") as log:
            command = Command([str(BIN / "spike-keeper")], environment, stdout=log, stderr=log)
            identity = SpiffeId.parse_untrusted(self.keeper_id(index))
            process = self._launcher.start(identity, command)
        self.keeper[index] = process
        eventually(f"Keeper {index} listens", lambda: _listens(process, self.keeper_port[index]))

    def kill_keeper(self, index: int) -> None:
        """SIGKILL. Idempotent."""
        self.keeper[index].kill()
        self.keeper[index].wait()

    def lose_keeper(self, index: int) -> None:
        """SIGKILL, and wait until Nexus, which is open, has noticed."""
        self.kill_keeper(index)
        eventually(
            f"Keeper {index} is missed", lambda: self.keeper_states().get(index) == "unreachable"
        )

    def keeper_states(self) -> dict[int, str]:
        """What Nexus says of each Keeper."""
        return {each.index: each.state for each in self.client.get_status().keepers or ()}

    def wait_for_keepers(self, *indexes: int) -> None:
        """Wait until these Keepers, without any named all of them, hold their shares."""
        wanted = indexes or tuple(self.keeper_port)
        eventually(
            f"Keepers {wanted} are current",
            lambda: all(self.keeper_states().get(index) == "current" for index in wanted),
        )

    def wait_until_open(self) -> None:
        """Wait until Nexus serves: until its root key has come back by itself."""
        eventually("Nexus serves", lambda: self.client.get_status().ready)

    def kill_nexus(self) -> None:
        """SIGKILL."""
        assert self.nexus is not None
        self.nexus.kill()
        self.nexus.wait()

    def stop_nexus(self) -> int:
        """SIGTERM; return the exit code."""
        if self.nexus is None:
            return 0
        if self.nexus.poll() is None:
            self.nexus.send_signal(signal.SIGTERM)
        return self.nexus.wait(30)

    @property
    def client(self) -> NexusClient:
        """A superuser's client, made at its first use."""
        if self._client is None:
            self._client = NexusClient.from_environment(self.environment)
        return self._client

    def drop_client(self) -> None:
        """Close the client, for what comes after a restart of Authority."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def spike(
        self, *arguments: str, stdin: bytes = b"", identity: str = ""
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the command `spike`, with another identity if one is named."""
        command = [str(BIN / "spike"), *arguments]
        if identity:
            command = [str(BIN / "spike-authority"), "run", "--id", identity, "--", *command]
        return subprocess.run(
            command, input=stdin, capture_output=True, env=dict(self.environment), check=False
        )

    def init(self) -> None:
        """Make the root key with PASSWORD."""
        done = self.spike("init", "--password-stdin", stdin=PASSWORD)
        assert done.returncode == 0, done.stderr.decode()

    def restore(self) -> None:
        """Bring the root key back with PASSWORD."""
        done = self.spike("restore", "--password-stdin", "--yes", stdin=PASSWORD, identity=RESTORE)
        assert done.returncode == 0, done.stderr.decode()
