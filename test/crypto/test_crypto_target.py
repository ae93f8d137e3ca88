"""A short run of every fuzz target; `make proof` and the fuzzer run them longer."""

from __future__ import annotations

import random

import pytest

from crypto.target import TARGETS
from size import record, seed, size

SEEDS = [
    b"",
    b"\x01\x01\x00\x00\x00\x01" + bytes(72),
    bytes(56 + 16),
    bytes(1168),
    bytes(1216),
    b"$argon2id$v=19$m=262144,t=3,p=4",
    "Ka\u0308se ﬁnden".encode(),
]


def mutate(random_source: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(random_source.randint(0, 4)):
        place = random_source.randint(0, len(changed))
        changed[place : place + random_source.randint(0, 3)] = random_source.randbytes(
            random_source.randint(0, 6)
        )
    return bytes(changed)


@pytest.mark.parametrize("name", TARGETS)
def test_a_decoder_answers_whatever_it_is_given(name: str) -> None:
    chosen = seed()
    print(f"seed {chosen}")
    random_source = random.Random(chosen)
    rounds = size(test=300, proof=1_000_000)
    for _ in range(rounds):
        TARGETS[name](mutate(random_source, random_source.choice(SEEDS)))
    record(f"damaged input: crypto, {name}", rounds, "documented error only", seed=chosen)
