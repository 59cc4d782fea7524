"""Encryption parameters: a ring and a chain of primes, chosen from depth, value range and wanted precision.

A chain is [first, dropped..., special]: the first prime is what is left at the last level and bounds the values there,
each rescale drops one of the others from the end, and the special prime serves key switching alone. Time depends on the
ring and on the number of primes, not on their bits; so within a ring the bits are set to lose the least precision.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, log2, pi, sqrt

from ....ir.errors import EMPTY, EncryptionError, Source, Span
from .security import RINGS, check_security, limit

MOST_BITS = 60  # of a prime, as SEAL has it
LEAST_SCALE, MOST_SCALE = 25, 45  # bits: with less nothing is left of a value, more is never needed
GAP = 10  # bits by which the special prime should exceed the others, where there is room
TAIL = 11.0  # standard deviations that the largest of some thousand errors stays below
USUAL_RINGS = (4096, 8192, 16384, 32768)
SLACK = 1.001  # noise and inexact scales on top of a bound


@dataclass(frozen=True)
class Parameters:
    """A ring's degree and the sizes in bits of the primes of its chain: the data primes first to last, then the special
    one. `scale` is the exponent of the scale that values have, that of the dropped primes unless said otherwise.

    Raises `EncryptionError` for a chain that is not secure, or whose special prime is not the largest (rotations would
    then be wrong in the first digit, without a complaint of SEAL).

    >>> p = Parameters(8192, (45, 38, 38, 38, 59))
    >>> p.levels, p.slots, p.scale_bits
    (3, 4096, 38)
    """

    ring: int
    bits: tuple[int, ...]
    scale: int = 0

    def __post_init__(self) -> None:
        check_security(self.ring, sum(self.bits), f"the chain {list(self.bits)}")
        if len(self.bits) < 2 or max(self.bits) > MOST_BITS or min(self.bits) <= log2(2 * self.ring) + 2:
            raise EncryptionError(
                f"{list(self.bits)} is no modulus chain",
                code="bad-chain",
                help=f"two primes or more (the last is the special one), of at most {MOST_BITS} bits each",
            )
        if self.bits[-1] < max(self.bits):
            raise EncryptionError(
                f"the special prime of {list(self.bits)} (the last) is not the largest",
                code="bad-chain",
                help="rotations lose all precision with a small special prime; put the largest last",
            )
        if not 0 < self.scale_bits < self.bits[0]:
            raise EncryptionError(
                f"a scale of 2^{self.scale_bits} does not fit the first prime of {list(self.bits)}",
                code="bad-chain",
                help="the first prime must exceed the scale by the bits of the largest value",
            )

    @property
    def levels(self) -> int:
        """How many rescales the chain allows."""
        return len(self.bits) - 2

    @property
    def slots(self) -> int:
        """Slots of a ciphertext."""
        return self.ring // 2

    @property
    def scale_bits(self) -> int:
        """The exponent of the nominal scale."""
        return self.scale or (self.bits[1] if self.levels else 0)

    @cached_property
    def primes(self) -> tuple[int, ...]:
        """The primes themselves, in the order of `bits`: those that SEAL finds for these sizes."""
        return tuple(find_primes(self.ring, self.bits))

    def dropped(self, level: int) -> int:
        """The prime by which a rescale from this level to the next divides."""
        return self.primes[self.levels - level]

    def modulus(self, level: int) -> float:
        """The product of the data primes that are left at a level."""
        product = 1.0
        for prime in self.primes[: self.levels - level + 1]:
            product *= prime
        return product

    def ciphertext_bytes(self, level: int = 0, size: int = 2) -> int:
        """Bytes of a ciphertext in memory."""
        return size * (self.levels - level + 1) * self.ring * 8

    def key_bytes(self, keys: int) -> int:
        """Bytes in memory of this many switching keys (one for each rotation step, one for relinearisation)."""
        digits = self.levels + 1
        return keys * 2 * digits * (digits + 1) * self.ring * 8

    def text(self) -> str:
        """`ring 8192, primes of 45 38 38 38 | 59 bits, scale 2^38`."""
        data = " ".join(map(str, self.bits[:-1]))
        return f"ring {self.ring}, primes of {data} | {self.bits[-1]} bits, scale 2^{self.scale_bits}"


def chain(
    ring: int, levels: int, largest: float = 64.0, switches: bool = True, precision: float = 1e-5
) -> Parameters | None:
    """The most precise chain with this many levels; None where the ring has no room for one.

    `largest` bounds the magnitude of every value at the last level, `switches` says whether anything is rotated or
    relinearised; one operation alone may not lose more than `precision`. The error of an operation is a rounding at the
    scale, and that of a key switch, which grows with the ratio of the first prime to the special one: bits go where
    their sum is least, and those that are left widen the range of values.

    >>> chain(8192, 3, largest=63).bits
    (46, 39, 39, 39, 55)
    >>> chain(8192, 6) is None
    True
    """
    room = limit(ring)
    spare = max(0, ceil(log2(largest * SLACK))) + 1
    best: tuple[float, Parameters] | None = None
    for scale in range(LEAST_SCALE, min(MOST_SCALE, MOST_BITS - spare) + 1):
        first = scale + spare
        special = min(MOST_BITS, room - first - levels * scale)
        if special < first:
            break
        loss = _operation_error(ring, scale, first - special if switches else -MOST_BITS)
        if loss <= precision and (best is None or loss < best[0]):
            wider = min(special - GAP, room - special - levels * scale)
            best = loss, Parameters(ring, (max(first, wider), *(scale,) * levels, special), scale)
    return best[1] if best is not None else None


def _operation_error(ring: int, scale: int, ratio: int) -> float:
    """The likely largest error of one rescale and one key switch; `ratio` is that of first to special prime, in bits.

    A rounding multiplies a ternary secret: variance N^2 / 36 of the real part of a slot. A key switch multiplies the
    error of a key, of variance 10.5 N, by a digit that SEAL does not centre: at the worst slot (q / 2) (2 N / pi).
    """
    rounding, switching = 1 / 36, 10.5 / (2 * pi**2) * ring * 4.0**ratio
    return float(TAIL * ring * 2.0**-scale * sqrt(rounding + switching))


def candidates(
    levels: int,
    largest: float = 64.0,
    switches: bool = True,
    precision: float = 1e-5,
    rings: Sequence[int] = USUAL_RINGS,
) -> Iterator[Parameters]:
    """The best chain of each ring that has room for this many levels, the smallest ring first.

    >>> [p.ring for p in candidates(2)]
    [8192, 16384, 32768]
    """
    for ring in rings:
        found = chain(ring, levels, largest, switches, precision)
        if found is not None:
            yield found


def most_levels(ring: int, largest: float = 64.0, precision: float = 1e-5) -> int:
    """The levels that a ring has room for at this precision; -1 if not even one prime fits.

    >>> most_levels(4096, precision=1e-3), most_levels(8192)
    (1, 4)
    """
    levels = -1
    while chain(ring, levels + 1, largest, precision=precision) is not None:
        levels += 1
    return levels


def depth_error(
    needed: int,
    ring: int,
    given: int,
    source: Source = EMPTY,
    spans: Sequence[Span] = (),
    hints: Sequence[str] = (),
) -> EncryptionError:
    """The error of a program that multiplies more often in a row than its parameters allow.

    `spans` are the multiplications of the longest path in order, `hints` what else could be done.

    >>> print(depth_error(6, 8192, 3).sentence)
    this program needs multiplicative depth 6; parameters N=8192 give 3
    """
    helps = []
    for larger in RINGS:
        if larger > ring and (room := most_levels(larger)) >= needed:
            small, large = chain(ring, given), chain(larger, needed)
            keys = f" (keys {large.key_bytes(1) / small.key_bytes(1):.0f}x larger)" if small and large else ""
            helps.append(f"N={larger} gives {room}{keys}")
            break
    helps.extend(hints)
    if not helps:
        helps.append("split the program, and decrypt and encrypt again between its parts")
    return EncryptionError(
        f"this program needs multiplicative depth {needed}; parameters N={ring} give {given}",
        code="too-deep",
        source=source,
        spans=spans,
        help=", or ".join(helps),
    )


def find_primes(ring: int, bits: Sequence[int]) -> list[int]:
    """For each size the largest primes below 2^size that leave 1 modulo twice the ring; of several of one size, the
    smallest comes first. This is how SEAL chooses them.

    >>> find_primes(4096, (37, 33, 39))
    [137438822401, 8589852673, 549755731969]
    """
    found: dict[int, list[int]] = {}
    for size, count in Counter(bits).items():
        value = ((1 << size) - 1) // (2 * ring) * (2 * ring) + 1
        found[size] = []
        while len(found[size]) < count:
            assert value >> (size - 1), "no more primes of this size"
            if is_prime(value):
                found[size].append(value)
            value -= 2 * ring
    return [found[size].pop() for size in bits]


def is_prime(n: int) -> bool:
    """Whether an odd number below 2^64 is prime (Miller and Rabin; twelve bases decide it, Sorenson and Webster 2015).

    >>> is_prime(549755731969), is_prime(3 * 549755731969)
    (True, False)
    """
    bases = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
    if n in bases:
        return True
    if n < 2 or not n % 2:
        return False
    odd, twos = n - 1, 0
    while not odd % 2:
        odd, twos = odd // 2, twos + 1
    for base in bases:
        x = pow(base, odd, n)
        if x in (1, n - 1):
            continue
        for _ in range(twos - 1):
            x = x * x % n
            if x == n - 1:
                break
        else:
            return False
    return True
