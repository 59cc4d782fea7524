"""Forms of matrices whose entries depend on the difference of row and column: circulant, and banded ones."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from ..ir.expr import Structure
from ..ir.size import Size
from ..ir.structures.operator import Atom, Operand, Operator, Term
from ..ir.structures.slot import slot, var
from ..ir.types import F64
from .solve_emit import Emitter, Value
from .solve_forms import Leaf, Power


@dataclass(frozen=True)
class Circulant(Leaf):
    """A circulant matrix by its first column: the discrete Fourier transform makes it diagonal."""

    def column(self, e: Emitter) -> Value:
        """The first column."""
        return e.terms("column", tuple(map(var, self.of.cols)), self.cols, self.of.terms, self.of.extents)

    def solve(self, e: Emitter, x: Value) -> Value:
        """One leaf: transform, divide, transform back."""
        rest = x.shape[1:]
        flat = e.reshaped(x, (self.size, *((prod(rest),) if rest else ())))
        return e.reshaped(e.linalg("solve_circulant", self.column(e), flat), x.shape)

    def logdet(self, e: Emitter) -> Value:
        """One leaf: the sum of the logarithms of the transform."""
        return e.linalg("logdet_circulant", self.column(e))

    def inverse(self, e: Emitter) -> Operator:
        """A circulant again."""
        return self._operator(e, e.number(-1, F64))

    def has_power(self, power: Power) -> bool:
        """Always: a power of a circulant matrix is one."""
        return True

    def power(self, e: Emitter, power: Power) -> Operator:
        """A circulant again."""
        return self._operator(e, power)

    def _operator(self, e: Emitter, power: Power) -> Operator:
        column, n = e.linalg("power_circulant", self.column(e), power), self.size
        read = Atom(column.name, (slot([("i", 1), ("j", -1)], 0, n),))
        return Operator(("i",), ("j",), (Term(1, (read,)),), {"i": n, "j": n}, {column.name: Operand((n,))})

    def describe(self) -> str:
        """What the solver does, in a few words."""
        return f"circulant of size {self.size}: division after a Fourier transform"


@dataclass(frozen=True)
class Banded(Leaf):
    """A band of `lower` diagonals below the main one and `upper` above, kept by its diagonals."""

    lower: int = 0
    upper: int = 0

    def bands(self, e: Emitter) -> Value:
        """LAPACK's form: [upper + i - j, j] of it is [i, j] of the matrix, zeros where there is no row i."""
        op = self.of
        (i,), (j,) = op.rows, op.cols
        row = slot([("d", 1), (j, 1)], -self.upper)
        inside = (row, slot([("d", -1), (j, -1)], self.size - 1 + self.upper))  # 0 <= i < n
        terms = [t.put(i, row)._replace(guards=(*t.put(i, row).guards, *inside)) for t in op.terms]
        width = self.lower + self.upper + 1
        extents = {**op.extents, "d": width}
        return e.terms("bands", (var("d"), var(j)), (width, self.size), terms, extents)

    @property
    def _assume(self) -> tuple[Structure, ...]:
        return (Structure("banded", (("lo", Size.of(self.lower)), ("hi", Size.of(self.upper)))),)

    def solve(self, e: Emitter, x: Value) -> Value:
        """One leaf for bands."""
        rest = x.shape[1:]
        flat = e.reshaped(x, (self.size, *((prod(rest),) if rest else ())))
        return e.reshaped(e.linalg("solve_banded", self.bands(e), flat, assume=self._assume), x.shape)

    def logdet(self, e: Emitter) -> Value:
        """One leaf for bands."""
        return e.linalg("logdet_banded", self.bands(e), assume=self._assume)

    def describe(self) -> str:
        """What the solver does, in a few words."""
        return f"banded, {self.lower} below and {self.upper} above: band LU"
