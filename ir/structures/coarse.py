"""Digits that an affine read does not tell apart, put together again.

Another operand may split an index: in `toeplitz @ blockdiag` the column of t[i-j] is a block and a place in it,
t[i - b*g - a]. For the Toeplitz matrix alone these are one digit. This rule joins such neighbours, recognises what is
left, and sees the result through the split digits.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from .reshaped import Reshaped
from .slot import slot
from .view import Again, Factor, Match, View


class Coarse:
    """The rule for neighbouring digits that are one mixed-radix number wherever they stand, in some affine slot."""

    @staticmethod
    def recognise(view: View, again: Again) -> Match | None:
        """Whatever the view with the digits joined is."""
        if not view.affine or view.batch:
            return None
        coarse = view
        while (pair := _joint(coarse)) is not None:
            coarse = _joined(coarse, *pair)
        if coarse is view:
            return None
        match = again(coarse)
        if match is None or match.term is None:
            return None
        rows, cols = (tuple(view.extents[d] for d in view.digits(side)) for side in (view.out, view.x))
        return Match(match.kind, match.options, Reshaped(match.term, rows, cols), match.parts)


def _joint(view: View) -> tuple[str, str] | None:
    """Two neighbours of the result or of the argument that are one number wherever they stand."""
    for side in (view.out, view.x):
        for i, j in pairwise(side):
            if side.count(i) == side.count(j) == 1 and _is_one(view, i, j):
                return i, j
    return None


def _is_one(view: View, i: str, j: str) -> bool:
    low, affine = view.extents[j], False
    if i in view.fine or j in view.fine:
        return False
    for atom in view.atoms:
        ends = {q.bare: keys for keys, q in atom.ports if q.bare in (i, j)}
        if ends and (len(ends) < 2 or any(len(keys) > 1 for keys in ends.values())):
            return False
        if ends and ends[i][0] != (ends[j][0][0], ends[j][0][1] * low):
            return False
        if sum(q.bare in (i, j) for _, q in atom.ports) > 2:
            return False
        for _, q in atom.ports:
            if q.bare is None and (q.coefficient(i) or q.coefficient(j)):
                affine = True
                difference = q.coefficient(i) - low * q.coefficient(j)
                if difference % q.modulus if q.modulus else difference:
                    return False
    return affine


def _joined(view: View, i: str, j: str) -> View:
    """The view with i*|j| + j as one digit."""
    new = f"[{i}{j}]"
    low = view.extents[j]
    atoms = []
    for a in view.atoms:
        ports = []
        for keys, q in a.ports:
            if q.bare == i:
                continue
            if j in q.indices:
                rest = [(k, c) for k, c in q.terms if k not in (i, j)]
                q = slot([*rest, (new, q.coefficient(j))], q.offset, q.modulus)
            ports.append((keys, q))
        atoms.append(Factor(a.name, tuple(ports)))
    out, x = (tuple(new if k == i else k for k in side if k != j) for side in (view.out, view.x))
    extents = {**view.extents, new: view.extents[i] * low}
    return replace(view, out=out, x=x, atoms=tuple(atoms), extents=extents)
