"""A structure seen through other digits: rows and columns merged or split row-major, as a reshape of x and of y.

A declared matrix has one row and one column, while the structure in it has digits (blocks, bits). `Reshaped` carries
one to the other: its operator ties the digits by deltas, its methods reshape x, run the inner method, and reshape y.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from .algebra import Structure
from .build import Builder, Method, Run, Value
from .operator import Atom, Operator, Term
from .slot import Slot, composite, var


@dataclass(frozen=True)
class Reshaped(Structure):
    """`of` with rows of the extents `rows` and columns of `cols`, row-major on both sides.

    >>> from .algebra import matrix
    >>> Reshaped(matrix("A", (2, 3), 4), (6,), (2, 2)).operator().shape
    ((6,), (2, 2))
    """

    of: Structure
    rows: tuple[int, ...]
    cols: tuple[int, ...]

    def operator(self) -> Operator:
        """The operator between the new digits: where digits do not simply agree, a delta ties them."""
        inner = self.of.operator().renewed()
        extents = dict(inner.extents)
        ends, deltas = [], list[tuple[Slot, Slot]]()
        for letter, old, new in (("r", inner.rows, self.rows), ("c", inner.cols, self.cols)):
            names = [f"{letter}{k}" for k in range(len(new))]
            extents.update(zip(names, new, strict=True))
            for mine, theirs in groups(new, [inner.extents[i] for i in old]):
                pair = [names[k] for k in mine], [old[k] for k in theirs]
                if len(mine) == 1 == len(theirs):
                    names[mine[0]] = old[theirs[0]]
                else:
                    deltas.append((composite(pair[0], extents), composite(pair[1], extents)))
            ends.append(tuple(names))
        terms = tuple(t._replace(deltas=(*t.deltas, *deltas)) for t in inner.terms)
        used = set[str]().union(*ends, *(t.indices for t in terms))
        return Operator(ends[0], ends[1], terms, {i: extents[i] for i in used}, inner.operands, inner.lets)

    def extra(self) -> tuple[Method, ...]:
        """Every method of the structure, its contraction included, between reshapes."""
        inner = self.of.operator()
        return tuple(Method(f"reshaped {m.name}", self._around(m.run, inner), m.needs) for m in self.of.methods())

    def _around(self, run: Run, inner: Operator) -> Run:
        rows, cols = inner.shape

        def around(b: Builder, x: Value) -> Value:
            y = run(b, reshape(b, x, self.cols, cols))
            return reshape(b, y, rows, self.rows)

        return around


def reshape(b: Builder, value: Value, old: Sequence[int], new: Sequence[int]) -> Value:
    """The tensor with its last axes, of extents `old`, as axes of extents `new`: nothing to do where they agree."""
    if tuple(old) == tuple(new):
        return value
    pairs = groups(new, old)
    middle = [prod(old[k] for k in theirs) for _, theirs in pairs]
    if any(len(mine) != 1 != len(theirs) for mine, theirs in pairs):
        return _regrouped(b, _regrouped(b, value, old, middle), middle, new)
    return _regrouped(b, value, old, new)


def _regrouped(b: Builder, value: Value, old: Sequence[int], new: Sequence[int]) -> Value:
    """One copy; in each group of axes, the old or the new side is one axis."""
    batch = b.indices(value.shape[: len(value.shape) - len(old)])
    reads, slots = [*map(var, batch)], [*map(var, batch)]
    for mine, theirs in groups(new, old):
        fine = b.indices([new[k] for k in mine] if len(theirs) == 1 else [old[k] for k in theirs])
        whole = composite(fine, b.extents)
        slots += [*map(var, fine)] if len(theirs) == 1 else [whole]
        reads += [whole] if len(theirs) == 1 else [*map(var, fine)]
    shape = [b.extents[i] for i in batch] + list(new)
    return b.let(shape, slots, [Term(1, (Atom(value.name, tuple(reads)),))], value.complex)


def groups(new: Sequence[int], old: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Axes of `new` and axes of `old` that stand for each other: the shortest runs of equal products.

    >>> groups((2, 6, 5), (2, 2, 3, 5))
    [([0], [0]), ([1], [1, 2]), ([2], [3])]
    """
    assert prod(new) == prod(old) > 0, f"{new} is no reshape of {old}"
    found: list[tuple[list[int], list[int]]] = []
    k = m = 0
    while k < len(new) and m < len(old):
        mine, theirs = [k], [m]
        left, right = new[k], old[m]
        while left != right:
            if left < right:
                mine.append(mine[-1] + 1)
                left *= new[mine[-1]]
            else:
                theirs.append(theirs[-1] + 1)
                right *= old[theirs[-1]]
        found.append((mine, theirs))
        k, m = mine[-1] + 1, theirs[-1] + 1
    if found:  # what is left has extent 1
        found[-1][0].extend(range(k, len(new)))
        found[-1][1].extend(range(m, len(old)))
        return found
    return [(list(range(len(new))), list(range(len(old))))] if new or old else []
