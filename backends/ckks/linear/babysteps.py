"""Baby steps and giant steps: every offset of a linear map as a sum of two rotations.

Offset k = a + b: the operand is rotated by a (once for all that share it), multiplied by the plain vector moved back by
b, summed, rescaled, and the partial sum rotated by b. Giant steps run one level lower, where a rotation is cheaper but
is preceded by a rescale of its own. The radix (a = k mod g) and the sign of the offsets are tried; the priced time
decides, not the number of rotations.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import gcd
from typing import Any

import numpy as np

from ..core.distinct import distinct
from ..steps.context import Pricing

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Split:
    """How offsets become sums: a = k mod radix, b = k - a, of offsets taken in 0..slots (or around 0 if `signed`)."""

    radix: int
    signed: bool
    babies: int
    giants: int

    def parts(self, offset: int, slots: int) -> tuple[int, int]:
        """(baby step, giant step), modulo the slots.

        >>> Split(4, True, 0, 0).parts(7, 8)  # -1 = 3 - 4
        (3, 4)
        """
        k = offset - slots if self.signed and offset > slots // 2 else offset
        return (k % self.radix) % slots, (k - k % self.radix) % slots


def split(places: Array, slots: int, prices: Pricing, primes: int, bare: bool = False) -> Split:
    """The cheapest split of offsets.

    `places` has one row (result ciphertext, operand ciphertext, offset) for each diagonal; `primes` are the operand's;
    `bare` says that there are no products, so giant steps run at the same level. Baby steps are counted for each
    operand ciphertext, giant steps for each result ciphertext.
    """
    return _split(np.ascontiguousarray(places, dtype=np.int64).tobytes(), slots, *_rates(prices, primes, bare))


@lru_cache(maxsize=1 << 16)
def least(offsets: int, baby: float, giant: float) -> float:
    """A lower bound of the milliseconds of rotations for so many offsets between two ciphertexts, by those of a baby
    step and of a giant step: a of the ones and b of the others reach (a + 1) (b + 1) offsets.

    >>> least(1, 1.0, 1.0), least(16, 1.0, 1.0), least(1024, 1.0, 1.0)
    (0.0, 6.0, 62.0)
    """
    if offsets <= 1:
        return 0.0
    most = min(offsets, int((offsets * max(giant / baby, 1.0)) ** 0.5) + 3)
    return min(a * baby + (-(-offsets // (a + 1)) - 1) * giant for a in range(most))


def _rates(prices: Pricing, primes: int, bare: bool) -> tuple[float, float]:
    """Milliseconds of a baby step and of a giant step."""
    baby = prices.rotate(primes)
    return (baby, baby) if bare else (baby, prices.rotate(primes - 1) + prices.rescale(primes))


@lru_cache(maxsize=4096)
def _split(data: bytes, slots: int, baby: float, giant: float) -> Split:
    places = np.frombuffer(data, dtype=np.int64).reshape(-1, 3)
    result, operand, offset = places.T
    best: tuple[float, Split] | None = None
    for signed in (False, True):
        if signed and not (offset > slots // 2).any():
            continue
        k = np.where(offset > slots // 2, offset - slots, offset) if signed else offset
        for radix in _radices(k, slots):
            a = k % radix
            b = (k - a) % slots
            babies = _distinct(operand[a != 0], a[a != 0], slots)
            giants = _distinct(result[b != 0], b[b != 0], slots)
            cost = babies * baby + giants * giant
            if best is None or cost < best[0] - 1e-9:
                best = cost, Split(radix, signed, babies, giants)
    assert best is not None, "a map without diagonals"
    return best[1]


def _distinct(ciphertext: Array, step: Array, slots: int) -> int:
    if not len(step):
        return 0
    seen = np.zeros((int(ciphertext.max()) + 1) * slots, dtype=bool)
    seen[ciphertext * slots + step] = True
    return int(np.count_nonzero(seen))


def _radices(offsets: Array, slots: int) -> list[int]:
    """Radices worth trying: multiples of the offsets' common stride, small ones and powers of two times 1, 3, 5, 7."""
    unit = 0
    for k in distinct(np.abs(offsets)).tolist():
        unit = gcd(unit, k)
    unit = max(unit, 1)
    reach = int(np.abs(offsets).max()) // unit + 1
    found = {m << i for m in (1, 3, 5, 7) for i in range(slots.bit_length())} | set(range(1, 72))
    kept = sorted(g for g in found if g <= reach)
    return [g * unit for g in kept] + [(reach + 1) * unit]
