"""Banded operators: the diagonals are stored as rows of an operand, a[j-i+lower, i]."""

from __future__ import annotations

from dataclasses import dataclass

from .algebra import Structure
from .build import Builder, Method, Value
from .operator import Atom, Operand, Operator, Term
from .slot import slot, var
from .toeplitz import pair_levels
from .view import Again, Match, View


@dataclass(frozen=True)
class Banded(Structure):
    """y[i] = a[j-i+lower, i] x[j], with `lower` diagonals below the main one and `upper` above.

    >>> Banded(6, 7, 1, 2).operator().operands["a"].shape
    (4, 6)
    """

    rows: int
    cols: int
    lower: int
    upper: int
    name: str = "a"

    def operator(self) -> Operator:
        """The operand read along diagonals; zero outside of the band."""
        read = Atom(self.name, (slot([("j", 1), ("i", -1)], self.lower), var("i")))
        shape = (self.lower + self.upper + 1, self.rows)
        extents = {"i": self.rows, "j": self.cols}
        return Operator(("i",), ("j",), (Term(1, (read,)),), extents, {self.name: Operand(shape)})

    def extra(self) -> tuple[Method, ...]:
        """A sum over diagonals."""
        return (Method("diagonals", self._diagonals),)

    def _diagonals(self, b: Builder, x: Value) -> Value:
        batch = b.indices(x.shape[:-1])
        i, d = b.indices((self.rows, self.lower + self.upper + 1))
        band = Atom(self.name, (var(d), var(i)))
        read = Atom(x.name, (*map(var, batch), slot([(i, 1), (d, 1)], -self.lower)))
        return b.let((*x.shape[:-1], self.rows), map(var, (*batch, i)), [Term(1, (band, read))], x.complex)

    @staticmethod
    def recognise(view: View, again: Again) -> Match | None:
        """One operand with a slot i-j and a slot i (or j), and few diagonals."""
        if len(view.atoms) != 1 or len(view.rows) != 1 or len(view.cols) != 1 or len(view.atoms[0].ports) != 2:
            return None
        found = pair_levels(view)
        if found is None or len(found[0]) != 1:
            return None
        kinds, levels, used = found
        dense = [q.bare for q in view.atoms[0].slots if q.bare is not None]
        level = levels[0]
        if len(dense) != 1 or dense[0] not in used or level.length >= min(level.rows, level.cols):
            return None
        if kinds[0] not in ("toeplitz", "circulant"):
            return None
        return Match("banded", {"width": level.length}, _term(view, level.step, level.offset, level.length))


def _term(view: View, step: int, offset: int, width: int) -> Structure | None:
    """`Banded` where the operand is stored as it wants it."""
    atom = view.atoms[0]
    first = next((q for keys, q in atom.ports if keys[0][0] == 0), None)
    second = next((q for keys, q in atom.ports if keys[0][0] == 1), None)
    if first is None or second is None or first.bare is not None or second.bare not in view.rows:
        return None
    if step != -1 or first.modulus or len(view.shapes[atom.name]) != 2:
        return None
    rows, cols = view.dims
    return Banded(rows, cols, offset, width - 1 - offset, atom.name) if 0 <= offset < width else None
