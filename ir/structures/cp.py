"""CP: one summed index in three or more operands, each with digits of its own."""

from __future__ import annotations

from dataclasses import dataclass

from .algebra import Structure
from .operator import Atom, Operand, Operator, Term
from .slot import var
from .view import Again, Match, View


@dataclass(frozen=True)
class CP(Structure):
    """Rank r over the row digits and the column digits, one factor for each.

    >>> CP((4,), (3, 5), 2).operator().size
    (4, 15)
    """

    rows: tuple[int, ...]
    cols: tuple[int, ...]
    rank: int
    name: str = "C"

    def operator(self) -> Operator:
        """One operand for each digit: the name and a number."""
        digits = [f"i{k}" for k in range(len(self.rows))] + [f"j{k}" for k in range(len(self.cols))]
        extents = dict(zip(digits, self.rows + self.cols, strict=True)) | {"r": self.rank}
        names = [f"{self.name}{k}" for k in range(len(digits))]
        atoms = tuple(Atom(n, (var(d), var("r"))) for n, d in zip(names, digits, strict=True))
        operands = {n: Operand((extents[d], self.rank)) for n, d in zip(names, digits, strict=True)}
        k = len(self.rows)
        return Operator(tuple(digits[:k]), tuple(digits[k:]), (Term(1, atoms),), extents, operands)

    @staticmethod
    def recognise(view: View, again: Again) -> Match | None:
        """All operands share one index and nothing else, and none has both rows and columns."""
        if view.opaque or len(view.bound) != 1 or len(view.atoms) < 3:
            return None
        r = view.bound[0]
        own = [t - {r} for t in view.touches]
        rows, cols = set(view.rows), set(view.cols)
        if any(r not in t for t in view.touches) or not all(own):
            return None
        apart = sum(map(len, own)) == len(frozenset[str]().union(*own))
        if apart and not any(o & rows and o & cols for o in own) and rows and cols:
            return Match("cp", {"rank": view.extents[r]})
        return None
