"""Fuzz one decoder, coverage-guided: `python test/fuzz/drive.py PACKAGE/NAME (--seconds N | --runs N) --seed N`.

Ends with 0 when nothing but the documented error was ever raised, otherwise with the input that did it.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import atheris

TEST = Path(__file__).resolve().parent.parent


def load(package: str) -> ModuleType:
    """Import test/<package>/target.py under instrumentation."""
    sys.path.insert(0, str(TEST))
    spec = importlib.util.spec_from_file_location(f"{package}_target", TEST / package / "target.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with atheris.instrument_imports(include=["spike"]):
        spec.loader.exec_module(module)
    return module


def main() -> None:
    """Run one target until its time or number of runs is used up."""
    package, _, name = sys.argv[1].partition("/")
    module = load(package)
    targets: Mapping[str, Callable[[bytes], None]] = module.TARGETS
    seeds: Mapping[str, bytes] = getattr(module, "SEEDS", {})
    limit = {"--seconds": "-max_total_time", "--runs": "-runs"}[sys.argv[2]]
    with tempfile.TemporaryDirectory() as corpus:
        if name in seeds:
            (Path(corpus) / "seed").write_bytes(seeds[name])
        options = [
            f"{limit}={sys.argv[3]}",
            f"-seed={sys.argv[5]}",
            "-max_len=65536",
            "-print_final_stats=1",
            "-rss_limit_mb=2048",
        ]
        atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={corpus}/", corpus], targets[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
