"""An operator is an open expression: what a structure means, before it is multiplied with anything.

`Operator(rows, cols, terms)` is a sum of products of atoms, each an operand read at affine slots; the indices that are
neither rows nor columns are summed. Closed over rows and columns it is the dense matrix, multiplied by x it is the
product: both are plain programs of the IR, so a structure needs no arithmetic of its own. Five operations act on it
by indices alone: `times`, `beside` (Kronecker), `plus`, `turned` (transpose) and `batched` (block diagonal).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from math import prod
from typing import NamedTuple

from ..expr import Expr, Program
from ..semiring import PLUS_TIMES, Scalar, Semiring
from ..types import F64, DType
from .slot import Slot, slot, var


class Atom(NamedTuple):
    """An operand read at slots; outside of its range it is the semiring's zero."""

    name: str
    slots: tuple[Slot, ...]


class Term(NamedTuple):
    """coefficient x the product of atoms, where every pair of `deltas` is equal and every guard is >= 0."""

    coefficient: Scalar = 1
    atoms: tuple[Atom, ...] = ()
    deltas: tuple[tuple[Slot, Slot], ...] = ()
    guards: tuple[Slot, ...] = ()

    def put(self, index: str, value: Slot) -> Term:
        """The term with `value` for an index."""
        return Term(
            self.coefficient,
            tuple([Atom(n, tuple([s.put(index, value) for s in slots])) for n, slots in self.atoms]),
            tuple([(a.put(index, value), b.put(index, value)) for a, b in self.deltas]),
            tuple([g.put(index, value) for g in self.guards]),
        )

    def renamed(self, names: Mapping[str, str]) -> Term:
        """The term with other names for its indices."""
        return Term(
            self.coefficient,
            tuple([Atom(n, tuple([s.renamed(names) for s in slots])) for n, slots in self.atoms]),
            tuple([(a.renamed(names), b.renamed(names)) for a, b in self.deltas]),
            tuple([g.renamed(names) for g in self.guards]),
        )

    def product(self, other: Term) -> Term:
        """Both terms multiplied; indices of one name are one index."""
        coefficient = self.coefficient * other.coefficient
        return Term(coefficient, self.atoms + other.atoms, self.deltas + other.deltas, self.guards + other.guards)

    @property
    def indices(self) -> set[str]:
        """Every index that occurs."""
        found = {i for _, slots in self.atoms for s in slots for i, _ in s.terms}
        found.update(i for pair in self.deltas for s in pair for i, _ in s.terms)
        found.update(i for s in self.guards for i, _ in s.terms)
        return found


@dataclass(frozen=True)
class Operand:
    """A factor of an operator: its shape, what is known of it, and a formula if it is a constant.

    A formula is an expression over the indices `0`, `1`, ..., one for each axis. `complex` says that it has no real
    type. `facts` are words of the language of declarations: `selection`, `permutation`, `unit`, `orthogonal`, ...
    """

    shape: tuple[int, ...]
    formula: Expr | None = None
    complex: bool = False
    facts: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Let:
    """name[slots] = a sum of terms, over all their indices; `shape` is that of the result.

    `complex` says that the value has no real type; a real value of complex terms is the real part of their sum.
    """

    name: str
    shape: tuple[int, ...]
    slots: tuple[Slot, ...]
    terms: tuple[Term, ...]
    extents: Mapping[str, int]
    complex: bool = False


def named_let(
    base: str, shape: tuple[int, ...], slots: tuple[Slot, ...], terms: tuple[Term, ...], extents: Mapping[str, int]
) -> Let:
    """A let whose name is `base` and a digest of what it says, so that lets of one name are one and the same."""
    order = dict.fromkeys(i for s in slots for i in s.indices)
    for t in terms:
        reads = [s for _, slots_ in t.atoms for s in slots_] + [s for d in t.deltas for s in d] + list(t.guards)
        order |= dict.fromkeys(i for s in reads for i in s.indices)
    names = {i: f"i{k}" for k, i in enumerate(order)}
    slots, terms = tuple(s.renamed(names) for s in slots), tuple(t.renamed(names) for t in terms)
    renamed = {names[i]: extents[i] for i in order}
    content = repr((shape, slots, terms, sorted(renamed.items())))
    return Let(f"{base}.{blake2b(content.encode(), digest_size=4).hexdigest()}", shape, slots, terms, renamed)


@dataclass(frozen=True)
class Operator:
    """Ordered row digits, ordered column digits, and a sum of products of atoms.

    `extents` gives each index its range, `operands` each factor its shape; `lets` define further factors from these
    (a product of two vectors that is formed once, say).

    >>> a = dense("A", (2,), (3,))
    >>> (a.times(a.turned())).shape
    ((2,), (2,))
    """

    rows: tuple[str, ...]
    cols: tuple[str, ...]
    terms: tuple[Term, ...]
    extents: Mapping[str, int]
    operands: Mapping[str, Operand]
    lets: tuple[Let, ...] = field(default=())

    @property
    def shape(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The extents of the row digits and of the column digits."""
        return tuple(self.extents[i] for i in self.rows), tuple(self.extents[i] for i in self.cols)

    @property
    def size(self) -> tuple[int, int]:
        """The numbers of rows and of columns."""
        return prod(self.shape[0]), prod(self.shape[1])

    def renewed(self, start: int = 0, keep: Mapping[str, str] | None = None) -> Operator:
        """The same operator with its indices named i`start`, i`start+1`, ..., those in `keep` as it says."""
        keep = keep or {}
        names: dict[str, str] = {}
        for i in self.indices:
            names[i] = keep.get(i) or f"i{start + len(names)}"
        return Operator(
            tuple(names[i] for i in self.rows),
            tuple(names[i] for i in self.cols),
            tuple(t.renamed(names) for t in self.terms),
            {new: self.extents[old] for old, new in names.items()},
            self.operands,
            self.lets,
        )

    @property
    def indices(self) -> tuple[str, ...]:
        """Every index, rows and columns first."""
        inner = sorted(set[str]().union(*(t.indices for t in self.terms)))
        return tuple(dict.fromkeys((*self.rows, *self.cols, *inner)))

    def _beside(self, other: Operator) -> tuple[Operator, Operator]:
        """Both with index names that differ."""
        left = self.renewed()
        return left, other.renewed(len(left.indices))

    def times(self, other: Operator) -> Operator:
        """The product: this operator after the other. The columns here must be the rows there, digit by digit."""
        assert self.shape[1] == other.shape[0], f"columns {self.shape[1]} do not fit rows {other.shape[0]}"
        left, right = self._beside(other)
        glue = tuple((var(c), var(r)) for c, r in zip(left.cols, right.rows, strict=True))
        kept = {*left.rows, *right.cols}
        terms = tuple(_glued(a.product(b), glue, kept) for a in left.terms for b in right.terms)
        return Operator(left.rows, right.cols, terms, *_joined(left, right))

    def beside(self, other: Operator) -> Operator:
        """The Kronecker product: the other's digits stand after this one's."""
        left, right = self._beside(other)
        terms = tuple(a.product(b) for a in left.terms for b in right.terms)
        return Operator(left.rows + right.rows, left.cols + right.cols, terms, *_joined(left, right))

    def plus(self, other: Operator, coefficient: Scalar = 1) -> Operator:
        """The sum with `coefficient` times the other, of the same shape."""
        assert self.shape == other.shape, f"{self.shape} does not fit {other.shape}"
        left, right = self._beside(other)
        ends = dict(zip(right.rows + right.cols, left.rows + left.cols, strict=True))
        right = right.renewed(len(left.indices), ends)
        scaled = tuple(t._replace(coefficient=t.coefficient * coefficient) for t in right.terms)
        return Operator(left.rows, left.cols, left.terms + scaled, *_joined(left, right))

    def turned(self) -> Operator:
        """The transpose."""
        return replace(self, rows=self.cols, cols=self.rows)

    def ordered(self, rows: Iterable[int], cols: Iterable[int]) -> Operator:
        """The operator with its digits in another order: a stride permutation on either side."""
        return replace(self, rows=tuple(self.rows[k] for k in rows), cols=tuple(self.cols[k] for k in cols))

    def batched(self, extent: int, shared: frozenset[str] = frozenset()) -> Operator:
        """Block diagonal: one operator for each value of a new leading digit.

        Every operand gets it but constants and those of `shared`.
        """
        new = self.renewed()
        row, col = (f"i{len(new.indices) + k}" for k in (0, 1))
        own = {n for n, o in new.operands.items() if o.formula is None and n not in shared}
        for let in new.lets:
            if any(n in own for t in let.terms for n, _ in t.atoms):
                own.add(let.name)

        renamed = {x.name: batch_name(x.name, extent) for x in new.lets if x.name in own}

        def widened(t: Term, index: str) -> Term:
            atoms = (Atom(renamed.get(n, n), (var(index), *s) if n in own else s) for n, s in t.atoms)
            return t._replace(atoms=tuple(atoms))

        def lifted(let: Let) -> Let:
            if let.name not in own:
                return let
            g = f"g{len(let.extents)}"  # another name than that of an earlier batch
            extents = {**let.extents, g: extent}
            terms = tuple(widened(t, g) for t in let.terms)
            shape, slots = (extent, *let.shape), (var(g), *let.slots)
            return replace(let, name=renamed[let.name], shape=shape, slots=slots, terms=terms, extents=extents)

        operands = {n: replace(o, shape=(extent, *o.shape)) if n in own else o for n, o in new.operands.items()}
        extents = {**new.extents, row: extent, col: extent}
        wide = (widened(t, col) for t in new.terms)
        terms = tuple(t._replace(deltas=((var(row), var(col)), *t.deltas)) for t in wide)
        return Operator((row, *new.rows), (col, *new.cols), terms, extents, operands, tuple(map(lifted, new.lets)))

    def dense(self, dtype: DType = F64, semiring: Semiring = PLUS_TIMES) -> Program:
        """The program of the matrix itself: an input for each operand, one output of shape rows + columns (`W`)."""
        from .build import close

        slots = tuple(map(var, self.rows + self.cols))
        name = "W"
        while name in self.operands or any(x.name == name for x in self.lets):
            name += "_"
        let = Let(name, self.shape[0] + self.shape[1], slots, self.terms, self.extents)
        return close(self.operands, (*self.lets, let), name, dtype, semiring)

    def apply(self, batch: tuple[int, ...] = (), dtype: DType = F64, semiring: Semiring = PLUS_TIMES) -> Program:
        """The program of the product with the input `x` of shape batch + columns; the output is `y`."""
        from .build import applied, contraction

        return applied(contraction(self), self, batch, dtype, semiring)


def batch_name(name: str, extent: int) -> str:
    """The name of a let that has got one more digit."""
    return f"{name}.by{extent}"


def _glued(term: Term, glue: Iterable[tuple[Slot, Slot]], kept: set[str]) -> Term:
    """The term with each pair of indices made one; where both are rows or columns, a delta says so."""
    for a, b in glue:
        if b.bare is not None and b.bare not in kept:
            term = term.put(b.bare, a)
        elif a.bare is not None and a.bare not in kept:
            term = term.put(a.bare, b)
        else:
            term = term._replace(deltas=(*term.deltas, (a, b)))
    return term


def _joined(left: Operator, right: Operator) -> tuple[dict[str, int], dict[str, Operand], tuple[Let, ...]]:
    operands = dict(left.operands)
    for name, operand in right.operands.items():
        mine = operands.get(name, operand)
        operands[name] = replace(mine, facts=mine.facts | operand.facts)  # what either side knows of it
        assert replace(operand, facts=operands[name].facts) == operands[name], f"'{name}' stands for two operands"
    lets = left.lets + tuple(x for x in right.lets if x not in left.lets)
    return {**left.extents, **right.extents}, operands, lets


def dense(name: str, rows: tuple[int, ...], cols: tuple[int, ...], facts: Iterable[str] = ()) -> Operator:
    """One operand name[rows, cols] and nothing more."""
    r, c = [f"i{k}" for k in range(len(rows))], [f"j{k}" for k in range(len(cols))]
    extents = dict(zip(r + c, rows + cols, strict=True))
    term = Term(1, (Atom(name, tuple(map(var, r + c))),))
    return Operator(tuple(r), tuple(c), (term,), extents, {name: Operand(rows + cols, facts=frozenset(facts))})


def unit(extents: tuple[int, ...]) -> Operator:
    """The identity on some digits: deltas, no operand."""
    r, c = [f"i{k}" for k in range(len(extents))], [f"j{k}" for k in range(len(extents))]
    term = Term(1, (), tuple((var(a), var(b)) for a, b in zip(r, c, strict=True)))
    return Operator(tuple(r), tuple(c), (term,), dict(zip(r + c, extents + extents, strict=True)), {})


def affine(
    name: str, length: int, rows: int, cols: int, step: int, turn: int, offset: int, modulus: int = 0
) -> Operator:
    """name[step*i + turn*j + offset], modulo `modulus` unless that is 0: Toeplitz where turn = -step, and so on."""
    read = Atom(name, (slot([("i", step), ("j", turn)], offset, modulus),))
    return Operator(("i",), ("j",), (Term(1, (read,)),), {"i": rows, "j": cols}, {name: Operand((length,))})
