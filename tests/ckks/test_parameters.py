"""The choice of chains: legal, precise, with room for the values, and of SEAL's own primes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stein.backends.ckks.chain.parameters import (
    MOST_BITS,
    Parameters,
    candidates,
    chain,
    depth_error,
    find_primes,
    is_prime,
    most_levels,
)
from stein.backends.ckks.chain.ranges import headroom
from stein.ir.errors import EncryptionError, Source, Span

RINGS = st.sampled_from([4096, 8192, 16384, 32768])


@settings(deadline=None, derandomize=True, max_examples=60)
@given(RINGS, st.integers(0, 8), st.floats(1.0, 1e9), st.booleans())
def test_a_chain_has_its_levels_its_room_and_the_largest_special_prime(
    ring: int, levels: int, largest: float, switches: bool
) -> None:
    found = chain(ring, levels, largest, switches)
    if found is None:
        return
    assert found.levels == levels and found.ring == ring
    assert found.bits[-1] == max(found.bits) <= MOST_BITS
    assert set(found.bits[1:-1]) <= {found.scale_bits}  # a rescale gives the nominal scale back
    assert headroom(found, levels, 2.0**found.scale_bits) >= largest


def test_the_chains_that_were_found_by_hand_are_met() -> None:
    three = chain(8192, 3, 63.0)
    assert three is not None and three.scale_bits >= 38  # [45, 38, 38, 38, 59]
    two = chain(8192, 2, 15.0)
    assert two is not None and two.scale_bits >= 40 and two.bits[-1] - two.bits[0] >= 10  # [60, 40, 40, 60] has none
    small = chain(4096, 1, 7.0)
    assert small is not None and small.scale_bits >= 31  # [37, 33, 39]


def test_more_range_costs_precision_and_less_room_levels() -> None:
    scales = [c.scale_bits for c in (chain(8192, 3, 2.0**k) for k in range(0, 13, 3)) if c is not None]
    assert scales == sorted(scales, reverse=True) and scales[0] > scales[-1]
    assert most_levels(8192, 64.0) > most_levels(8192, 1e6)
    assert most_levels(8192, precision=1e-3) >= most_levels(8192, precision=1e-7)


def test_key_switching_asks_for_a_gap() -> None:
    with_keys, without = chain(8192, 3, 64.0, True), chain(8192, 3, 64.0, False)
    assert with_keys is not None and without is not None
    assert with_keys.bits[-1] - with_keys.bits[0] > without.bits[-1] - without.bits[0]


def test_candidates_come_smallest_ring_first() -> None:
    assert [p.ring for p in candidates(3)] == [8192, 16384, 32768]
    assert list(candidates(40)) == []


@pytest.mark.parametrize(
    ("bits", "scale", "words"),
    [
        ((60, 40, 40, 40), 0, "special prime"),
        ((40,), 0, "no modulus chain"),
        ((61, 40, 61), 0, "no modulus chain"),
        ((40, 40, 60), 0, "does not fit the first prime"),
        ((60, 60), 0, "does not fit the first prime"),
    ],
)
def test_bad_chains_are_refused(bits: tuple[int, ...], scale: int, words: str) -> None:
    with pytest.raises(EncryptionError, match=words) as caught:
        Parameters(16384, bits, scale)
    assert caught.value.code == "bad-chain" and caught.value.help


def test_primes_are_primes_of_the_ring() -> None:
    for ring, bits in ((4096, (37, 33, 39)), (8192, (45, 38, 38, 38, 59)), (32768, (60, 50, 50, 60))):
        primes = find_primes(ring, bits)
        assert len(set(primes)) == len(bits)
        for prime, size in zip(primes, bits, strict=True):
            assert prime.bit_length() == size and prime % (2 * ring) == 1 and is_prime(prime)


def test_primality_is_decided_rightly() -> None:
    small = [n for n in range(3, 2000, 2) if is_prime(n)]
    assert small == [n for n in range(3, 2000, 2) if all(n % d for d in range(3, int(n**0.5) + 1, 2))]
    assert not is_prime(3215031751)  # a strong pseudoprime to the bases 2, 3, 5 and 7
    assert is_prime(2**61 - 1) and not is_prime((2**31 - 1) ** 2)


def test_primes_are_those_of_seal() -> None:
    seal = pytest.importorskip("tenseal.sealapi", reason="encrypted programs need tenseal")
    for ring, bits in ((4096, [37, 33, 39]), (8192, [45, 38, 38, 38, 59]), (16384, [60, 40, 50, 40, 40, 60])):
        assert [m.value() for m in seal.CoeffModulus.Create(ring, bits)] == find_primes(ring, bits)


def test_bytes_are_those_of_the_polynomials() -> None:
    p = Parameters(8192, (45, 38, 38, 38, 59))
    assert p.ciphertext_bytes() == 2 * 4 * 8192 * 8 and p.ciphertext_bytes(3) == 2 * 8192 * 8
    assert p.key_bytes(3) == 3 * 4 * 2 * 5 * 8192 * 8  # a pair of polynomials over five primes for each of four digits


def test_the_error_of_too_deep_a_program_shows_every_multiplication() -> None:
    text = "y[i] = x[i]*x[i]*x[i]"
    spans = (Span(11, 12), Span(16, 17))
    error = depth_error(6, 8192, 3, Source("<program>", text), spans, ("approx(degree=3) instead of 15 saves 2",))
    assert error.code == "too-deep" and (error.line, error.col) == (1, 12)
    assert str(error).splitlines() == [
        "<program>:1:12: too-deep: this program needs multiplicative depth 6; parameters N=8192 give 3",
        "  " + text,
        "             ^    ^",
        "help: N=16384 gives 10 (keys 6x larger), or approx(degree=3) instead of 15 saves 2",
    ]
