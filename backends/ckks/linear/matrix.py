"""The clear matrix of a `Linear` step: which (row, element) pairs it has, and their coefficients, on demand.

Rows are flat numbers of the result, elements flat numbers of the argument. Terms whose indices follow from a row and an
element (nearly all) are looked up by arithmetic, so that a dense matrix of any size needs no table; the others by a
sorted list of their entries. Covers decide layouts on the pattern, plain vectors read the values when they are known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from ..core.distinct import distinct
from ..lowering.problem import Linear, Slot, Term, entries

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class _Solve:
    """How positions on one axis give indices: by digits, high to low, after known indices are taken off."""

    axis: int
    digits: tuple[tuple[str, int, int], ...]  # (index, coefficient > 0 or < 0, extent)


@dataclass(frozen=True, eq=False)
class Reader:
    """One term of the matrix: which pairs it has, and where their coefficients are."""

    term: Term
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    at: tuple[int, ...]

    @cached_property
    def plan(self) -> tuple[_Solve, ...] | None:
        """How a pair gives the indices; None where it does not determine them."""
        slots = (*self.term.rows, *self.term.columns)
        extents = dict(self.term.indices)
        known = {i for i, n in extents.items() if n == 1}
        steps: list[_Solve] = []
        left = set(range(len(slots)))
        while len(known) < len(extents):
            for axis in sorted(left):
                digits = _digits(slots[axis], extents, known)
                if digits is not None:
                    break
            else:
                return None
            left.discard(axis)
            steps.append(_Solve(axis, digits))
            known.update(name for name, _, _ in digits)
        return tuple(steps)

    @cached_property
    def points(self) -> int:
        """Values of the indices, inside or not."""
        return prod(n for _, n in self.term.indices)

    @cached_property
    def full(self) -> bool:
        """Whether every pair occurs, known without a table."""
        if self.plan is None or self.points != prod(self.rows) * prod(self.columns):
            return False
        extents = dict(self.term.indices)
        places = ((self.term.rows, self.rows), (self.term.columns, self.columns), (self.term.at, self.at))
        return all(_inside(s, n, extents) for slots, shape in places for s, n in zip(slots, shape, strict=True))

    @cached_property
    def table(self) -> tuple[Array, Array]:
        """(key, place of the coefficient) of every entry, sorted by key = row * elements + element."""
        row, element, at = entries(self.term, self.rows, self.columns, self.at)
        key = row * prod(self.columns) + element
        order = np.argsort(key, kind="stable")
        return key[order], at[order]

    def read(self, rows: Array, elements: Array, tensors: Mapping[str, Array]) -> Array:
        """The term's coefficients at pairs; 0 where it has none."""
        name = self.term.coefficients
        values = np.ones(1) if name is None else np.asarray(tensors[name]).ravel()
        if self.plan is not None:
            inside, at = self.places(rows, elements)
            return np.where(inside, values[np.where(inside, at, 0)] * self.term.factor, 0.0)
        keys, places = self.table
        wanted = rows.astype(np.int64) * prod(self.columns) + elements
        first, last = np.searchsorted(keys, wanted, "left"), np.searchsorted(keys, wanted, "right")
        count = last - first
        ends = np.cumsum(count)
        inner = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - count, count)
        found = values[places[np.repeat(first, count) + inner]] * self.term.factor
        owner = np.repeat(np.arange(len(wanted)), count)
        result = np.zeros(len(wanted), dtype=found.dtype)
        np.add.at(result, owner, found)
        return result

    def places(self, rows: Array, elements: Array) -> tuple[Array, Array]:
        """(whether the term has the pair, where its coefficient is), by arithmetic."""
        assert self.plan is not None
        term = self.term
        slots = (*term.rows, *term.columns)
        position = [*_unravel(rows, self.rows), *_unravel(elements, self.columns)]
        value: dict[str, Array] = {i: np.zeros(len(rows), dtype=np.int64) for i, n in term.indices if n == 1}
        inside = np.ones(len(rows), dtype=bool)
        for step in self.plan:
            slot = slots[step.axis]
            rest = position[step.axis] - slot.offset
            for index, c in slot.terms:
                if index in value:
                    rest = rest - c * value[index]
            rest = rest - sum(c * (n - 1) for _, c, n in step.digits if c < 0)  # negative digits count from their end
            if slot.modulus:
                rest = rest % slot.modulus
            for index, c, n in step.digits:
                digit = rest // abs(c)
                rest = rest - digit * abs(c)
                inside &= (digit >= 0) & (digit < n)
                value[index] = digit if c > 0 else n - 1 - digit
            inside &= rest == 0
        for slot, where in zip(slots, position, strict=True):
            inside &= _position(slot, value, len(rows)) == where
        at = np.zeros(len(rows), dtype=np.int64)
        for slot, n in zip(term.at, self.at, strict=True):
            where = _position(slot, value, len(rows))
            inside &= (where >= 0) & (where < n)
            at = at * n + where
        return inside, at


class Matrix:
    """The matrix of a step: rows of the result by elements of the argument."""

    def __init__(self, step: Linear, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.step = step
        self.result, self.argument = shapes[step.name], shapes[step.argument]
        self.rows, self.columns = prod(self.result), prod(self.argument)
        self.readers = tuple(
            Reader(t, self.result, self.argument, shapes[t.coefficients] if t.coefficients else ()) for t in step.terms
        )

    @cached_property
    def full(self) -> bool:
        """Whether the pattern is all pairs."""
        return any(r.full for r in self.readers)

    @cached_property
    def keys(self) -> Array:
        """The pattern: row * elements + element of each pair, each once, ascending (not for a full matrix)."""
        assert not self.full, "a table of a dense matrix"
        return distinct(np.concatenate([r.table[0] for r in self.readers] or [np.zeros(0, dtype=np.int64)]))

    @cached_property
    def count(self) -> int:
        """How many pairs the pattern has."""
        return self.rows * self.columns if self.full else len(self.keys)

    @cached_property
    def table(self) -> Array:
        """The pattern as one flag for each (row, element), flat."""
        if self.full:
            return np.ones(self.rows * self.columns, dtype=bool)
        flags = np.zeros(self.rows * self.columns, dtype=bool)
        flags[self.keys] = True
        return flags

    @cached_property
    def scratch(self) -> Array:
        """Room for one slot number for each (row, element)."""
        return np.empty(self.rows * self.columns, dtype=np.int32)

    @cached_property
    def row_counts(self) -> Array:
        """Pairs of each row."""
        if self.full:
            return np.full(self.rows, self.columns)
        return np.bincount(self.keys // self.columns, minlength=self.rows)

    @cached_property
    def column_counts(self) -> Array:
        """Pairs of each element."""
        if self.full:
            return np.full(self.columns, self.rows)
        return np.bincount(self.keys % self.columns, minlength=self.columns)

    @cached_property
    def ones(self) -> bool:
        """Whether every pair has the coefficient 1, known without values: sums, copies and permutations."""
        plain = all(t.coefficients is None and t.factor == 1.0 for t in self.step.terms)
        return plain and sum(r.points if r.full else len(r.table[0]) for r in self.readers) == self.count

    def pair(self, numbers: Array) -> tuple[Array, Array]:
        """(row, element) of the pairs with these numbers in the pattern."""
        keys = numbers if self.full else self.keys[numbers]
        return keys // self.columns, keys % self.columns

    def holds(self, rows: Array, elements: Array) -> Array:
        """Whether the pattern has the pairs."""
        if self.full:
            return np.ones(len(rows), dtype=bool)
        if all(r.plan is not None for r in self.readers):
            found = np.zeros(len(rows), dtype=bool)
            for reader in self.readers:
                found |= reader.places(rows, elements)[0]
            return found
        wanted = rows.astype(np.int64) * self.columns + elements
        spot = np.minimum(np.searchsorted(self.keys, wanted), max(len(self.keys) - 1, 0))
        held: Array = self.keys[spot] == wanted
        return held

    def values(self, rows: Array, elements: Array, tensors: Mapping[str, Array]) -> Array:
        """The coefficients of pairs, terms added up."""
        total: Array = sum(
            (r.read(rows, elements, tensors) for r in self.readers), start=np.zeros(len(rows))
        )  # complex tensors make it complex
        return total

    @property
    def reads(self) -> tuple[str, ...]:
        """The clear tensors that the coefficients come from."""
        return tuple(dict.fromkeys(t.coefficients for t in self.step.terms if t.coefficients))


def _digits(slot: Slot, extents: Mapping[str, int], known: set[str]) -> tuple[tuple[str, int, int], ...] | None:
    """The unknown indices of a slot as digits, high to low, if its position tells them apart."""
    unknown = sorted(((i, c, extents[i]) for i, c in slot.terms if i not in known), key=lambda d: -abs(d[1]))
    if not unknown:
        return None
    room = 1
    for _, c, n in reversed(unknown):
        if abs(c) < room:
            return None
        room = abs(c) * (n - 1) + room
    return None if slot.modulus and room > slot.modulus else tuple(unknown)


def _inside(slot: Slot, extent: int, extents: Mapping[str, int]) -> bool:
    """Whether no value of the indices leaves the axis."""
    if slot.modulus:
        return slot.modulus <= extent
    ends = [(c * (extents[i] - 1)) for i, c in slot.terms]
    low, high = slot.offset + sum(min(e, 0) for e in ends), slot.offset + sum(max(e, 0) for e in ends)
    return low >= 0 and high < extent


def _position(slot: Slot, value: Mapping[str, Array], count: int) -> Array:
    """Where a slot points for values of the indices."""
    at = np.full(count, slot.offset, dtype=np.int64)
    for index, c in slot.terms:
        at = at + c * value[index]
    return at % slot.modulus if slot.modulus else at


def _unravel(flat: Array, shape: Sequence[int]) -> list[Array]:
    """Positions on each axis."""
    rest, found = flat.astype(np.int64), []
    for n in reversed(shape):
        found.append(rest % n)
        rest = rest // n
    return found[::-1]
