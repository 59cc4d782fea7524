"""Diagonal operators: one operand over digits that rows and columns share."""

from __future__ import annotations

from dataclasses import dataclass

from .algebra import Structure, scaling
from .operator import Operator
from .view import Again, Match, View


@dataclass(frozen=True)
class Diagonal(Structure):
    """y[i] = d[i] x[i], over one digit or several.

    >>> Diagonal((3, 2)).operator().size
    (6, 6)
    """

    extents: tuple[int, ...]
    name: str = "d"

    def operator(self) -> Operator:
        """The operand on both sides of a delta."""
        return scaling(self.name, self.extents).operator()

    @staticmethod
    def recognise(view: View, again: Again) -> Match | None:
        """Every digit is on both sides and some operand has it; the operands hang together."""
        if not view.out or not view.atoms or view.rows or view.cols or len(set(view.x)) < len(view.x):
            return None
        covered = frozenset[str]().union(*view.touches)
        if set(view.out) == covered and len(view.components()) == 1:
            return Match("diagonal")
        return None
