"""Monarch, block tensor train and block low rank: two factors that share a row digit and a column digit.

With f, e the row digits and g, a the column digits, y[f,e] = B[f,g,e,r] A[f,g,a,r] x[g,a]: for each (f, g) a block of
rank r. Monarch is r = 1 with f major and g minor or the reverse (Dao et al., 2022), BTT has r > 1 (Qiu et al., 2024);
with both shared digits major, or both minor, the same class is block low rank. Either is the other after a stride
permutation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .algebra import Batch, Leaf, Ordered, Structure, Times, matrix
from .build import Method
from .operator import Operator
from .view import Again, Match, Near, View, between


@dataclass(frozen=True)
class Monarch(Structure):
    """y[l,j] = L[j,l,k,r] R[k,j,i,r] x[k,i]; the rank index is left out where rank is 1.

    >>> Monarch(4, 3, 5, 2).operator().size
    (20, 6)
    """

    j: int
    k: int
    l: int  # noqa: E741  the letter of the literature
    i: int
    rank: int = 1
    names: tuple[str, str] = ("L", "R")

    def _term(self) -> Structure:
        middle = (self.rank,) if self.rank > 1 else ()
        first = Batch(matrix(self.names[1], (self.j, *middle), self.i), self.k)  # rows k, j, r
        second = Batch(matrix(self.names[0], self.l, (self.k, *middle)), self.j)  # rows j, l; columns j, k, r
        return Times(Ordered(second, (1, 0), (1, 0, 2)[: 2 + len(middle)]), first)

    def operator(self) -> Operator:
        """Two block-diagonal factors with a stride permutation between."""
        return self._term().operator()

    def extra(self) -> tuple[Method, ...]:
        """One factor after the other."""
        return self._term().extra()

    @staticmethod
    def recognise(view: View, again: Again) -> Match | Near | None:
        """Two dense operands that share row and column digits; the rest of one is columns, of the other rows."""
        if len(view.atoms) != 2 or not view.exact:
            return None
        both = view.touches[0] & view.touches[1]
        f = [i for i in view.rows if i in both]
        g = [i for i in view.cols if i in both]
        r = [i for i in view.bound if i in both]
        if not f or not g or len(both) != len(f) + len(g) + len(r):
            return None
        for first, second in ((0, 1), (1, 0)):
            a, e = view.touches[first] - both, view.touches[second] - both
            if not a or not e or not a <= set(view.cols) or not e <= set(view.rows):
                continue
            rank = view.size(r)
            small = min(view.size(a), view.size(e))
            if rank >= small:
                return Near(
                    "btt", f"rank {rank} is not below the block's {small}: the product formed ahead is as small"
                )
            blocks = (_before(view.out, f, e) and _before(view.x, g, a)) or (
                _before(view.out, sorted(e), f) and _before(view.x, sorted(a), g)
            )
            middle = (*g, *f, *r)
            inner = Leaf(between(view, [first], middle, view.x))
            outer = Leaf(between(view, [second], view.out, middle))
            kind = "block_low_rank" if blocks else "btt" if rank > 1 else "monarch"
            return Match(kind, {"rank": rank}, Times(outer, inner))
        return None


def _before(side: Sequence[str], first: Sequence[str], second: Sequence[str] | frozenset[str]) -> bool:
    return max(side.index(i) for i in first) < min(side.index(i) for i in second)
