"""Forms: what structure a square matrix has, and the solver that goes with it.

A `Form` can solve, give log |det|, an inverse and (some) a power; each writes equations on an `Emitter` and stores no
tensor of rows x columns, unless that is the result. Right sides have the row digits of the form first, then any axes;
solutions have its column digits there. `solve_read` finds the form of a matrix, `solve_spectral` has the forms of sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from ..ir.expr import Const
from ..ir.structures.algebra import matrix
from ..ir.structures.operator import Atom, Operand, Operator, Term, unit
from ..ir.structures.slot import composite, var
from .solve_emit import Emitter, Value

Power = Value | Const


class Form:
    """A square matrix of known structure. `rows` and `cols` are the extents of its digits."""

    @property
    def rows(self) -> tuple[int, ...]:
        """The extents of the row digits."""
        raise AssertionError(f"{type(self).__name__} has no rows")

    @property
    def cols(self) -> tuple[int, ...]:
        """The extents of the column digits."""
        raise AssertionError(f"{type(self).__name__} has no columns")

    @property
    def size(self) -> int:
        """Rows, and columns."""
        return prod(self.rows)

    def solve(self, e: Emitter, x: Value) -> Value:
        """The solution for right sides x."""
        raise AssertionError(f"{type(self).__name__} has no solve")

    def logdet(self, e: Emitter) -> Value:
        """log |det|, a scalar."""
        raise AssertionError(f"{type(self).__name__} has no logdet")

    def inverse(self, e: Emitter) -> Operator:
        """The inverse, over tensors that the emitter has written; by default its solution for the identity."""
        eye = e.matrix(unit((self.size,)), "identity")
        found = self.solve(e, e.reshaped(eye, (*self.rows, self.size)))
        return operator_of(e.reshaped(found, (self.size, self.size)), self.cols, self.rows)

    def has_power(self, power: Power) -> bool:
        """Whether this form gives the power without its dense matrix."""
        return False

    def power(self, e: Emitter, power: Power) -> Operator:
        """The power, over tensors that the emitter has written."""
        raise AssertionError(f"{type(self).__name__} has no power")

    def describe(self) -> str:
        """What the solver does, in a few words."""
        raise AssertionError(f"{type(self).__name__} has no description")


def operator_of(value: Value, rows: tuple[int, ...], cols: tuple[int, ...]) -> Operator:
    """A stored matrix as an operator between digits."""
    term = matrix(value.name, rows, cols).operator()
    if value.shape == rows + cols:
        return term
    r = composite(term.rows, term.extents)
    c = composite(term.cols, term.extents)
    atoms = (Atom(value.name, (r, c)),)
    return Operator(term.rows, term.cols, (Term(1, atoms),), term.extents, {value.name: Operand(value.shape)})


def is_whole(power: Power) -> bool:
    """Whether a power is known to be an integer."""
    return isinstance(power, Const) and float(power.value.real).is_integer()


@dataclass(frozen=True)
class Leaf(Form):
    """A form by its operator; one without rows gives values along the columns, which stand for the rows too."""

    of: Operator

    @property
    def rows(self) -> tuple[int, ...]:
        """The row digits."""
        return self.of.shape[0] if self.of.rows else self.of.shape[1]

    @property
    def cols(self) -> tuple[int, ...]:
        """The column digits."""
        return self.of.shape[1]


@dataclass(frozen=True)
class Dense(Leaf):
    """No structure but what `assume` says (lower, upper, symmetric): a leaf of LAPACK."""

    assume: tuple[str, ...] = ()

    def stored(self, e: Emitter) -> Value:
        """The matrix: the operand itself if it is stored so, else an equation."""
        if len(self.of.terms) == 1 and len(self.of.rows) == len(self.of.cols) == 1:
            term = self.of.terms[0]
            plain = len(term.atoms) == 1 and term.coefficient == 1 and not term.deltas and self._unguarded(term)
            if plain and term.atoms[0].slots == (var(self.of.rows[0]), var(self.of.cols[0])):
                return e.value(term.atoms[0].name)
        return e.matrix(self.of)

    def _unguarded(self, term: Term) -> bool:
        """Whether there is no guard, or one that a leaf for triangles does not need."""
        return not term.guards or bool({"lower", "upper"} & set(self.assume))

    def solve(self, e: Emitter, x: Value) -> Value:
        """One leaf, all right sides at once."""
        rest = x.shape[len(self.rows) :]
        flat = e.reshaped(x, (self.size, *((prod(rest),) if rest else ())))
        return e.reshaped(e.linalg("solve", self.stored(e), flat, assume=self.assume), (*self.cols, *rest))

    def logdet(self, e: Emitter) -> Value:
        """One leaf."""
        return e.linalg("logdet", self.stored(e), assume=self.assume)

    def inverse(self, e: Emitter) -> Operator:
        """One leaf."""
        return operator_of(e.linalg("inv", self.stored(e), assume=self.assume), self.cols, self.rows)

    def trace(self, e: Emitter) -> Value:
        """The sum of the diagonal."""
        return e.einsum("trace", (), (self.stored(e), ("i", "i")))

    def signed(self, e: Emitter, sign: Value) -> Dense:
        """The matrix times a scalar."""
        value = e.einsum("signed", ("i", "j"), (self.stored(e), ("i", "j")), (sign, ()))
        return Dense(operator_of(value, self.rows, self.cols), self.assume)

    def has_power(self, power: Power) -> bool:
        """Always: it is the dense leaf."""
        return True

    def power(self, e: Emitter, power: Power) -> Operator:
        """One leaf."""
        return operator_of(e.linalg("powm", self.stored(e), power, assume=self.assume), self.rows, self.cols)

    def describe(self) -> str:
        """What the solver does, in a few words."""
        known = f" ({', '.join(self.assume)})" if self.assume else ""
        return f"dense {self.size}x{self.size}{known}"


@dataclass(frozen=True)
class Diagonal(Leaf):
    """One value for each position; `of` gives it over the digits (as its columns, without rows)."""

    one: bool = False  # all values are 1

    def values(self, e: Emitter) -> Value:
        """The diagonal."""
        return e.terms("diagonal", tuple(map(var, self.of.cols)), self.cols, self.of.terms, self.of.extents)

    def trace(self, e: Emitter) -> Value:
        """The sum of the values."""
        return e.total("trace", self.values(e))

    def signed(self, e: Emitter, sign: Value) -> Diagonal:
        """The matrix times a scalar."""
        names = tuple(f"i{k}" for k in range(len(self.cols)))
        value = e.einsum("signed", names, (self.values(e), names), (sign, ()))
        term = Term(1, (Atom(value.name, tuple(map(var, names))),))
        extents = dict(zip(names, value.shape, strict=True))
        return Diagonal(Operator((), names, (term,), extents, {value.name: Operand(value.shape)}))

    def divisors(self, e: Emitter) -> Value:
        """The diagonal, of which no entry is 0."""
        return e.linalg("divisors", self.values(e))

    def solve(self, e: Emitter, x: Value) -> Value:
        """Elementwise division."""
        return x if self.one else e.map("quotient", "div", x, self.divisors(e))

    def logdet(self, e: Emitter) -> Value:
        """The sum of logarithms."""
        if self.one:
            return e.zero()
        return log_total(e, self.values(e))

    def inverse(self, e: Emitter) -> Operator:
        """The reciprocal diagonal."""
        if self.one:
            return unit(self.cols)
        values = self.divisors(e)
        return _scaling(e.map("inverse", "div", e.number(1), values))

    def has_power(self, power: Power) -> bool:
        """Always."""
        return True

    def power(self, e: Emitter, power: Power) -> Operator:
        """Elementwise."""
        return unit(self.cols) if self.one else _scaling(e.linalg("powers", self.values(e), power))

    def describe(self) -> str:
        """What the solver does, in a few words."""
        return "identity: nothing to do" if self.one else "diagonal: elementwise"


def _scaling(value: Value) -> Operator:
    found = unit(value.shape)
    atom = Atom(value.name, tuple(map(var, found.cols)))
    return Operator(
        found.rows,
        found.cols,
        (found.terms[0]._replace(atoms=(atom,)),),
        found.extents,
        {value.name: Operand(value.shape)},
    )


def log_total(e: Emitter, values: Value) -> Value:
    """The sum of log |value|."""
    return e.total("logdet", e.map("log", "log", e.map("size", "abs", values)))


@dataclass(frozen=True)
class Blocks(Leaf):
    """Block diagonal: a dense block for each value of the leading digits `batch`. `of` has them first in rows, cols."""

    batch: int = 1  # how many digits

    def _stored(self, e: Emitter) -> Value:
        """The blocks, (blocks, rows, columns)."""
        of, k = self.of, self.batch
        ends = (of.rows[:k], of.rows[k:], of.cols[k:])
        ties = dict(zip(of.cols[:k], of.rows[:k], strict=True))
        terms = [t.renamed(ties) for t in of.terms]
        terms = [t._replace(deltas=tuple(d for d in t.deltas if d[0] != d[1])) for t in terms]
        slots = [composite(digits, of.extents) for digits in ends]
        return e.terms("blocks", slots, [prod(of.extents[i] for i in d) for d in ends], terms, of.extents)

    @property
    def _counts(self) -> tuple[int, int]:
        return prod(self.rows[: self.batch]), prod(self.rows[self.batch :])

    def solve(self, e: Emitter, x: Value) -> Value:
        """One leaf with a batch."""
        rest = x.shape[len(self.rows) :]
        flat = e.reshaped(x, (*self._counts, prod(rest)))
        return e.reshaped(e.linalg("solve", self._stored(e), flat), (*self.cols, *rest))

    def logdet(self, e: Emitter) -> Value:
        """The sum over blocks."""
        return e.total("logdet", e.linalg("logdet", self._stored(e)))

    def _operator(self, value: Value, turned: bool) -> Operator:
        """A batch of stored blocks as an operator."""
        count, side = self._counts
        op = matrix(value.name, (side,), (side,)).operator().batched(count)
        first, second = (self.cols, self.rows) if turned else (self.rows, self.cols)
        return split(op, (first[: self.batch], first[self.batch :]), (second[: self.batch], second[self.batch :]))

    def inverse(self, e: Emitter) -> Operator:
        """One leaf with a batch."""
        return self._operator(e.linalg("inv", self._stored(e)), True)

    def has_power(self, power: Power) -> bool:
        """Always: a power of a block diagonal matrix is one."""
        return True

    def power(self, e: Emitter, power: Power) -> Operator:
        """One leaf with a batch."""
        return self._operator(e.linalg("powm", self._stored(e), power), False)

    def describe(self) -> str:
        """What the solver does, in a few words."""
        count, side = self._counts
        return f"block diagonal: {count} blocks of {side}x{side}, one batched leaf"


def split(op: Operator, rows: Sequence[tuple[int, ...]], cols: Sequence[tuple[int, ...]]) -> Operator:
    """An operator with each of its digits cut into finer ones."""
    extents: dict[str, int] = {i: n for i, n in op.extents.items() if i not in (*op.rows, *op.cols)}
    terms, ends = list(op.terms), []
    for digits, groups, mark in ((op.rows, rows, "r"), (op.cols, cols, "c")):
        new: list[str] = []
        for k, (digit, group) in enumerate(zip(digits, groups, strict=True)):
            names = [f"{mark}{k}.{n}" for n in range(len(group))]
            extents.update(zip(names, group, strict=True))
            terms = [t.put(digit, composite(names, extents)) for t in terms]
            new += names
        ends.append(tuple(new))
    return Operator(ends[0], ends[1], tuple(terms), extents, op.operands, op.lets)


@dataclass(frozen=True)
class Orthogonal(Leaf):
    """A real matrix whose inverse is its transpose: a permutation, or one that is declared orthogonal."""

    kind: str = "orthogonal"

    def solve(self, e: Emitter, x: Value) -> Value:
        """The product with the transpose."""
        return applied(e, self.of.turned(), x)

    def logdet(self, e: Emitter) -> Value:
        """0."""
        return e.zero()

    def inverse(self, e: Emitter) -> Operator:
        """The transpose."""
        return self.of.turned()

    def describe(self) -> str:
        """What the solver does, in a few words."""
        return f"{self.kind}: the inverse is the transpose"


def applied(e: Emitter, operator: Operator, x: Value) -> Value:
    """The product of an operator over operands of the program with a value whose column digits stand first."""
    op = operator.renewed()
    rest = [f"x{k}" for k in range(len(x.shape) - len(op.cols))]
    extents = dict(op.extents) | dict(zip(rest, x.shape[len(op.cols) :], strict=True))
    atom = Atom(x.name, tuple(map(var, (*op.cols, *rest))))
    terms = [t._replace(atoms=(*t.atoms, atom)) for t in op.terms]
    slots = tuple(map(var, (*op.rows, *rest)))
    return e.terms("product", slots, [extents[i] for i in (*op.rows, *rest)], terms, extents)
