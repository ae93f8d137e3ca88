"""Builds and runs the load client, bench/load.c.

Certificates and keys go to it through memory (memfd_create(2)), not through files.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("load.c")
INSTALL = "the load client needs a C compiler and OpenSSL's headers: apt-get install gcc libssl-dev"


class CannotBuildError(Exception):
    """There is no compiler, or no OpenSSL to compile against; the message says what to install."""


@dataclass(frozen=True)
class Figures:
    """What the load client saw. `cpu_share` is its own, of one core: near 1 it is the bottleneck."""

    requests: int
    errors: int
    seconds: float
    rps: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    cpu_share: float


@dataclass(frozen=True)
class Credential:
    """What a client needs for mutual TLS, each a descriptor of PEM text in memory."""

    certificate: int
    key: int
    authority: int

    @classmethod
    def empty(cls) -> Credential:
        """Return descriptors that a child can inherit and fill."""
        return cls(*(os.memfd_create(name, 0) for name in ("certificate", "key", "authority")))

    @property
    def descriptors(self) -> tuple[int, int, int]:
        return (self.certificate, self.key, self.authority)


@contextmanager
def built() -> Iterator[Path]:
    """Compile the load client and yield its path, which is gone afterwards.

    Raises:
        CannotBuildError: no compiler, or no OpenSSL headers.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise CannotBuildError(INSTALL)
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory) / "load"
        flags = ["-std=gnu11", "-O2", "-o", str(program), str(SOURCE), "-lssl", "-lcrypto"]
        result = subprocess.run([compiler, *flags], capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise CannotBuildError(f"{INSTALL}\n{result.stderr}")
        yield program


def run(
    program: Path,
    port: int,
    who: Credential,
    request: bytes,
    *,
    connections: int,
    seconds: float,
    rate: float = 0.0,
) -> Figures:
    """Send one whole HTTP request again and again over kept connections; return what was seen.

    With a `rate` (requests a second) each is due at a fixed moment; without one, as soon as the last was answered.

    Raises:
        subprocess.CalledProcessError: the client could not connect; its reason is on stderr.
    """
    asked = os.memfd_create("request", 0)
    try:
        os.write(asked, request)
        files = [f"/proc/self/fd/{each}" for each in (*who.descriptors, asked)]
        result = subprocess.run(
            [program, str(port), str(connections), str(seconds), *files, str(rate)],
            pass_fds=(*who.descriptors, asked),
            stdout=subprocess.PIPE,
            check=True,
        )
    finally:
        os.close(asked)
    return Figures(**json.loads(result.stdout))


def cpu_seconds(process: int) -> float:
    """Return the processor time a process has used so far."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
