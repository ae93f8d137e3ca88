"""Search the memory of another process for a secret, from outside, as a memory thief would.

Needs CAP_SYS_PTRACE for a process that is not dumpable (or not ours). Pages of memfd_secret(2) cannot
be read by anybody, so a hit is always a copy that lies somewhere else; where the kernel has no
memfd_secret, the locked pages are left out by their flags (`VmFlags: … lo`, and wiped on fork).
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_STEP_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Hit:
    """One copy found: in which form, at which address, in which mapping."""

    form: str
    address: int
    mapping: str


def patterns_of(secret: bytes) -> Mapping[str, bytes]:
    """Return the forms in which a secret of 16 bytes or more may lie in memory, by name."""
    if len(secret) < 16 or len(set(secret)) < 8:
        raise ValueError("too short or too regular: it would be found by chance")
    half = len(secret) // 2
    forms = {
        "raw": secret,
        "first half": secret[:half],
        "second half": secret[half:],
        "reversed": secret[::-1],
        "hex": secret.hex().encode(),
        "upper-case hex": secret.hex().upper().encode(),
        # HMAC's inner and outer block: the key, one XOR away.
        "first half, inner pad": bytes(byte ^ 0x36 for byte in secret[:half]),
        "second half, inner pad": bytes(byte ^ 0x36 for byte in secret[half:]),
        "first half, outer pad": bytes(byte ^ 0x5C for byte in secret[:half]),
        "second half, outer pad": bytes(byte ^ 0x5C for byte in secret[half:]),
        "decimal": str(int.from_bytes(secret, "big")).encode(),
        "big-endian int object": _int_digits(int.from_bytes(secret, "big")),
        "little-endian int object": _int_digits(int.from_bytes(secret, "little")),
    }
    for shift in range(3):  # where it stands in a longer text that was encoded
        inner = base64.b64encode(bytes(shift) + secret)
        core = inner[4 if shift else 0 : -4]
        forms[f"base64 at {shift}"] = core
        forms[f"base64url at {shift}"] = core.translate(bytes.maketrans(b"+/", b"-_"))
    return forms


def _int_digits(number: int) -> bytes:
    """Return how CPython keeps an int: digits of 30 bits in words of 32, the lowest first."""
    digits = []
    while number:
        digits.append((number & ((1 << 30) - 1)).to_bytes(4, "little"))
        number >>= 30
    return b"".join(digits)


def find_in_process(pid: int, patterns: Mapping[str, bytes], *, locked: bool = False) -> list[Hit]:
    """Return every occurrence of `patterns` in the readable memory of process `pid`.

    Pages of key memory are left out, unless `locked`: then they are searched as well.

    Raises:
        AssertionError: hardly anything could be read, so that "nothing found" would mean nothing.
    """
    hits: list[Hit] = []
    read_bytes = 0
    overlap = max(map(len, patterns.values())) - 1
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for start, end, name in _readable(pid, locked=locked):
            tail = b""
            for position in range(start, end, _STEP_BYTES):
                size = min(_STEP_BYTES, end - position)
                try:
                    block = os.pread(memory.fileno(), size, position)
                except OSError:
                    break  # a guard page, device memory or memfd_secret
                read_bytes += len(block)
                hits += _find(tail + block, position - len(tail), patterns, name, len(tail))
                tail = block[-overlap:]
    if read_bytes < 1 << 20:
        raise AssertionError(f"only {read_bytes} bytes of process {pid} could be read")
    return hits


def _find(
    block: bytes, address: int, patterns: Mapping[str, bytes], mapping: str, seen: int
) -> Iterator[Hit]:
    for form, pattern in patterns.items():
        position = block.find(pattern)
        while position >= 0:
            if position + len(pattern) > seen:  # else it was found in the block before
                yield Hit(form, address + position, mapping)
            position = block.find(pattern, position + 1)


def _readable(pid: int, *, locked: bool) -> Iterator[tuple[int, int, str]]:
    """Yield (start, end, name) of the readable mappings; pages of key memory only if `locked`."""
    start = end = 0
    name, readable = "", False
    for line in Path(f"/proc/{pid}/smaps").read_text(errors="replace").splitlines():
        fields = line.split(maxsplit=5)
        if fields[0] == "VmFlags:":
            # proc(5): locked, not dumped, wiped on fork or not copied by it: only key memory is all three
            flags = set(line.split())
            is_key_memory = {"lo", "dd"} <= flags and bool(flags & {"wf", "dc"})
            if readable and (locked or not is_key_memory):
                yield start, end, name
        elif not fields[0].endswith(":"):
            first, _, last = fields[0].partition("-")
            start, end = int(first, 16), int(last, 16)
            readable = fields[1].startswith("r")
            name = fields[5] if len(fields) > 5 else "anonymous"
