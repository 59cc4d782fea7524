"""Toeplitz maps and convolutions as one product of polynomials, where the client packs coefficients.

A ciphertext encrypts a polynomial modulo X^N + 1, N the degree of the ring. With element e as the coefficient of
X^p(e) and a kernel of coefficients t_d at X^d, the product has the sum of t_d x_e over p(e) + d = s at X^s: a row that
stands at s reads all its terms there, if the coefficient of a pair depends on s(row) - p(element) alone. No rotation is
needed. Both ends must be the client's, since the slots of such a ciphertext hold nothing of use.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from ..core.circuit import Builder
from ..core.layout import COEFFICIENTS, NOTHING, Packing
from ..lowering.problem import Slot
from ..steps.context import Context
from ..steps.option import Placed, Work
from .linear_map import with_bias
from .matrix import Matrix

Array = np.ndarray[Any, Any]

LARGEST_TABLE = 1 << 22  # pairs that are looked at one by one; larger matrices are judged by their index expressions


@dataclass(frozen=True, eq=False)
class Kernel:
    """The plain polynomial: at each difference the coefficient of one pair that has it."""

    matrix: Matrix
    ring: int
    differences: Array
    rows: Array
    elements: Array

    @property
    def reads(self) -> tuple[str, ...]:
        """The clear tensors of the coefficients."""
        return self.matrix.reads

    def vector(self, tensors: Mapping[str, Array]) -> Array:
        """As many coefficients as the ring has; X^-d is -X^(N - d)."""
        values = self.matrix.values(self.rows, self.elements, tensors)
        made = np.zeros(self.ring, dtype=values.dtype)
        made[self.differences % self.ring] = np.where(self.differences < 0, -values, values)
        return made


@dataclass(frozen=True, eq=False)
class Spectral:
    """One product with a kernel; `strides` are those of the axes, at the client."""

    kernel: Kernel
    context: Context
    packed: Packing
    read: Packing
    strides: tuple[int, ...]
    steps: frozenset[int] = frozenset()

    @property
    def takes(self) -> tuple[Placed, ...]:
        """Coefficients."""
        return (Placed(self.packed, 0, f"[coefficients; strides {list(self.strides)}]"),)

    @property
    def gives(self) -> Placed:
        """Coefficients; those that are no row hold other sums."""
        return Placed(self.read, 1, f"[coefficients; strides {list(self.strides)}]")

    @cached_property
    def work(self) -> Work:
        """A product and its rescale."""
        prices, primes = self.context.prices, self.context.primes(0)
        time = prices.multiply_plain(primes) + prices.rescale(primes)
        return Work(plain_products=1, rescales=1, milliseconds=time)

    def emit(self, builder: Builder, operands: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
        """The product, rescaled, and the bias."""
        step = self.kernel.matrix.step
        (value,) = operands[0]
        value = builder.rescale(builder.multiply_plain(value, self.kernel, step.span), step.span)
        return with_bias(builder, step, self.read, (value,))

    def decision(self) -> Mapping[str, Any]:
        """The strides."""
        return {"method": "spectral", "strides": list(self.strides)}

    def describe(self) -> str:
        """One line."""
        return "one product of polynomials: 0 rotations, 1 products"


def choices(matrix: Matrix, context: Context) -> Iterator[Spectral]:
    """The ways to see the matrix as a convolution, tightest first."""
    if len(matrix.result) != len(matrix.argument) or matrix.ones or context.levels < 1:
        return
    inner = list(zip(matrix.argument[1:], matrix.result[1:], strict=True))
    for room in ([max(a, r) for a, r in inner], [a + r - 1 for a, r in inner]):
        strides = tuple(prod(room[k:]) for k in range(len(room) + 1))
        found = spectral(matrix, context, strides)
        if found is not None:
            yield found
            return


def spectral(matrix: Matrix, context: Context, strides: tuple[int, ...]) -> Spectral | None:
    """The product for these strides of axes, if every pair's coefficient follows from its difference and nothing wraps
    round onto a row.
    """
    ring = context.ring
    p, s = _positions(matrix.argument, strides), _positions(matrix.result, strides)
    if max(int(p[-1]), int(s[-1])) >= ring:
        return None
    lowest = -int(p[-1])
    large = matrix.count > LARGEST_TABLE
    kernel = _kernel_of_large(matrix, ring, strides, p, s) if large else _kernel(matrix, ring, p, s)
    if kernel is None:
        return None
    least, most = int(kernel.differences.min()), int(kernel.differences.max())
    if int(p[-1]) + most >= ring or int(s[-1]) - least >= ring:
        return None
    meetings = _meetings(p, s, ring, lowest)
    if int(meetings[kernel.differences - lowest].sum()) != matrix.count:
        return None  # a pair that the matrix lacks has the difference of one that it has
    packed = np.full((1, ring), NOTHING, dtype=np.int32)
    packed[0, p] = np.arange(matrix.columns)
    read = np.full((1, ring), NOTHING, dtype=np.int32)
    read[0, s] = np.arange(matrix.rows)
    given = Packing(read, clean=False, kind=COEFFICIENTS)
    return Spectral(kernel, context, Packing(packed, kind=COEFFICIENTS), given, strides)


def _positions(shape: tuple[int, ...], strides: tuple[int, ...]) -> Array:
    """Where each flat number stands, ascending."""
    at = np.zeros(shape or (1,), dtype=np.int64)
    for axis, (extent, stride) in enumerate(zip(shape, strides, strict=False)):
        at = at + stride * np.arange(extent).reshape([-1 if k == axis else 1 for k in range(len(shape))])
    return at.ravel()


def _meetings(p: Array, s: Array, ring: int, lowest: int) -> Array:
    """How many pairs have each difference, from `lowest` on."""
    size = 4 * ring
    of_p, of_s = np.zeros(size), np.zeros(size)
    of_p[-lowest - p], of_s[s] = 1.0, 1.0
    return np.rint(np.fft.irfft(np.fft.rfft(of_p) * np.fft.rfft(of_s), size)).astype(np.int64)


def _kernel(matrix: Matrix, ring: int, p: Array, s: Array) -> Kernel | None:
    """The kernel of a matrix whose pairs can be listed, term by term."""
    rows, elements = matrix.pair(np.arange(matrix.count))
    apart = s[rows] - p[elements]
    differences, first = np.unique(apart, return_index=True)
    spot = np.searchsorted(differences, apart)
    for reader in matrix.readers:
        if reader.plan is None:
            return None
        inside, at = reader.places(rows, elements)
        place = np.where(inside, at, -1)
        if (place != place[first][spot]).any():
            return None
    return Kernel(matrix, ring, differences, rows[first], elements[first])


def _kernel_of_large(matrix: Matrix, ring: int, strides: tuple[int, ...], p: Array, s: Array) -> Kernel | None:
    """The kernel of a dense matrix of one term, where coefficients are read at a multiple of the difference."""
    if not matrix.full or len(matrix.readers) != 1:
        return None
    term = matrix.readers[0].term
    slots = (*term.rows, *term.columns, *term.at)
    if len(term.at) != 1 or any(slot.modulus for slot in slots[: -len(term.at)]):
        return None
    apart = _form(term.rows, strides)
    for index, c in _form(term.columns, strides).items():
        apart[index] = apart.get(index, 0) - c
    read = dict(term.at[0].terms)
    ratios = {(read.get(i, 0), c) for i, c in apart.items()}
    scale = next((a // c for a, c in ratios if c), 0)
    if any(a != scale * c for a, c in ratios) or not set(read) <= set(apart):
        return None
    # the first row with every element and every row with the first element have all differences, where positions are
    # ranges; where they are not, `spectral` counts too few pairs
    rows = np.concatenate([np.zeros(matrix.columns, dtype=np.int64), np.arange(matrix.rows)])
    elements = np.concatenate([np.arange(matrix.columns), np.zeros(matrix.rows, dtype=np.int64)])
    differences, first = np.unique(s[rows] - p[elements], return_index=True)
    return Kernel(matrix, ring, differences, rows[first], elements[first])


def _form(slots: tuple[Slot, ...], strides: tuple[int, ...]) -> dict[str, int]:
    """Coefficients of indices in the position that slots have together."""
    found: dict[str, int] = {}
    for slot, stride in zip(slots, strides, strict=True):
        for index, c in slot.terms:
            found[index] = found.get(index, 0) + c * stride
    return found
