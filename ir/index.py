"""Indices and the affine expressions in them that stand in the slots of an access.

Every index runs from 0 up to its extent: elaboration has shifted the origins that the language allows (`for i in 2..n`,
`w: f32[-2..3]`) into offsets. A composite slot `(i k)` is affine too, with the extent of k as a coefficient.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from .size import ONE, ZERO, Size


@dataclass(frozen=True)
class Index:
    """A named index that runs over 0..`extent`."""

    name: str
    extent: Size


@dataclass(frozen=True)
class Affine:
    """offset + the sum of coefficient x index over `terms` (sorted by name), taken modulo `modulus` where there is one.

    >>> str(Affine.of("i") - Affine.of("j") + 3)
    'i-j+3'
    """

    terms: tuple[tuple[str, Size], ...]
    offset: Size = ZERO
    modulus: Size | None = None

    @staticmethod
    def of(index: str) -> Affine:
        """The index itself."""
        return Affine(((index, ONE),))

    @staticmethod
    def constant(value: int | Size) -> Affine:
        """A slot that names no index."""
        return Affine((), Size.of(value))

    @staticmethod
    def composite(indices: tuple[Index, ...]) -> Affine:
        """The row-major combination (i k) of indices: i times the extent of k, plus k."""
        stride, total = ONE, Affine(())
        for index in reversed(indices):
            total = total + Affine.of(index.name) * stride
            stride = stride * index.extent
        return total

    @cached_property
    def bare(self) -> str | None:
        """The index if the expression is one index and nothing else."""
        plain = self.modulus is None and len(self.terms) == 1 and self.offset == ZERO and self.terms[0][1] == ONE
        return self.terms[0][0] if plain else None

    @cached_property
    def indices(self) -> tuple[str, ...]:
        """The indices that occur."""
        return tuple(name for name, _ in self.terms)

    def coefficient(self, index: str) -> Size:
        """The coefficient of an index, 0 where it does not occur."""
        return dict(self.terms).get(index, ZERO)

    def __add__(self, other: Affine | Size | int) -> Affine:
        other = other if isinstance(other, Affine) else Affine.constant(other)
        assert self.modulus is None and other.modulus is None, "a modular index is not added to"
        total = dict(self.terms)
        for name, coefficient in other.terms:
            total[name] = total.get(name, ZERO) + coefficient
        return Affine(tuple(sorted((n, c) for n, c in total.items() if c != ZERO)), self.offset + other.offset)

    def __mul__(self, scale: Size | int) -> Affine:
        assert self.modulus is None, "a modular index is not scaled"
        if Size.of(scale) == ZERO:
            return Affine(())
        return Affine(tuple((n, c * scale) for n, c in self.terms), self.offset * scale)

    def __sub__(self, other: Affine | Size | int) -> Affine:
        return self + (other * -1 if isinstance(other, Affine) else Size.of(other) * -1)

    def mod(self, modulus: Size) -> Affine:
        """The expression modulo `modulus`."""
        return Affine(self.terms, self.offset, modulus)

    def substitute(self, values: Mapping[str, Affine]) -> Affine:
        """The expression with indices replaced by (non-modular) expressions."""
        total = Affine((), self.offset)
        for name, coefficient in self.terms:
            total = total + values.get(name, Affine.of(name)) * coefficient
        return Affine(total.terms, total.offset, self.modulus)

    def bounds(self, extents: Mapping[str, Size]) -> tuple[Size, Size]:
        """Least and greatest value (both inclusive) over non-empty ranges; a symbolic coefficient counts as
        positive.
        """
        if self.modulus is not None:
            return ZERO, self.modulus - 1
        low = high = self.offset
        for name, coefficient in self.terms:
            reach = coefficient * (extents[name] - 1)
            if coefficient.terms and coefficient.terms[-1][1] < 0:
                low = low + reach
            else:
                high = high + reach
        return low, high

    def __str__(self) -> str:
        out = ""
        for name, coefficient in self.terms:
            value = coefficient.constant
            if value is not None:
                factor = "" if abs(value) == 1 else f"{abs(value)}*"
                out += ("-" if value < 0 else "+" if out else "") + factor + name
            else:
                text = str(coefficient)
                out += (
                    ("+" if out else "")
                    + (f"({text})" if len(coefficient.terms) > 1 or text[0] == "-" else text)
                    + "*"
                    + name
                )
        if self.offset != ZERO or not out:
            text = str(self.offset)
            out += text if not out or text.startswith("-") else "+" + text
        return out if self.modulus is None else f"({out}) mod {_atom(self.modulus)}"


def _atom(size: Size) -> str:
    text = str(size)
    return text if text.isalnum() else f"({text})"
