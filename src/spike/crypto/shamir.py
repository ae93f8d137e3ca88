"""Shamir's secret sharing over GF(2^8), byte by byte, in key memory.

A. Shamir, "How to share a secret", Communications of the ACM 22, 1979.

Byte k of the secret is the value at 0 of a polynomial of degree threshold - 1 whose other coefficients are random; a
share is the values of all polynomials at its index. Any `threshold` shares give the secret by Lagrange's formula; fewer
are consistent with every secret. The field is that of AES: polynomials over GF(2) modulo x^8 + x^4 + x^3 + x + 1.

Secret bytes are only ever multiplied by public numbers (an index, its powers, Lagrange coefficients): the loop runs
over the bits of the public number and doubles the secret byte under a mask. No branch and no table depends on a secret
byte, no integer holds more than one of them, and none grows over 255: CPython keeps those once for all, so that
arithmetic makes no objects whose memory would have to be wiped. What Python cannot promise is that its own arithmetic
takes the same time for every byte; see docs/decision/share.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from spike.crypto.mac import mac
from spike.memory import KeyMemory

INDEX_LIMIT: Final = 255
NONCE_BYTES: Final = 32
_REDUCTION: Final = 0x1B  # x^8 = x^4 + x^3 + x + 1
_PROOF_LABEL: Final = b"spike/share/v1/proof"


def split(secret: KeyMemory, threshold: int, indexes: Sequence[int]) -> dict[int, KeyMemory]:
    """Return one share of `secret` for each index; any `threshold` of them give it back.

    Fresh random polynomials each time: shares of two splits never mix. Every coefficient may be zero; were the highest
    one not allowed to be, fewer than `threshold` shares would rule secrets out. The shares have the size of the secret
    and are the caller's to wipe; with a threshold of 1 each is the secret.

    Raises:
        ValueError: a threshold below 1 or over the number of indexes, an index twice or outside 1 to 255.
        WipedError: `secret` is gone.
        SettingError: RLIMIT_MEMLOCK leaves no room.
    """
    chosen = tuple(indexes)
    if len(set(chosen)) != len(chosen):
        raise ValueError("an index is used once in a split")
    if not all(1 <= index <= INDEX_LIMIT for index in chosen):
        raise ValueError("the index of a share is 1 to 255")
    if not 1 <= threshold <= len(chosen):
        raise ValueError("a threshold is 1 up to the number of shares")
    coefficients: list[KeyMemory] = []
    shares: dict[int, KeyMemory] = {}
    try:
        # Appended one by one, so that those made are wiped if the next finds no room.
        for _ in range(threshold - 1):
            coefficients.append(KeyMemory.generate(secret.size_bytes))  # noqa: PERF401
        for index in chosen:
            powers = _powers(index, threshold)
            shares[index] = _combine(zip(powers, (secret, *coefficients), strict=True))
    except BaseException:
        for share in shares.values():
            share.wipe()
        raise
    finally:
        for coefficient in coefficients:
            coefficient.wipe()
    return shares


def interpolate(points: Mapping[int, KeyMemory], at: int = 0) -> KeyMemory:
    """Return the value at `at` of the polynomials of least degree through `points` (index to share).

    The caller wipes it. At 0 that is the secret, at another index the share with that index, provided that there are
    at least as many points as the threshold was and that all are right. Nothing in the result tells whether they were.

    Raises:
        ValueError: no point, an index outside 1 to 255, `at` outside 0 to 255, shares of different sizes.
        WipedError: a share is gone.
        SettingError: RLIMIT_MEMLOCK leaves no room.
    """
    if not points:
        raise ValueError("nothing can be interpolated from no point")
    if not all(1 <= index <= INDEX_LIMIT for index in points) or not 0 <= at <= INDEX_LIMIT:
        raise ValueError("the index of a share is 1 to 255")
    if len({share.size_bytes for share in points.values()}) != 1:
        raise ValueError("shares of one secret have one size")
    return _combine((_lagrange(index, points, at), share) for index, share in points.items())


def proof_of(value: KeyMemory, nonce: bytes) -> bytes:
    """Return 32 bytes that prove to whoever holds `value` too, and chose the 32-byte nonce, that it is held here.

    Raises:
        ValueError: a nonce not of 32 bytes.
        WipedError: `value` is gone.
    """
    if len(nonce) != NONCE_BYTES:
        raise ValueError("the nonce of a proof is 32 bytes")
    return mac(value, _PROOF_LABEL + nonce)


def _combine(terms: Iterable[tuple[int, KeyMemory]]) -> KeyMemory:
    """Return the sum of public number times secret over all terms, which have one size."""
    total: KeyMemory | None = None
    try:
        for factor, secret in terms:
            total = total or KeyMemory.allocate(secret.size_bytes)
            with total.view() as target, secret.view() as source:
                _add_product(target, source, factor)
    except BaseException:
        if total is not None:
            total.wipe()
        raise
    assert total is not None  # callers pass at least one term
    return total


def _add_product(target: memoryview, source: memoryview, factor: int) -> None:
    """Add `factor` times each byte of `source` to `target`. Only the public factor steers the loop."""
    bits = tuple(factor >> bit & 1 for bit in range(factor.bit_length()))
    for position in range(len(source)):
        double = source[position]
        product = target[position]
        for bit in bits:
            if bit:
                product ^= double
            # Masked, and never over 255 on the way.
            double = ((double & 0x7F) << 1) ^ (-(double >> 7) & _REDUCTION)
        target[position] = product


def _lagrange(index: int, indexes: Iterable[int], at: int) -> int:
    """Return the factor of the share with `index` when all `indexes` give the value at `at`. Public numbers only."""
    above, below = 1, 1
    for other in indexes:
        if other != index:
            above = _public_product(above, at ^ other)
            below = _public_product(below, index ^ other)
    return _public_product(above, _public_inverse(below))


def _powers(index: int, count: int) -> Iterable[int]:
    """Yield 1, index, index^2, …: `count` of them."""
    power = 1
    for _ in range(count):
        yield power
        power = _public_product(power, index)


def _public_product(left: int, right: int) -> int:
    """Multiply two public numbers of the field; its branches follow both."""
    product = 0
    while right:
        if right & 1:
            product ^= left
        left <<= 1
        if left > INDEX_LIMIT:
            left ^= 0x100 | _REDUCTION
        right >>= 1
    return product


def _public_inverse(number: int) -> int:
    """Return number^254, the inverse of a public number other than 0, of which the field has 255."""
    result, square = 1, number
    for _ in range(7):  # 254 = 2 + 4 + … + 128
        square = _public_product(square, square)
        result = _public_product(result, square)
    return result
