"""Convolutions: an operand read at u = a*i + b*j + c for a row i and a column j, with any stride and dilation.

`t[2*i-j+4]` is a strided convolution, `w[d] x[i+2*d]` a dilated one, one level for each dimension; digits that are in
no such slot are channels. The other method sums over the taps u and reads x at
j = b*(u - a*i - c), the form in which convolutions are written: rows x taps products instead of rows x columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .algebra import Structure
from .build import Builder, Method, Value
from .operator import Atom, Operand, Operator, Term
from .slot import Slot, slot, var
from .view import DELTA, Again, Factor, Match, View, leaf, operator_of


@dataclass(frozen=True)
class Convolution(Structure):
    """One operand at affine slots, as an operator of one term. `of_strides` makes a plain one.

    >>> Convolution.of_strides(9, 3, 2).operator().size
    (4, 9)
    """

    of: Operator

    @staticmethod
    def of_strides(
        size: int,
        taps: int,
        stride: int = 1,
        channels: tuple[int, ...] = (),
        name: str = "w",
    ) -> Convolution:
        """y[o,i] = w[o,c,u] x[c, stride*i + u] wherever the taps lie inside; without `channels` no o, c."""
        rows = (size - taps) // stride + 1
        o, c = (("o",), ("c",)) if channels else ((), ())
        read = Atom(name, (*map(var, o + c), slot([("j", 1), ("i", -stride)])))
        extents = dict(zip(o + c, channels, strict=True)) | {"i": rows, "j": size}
        operand = Operand((*channels, taps))
        return Convolution(Operator((*o, "i"), (*c, "j"), (Term(1, (read,)),), extents, {name: operand}))

    def operator(self) -> Operator:
        """As it was given."""
        return self.of

    def extra(self) -> tuple[Method, ...]:
        """The sum over taps."""
        return (Method("taps", self._taps),) if _taps(self.of) else ()

    def _taps(self, b: Builder, x: Value) -> Value:
        op = b.adopt(self.of)
        (term,) = op.terms
        (atom,) = term.atoms
        batch = b.indices(x.shape[: len(x.shape) - len(op.cols)])
        read: dict[str, Slot] = {}
        slots = list(atom.slots)
        for axis, j in _taps(op):
            q = slots[axis]
            sign = q.coefficient(j)
            (u,) = b.indices((op.operands[atom.name].shape[axis],))
            others = slot([(i, k) for i, k in q.terms if i != j], q.offset)
            read[j] = var(u).plus(others, -1).times(sign)
            slots[axis] = var(u)
        given = Atom(x.name, (*map(var, batch), *(read.get(j, var(j)) for j in op.cols)))
        product = term._replace(atoms=(Atom(atom.name, tuple(slots)), given))
        shape = (*(b.extents[i] for i in batch), *op.shape[0])
        return b.let(shape, map(var, (*batch, *op.rows)), [product], x.complex)

    @staticmethod
    def recognise(view: View, again: Again) -> Match | None:
        """One operand, each of whose affine slots has one row and one column that no other slot has, one of them with
        coefficient +-1; or a delta that says so of a summed tap.
        """
        atoms = [a for a in view.atoms if a.name != DELTA]
        if len(atoms) != 1 or not view.rows or not view.cols or atoms[0].name == "step":
            return None
        found = _levels(view, atoms[0])
        if found is None:
            return None
        strided = any(abs(s) != 1 for s, _ in found)
        options = {
            "strides": tuple(s for s, _ in found),
            "dilations": tuple(t for _, t in found),
            "banded": True,
        }
        kind = "strided_convolution" if strided else "toeplitz" if len(found) == 1 and _plain(view) else "convolution"
        term = leaf(view) if view.opaque else Convolution(operator_of(view))
        return Match(kind, options, term)


def _plain(view: View) -> bool:
    """Whether there is one row and one column and nothing else."""
    return len(view.rows) == len(view.cols) == 1


def _taps(operator: Operator) -> list[tuple[int, str]]:
    """(axis, column) of the affine slots that can be solved for the column."""
    if len(operator.terms) != 1 or len(operator.terms[0].atoms) != 1 or operator.terms[0].deltas:
        return []
    ((_, slots),) = operator.terms[0].atoms
    found, used = [], set[str]()
    for axis, q in enumerate(slots):
        if q.bare is not None or not q.terms:
            continue
        cols = [i for i in q.indices if i in operator.cols and abs(q.coefficient(i)) == 1]
        if q.modulus or len(cols) != 1 or cols[0] in used:
            return []
        found.append((axis, cols[0]))
        used.add(cols[0])
    bare = {q.bare for q in slots}
    return found if not used & bare and not any(_elsewhere(slots, a, j) for a, j in found) else []


def _elsewhere(slots: tuple[Slot, ...], axis: int, index: str) -> bool:
    return any(index in q.indices for k, q in enumerate(slots) if k != axis)


def _levels(view: View, atom: Factor) -> list[tuple[int, int]] | None:
    """(stride, dilation) of each level: column = stride*row + dilation*tap + c, up to signs; None for other forms."""
    deltas = [a for a in view.atoms if a.name == DELTA]
    found, used = [], set[str]()
    bare = {q.bare for q in atom.slots if q.bare is not None}
    for delta in deltas:
        level = _tied(view, delta.slots, bare)
        if level is None or used & set(level[2]):
            return None
        used.update(level[2])
        found.append(level[:2])
    for q in atom.slots:
        if q.bare is not None or not q.terms:
            continue
        rows, cols = ([i for i in q.indices if i in side] for side in (view.rows, view.cols))
        if q.modulus or len(q.terms) != 2 or len(rows) != 1 or len(cols) != 1 or used & {*rows, *cols}:
            return None
        a, b = q.coefficient(rows[0]), q.coefficient(cols[0])
        if 1 not in (abs(a), abs(b)):
            return None
        used.update((rows[0], cols[0]))
        found.append((abs(a), 1) if abs(b) == 1 else (abs(b), 1))
    inside = {*view.rows, *view.cols} - used
    taps = {t for t in used if t in view.bound}
    fits = found and inside <= bare and taps <= bare and not (used - taps) & bare
    return sorted(found) if fits and not set(view.bound) - taps else None


def _tied(view: View, ends: Sequence[Slot], bare: set[str]) -> tuple[int, int, tuple[str, ...]] | None:
    """(stride, dilation, digits) of a delta that ties a column to a row and a tap (or a row to a column and one)."""
    for one, other in (ends, ends[::-1]):
        end = one.bare
        if end is None or other.modulus or len(other.terms) != 2:
            continue
        here, there = (view.cols, view.rows) if end in view.cols else (view.rows, view.cols)
        digits = [i for i in other.indices if i in there]
        taps = [i for i in other.indices if i in view.bound and i in bare]
        if end in here and len(digits) == 1 and len(taps) == 1:
            stride, dilation = abs(other.coefficient(digits[0])), abs(other.coefficient(taps[0]))
            if view.extents[taps[0]] * dilation <= stride or view.extents[digits[0]] * stride <= dilation:
                return None  # no place is reached twice: digits of one number, not a convolution
            return stride, dilation, (end, digits[0], taps[0])
    return None
