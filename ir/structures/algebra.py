"""The algebra of structures: combinators and leaves, each an operator and the ways to apply it.

A `Structure` is a theorem. Its left side is `operator()`, what it means; its right sides are `methods()`, equal ways to
multiply by it. Every structure has the contraction of its own network, and inherits the methods of its parts through
`Times`, `Beside`, `Plus`, `Turned`, `Batch` and `Ordered`; a leaf adds what no order of contraction can reach. The
laws, `dense()` against each of `applies(x)`, are checked for every structure that is listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

from ..expr import Program
from ..semiring import PLUS_TIMES, Scalar, Semiring
from ..types import F64, DType
from .build import Builder, Method, Run, Value, applied, contraction, transposed
from .operator import Atom, Let, Operand, Operator, Term, batch_name, dense, unit
from .slot import Slot, var

METHOD_LIMIT = 16  # combinations of the methods of two parts that are offered; the best of each part come first


class Structure:
    """What all structures share. Subclasses are frozen dataclasses whose fields are sizes and options."""

    def operator(self) -> Operator:
        """What the structure means, as an open expression."""
        raise AssertionError(f"{type(self).__name__} has no operator")

    def extra(self) -> tuple[Method, ...]:
        """Ways to apply it beyond the contraction of its network."""
        return ()

    def methods(self) -> tuple[Method, ...]:
        """Every way to apply it; the contraction comes first."""
        return (contraction(self.operator()), *self.extra())

    def dense(self, dtype: DType = F64, semiring: Semiring = PLUS_TIMES) -> Program:
        """The program of the matrix, as `Operator.dense`."""
        return self.operator().dense(dtype, semiring)

    def applies(
        self, batch: tuple[int, ...] = (), dtype: DType = F64, semiring: Semiring = PLUS_TIMES, x: str = "x"
    ) -> tuple[Program, ...]:
        """Equal programs of the product with the input `x` of shape batch + columns, whose one output is the product.

        Only methods that are right in the semiring are given.
        """
        operator = self.operator()
        allowed = (m for m in self.methods() if m.allowed(dtype, semiring))
        return tuple(applied(m, operator, batch, dtype, semiring, x) for m in allowed)


@dataclass(frozen=True)
class Leaf(Structure):
    """Any operator as a structure without further methods."""

    of: Operator

    def operator(self) -> Operator:
        """The operator itself."""
        return self.of


def _stronger(first: Method, second: Method) -> str:
    order = ("semiring", "ring", "complex")
    return max(first.needs, second.needs, key=order.index)


def _pairs(first: Structure, second: Structure) -> Iterable[tuple[Method, Method]]:
    return islice(((f, g) for f in first.methods() for g in second.methods()), METHOD_LIMIT)


@dataclass(frozen=True)
class Times(Structure):
    """The product of two structures, the second applied first."""

    first: Structure
    second: Structure

    def operator(self) -> Operator:
        """The product of the operators."""
        return self.first.operator().times(self.second.operator())

    def extra(self) -> tuple[Method, ...]:
        """Each method of the first after each of the second."""

        def joined(f: Run, g: Run) -> Run:
            return lambda b, x: f(b, g(b, x))

        return tuple(
            Method(f"{f.name} after {g.name}", joined(f.run, g.run), _stronger(f, g))
            for f, g in _pairs(self.first, self.second)
        )


@dataclass(frozen=True)
class Plus(Structure):
    """first + coefficient x second, of one shape."""

    first: Structure
    second: Structure
    coefficient: Scalar = 1

    def operator(self) -> Operator:
        """The sum of the operators."""
        return self.first.operator().plus(self.second.operator(), self.coefficient)

    def extra(self) -> tuple[Method, ...]:
        """Both applied to x, and added."""

        def joined(f: Run, g: Run) -> Run:
            return lambda b, x: b.sum(f(b, x), g(b, x), self.coefficient)

        return tuple(
            Method(f"{f.name} plus {g.name}", joined(f.run, g.run), self._needs(f, g))
            for f, g in _pairs(self.first, self.second)
        )

    def _needs(self, f: Method, g: Method) -> str:
        needs = _stronger(f, g)
        return "ring" if self.coefficient != 1 and needs == "semiring" else needs


@dataclass(frozen=True)
class Beside(Structure):
    """The Kronecker product of two structures: for each, the other's digits are a batch."""

    first: Structure
    second: Structure

    def operator(self) -> Operator:
        """The Kronecker product of the operators."""
        return self.first.operator().beside(self.second.operator())

    def extra(self) -> tuple[Method, ...]:
        """The second on the last digits, then the first on those before."""
        a, b = self.first.operator(), self.second.operator()
        ra, ca, rb = len(a.rows), len(a.cols), len(b.rows)

        def joined(f: Run, g: Run) -> Run:
            def run(builder: Builder, x: Value) -> Value:
                y = g(builder, x)
                n = len(y.shape) - rb - ca
                y = builder.moved(y, [*range(n), *range(n + ca, n + ca + rb), *range(n, n + ca)])
                y = f(builder, y)
                return builder.moved(y, [*range(n), *range(n + rb, n + rb + ra), *range(n, n + rb)])

            return run

        return tuple(
            Method(f"{f.name} beside {g.name}", joined(f.run, g.run), _stronger(f, g))
            for f, g in _pairs(self.first, self.second)
        )


@dataclass(frozen=True)
class Turned(Structure):
    """The transpose; its methods are derived."""

    of: Structure

    def operator(self) -> Operator:
        """Rows and columns exchanged."""
        return self.of.operator().turned()

    def extra(self) -> tuple[Method, ...]:
        """Each method of the structure, turned let by let."""
        operator = self.of.operator()
        return tuple(transposed(m, operator) for m in self.of.extra())


@dataclass(frozen=True)
class Ordered(Structure):
    """The structure with its row and column digits in another order: a stride permutation on either side."""

    of: Structure
    rows: tuple[int, ...]
    cols: tuple[int, ...]

    def operator(self) -> Operator:
        """The digits in the new order: new digit k is old digit rows[k] (cols[k])."""
        return self.of.operator().ordered(self.rows, self.cols)

    def extra(self) -> tuple[Method, ...]:
        """The permutation of x, the method, the permutation of y."""
        back = sorted(range(len(self.cols)), key=self.cols.__getitem__)

        def around(f: Run) -> Run:
            def run(b: Builder, x: Value) -> Value:
                n = len(x.shape) - len(self.cols)
                y = f(b, b.moved(x, [*range(n), *(n + k for k in back)]))
                return b.moved(y, [*range(n), *(n + k for k in self.rows)])

            return run

        return tuple(Method(f"ordered {m.name}", around(m.run), m.needs) for m in self.of.extra())


@dataclass(frozen=True)
class Batch(Structure):
    """Block diagonal: the structure with other operands for each value of a new leading digit of this extent.

    Operands in `shared` are the same for all values.
    """

    of: Structure
    extent: int
    shared: frozenset[str] = frozenset()

    def operator(self) -> Operator:
        """The new digit stands first in rows and in columns."""
        return self.of.operator().batched(self.extent, self.shared)

    def extra(self) -> tuple[Method, ...]:
        """Each method with the digit on all that it makes from operands."""
        operator = self.of.operator()
        return tuple(Method(f"batched {m.name}", self._lifted(m.run, operator), m.needs) for m in self.of.extra())

    def _lifted(self, inner: Run, operator: Operator) -> Run:
        own = {n for n, o in operator.operands.items() if o.formula is None and n not in self.shared}

        def run(b: Builder, x: Value) -> Value:
            c = Builder([], b.extents, b.operands, b.count)
            place = len(x.shape) - len(operator.cols) - 1  # where the digit stands in x; methods may move it
            result = inner(c, x)
            b.count = c.count
            linear, mine, renamed = {x.name: place}, set(own), dict[str, str]()
            for let in c.lets:
                atoms = [n for t in let.terms for n, _ in t.atoms]
                if any(n in linear for n in atoms):
                    terms = [_with_digit(t, mine, linear, renamed) for t in let.terms]
                    linear[let.name] = _place(let, linear)
                    b.lets.append(Let(let.name, let.shape, let.slots, tuple(terms), let.extents, let.complex))
                elif any(n in mine for n in atoms):
                    g = b.indices((self.extent,))[0]
                    terms = [t._replace(atoms=_marked(t, mine, var(g), renamed)) for t in let.terms]
                    mine.add(let.name)
                    renamed[let.name] = batch_name(let.name, self.extent)
                    shape, slots = (self.extent, *let.shape), (var(g), *let.slots)
                    extents = {**let.extents, g: self.extent}
                    b.lets.append(Let(renamed[let.name], shape, slots, tuple(terms), extents, let.complex))
                else:
                    b.lets.append(let)
            return result

        return run


def _marked(term: Term, mine: set[str], digit: Slot, renamed: Mapping[str, str]) -> tuple[Atom, ...]:
    return tuple(Atom(renamed.get(n, n), (digit, *s) if n in mine else s) for n, s in term.atoms)


def _place(let: Let, linear: Mapping[str, int]) -> int:
    """The axis of a let in which the digit stands that its linear operands have at the given axes."""
    term = let.terms[0]
    digit = next(s[linear[n]] for n, s in term.atoms if n in linear)
    same = {digit} | {b if a == digit else a for a, b in term.deltas if digit in (a, b)}
    return next(k for k, s in enumerate(let.slots) if s in same)


def _with_digit(term: Term, mine: set[str], linear: Mapping[str, int], renamed: Mapping[str, str]) -> Term:
    digit = next(s[linear[n]] for n, s in term.atoms if n in linear)
    return term._replace(atoms=_marked(term, mine, digit, renamed))


@dataclass(frozen=True)
class Defined(Structure):
    """coefficient x a structure some of whose operands are made from others by lets."""

    of: Structure
    lets: tuple[Let, ...] = ()
    operands: tuple[tuple[str, Operand], ...] = ()
    coefficient: Scalar = 1

    def operator(self) -> Operator:
        """The operator over the operands that the lets read."""
        inner = self.of.operator()
        made = {x.name for x in self.lets}
        kept = {n: o for n, o in inner.operands.items() if n not in made} | dict(self.operands)
        terms = tuple(t._replace(coefficient=t.coefficient * self.coefficient) for t in inner.terms)
        lets = self.lets + tuple(x for x in inner.lets if x not in self.lets)
        return Operator(inner.rows, inner.cols, terms, inner.extents, kept, lets)

    def extra(self) -> tuple[Method, ...]:
        """The methods of the structure, after the lets."""

        def after(f: Run) -> Run:
            def run(b: Builder, x: Value) -> Value:
                known = {t.name for t in b.lets}
                b.lets.extend(t for t in self.lets if t.name not in known)
                y = f(b, x)
                if self.coefficient == 1:
                    return y
                i = b.indices(y.shape)
                slots = tuple(map(var, i))
                return b.let(y.shape, slots, [Term(self.coefficient, (Atom(y.name, slots),))], y.complex)

            return run

        ring = "semiring" if self.coefficient == 1 else "ring"
        return tuple(Method(m.name, after(m.run), ring if m.needs == "semiring" else m.needs) for m in self.of.extra())


def ones(rows: tuple[int, ...], cols: tuple[int, ...]) -> Structure:
    """The all-ones operator: it sums the columns and repeats the sum in the rows.

    >>> ones((), (3,)).operator().size
    (1, 3)
    """
    r, c = [f"i{k}" for k in range(len(rows))], [f"j{k}" for k in range(len(cols))]
    extents = dict(zip(r + c, rows + cols, strict=True))
    return Leaf(Operator(tuple(r), tuple(c), (Term(),), extents, {}))


def arranged(
    structure: Structure,
    have: tuple[tuple[str, ...], tuple[str, ...]],
    want: tuple[tuple[str, ...], tuple[str, ...]],
) -> Structure:
    """The structure with its digits, called by `have` (rows, columns), in the order of `want`."""
    if have == want:
        return structure
    rows, cols = (tuple(h.index(i) for i in w) for h, w in zip(have, want, strict=True))
    return Ordered(structure, rows, cols)


def identity(*extents: int) -> Structure:
    """The identity on some digits.

    >>> identity(2, 3).operator().size
    (6, 6)
    """
    return Leaf(unit(extents))


def matrix(name: str, rows: int | tuple[int, ...], cols: int | tuple[int, ...], *facts: str) -> Structure:
    """One dense operand.

    >>> matrix("A", 2, 3).operator().shape
    ((2,), (3,))
    """
    rows = (rows,) if isinstance(rows, int) else rows
    cols = (cols,) if isinstance(cols, int) else cols
    return Leaf(dense(name, rows, cols, facts))


def scaling(name: str, extents: int | tuple[int, ...]) -> Structure:
    """A diagonal: one operand over the digits, on both sides.

    >>> scaling("d", 4).operator().size
    (4, 4)
    """
    extents = (extents,) if isinstance(extents, int) else extents
    op = unit(extents)
    term = op.terms[0]._replace(atoms=(Atom(name, tuple(map(var, op.cols))),))
    return Leaf(Operator(op.rows, op.cols, (term,), op.extents, {name: Operand(extents)}))


def product(*parts: Structure) -> Structure:
    """The product of several structures, the last applied first."""
    out = parts[-1]
    for part in reversed(parts[:-1]):
        out = Times(part, out)
    return out


def kron(*parts: Structure) -> Structure:
    """The Kronecker product of several structures."""
    out = parts[-1]
    for part in reversed(parts[:-1]):
        out = Beside(part, out)
    return out


@dataclass(frozen=True)
class Either(Structure):
    """Two structures that are one and the same operator: the methods of both.

    >>> [m.name for m in Either(matrix("A", 2, 2), matrix("A", 2, 2)).methods()]
    ['contraction']
    """

    first: Structure
    second: Structure

    def operator(self) -> Operator:
        """That of the first."""
        return self.first.operator()

    def extra(self) -> tuple[Method, ...]:
        """What goes beyond the contraction, of the first and then of the second."""
        return self.first.extra() + self.second.extra()
