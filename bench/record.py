"""How long sealing and opening a 1 KiB record takes, beside the library's class. Run it alone.

    PYTHONPATH=test:. .venv/bin/python -m bench.record [--format human|json]

Prints microseconds, the best of several rounds, taken in turns so that a busy machine hits both.
"""

from __future__ import annotations

import argparse
import json
import timeit
from collections.abc import Callable

from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor

from spike.crypto.mac import mac
from spike.crypto.purpose import check_value
from spike.crypto.record import WRAPPED_KEY, RecordContext, open_into, open_untrusted, seal
from spike.memory import KeyMemory

CALLS, ROUNDS = 2000, 15
STORE = bytes(range(16))
CONTEXT = RecordContext(STORE, "secret", "tenant/acme/database/credential", "0a" * 16, "password")
WRAPPED = RecordContext(STORE, WRAPPED_KEY, "record", "", "1")
PLAINTEXT = b"x" * 1024


def measure() -> dict[str, float]:
    """Return microseconds by name, each the best of its rounds."""
    with KeyMemory.generate() as key, KeyMemory.generate() as wrapped:
        blob = seal(key, 1, CONTEXT, PLAINTEXT)
        with wrapped.view() as view:
            wrapped_blob = seal(key, 1, WRAPPED, view)
        context = bytes(120)  # as long as the encoded CONTEXT
        with key.view() as view:
            encryptor = Cobblestone256Encryptor(view, context)
            theirs = encryptor.update(PLAINTEXT) + encryptor.finalize()

        def library_seal() -> None:
            with key.view() as view:
                encryptor = Cobblestone256Encryptor(view, context)
                encryptor.update(PLAINTEXT) + encryptor.finalize()

        def library_open() -> None:
            with key.view() as view:
                decryptor = Cobblestone256Decryptor(view, context)
                decryptor.update(theirs) + decryptor.finalize()

        cases: dict[str, Callable[[], object]] = {
            "seal 1 KiB": lambda: seal(key, 1, CONTEXT, PLAINTEXT),
            "seal 1 KiB, library class": library_seal,
            "open 1 KiB": lambda: open_untrusted(key, CONTEXT, blob),
            "open 1 KiB, library class": library_open,
            "unwrap a key": lambda: open_into(key, WRAPPED, wrapped_blob, wrapped),
            "MAC of 1 KiB": lambda: mac(key, PLAINTEXT),
            "check value": lambda: check_value(key, STORE, 1),
            "place for a key": lambda: KeyMemory.allocate(32).wipe(),
        }
        best = dict.fromkeys(cases, float("inf"))
        for _ in range(ROUNDS):
            for name, call in cases.items():
                best[name] = min(best[name], timeit.timeit(call, number=CALLS) / CALLS * 1e6)
    return {name: round(value, 2) for name, value in best.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--format", choices=("human", "json"), default="human")
    options = parser.parse_args()
    best_us = measure()
    if options.format == "json":
        print(json.dumps(best_us))
        return
    print("                             us   against the library's class")
    for name, cost_us in best_us.items():
        library_us = best_us.get(f"{name}, library class")
        ratio = f"{cost_us / library_us:10.2f}" if library_us else ""
        print(f"{name:25} {cost_us:6.1f}{ratio}")


if __name__ == "__main__":
    main()
