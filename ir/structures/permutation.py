"""Identity, permutations and other selections: 0/1 matrices with at most one 1 in each column, never multiplied with.

A stride permutation is only an order of digits. One that is affine, y[i] = x[(step*i + offset) mod n], is a read at an
affine slot. A declared permutation is an operand that the rules for dense operands leave alone.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from math import gcd

from .algebra import Structure
from .operator import Operator, Term, dense, unit
from .slot import Slot, slot, var
from .view import DELTA, Again, Factor, Match, View, leaf


@dataclass(frozen=True)
class Identity(Structure):
    """The identity on digits of these extents."""

    extents: tuple[int, ...]

    def operator(self) -> Operator:
        """Deltas, and no operand."""
        return unit(self.extents)

    @staticmethod
    def recognise(view: View, again: Again) -> Match | None:
        """Terms without operands: identity, stride permutation, trace, sum, an affine permutation, a selection."""
        if any(a.name != DELTA for a in view.atoms):
            return None
        if view.atoms:
            return _deltas(view)
        if not view.rows and not view.cols:
            if view.out == view.x:
                return Match("identity", {}, Identity(tuple(view.extents[i] for i in view.digits(view.x))))
            return Match("permutation", {"stride": True})
        if not view.rows and view.cols and not view.batch:
            return Match("trace" if len(view.x) > len(set(view.x)) else "reduction")
        return None


def _deltas(view: View) -> Match:
    pairs = [a.slots for a in view.atoms]
    inside = set(view.out) | set(view.x)
    if len(pairs) == 1 and all(set(q.indices) <= inside for q in pairs[0]):
        a, b = pairs[0]
        rows, cols = view.dims

        def covers(q: Slot, indices: tuple[str, ...]) -> bool:
            return q.digits(view.extents, view.size(indices)) is not None and set(q.indices) == set(indices)

        ends = (covers(a, view.rows) and covers(b, view.cols)) or (covers(b, view.rows) and covers(a, view.cols))
        if ends and rows == cols:
            return Match("identity", {"view": True})
        for q, bare in ((a, b), (b, a)):
            if bare.bare is None or len(q.terms) != 1 or rows != cols:
                continue
            step = q.terms[0][1]
            if q.modulus == rows and gcd(step, rows) == 1:
                return Match("permutation", {"step": step, "offset": q.offset})
            if not q.modulus and abs(step) == 1 and q.bounds(view.extents) == (0, rows - 1):
                return Match("permutation", {"step": step, "offset": q.offset})
        shift = shift_of(view, view.atoms[0])
        if shift is not None:
            return Match("selection", {"shift": shift, "band": (-shift, shift)})
    return Match("selection")


def shift_of(view: View, delta: Factor) -> int | None:
    """c where a delta says column = row + c, for one row and one column."""
    if len(view.rows) != 1 or len(view.cols) != 1:
        return None
    for a, b in itertools.permutations(delta.slots):
        if a.bare == view.cols[0] and not b.modulus and b.terms == ((view.rows[0], 1),):
            return b.offset
        if a.bare == view.rows[0] and not b.modulus and b.terms == ((view.cols[0], 1),):
            return -b.offset
    return None


@dataclass(frozen=True)
class AffinePermutation(Structure):
    """y[i] = x[(step*i + offset) mod size], a permutation where step and size have no common factor."""

    size: int
    step: int = 1
    offset: int = 0

    def operator(self) -> Operator:
        """One delta."""
        read = slot([("i", self.step)], self.offset, self.size)
        return Operator(("i",), ("j",), (Term(1, (), ((var("j"), read),)),), {"i": self.size, "j": self.size}, {})

    @staticmethod
    def recognise(view: View, again: Again) -> Match | None:
        """Found with the identity."""
        return None


@dataclass(frozen=True)
class Permutation(Structure):
    """A permutation matrix given as an operand."""

    size: int
    name: str = "P"

    def operator(self) -> Operator:
        """The operand, with the fact."""
        return dense(self.name, (self.size,), (self.size,), ("permutation",))

    @staticmethod
    def recognise(view: View, again: Again) -> Match | None:
        """One operand that is declared a permutation, or that looks up one place for each of a list."""
        if len(view.atoms) != 1 or len(view.rows) != 1 or len(view.cols) != 1:
            return None
        if "permutation" in view.known(0):
            return Match("permutation", {"declared": True}, leaf(view))
        return Match("selection", {"lookup": True}, leaf(view)) if "selection" in view.known(0) else None
