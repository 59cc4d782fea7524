"""BLAST: shared bases of block rows and block columns with a diagonal coupling for each block (Lee et al., 2024).

y[i,a] = U[i,a,r] S[i,j,r] V[j,c,r] x[j,c]: the index r stands in three operands.
"""

from __future__ import annotations

from dataclasses import dataclass

from .algebra import Structure
from .build import Builder, Method, Value
from .operator import Atom, Operand, Operator, Term
from .slot import var
from .view import Again, Match, View


@dataclass(frozen=True)
class Blast(Structure):
    """i block rows of a rows, j block columns of c columns, rank r.

    >>> Blast(2, 3, 4, 5, 2).operator().size
    (6, 20)
    """

    i: int
    a: int
    j: int
    c: int
    rank: int
    names: tuple[str, str, str] = ("U", "S", "V")

    def operator(self) -> Operator:
        """Three operands, one index in all of them."""
        extents = {"i": self.i, "a": self.a, "j": self.j, "c": self.c, "r": self.rank}
        reads = tuple(zip(self.names, ("iar", "ijr", "jcr"), strict=True))
        atoms = tuple(Atom(n, tuple(map(var, letters))) for n, letters in reads)
        operands = {n: Operand(tuple(extents[k] for k in letters)) for n, letters in reads}
        return Operator(("i", "a"), ("j", "c"), (Term(1, atoms),), extents, operands)

    def extra(self) -> tuple[Method, ...]:
        """V, then S, then U: never a product of two factors."""
        return (Method("V, S, U", self._chain),)

    def _chain(self, b: Builder, x: Value) -> Value:
        op = b.adopt(self.operator())
        u, s, v = op.terms[0].atoms
        batch = b.indices(x.shape[:-2])
        lead = list(map(var, batch))
        (j, c), r = op.cols, v.slots[2]
        rank = self.rank
        first = b.let(
            [*x.shape[:-2], self.j, rank], [*lead, var(j), r], [Term(1, (v, Atom(x.name, (*lead, var(j), var(c)))))],
            x.complex,
        )  # fmt: skip
        second = b.let(
            [*x.shape[:-2], self.i, rank], [*lead, s.slots[0], r],
            [Term(1, (s, Atom(first.name, (*lead, var(j), r))))], x.complex,
        )  # fmt: skip
        rows = list(map(var, op.rows))
        last = Term(1, (u, Atom(second.name, (*lead, rows[0], r))))
        return b.let([*x.shape[:-2], self.i, self.a], [*lead, *rows], [last], x.complex)

    @staticmethod
    def recognise(view: View, again: Again) -> Match | None:
        """Three operands with one summed index in common; one of them couples digits of the others."""
        if view.opaque or len(view.bound) != 1 or len(view.atoms) != 3:
            return None
        r = view.bound[0]
        if any(r not in t for t in view.touches):
            return None
        rows, cols = set(view.rows), set(view.cols)
        for s in range(3):
            u, v = (k for k in range(3) if k != s)
            ts, tu, tv = (view.touches[k] - {r} for k in (s, u, v))
            for left, right, a, b in ((ts & tu, ts & tv, tu, tv), (ts & tv, ts & tu, tv, tu)):
                if ts != left | right or not left or not right or not left <= rows or not right <= cols:
                    continue
                if a - left and a <= rows and b - right and b <= cols:
                    return Match("blast", {"rank": view.extents[r]})
        return None
