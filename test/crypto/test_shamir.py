"""Shamir's sharing: every choice of shares gives the secret, fewer say nothing, and the field is the one of AES."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from itertools import combinations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from size import record, seed, size
from spike.crypto import known_answer, shamir
from spike.crypto.mac import mac
from spike.error import SettingError, WipedError
from spike.memory import KeyMemory

AES_POLYNOMIAL = 0x11B


def slow_product(left: int, right: int) -> int:
    """Multiply out over GF(2), then divide by the polynomial: another way than the one under test."""
    result = 0
    for bit in range(8):
        result ^= (left << bit) * (right >> bit & 1)
    for degree in range(15, 7, -1):
        if result >> degree & 1:
            result ^= AES_POLYNOMIAL << (degree - 8)
    return result


INVERSE = {
    left: next(right for right in range(1, 256) if slow_product(left, right) == 1)
    for left in range(1, 256)
}


def slow_value(coefficients: tuple[int, ...], at: int) -> int:
    """Return the value of a polynomial, lowest coefficient first."""
    value, power = 0, 1
    for coefficient in coefficients:
        value ^= slow_product(coefficient, power)
        power = slow_product(power, at)
    return value


def slow_secret(points: Mapping[int, int]) -> int:
    """Return the value at 0 of the polynomial through some points."""
    total = 0
    for index, value in points.items():
        term = value
        for other in points:
            if other != index:
                term = slow_product(term, slow_product(other, INVERSE[index ^ other]))
        total ^= term
    return total


def key_of(value: bytes) -> KeyMemory:
    key = KeyMemory.allocate(len(value))
    with key.view() as view:
        view[:] = value
    return key


def bytes_of(key: KeyMemory) -> bytes:
    with key.view() as view:
        return bytes(view)


def wipe(shares: Mapping[int, KeyMemory]) -> None:
    for share in shares.values():
        share.wipe()


def edge_values() -> Iterator[bytes]:
    """Yield 32-byte values where arithmetic on numbers, zeros or signs would go wrong."""
    for bit in range(256):
        yield (1 << bit).to_bytes(32, "big")
    for fill in (0x00, 0x01, 0x7F, 0x80, 0xFF):
        yield bytes([fill]) * 32
    for zeros in range(1, 32):
        yield bytes(zeros) + b"\xff" * (32 - zeros)
        yield b"\xff" * (32 - zeros) + bytes(zeros)


def test_a_public_number_times_a_byte_is_the_product_of_the_field() -> None:
    """All 65,536 pairs."""
    with key_of(bytes(range(256))) as source:
        for factor in range(256):
            expected = bytes(slow_product(byte, factor) for byte in range(256))
            with KeyMemory.allocate(256) as target, source.view() as given, target.view() as view:
                shamir._add_product(view, given, factor)
                assert view == expected
            assert all(shamir._public_product(b, factor) == expected[b] for b in range(256))


def test_a_product_is_added_to_what_is_there() -> None:
    given, target = memoryview(b"\x57\x00\xff"), bytearray(b"\x01\x02\x03")
    shamir._add_product(memoryview(target), given, 0x83)
    assert target == bytes((0x01 ^ 0xC1, 0x02, 0x03 ^ slow_product(0xFF, 0x83)))


def test_every_number_but_zero_has_its_inverse() -> None:
    assert {number: shamir._public_inverse(number) for number in INVERSE} == INVERSE


@pytest.mark.parametrize("count", range(1, 7))
def test_every_choice_of_enough_shares_gives_the_secret(count: int) -> None:
    tried = 0
    for _ in range(size(test=1, proof=50)):
        for threshold in range(1, count + 1):
            with KeyMemory.generate() as secret:
                shares = shamir.split(secret, threshold, range(1, count + 1))
                for enough in range(threshold, count + 1):
                    for chosen in combinations(shares, enough):
                        with shamir.interpolate({i: shares[i] for i in chosen}) as again:
                            assert again.same_as(secret)
                        tried += 1
                wipe(shares)
    record(f"shares: all subsets of {count} at every threshold", tried, "the secret")


@pytest.mark.parametrize("count", range(2, 7))
def test_every_lost_share_is_computed_from_any_choice_of_the_others(count: int) -> None:
    tried = 0
    for threshold in range(1, count):
        with KeyMemory.generate() as secret:
            shares = shamir.split(secret, threshold, range(1, count + 1))
            for lost in shares:
                others = [index for index in shares if index != lost]
                for chosen in combinations(others, threshold):
                    with shamir.interpolate({i: shares[i] for i in chosen}, lost) as again:
                        assert again.same_as(shares[lost])
                    tried += 1
            wipe(shares)
    record(f"shares: each of {count} computed from the others", tried, "the lost share")


@pytest.mark.parametrize(("threshold", "count"), [(1, 1), (2, 3), (3, 5), (5, 5)])
def test_every_edge_value_comes_back(threshold: int, count: int) -> None:
    tried = 0
    for value in edge_values():
        with key_of(value) as secret:
            shares = shamir.split(secret, threshold, range(1, count + 1))
            chosen = dict(list(shares.items())[-threshold:])
            with shamir.interpolate(chosen) as again:
                assert bytes_of(again) == value
            wipe(shares)
        tried += 1
    record(f"shares: every edge value, {threshold} of {count}", tried, "the same 32 bytes")


@given(
    value=st.binary(min_size=1, max_size=64),
    indexes=st.lists(st.integers(1, 255), min_size=1, max_size=12, unique=True),
    data=st.data(),
)
@settings(max_examples=size(test=60, proof=3000), deadline=None)
def test_any_indexes_in_any_order_do(value: bytes, indexes: list[int], data: st.DataObject) -> None:
    threshold = data.draw(st.integers(1, len(indexes)))
    chosen = data.draw(st.permutations(indexes))[:threshold]
    with key_of(value) as secret:
        shares = shamir.split(secret, threshold, indexes)
        assert list(shares) == indexes
        with shamir.interpolate({index: shares[index] for index in chosen}) as again:
            assert bytes_of(again) == value
        wipe(shares)


def test_the_largest_split_comes_back() -> None:
    with KeyMemory.generate() as secret:
        shares = shamir.split(secret, 20, range(1, 256))
        chosen = random.Random(7).sample(list(shares), 20)
        with shamir.interpolate({index: shares[index] for index in chosen}) as again:
            assert again.same_as(secret)
        wipe(shares)


def test_shares_are_those_of_the_slow_reference() -> None:
    """Whatever coefficients the kernel gave, all shares of a byte lie on one polynomial of that degree."""
    with KeyMemory.generate() as secret:
        shares = {i: bytes_of(s) for i, s in shamir.split(secret, 3, range(1, 8)).items()}
        for place, expected in enumerate(bytes_of(secret)):
            for chosen in combinations(shares, 3):
                assert slow_secret({index: shares[index][place] for index in chosen}) == expected


def test_the_known_answer_is_one_of_the_slow_reference() -> None:
    second = [(37 * place + 200) % 256 for place in range(32)]
    third = [0] + [(251 - 91 * place) % 256 for place in range(1, 32)]
    for index, text in known_answer._SHARES.items():
        places = zip(range(32), second, third, strict=True)
        assert bytes(slow_value(each, index) for each in places).hex() == text


def test_too_few_shares_are_consistent_with_every_secret() -> None:
    """For one byte: whatever the shares, each secret has exactly one polynomial that goes through them."""
    chosen = seed()
    print("seed", chosen)
    chance = random.Random(chosen)
    rounds = size(test=1, proof=20)
    for _ in range(rounds):
        first, second = chance.sample(range(1, 256), 2)
        seen = (chance.randrange(256), chance.randrange(256))
        completions = dict.fromkeys(range(256), 0)
        for secret, linear in product(range(256), repeat=2):
            # The quadratic coefficient follows from the first share; then the second must fit, too.
            rest = seen[0] ^ secret ^ slow_product(linear, first)
            square = slow_product(rest, INVERSE[slow_product(first, first)])
            if slow_value((secret, linear, square), second) == seen[1]:
                completions[secret] += 1
        assert set(completions.values()) == {1}
    record("shares: threshold - 1 fit every secret equally", rounds * 256, "one each", seed=chosen)


@pytest.mark.parametrize("value", [0, 1, 0x8E, 0xFF])
def test_two_shares_of_three_take_every_pair_of_values_once(
    value: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every pair of coefficients once: whatever the secret, two shares then are every pair of bytes once."""
    pairs = range(1 << 16)
    every = [bytes(pair & 0xFF for pair in pairs), bytes(pair >> 8 for pair in pairs)]
    with key_of(bytes([value]) * (1 << 16)) as secret:
        monkeypatch.setattr(KeyMemory, "generate", lambda _: key_of(every.pop()))
        shares = shamir.split(secret, 3, (1, 2, 200))
        for chosen in combinations(shares.values(), 2):
            assert len(set(zip(*map(bytes_of, chosen), strict=True))) == len(pairs)
        wipe(shares)
    name = f"shares: coefficients tried for one byte of value {value}, 3 of 3"
    record(name, len(pairs), "each pair of shares once")


def test_each_byte_of_a_share_takes_every_value_also_that_of_the_secret() -> None:
    """A coefficient that may not be zero would rule out the secret's own value, share by share."""
    with key_of(bytes(4096)) as secret:
        shares = shamir.split(secret, 2, (1, 77))
        assert all(set(bytes_of(share)) == set(range(256)) for share in shares.values())
        wipe(shares)


def test_two_splits_of_one_secret_do_not_mix() -> None:
    with KeyMemory.generate() as secret:
        first, second = (shamir.split(secret, 2, (1, 2, 3)) for _ in range(2))
        assert not any(first[index].same_as(second[index]) for index in first)
        with shamir.interpolate({1: first[1], 2: second[2]}) as mixed:
            assert not mixed.same_as(secret)


def test_one_wrong_share_makes_a_wrong_secret_and_no_error() -> None:
    with KeyMemory.generate() as secret, KeyMemory.generate() as wrong:
        shares = shamir.split(secret, 3, (1, 2, 3))
        with shamir.interpolate({**shares, 2: wrong}) as again:
            assert not again.same_as(secret)


@pytest.mark.parametrize(
    ("threshold", "indexes"),
    [
        (0, (1, 2)),
        (-1, (1, 2)),
        (3, (1, 2)),
        (1, ()),
        (256, range(1, 256)),
        (1, (0,)),
        (2, (1, 256)),
        (2, (1, -1)),
        (2, (1, 1)),
        (2, (1, 2, 1)),
    ],
)
def test_a_split_that_could_not_be_undone_is_refused(
    threshold: int, indexes: tuple[int, ...]
) -> None:
    with KeyMemory.generate() as secret, pytest.raises(ValueError, match=r"index|threshold"):
        shamir.split(secret, threshold, indexes)


def test_points_that_give_nothing_are_refused() -> None:
    with KeyMemory.generate() as share, KeyMemory.generate(31) as short:
        for points, at in (({}, 0), ({0: share}, 0), ({256: share}, 0), ({1: share}, 256)):
            with pytest.raises(ValueError, match=r"point|index"):
                shamir.interpolate(points, at)
        with pytest.raises(ValueError, match="size"):
            shamir.interpolate({1: share, 2: short})


def test_a_share_at_its_own_index_is_itself() -> None:
    with KeyMemory.generate() as secret:
        shares = shamir.split(secret, 3, (9, 200, 31))
        with shamir.interpolate(shares, 200) as again:
            assert again.same_as(shares[200])


def test_what_was_made_is_wiped_when_a_split_or_an_interpolation_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[KeyMemory] = []
    allocate = KeyMemory.allocate

    def watched(size_bytes: int) -> KeyMemory:
        made.append(allocate(size_bytes))
        return made[-1]

    secret, gone = KeyMemory.generate(), KeyMemory.generate()
    gone.wipe()
    monkeypatch.setattr(KeyMemory, "allocate", watched)
    shares = shamir.split(secret, 3, (1, 2, 3))
    assert [key.wiped for key in made] == [True, True, False, False, False]
    made.clear()
    with pytest.raises(WipedError):
        shamir.split(gone, 2, (1, 2))
    with pytest.raises(WipedError):
        shamir.interpolate({**shares, 3: gone})
    assert made
    assert all(key.wiped for key in made)


def test_wherever_locked_memory_runs_out_no_share_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[KeyMemory] = []
    room = 0
    allocate = KeyMemory.allocate

    def scarce(size_bytes: int) -> KeyMemory:
        if len(kept) == room:
            raise SettingError("no more memory may be locked")
        kept.append(allocate(size_bytes))
        return kept[-1]

    with KeyMemory.generate() as secret:
        monkeypatch.setattr(KeyMemory, "allocate", scarce)
        for number in range(5):  # two coefficients and three shares
            room = number
            kept.clear()
            with pytest.raises(SettingError):
                shamir.split(secret, 3, (1, 2, 3))
            assert len(kept) == room
            assert all(key.wiped for key in kept)


def test_a_proof_is_of_one_share_and_one_nonce() -> None:
    with KeyMemory.generate() as share, KeyMemory.generate() as other:
        nonce = bytes(range(32))
        expected = mac(share, b"spike/share/v1/proof" + nonce)
        assert shamir.proof_of(share, nonce) == expected
        assert shamir.proof_of(share, bytes(32)) != expected
        assert shamir.proof_of(other, nonce) != expected
        for size_bytes in (0, 31, 33):
            with pytest.raises(ValueError, match="32 bytes"):
                shamir.proof_of(share, bytes(size_bytes))
