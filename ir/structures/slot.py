"""Integer affine expressions in the slots of an atom: the small change of the algebra of structures.

`ir.index.Affine` serves programs with symbolic sizes. Structures and the recogniser work at known sizes and ask for
ranges and digits all the time, so they have this light twin; `to_affine` leads back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ..index import Affine
from ..size import ZERO, Size


class Slot(NamedTuple):
    """offset + the sum of coefficient x index (sorted by name), modulo `modulus` unless that is 0.

    Make one with `slot` or `var`, which keep the normal form.

    >>> str(slot([("i", 1), ("j", -1)], 3))
    'i-j+3'
    """

    terms: tuple[tuple[str, int], ...] = ()
    offset: int = 0
    modulus: int = 0

    @property
    def bare(self) -> str | None:
        """The index if the slot is one index and nothing else."""
        terms = self.terms
        plain = len(terms) == 1 and terms[0][1] == 1 and not self.offset and not self.modulus
        return terms[0][0] if plain else None

    @property
    def indices(self) -> tuple[str, ...]:
        """The indices that occur."""
        return tuple([i for i, _ in self.terms])

    def coefficient(self, index: str) -> int:
        """The coefficient of an index, 0 where it does not occur."""
        for i, k in self.terms:
            if i == index:
                return k
        return 0

    def put(self, index: str, value: Slot) -> Slot:
        """The slot with `value` (which has no modulus) for an index."""
        k = self.coefficient(index)
        if not k:
            return self
        assert not value.modulus, "a modular expression is not put into another one"
        total = {i: c for i, c in self.terms if i != index}
        for i, c in value.terms:
            total[i] = total.get(i, 0) + k * c
        return slot(total.items(), self.offset + k * value.offset, self.modulus)

    def renamed(self, names: Mapping[str, str]) -> Slot:
        """The slot with other names for its indices (those that `names` does not hold keep theirs)."""
        terms = tuple(sorted([(names.get(i, i), k) for i, k in self.terms]))
        return Slot(terms, self.offset, self.modulus)

    def plus(self, other: Slot, scale: int = 1) -> Slot:
        """The sum with `scale` times another slot, neither with a modulus."""
        assert not self.modulus and not other.modulus, "a modular slot is not added to"
        total = dict(self.terms)
        for i, c in other.terms:
            total[i] = total.get(i, 0) + scale * c
        return slot(total.items(), self.offset + scale * other.offset)

    def times(self, scale: int) -> Slot:
        """`scale` times the slot, which has no modulus."""
        return Slot().plus(self, scale)

    def bounds(self, extents: Mapping[str, int]) -> tuple[int, int]:
        """Least and greatest value, both inclusive, over non-empty ranges."""
        if self.modulus:
            return 0, self.modulus - 1
        low = high = self.offset
        for i, k in self.terms:
            reach = k * (extents[i] - 1)
            if reach < 0:
                low += reach
            else:
                high += reach
        return low, high

    def digits(self, extents: Mapping[str, int], size: int) -> list[tuple[str, int]] | None:
        """(index, weight), major first, if the slot is a mixed-radix number that covers 0..size exactly; else None."""
        if self.modulus or self.offset:
            return None
        if len(self.terms) == 1:
            index, weight = self.terms[0]
            return [(index, 1)] if weight == 1 and extents[index] == size else None
        weight, out = 1, []
        for i, k in sorted(self.terms, key=lambda p: p[1]):
            if k != weight:
                return None
            out.append((i, weight))
            weight *= extents[i]
        out.reverse()
        return out if weight == size else None

    def to_affine(self) -> Affine:
        """The same as an index expression of a program."""
        terms = tuple([(i, Size.of(k)) for i, k in self.terms])
        return Affine(terms, Size.of(self.offset), Size.of(self.modulus) if self.modulus else None)

    def __str__(self) -> str:
        return str(self.to_affine())


def slot(terms: Iterable[tuple[str, int]] = (), offset: int = 0, modulus: int = 0) -> Slot:
    """The slot in normal form: no zero coefficients, sorted, residues below the modulus."""
    if modulus:
        terms = [(i, k % modulus) for i, k in terms]
        offset %= modulus
    return Slot(tuple(sorted([(i, k) for i, k in terms if k])), offset, modulus)


def var(index: str) -> Slot:
    """The index itself."""
    return Slot(((index, 1),))


def composite(indices: Sequence[str], extents: Mapping[str, int]) -> Slot:
    """The row-major combination of indices, major first."""
    weight, terms = 1, []
    for i in reversed(indices):
        terms.append((i, weight))
        weight *= extents[i]
    return slot(terms)


def from_affine(affine: Affine, sizes: Mapping[str, int], names: Mapping[str, str]) -> Slot:
    """A slot of a program at known sizes, its indices renamed."""
    terms = [(names.get(i, i), k.evaluate(sizes)) for i, k in affine.terms]
    offset = 0 if affine.offset == ZERO else affine.offset.evaluate(sizes)
    return slot(terms, offset, affine.modulus.evaluate(sizes) if affine.modulus is not None else 0)
