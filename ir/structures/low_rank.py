"""Low rank: a product through fewer summed indices than rows and columns, and its smallest case, the outer product."""

from __future__ import annotations

from dataclasses import dataclass

from .algebra import Leaf, Plus, Structure, Times, matrix, scaling
from .build import Method
from .operator import Operator
from .view import Again, Component, Match, Near, View, between


@dataclass(frozen=True)
class LowRank(Structure):
    """U V with U rows x rank and V rank x cols.

    >>> LowRank(7, 8, 2).operator().size
    (7, 8)
    """

    rows: int
    cols: int
    rank: int
    names: tuple[str, str] = ("U", "V")

    def _term(self) -> Structure:
        return Times(matrix(self.names[0], self.rows, self.rank), matrix(self.names[1], self.rank, self.cols))

    def operator(self) -> Operator:
        """The product of the two factors."""
        return self._term().operator()

    def extra(self) -> tuple[Method, ...]:
        """V first, then U."""
        return self._term().extra()

    @staticmethod
    def recognise(view: View, again: Again) -> Match | Near | None:
        """The cheapest cut of summed indices that leaves groups with rows or columns only; useful if r(m+n) < mn."""
        if view.opaque or not view.rows or not view.cols:
            return None
        for rank, cut in view.cuts():
            groups = view.components(cut)
            sides = [g.side for g in groups]
            if "RC" not in sides and "R" in sides and "C" in sides:
                rows, cols = view.dims
                if rank * (rows + cols) >= rows * cols:
                    return Near("low_rank", f"rank {rank} saves nothing: {rank}*({rows}+{cols}) >= {rows}*{cols}")
                return Match("low_rank", {"rank": rank}, split(view, groups, cut))
        return None


def split(view: View, groups: tuple[Component, ...], cut: tuple[str, ...]) -> Structure:
    """The factors on either side of a cut, as a product."""
    left = [k for g in groups if g.side != "C" for k in g.atoms]
    right = [k for g in groups if g.side == "C" for k in g.atoms]
    first, second = between(view, left, view.out, cut), between(view, right, cut, view.x)
    return Times(Leaf(first), Leaf(second))


@dataclass(frozen=True)
class OuterProduct(Structure):
    """u v'.

    >>> OuterProduct(3, 4).operator().size
    (3, 4)
    """

    rows: int
    cols: int
    names: tuple[str, str] = ("u", "v")

    def _term(self) -> Structure:
        return Times(matrix(self.names[0], self.rows, ()), matrix(self.names[1], (), self.cols))

    def operator(self) -> Operator:
        """The product of a column and a row."""
        return self._term().operator()

    def extra(self) -> tuple[Method, ...]:
        """The inner product first."""
        return self._term().extra()

    @staticmethod
    def recognise(view: View, again: Again) -> Match | None:
        """Every group of operands has only rows or only columns."""
        groups = view.components()
        if len(groups) >= 2 and {g.side for g in groups} == {"R", "C"}:
            return Match("outer_product", {"rank": 1}, split(view, groups, ()))
        return None


@dataclass(frozen=True)
class DiagonalPlusLowRank(Structure):
    """diag(d) + U V; with `full` a dense operand in place of the diagonal."""

    size: int
    rank: int
    full: bool = False
    names: tuple[str, str, str] = ("d", "U", "V")

    def _term(self) -> Structure:
        first = matrix(self.names[0], self.size, self.size) if self.full else scaling(self.names[0], self.size)
        return Plus(first, LowRank(self.size, self.size, self.rank, self.names[1:]))

    def operator(self) -> Operator:
        """The sum."""
        return self._term().operator()

    def extra(self) -> tuple[Method, ...]:
        """Both parts, added."""
        return self._term().extra()
