"""The fuzz targets work, and a short run of random damage finds nothing. The long run is atheris's."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path

import pytest

from size import record, seed, size

# By its path: several packages have a target.py, and `spiffe` is a PyPI package as well.
_spec = importlib.util.spec_from_file_location("spiffe_target", Path(__file__).parent / "target.py")
assert _spec is not None
assert _spec.loader is not None
_target = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_target)
TARGETS = _target.TARGETS
SEEDS = _target.SEEDS


def _damaged(source: random.Random, good: bytes) -> bytes:
    data = bytearray(good)
    for _ in range(source.randint(1, 4)):
        start = source.randrange(len(data) + 1)
        match source.randrange(4):
            case 0:
                del data[start : start + source.randint(1, 8)]
            case 1:
                data[start:start] = source.randbytes(source.randint(1, 4))
            case 2:
                data[start : start + 1] = bytes([source.choice((0, 0x0A, 0x7F, 0x80, 0xFF))])
            case _:
                data[start : start + 1] = source.randbytes(1)
    return bytes(data)


def test_there_is_a_seed_for_each_target() -> None:
    assert TARGETS
    assert set(SEEDS) == set(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_input_raises_the_documented_error_only(name: str) -> None:
    start = seed()
    print(f"SPIKE_SEED={start}")
    source = random.Random(start)
    rounds = size(test=3_000, proof=100_000)
    TARGETS[name](SEEDS[name])
    for _ in range(rounds):
        TARGETS[name](_damaged(source, SEEDS[name]))
    record(f"damaged input: {name}", rounds, "documented error only", seed=start)
