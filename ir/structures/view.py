"""A view: one term of a network as seen from its argument, which is all that a recognition rule may look at.

A rule is a small pure function of a `View` and gives a `Match` or None. Indices are digits: `out` and `x` list those of
the result and of the argument, in order, major first; every other index is summed. Guards and deltas that could not be
removed are atoms too (`STEP`, a 0/1 vector read at an affine slot, and `DELTA`, a selection).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Any, NamedTuple, TypeAlias

from ..semiring import Scalar
from .algebra import Defined, Leaf, Structure
from .operator import Atom, Let, Operand, Operator, Term
from .slot import Slot, var
from .words import options

DELTA, STEP = "delta", "step"
SELECTIONS = frozenset({"permutation", "selection"})  # 0/1 matrices that rules for dense operands leave alone

Port: TypeAlias = "tuple[tuple[tuple[int, int], ...], Slot]"
"""(((axis, weight), ...), slot): where a slot goes in its operand. A digit adds weight x digit to the axis, with a pair
for each of the fine digits that it was merged from; weight 0 means that the slot is all that the axis is read at."""


class Factor(NamedTuple):
    """An atom of a view: an operand and the ports that it is read at."""

    name: str
    ports: tuple[Port, ...]

    @property
    def slots(self) -> tuple[Slot, ...]:
        """What the ports read."""
        return tuple([q for _, q in self.ports])

    @property
    def touch(self) -> frozenset[str]:
        """The indices that the atom has."""
        return frozenset([i for _, q in self.ports for i, _ in q.terms])


@dataclass(frozen=True)
class View:
    """One term: coefficient x atoms, from the digits `x` of the argument to the digits `out` of the result.

    `fine` tells the digits that a digit was merged from. `shapes` and `facts` speak of operands; `lets` define operands
    that simplification made (a product of two vectors); `notes` are facts found on the way.
    """

    coefficient: Scalar
    out: tuple[str, ...]
    x: tuple[str, ...]
    atoms: tuple[Factor, ...]
    extents: Mapping[str, int]
    shapes: Mapping[str, tuple[int, ...]]
    facts: Mapping[str, frozenset[str]]
    fine: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    lets: tuple[Let, ...] = ()
    notes: tuple[tuple[Any, ...], ...] = field(default=(), compare=False)

    @cached_property
    def touches(self) -> tuple[frozenset[str], ...]:
        """The indices of each atom."""
        return tuple([a.touch for a in self.atoms])

    @cached_property
    def indices(self) -> frozenset[str]:
        """Every index."""
        return frozenset(self.x).union(self.out, *self.touches)

    @cached_property
    def rows(self) -> tuple[str, ...]:
        """Digits of the result that the argument lacks."""
        return tuple([i for i in self.out if i not in self.x])

    @cached_property
    def cols(self) -> tuple[str, ...]:
        """Digits of the argument that the result lacks."""
        return tuple([i for i in self.x if i not in self.out])

    @cached_property
    def batch(self) -> tuple[str, ...]:
        """Digits that both have."""
        return tuple([i for i in self.x if i in self.out])

    @cached_property
    def bound(self) -> tuple[str, ...]:
        """Indices of atoms only."""
        return tuple(sorted(self.indices.difference(self.x, self.out)))

    def digits(self, indices: Iterable[str]) -> tuple[str, ...]:
        """The fine digits of some digits, in order."""
        return tuple([d for i in indices for d in self.fine.get(i, (i,))])

    @cached_property
    def places(self) -> dict[str, tuple[int, ...]]:
        """The atoms that have each index."""
        found: dict[str, tuple[int, ...]] = {}
        for k, touch in enumerate(self.touches):
            for i in touch:
                found[i] = (*found.get(i, ()), k)
        return found

    def at(self, index: str) -> tuple[int, ...]:
        """The atoms that have an index."""
        return self.places.get(index, ())

    def signature(self, index: str) -> tuple[bool, bool, tuple[int, ...]]:
        """Whether the argument has the index, whether the result has it, and which atoms do."""
        return index in self.x, index in self.out, self.at(index)

    def size(self, indices: Iterable[str]) -> int:
        """The product of some extents."""
        return prod(self.extents[i] for i in indices)

    @property
    def dims(self) -> tuple[int, int]:
        """The numbers of rows and columns, batch digits set aside."""
        return self.size(self.rows), self.size(self.cols)

    def known(self, atom: Factor | int) -> frozenset[str]:
        """The facts on an atom's operand."""
        name = self.atoms[atom].name if isinstance(atom, int) else atom.name
        return self.facts.get(name, frozenset())

    def figure(self, atom: Factor | int, fact: str, option: str) -> int | None:
        """The figure that a declaration of an atom's operand gives: `lo` of `banded(lo=1)`; None if it gives none."""
        return options(self.known(atom), fact).get(option)

    @property
    def affine(self) -> tuple[tuple[int, Slot], ...]:
        """(atom, slot) of every slot that is more than one index."""
        return tuple([(k, q) for k, a in enumerate(self.atoms) for _, q in a.ports if q.bare is None and q.terms])

    @property
    def opaque(self) -> bool:
        """Whether a delta or a guard is left: most rules refuse then."""
        return any(a.name in (DELTA, STEP) for a in self.atoms)

    @property
    def exact(self) -> bool:
        """Whether every atom is a plain dense operand read at bare digits."""
        return not self.affine and not any(self.known(a) & SELECTIONS for a in self.atoms) and not self.opaque

    def only(self, keep: Sequence[int], drop: Iterable[str] = ()) -> View:
        """The view of some atoms, for one value of the indices `drop`."""
        drop = frozenset(drop)
        touched = frozenset[str]().union(*(self.touches[k] for k in keep)) - drop
        atoms = tuple(
            Factor(a.name, tuple(p for p in a.ports if p[1].bare not in drop)) for a in (self.atoms[k] for k in keep)
        )
        out, x = (tuple(i for i in side if i in touched) for side in (self.out, self.x))
        return replace(self, coefficient=1, out=out, x=x, atoms=atoms, notes=())

    def components(self, cut: Iterable[str] = ()) -> tuple[Component, ...]:
        """Groups of atoms joined by shared indices, those of `cut` ignored."""
        cut = frozenset(cut)
        touch = [t - cut for t in self.touches]
        left, found = list(range(len(touch))), []
        while left:
            group = [left.pop(0)]
            joined = set(touch[group[0]])
            grown = True
            while grown:
                new = [k for k in left if touch[k] & joined]
                grown = bool(new)
                for k in new:
                    left.remove(k)
                    group.append(k)
                    joined |= touch[k]
            rows = tuple([i for i in self.rows if i in joined])
            cols = tuple([i for i in self.cols if i in joined])
            found.append(Component(tuple(sorted(group)), rows, cols, frozenset(joined)))
        return tuple(found)

    def cuts(self) -> Iterator[tuple[int, tuple[str, ...]]]:
        """Sets of summed indices with the product of their extents, smallest product first.

        The more indices there are, the smaller the sets (four indices of six, one of twenty): some 200 sets at most.
        """
        bound = self.bound
        most = next((k for k in (4, 3, 2) if len(bound) <= {4: 6, 3: 9, 2: 18}[k]), 1)
        sets = itertools.chain(*(itertools.combinations(bound, n) for n in range(1, min(most, len(bound)) + 1)))
        yield from sorted((self.size(c), c) for c in sets)


class Component(NamedTuple):
    """A group of atoms with the row and column digits and all indices that it has."""

    atoms: tuple[int, ...]
    rows: tuple[str, ...]
    cols: tuple[str, ...]
    touch: frozenset[str]

    @property
    def side(self) -> str:
        """ "R", "C", "RC" or "": which of rows and columns the group has."""
        return ("R" if self.rows else "") + ("C" if self.cols else "")


@dataclass(frozen=True)
class Match:
    """What a rule proved: a kind in snake case, its figures, and the term if it is more than the network.

    `parts` are the matches of factors or of the terms of a sum, `groups` the row and column digits of the factors.
    """

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    term: Structure | None = None
    parts: tuple[Match | None, ...] = ()
    groups: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = ()


@dataclass(frozen=True)
class Near:
    """What a rule nearly found, and the reason against it: worth saying, not worth using."""

    kind: str
    reason: str


Again: TypeAlias = "Callable[[View], Match | None]"
Rule: TypeAlias = "Callable[[View, Again], Match | Near | None]"


def operator_of(view: View) -> Operator:
    """The view as an operator: rows `out`, columns `x`; a digit that both have is on either side, tied by a delta."""
    extents = dict(view.extents)
    rows, cols = list(view.digits(view.out)), list[str]()
    deltas: list[tuple[Slot, Slot]] = []
    for i in view.digits(view.x):
        if i in rows or i in cols:
            twin = f"{i}'{len(cols)}"
            extents[twin] = extents[i]
            deltas.append((var(i), var(twin)))
            cols.append(twin)
        else:
            cols.append(i)
    atoms, more, guards = _atoms(view, range(len(view.atoms)))
    term = Term(view.coefficient, atoms, (*deltas, *more), guards)
    used = term.indices.union(rows, cols)
    used_extents = {i: extents[i] for i in used}
    return Operator(tuple(rows), tuple(cols), (term,), used_extents, operands_of(view))


def _atoms(view: View, keep: Iterable[int]) -> tuple[tuple[Atom, ...], tuple[tuple[Slot, Slot], ...], tuple[Slot, ...]]:
    """Some atoms of a view as the atoms, deltas and guards of a term."""
    atoms, deltas, guards = list[Atom](), list[tuple[Slot, Slot]](), list[Slot]()
    for a in (view.atoms[k] for k in keep):
        if a.name == DELTA:
            deltas.append((a.ports[0][1], a.ports[1][1]))
        elif a.name == STEP:
            guards.append(a.ports[0][1])
        else:
            atoms.append(Atom(a.name, axes_of(view, a)))
    return tuple(atoms), tuple(deltas), tuple(guards)


def axes_of(view: View, atom: Factor) -> tuple[Slot, ...]:
    """What each axis of an operand is read at, in fine digits."""
    slots = [Slot()] * len(view.shapes[atom.name])
    for keys, q in atom.ports:
        if keys[0][1] == 0:
            slots[keys[0][0]] = q
            continue
        bare = q.bare
        assert bare is not None, "a port with a weight holds one digit"
        for (axis, weight), digit in zip(keys, view.fine.get(bare, (bare,)), strict=True):
            slots[axis] = slots[axis].plus(var(digit), weight)
    return tuple(slots)


def operands_of(view: View) -> dict[str, Operand]:
    """The operands of the view's atoms, as they stand there."""
    names = [a.name for a in view.atoms if a.name not in (DELTA, STEP)]
    return {n: Operand(view.shapes[n], facts=view.facts.get(n, frozenset())) for n in names}


def defined(structure: Structure, view: View) -> Structure:
    """The structure with the definitions of the operands that the view's simplification made."""
    needed = {a.name for a in view.atoms}
    for let in reversed(view.lets):
        if let.name in needed:
            needed.update(n for t in let.terms for n, _ in t.atoms)
    lets = tuple(x for x in view.lets if x.name in needed)
    if not lets:
        return structure
    made = {x.name for x in lets}
    used = dict.fromkeys(n for x in lets for t in x.terms for n, _ in t.atoms if n not in made)
    operands = tuple((n, Operand(view.shapes[n], facts=view.facts.get(n, frozenset()))) for n in used)
    return Defined(structure, lets, operands)


def leaf(view: View) -> Structure:
    """The view as a structure of its own, without further methods."""
    return Leaf(operator_of(view))


def between(view: View, keep: Sequence[int], rows: Sequence[str], cols: Sequence[str]) -> Operator:
    """Some atoms of a view as an operator between chosen digits; what is neither row nor column is summed.

    A digit on both sides gets a twin on the left, tied by a delta; so does one that stands twice in the columns.
    """
    extents = dict(view.extents)
    fine_cols, fine_rows, deltas = list[str](), list[str](), list[tuple[Slot, Slot]]()
    for i in view.digits(cols):
        if i in fine_cols:
            twin = f"{i}'{len(fine_cols)}"
            extents[twin] = extents[i]
            deltas.append((var(i), var(twin)))
            fine_cols.append(twin)
        else:
            fine_cols.append(i)
    for i in view.digits(rows):
        if i in fine_cols:
            twin = f"{i}'"
            extents[twin] = extents[i]
            deltas.append((var(twin), var(i)))
            fine_rows.append(twin)
        else:
            fine_rows.append(i)
    atoms, more, guards = _atoms(view, keep)
    term = Term(1, atoms, (*deltas, *more), guards)
    used = term.indices.union(fine_rows, fine_cols)
    names = {a.name for a in atoms}
    operands = {n: o for n, o in operands_of(view).items() if n in names}
    return Operator(tuple(fine_rows), tuple(fine_cols), (term,), {i: extents[i] for i in used}, operands)
