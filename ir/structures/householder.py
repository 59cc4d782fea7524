"""Householder reflections I - 2 v v' (v of length 1), and the identity or a diagonal plus low rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .algebra import Plus, Structure, Times, Turned, identity, matrix
from .build import Method
from .operator import Operator
from .view import Match, View


@dataclass(frozen=True)
class Householder(Structure):
    """I - 2 v v'; it is orthogonal where v has length 1.

    >>> Householder(4).operator().size
    (4, 4)
    """

    size: int
    name: str = "v"

    def _term(self) -> Structure:
        v = matrix(self.name, self.size, (), "unit")
        return Plus(identity(self.size), Times(v, Turned(v)), -2)

    def operator(self) -> Operator:
        """The identity minus twice the outer product."""
        return self._term().operator()

    def extra(self) -> tuple[Method, ...]:
        """One inner product and one update."""
        return self._term().extra()

    @staticmethod
    def recognise_sum(views: Sequence[View], matches: Sequence[Match | None]) -> Match | None:
        """An identity and outer products: Householder if the one vector is of length 1 and the factor is -2."""
        if any(m is None for m in matches):
            return None
        kinds = [m.kind for m in matches if m is not None]
        same = [k for k, kind in enumerate(kinds) if kind == "identity"]
        outer = [k for k, kind in enumerate(kinds) if kind == "outer_product"]
        if len(same) == 1 and len(outer) == 1 and len(kinds) == 2 and _one_vector(views[outer[0]]):
            reflection = "unit" in views[outer[0]].known(0) and views[outer[0]].coefficient == -2
            if reflection and views[same[0]].coefficient == 1:
                return Match("householder", {"vectors": 1})
        thin, low = {"identity", "diagonal"}, {"low_rank", "outer_product"}
        if thin & set(kinds) and low & set(kinds) and set(kinds) <= thin | low:
            rank = sum(m.options.get("rank", 0) for m in matches if m is not None)
            return Match("dplr", {"rank": rank})
        return None


def _one_vector(view: View) -> bool:
    """Whether the term is a multiple of u u'."""
    if len(view.atoms) != 2 or len(view.rows) != 1 or len(view.cols) != 1:
        return False
    first, second = view.atoms
    return first.name == second.name and len(first.ports) == len(second.ports) == 1
