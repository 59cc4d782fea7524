"""Triangular operators: half of the products of a dense one, by halving.

A lower triangle is two triangles of half the size and a square between them. After k halvings there are 2^k triangles
on the diagonal and, at each level l, 2^l squares in a batch: (1 + 2^-k)/2 of the dense work, in k+1 batched products.
Sizes that 2^k does not divide leave up to 2^k - 1 rows (columns) over, which are multiplied as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .algebra import Structure
from .build import Builder, Method, Run, Value
from .operator import Atom, Operand, Operator, Term
from .slot import Slot, slot, var
from .view import DELTA, STEP, Again, Match, View, axes_of

HALVINGS = 4  # the most that are offered: the fifth saves one product in 34


@dataclass(frozen=True)
class Triangular(Structure):
    """y[i] = W[i,j] x[j] over j <= i (over j >= i where `upper`); `turned` says that the operand stores W[j,i].

    >>> Triangular(5, 4, upper=True).operator().size
    (5, 4)
    """

    rows: int
    cols: int
    upper: bool = False
    name: str = "W"
    turned: bool = False

    def operator(self) -> Operator:
        """The operand under a guard."""
        term = Term(1, (self._read(var("i"), var("j")),), (), (self._guard(var("i"), var("j")),))
        shape = (self.cols, self.rows) if self.turned else (self.rows, self.cols)
        extents = {"i": self.rows, "j": self.cols}
        return Operator(("i",), ("j",), (term,), extents, {self.name: Operand(shape)})

    def _read(self, i: Slot, j: Slot) -> Atom:
        return Atom(self.name, (j, i) if self.turned else (i, j))

    def _guard(self, i: Slot, j: Slot) -> Slot:
        return j.plus(i, -1) if self.upper else i.plus(j, -1)

    def extra(self) -> tuple[Method, ...]:
        """One method for each number of halvings that leaves blocks."""
        square = min(self.rows, self.cols)
        return tuple(
            Method(f"halved {k} time{'s' if k > 1 else ''}", self._halved(k))
            for k in range(1, HALVINGS + 1)
            if square >> k
        )

    def _halved(self, times: int) -> Run:
        def run(b: Builder, x: Value) -> Value:
            square = min(self.rows, self.cols)
            size = square >> times  # of the triangles on the diagonal
            main = size << times
            parts = [self._leaves(b, x, 1 << times, size)]
            parts += [self._squares(b, x, 1 << k, main >> (k + 1)) for k in range(times)]
            if self.upper:  # the columns beyond the main square
                parts += [
                    self._panel(b, x, (0, square), (main, square)),
                    self._panel(b, x, (0, square), (square, self.cols)),
                ]
            else:  # the rows
                parts += [
                    self._panel(b, x, (main, square), (0, square)),
                    self._panel(b, x, (square, self.rows), (0, square)),
                ]
            return self._sum(b, x, [p for p in parts if p is not None])

        return run

    def _leaves(self, b: Builder, x: Value, count: int, size: int) -> tuple[Value, int] | None:
        """The triangles on the diagonal, each masked and multiplied as a dense block."""
        g, i, j = b.indices((count, size, size))
        row, col = slot([(g, size), (i, 1)]), slot([(g, size), (j, 1)])
        mask = (self._guard(var(i), var(j)),)
        blocks = b.let((count, size, size), map(var, (g, i, j)), [Term(1, (self._read(row, col),), (), mask)])
        return self._product(b, x, Atom(blocks.name, tuple(map(var, (g, i, j)))), row, col, count * size), 0

    def _squares(self, b: Builder, x: Value, count: int, size: int) -> tuple[Value, int] | None:
        """The squares of one level; each stands beside two triangles of its size."""
        g, i, j = b.indices((count, size, size))
        first, second = (slot([(g, 2 * size), (k, 1)]) for k in (i, j))
        if self.upper:
            row, col = first, second.plus(slot((), size))
        else:
            row, col = first.plus(slot((), size)), second
        return self._product(b, x, self._read(row, col), row, col, 2 * count * size), 0

    def _panel(self, b: Builder, x: Value, rows: tuple[int, int], cols: tuple[int, int]) -> tuple[Value, int] | None:
        """Some rows times some columns, masked where the diagonal goes through."""
        if rows[0] >= rows[1] or cols[0] >= cols[1]:
            return None
        i, j = b.indices((rows[1] - rows[0], cols[1] - cols[0]))
        row, col = slot([(i, 1)], rows[0]), slot([(j, 1)], cols[0])
        atom, guard = self._read(row, col), self._guard(row, col)
        if guard.bounds(b.extents)[0] < 0:
            shape = (b.extents[i], b.extents[j])
            masked = b.let(shape, (var(i), var(j)), [Term(1, (atom,), (), (guard,))])
            atom = Atom(masked.name, (var(i), var(j)))
        return self._product(b, x, atom, var(i), col, b.extents[i]), rows[0]

    def _product(self, b: Builder, x: Value, atom: Atom, row: Slot, col: Slot, length: int) -> Value:
        batch = b.indices(x.shape[:-1])
        read = Atom(x.name, (*map(var, batch), col))
        return b.let((*x.shape[:-1], length), (*map(var, batch), row), [Term(1, (atom, read))], x.complex)

    def _sum(self, b: Builder, x: Value, parts: Sequence[tuple[Value, int]]) -> Value:
        """The parts added, each from its first row on; outside of its rows a part is zero."""
        i = b.indices((*x.shape[:-1], self.rows))
        lead = tuple(map(var, i[:-1]))
        terms = [Term(1, (Atom(v.name, (*lead, slot([(i[-1], 1)], -start))),)) for v, start in parts]
        return b.let((*x.shape[:-1], self.rows), map(var, i), terms, x.complex)

    @staticmethod
    def recognise(view: View, again: Again) -> Match | None:
        """One operand with one row and one column, and a guard that says on which side of the diagonal it counts."""
        steps = [a for a in view.atoms if a.name == STEP]
        rest = [a for a in view.atoms if a.name != STEP]
        rows, cols = view.digits(view.rows), view.digits(view.cols)
        if len(steps) != 1 or len(rest) != 1 or view.batch or len(rows) != 1 or len(cols) != 1:
            return None
        if rest[0].name == DELTA:
            return None
        reads = axes_of(view, rest[0])
        (i,), (j,) = rows, cols
        if len(reads) != 2 or {q.bare for q in reads} != {i, j}:
            return None
        below = slot([(i, 1), (j, -1)])
        if steps[0].slots[0] not in (below, below.times(-1)):
            return None
        upper = steps[0].slots[0] != below
        n, m = view.extents[i], view.extents[j]
        term = Triangular(n, m, upper, rest[0].name, reads[0].bare == j)
        return Match("upper" if upper else "lower", {}, term)
