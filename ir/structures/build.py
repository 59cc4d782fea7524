"""From lets to programs: how the ways to apply a structure become equations of the IR.

A `Method` is one way to multiply by an operator, written as lets on a `Builder`: it maps a `Value` of shape
batch + columns to one of shape batch + rows. `contraction` is the method that every operator has. Methods compose
(that is how combinators inherit them), and `transposed` derives the transpose of any of them: a straight-line
program that is linear in x is turned let by let, in reverse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from ..expr import Const, Einsum, Equation, Expr, Input, Map, Position, Program, Read, transform
from ..functions import CAST
from ..index import Affine, Index
from ..semiring import Scalar, Semiring
from ..size import Size
from ..types import BOOL as _BOOL
from ..types import C64, C128, DType, accumulation_type
from .operator import Atom, Let, Operand, Operator, Term
from .slot import Slot, var
from .words import declarations


@dataclass(frozen=True)
class Value:
    """A tensor while a method is written: its name and shape, and whether it has no real type."""

    name: str
    shape: tuple[int, ...]
    complex: bool = False


Run: TypeAlias = "Callable[[Builder, Value], Value]"


@dataclass(frozen=True)
class Method:
    """One way to apply an operator. `needs` is what the semiring must have: "semiring", "ring" or "complex" (numbers).

    `run` writes the lets; see `Builder`.
    """

    name: str
    run: Run
    needs: str = "semiring"

    def allowed(self, dtype: DType, semiring: Semiring) -> bool:
        """Whether the method is right for elements of `dtype` in `semiring` (up to rounding)."""
        if self.needs == "semiring":
            return True
        if not semiring.ring or dtype.kind == "b":  # the sum of bools is their disjunction
            return False
        return self.needs == "ring" or (semiring.field and dtype.kind in "fc")


@dataclass
class Builder:
    """Collects the lets of one method, and gives names."""

    lets: list[Let] = field(default_factory=list)
    extents: dict[str, int] = field(default_factory=dict)
    operands: dict[str, Operand] = field(default_factory=dict)
    count: int = 0

    def indices(self, extents: Iterable[int]) -> list[str]:
        """New indices of these extents."""
        names = []
        for extent in extents:
            names.append(f"q{len(self.extents)}")
            self.extents[names[-1]] = extent
        return names

    def let(self, shape: Sequence[int], slots: Iterable[Slot], terms: Iterable[Term], complex: bool = False) -> Value:
        """A new tensor: its value by terms over this builder's indices."""
        terms, slots = tuple(terms), tuple(slots)
        used = set[str]().union(*(t.indices for t in terms), *(s.indices for s in slots))
        name, self.count = f"apply.{self.count}", self.count + 1
        extents = {i: self.extents[i] for i in sorted(used)}
        self.lets.append(Let(name, tuple(shape), slots, terms, extents, complex))
        return Value(name, tuple(shape), complex)

    def moved(self, value: Value, order: Sequence[int]) -> Value:
        """The tensor with its axes in another order."""
        if list(order) == list(range(len(order))):
            return value
        i = self.indices(value.shape)
        atom = Atom(value.name, tuple(map(var, i)))
        return self.let([value.shape[k] for k in order], [var(i[k]) for k in order], [Term(1, (atom,))], value.complex)

    def sum(self, first: Value, second: Value, coefficient: Scalar = 1) -> Value:
        """first + coefficient x second."""
        i = self.indices(first.shape)
        slots = tuple(map(var, i))
        terms = [Term(1, (Atom(first.name, slots),)), Term(coefficient, (Atom(second.name, slots),))]
        return self.let(first.shape, slots, terms, first.complex or second.complex)

    def adopt(self, operator: Operator) -> Operator:
        """The operator with indices of this builder, which takes over its lets."""
        start = len(self.extents)
        new = operator.renewed()
        names = {i: f"q{start + k}" for k, i in enumerate(new.indices)}
        self.extents.update({names[i]: new.extents[i] for i in new.indices})
        new = new.renewed(0, names)
        known = {x.name for x in self.lets}
        self.lets.extend(x for x in new.lets if x.name not in known)
        return new


def contraction(operator: Operator) -> Method:
    """One sum of products over everything; the planner orders it."""

    def run(b: Builder, x: Value) -> Value:
        op = b.adopt(operator)
        batch = b.indices(x.shape[: len(x.shape) - len(op.cols)])
        atom = Atom(x.name, tuple(map(var, (*batch, *op.cols))))
        shape = (*(b.extents[i] for i in batch), *op.shape[0])
        terms = [t._replace(atoms=(*t.atoms, atom)) for t in op.terms]
        made = x.complex or any(_is_complex(n, b, operator) for t in terms for n, _ in t.atoms)
        return b.let(shape, map(var, (*batch, *op.rows)), terms, made)

    used = [operator.operands[n] for t in operator.terms for n, _ in t.atoms if n in operator.operands]
    needs = "ring" if any(t.coefficient != 1 for t in operator.terms) or any(o.formula for o in used) else "semiring"
    return Method("contraction", run, "complex" if any(o.complex for o in used) else needs)


def _is_complex(name: str, b: Builder, operator: Operator) -> bool:
    operand = operator.operands.get(name)
    if operand is not None:
        return operand.complex
    return any(x.name == name and x.complex for x in b.lets)


def transposed(method: Method, operator: Operator) -> Method:
    """The transpose of a method of `operator`: each let turned, in reverse order."""

    def run(b: Builder, y: Value) -> Value:
        batch = y.shape[: len(y.shape) - len(operator.rows)]
        x = Value("x'", batch + operator.shape[1])
        inner = Builder(list(b.lets), b.extents, b.operands, b.count)
        result = method.run(inner, x)
        new = inner.lets[len(b.lets) :]
        b.count = inner.count
        values = {x.name: x} | {t.name: Value(t.name, t.shape, t.complex) for t in new}
        linear = {x.name}
        for let in new:
            if any(n in linear for t in let.terms for n, _ in t.atoms):
                linear.add(let.name)
        b.lets.extend(t for t in new if t.name not in linear)
        return _backwards(b, [t for t in new if t.name in linear], values, linear, result, y, x)

    return Method(f"transposed {method.name}", run, method.needs)


def _backwards(
    b: Builder, lets: list[Let], values: Mapping[str, Value], linear: set[str], result: Value, y: Value, x: Value
) -> Value:
    """The cotangent of x, from that of the result."""
    uses: dict[str, list[tuple[Let, Term, int]]] = {}
    for let in lets:
        for term in let.terms:
            places = [k for k, (n, _) in enumerate(term.atoms) if n in linear]
            assert len(places) == 1, "a method is linear in x"
            uses.setdefault(term.atoms[places[0]].name, []).append((let, term, places[0]))
    turned = {result.name: y}
    for name in [t.name for t in reversed(lets)] + [x.name]:
        if name in turned:
            continue
        source = values[name]
        found = uses.get(name, [])
        if len(found) == 1 and _is_split(found[0][1].atoms[found[0][2]], source, b.extents):
            let, term, place = found[0]
            read, rest = term.atoms[place], term.atoms[:place] + term.atoms[place + 1 :]
            back = term._replace(atoms=(*rest, Atom(turned[let.name].name, let.slots)))
            turned[name] = b.let(source.shape, read.slots, [back], source.complex)
            continue
        i = b.indices(source.shape)
        terms = [_turned_use(i, turned[let.name], let, term, place) for let, term, place in found]
        turned[name] = b.let(source.shape, map(var, i), terms, source.complex)
    return turned[x.name]


def _is_split(read: Atom, source: Value, extents: Mapping[str, int]) -> bool:
    """Whether a read takes each axis apart into digits of its own: its transpose puts them together again."""
    digits = [s.digits(extents, n) for s, n in zip(read.slots, source.shape, strict=True)]
    names = [i for axis in digits for i, _ in axis or ()]
    return None not in digits and len(set(names)) == len(names)


def _turned_use(i: list[str], cotangent: Value, let: Let, term: Term, place: int) -> Term:
    read = term.atoms[place]
    rest = term.atoms[:place] + term.atoms[place + 1 :]
    atoms = (*rest, Atom(cotangent.name, let.slots))
    deltas = tuple((var(k), s) for k, s in zip(i, read.slots, strict=True))
    return Term(term.coefficient, atoms, term.deltas + deltas, term.guards)


# --- programs ---------------------------------------------------------------------------------------------------------


def applied(
    method: Method,
    operator: Operator,
    batch: tuple[int, ...],
    dtype: DType,
    semiring: Semiring,
    x: str = "x",
    output: str = "y",
) -> Program:
    """The program of a method: inputs are the operands and `x` of shape batch + columns, the output is `y`."""
    assert x not in operator.operands, f"'{x}' is an operand already"
    while output in operator.operands or output == x:
        output += "_"
    b = Builder()
    result = method.run(b, Value(x, batch + operator.shape[1]))
    operands = {**operator.operands, **b.operands, x: Operand(batch + operator.shape[1])}
    if result.name == x:  # the identity returns its argument
        i = b.indices(result.shape)
        result = b.let(result.shape, map(var, i), [Term(1, (Atom(result.name, tuple(map(var, i))),))])
    if result.complex and dtype.kind != "c":
        i = b.indices(result.shape)
        result = b.let(result.shape, map(var, i), [Term(1, (Atom(result.name, tuple(map(var, i))),))])
    return close(operands, b.lets, result.name, dtype, semiring, output)


def close(
    operands: Mapping[str, Operand],
    lets: Sequence[Let],
    output: str,
    dtype: DType,
    semiring: Semiring,
    rename: str | None = None,
) -> Program:
    """The program of some lets, for operands of `dtype`. The output may be given another name."""
    names = {output: rename or output}
    needed = _needed(lets, output)
    lets = [x for x in lets if x.name in needed]
    shapes = {n: o.shape for n, o in operands.items()} | {x.name: x.shape for x in lets}
    used = {n for x in lets for t in x.terms for n, _ in t.atoms}
    complex_type = dtype if dtype.kind == "c" else C64 if dtype.bits <= 32 else C128
    types = {n: complex_type if o.complex else dtype for n, o in operands.items()}
    types |= {x.name: complex_type if x.complex else dtype for x in lets}
    inputs = tuple(
        Input(n, tuple(map(Size.of, o.shape)), types[n], declarations(o.facts))
        for n, o in operands.items()
        if o.formula is None and n in used
    )
    equations = [_formula(n, o, types[n]) for n, o in operands.items() if o.formula is not None and n in used]
    equations += [_equation(x, names, shapes, types, semiring) for x in lets]
    return Program(inputs, tuple(equations), (names[output],))


def _needed(lets: Sequence[Let], output: str) -> set[str]:
    needed = {output}
    for let in reversed(lets):
        if let.name in needed:
            needed.update(n for t in let.terms for n, _ in t.atoms)
    return needed


def _formula(name: str, operand: Operand, dtype: DType) -> Equation:
    assert operand.formula is not None
    axes = tuple(str(k) for k in range(len(operand.shape)))
    names = {a: Affine.of(f"i{a}") for a in axes}

    def rename(e: Expr) -> Expr:
        return Position(e.affine.substitute(names)) if isinstance(e, Position) else e

    expr = transform(operand.formula, rename)
    expr = expr if expr.dtype == dtype else Map(CAST, (expr,), dtype)
    shape = tuple(map(Size.of, operand.shape))
    indices = tuple(Index(f"i{a}", s) for a, s in zip(axes, shape, strict=True))
    return Equation(name, tuple(names[a] for a in axes), shape, indices, expr, dtype)


def _equation(
    let: Let,
    names: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
    types: Mapping[str, DType],
    ring: Semiring,
) -> Equation:
    """name[slots] = the sum of its terms, with indices of its own for each."""
    dtype = types[let.name]
    free = list(dict.fromkeys(i for s in let.slots for i in s.indices))
    extents: dict[str, Size] = {}
    left = {i: f"i{k}" for k, i in enumerate(free)}
    for i in free:
        extents[left[i]] = Size.of(let.extents[i])
    total: Expr | None = None
    for term in let.terms:
        term = _simplified(term, free, let.extents, shapes)
        bound = [i for i in _order(term) if i not in left]
        mapping = left | {i: f"k{len(extents) - len(free) + n}" for n, i in enumerate(bound)}
        extents.update({mapping[i]: Size.of(let.extents[i]) for i in bound})
        one = _product(term.renamed(mapping), [mapping[i] for i in bound], names, shapes, types, dtype, ring, extents)
        total = one if total is None else Map(ring.add, (total, one), dtype)
    if total is None:
        total = Const(ring.zero_of(dtype), dtype)
    slots = tuple(s.renamed(left).to_affine() for s in let.slots)
    indices = tuple(Index(i, e) for i, e in extents.items())
    shape = tuple(map(Size.of, let.shape))
    return Equation(names.get(let.name, let.name), slots, shape, indices, total, dtype, ring)


def _order(term: Term) -> list[str]:
    seen = [i for _, slots in term.atoms for s in slots for i in s.indices]
    seen += [i for pair in term.deltas for s in pair for i in s.indices] + [i for g in term.guards for i in g.indices]
    return list(dict.fromkeys(seen))


def _simplified(term: Term, free: list[str], extents: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]) -> Term:
    """Deltas that fix a summed index are carried out, unless its value may leave its range where no operand is zero."""
    done = False
    while not done:
        done = True
        for delta in term.deltas:
            a, b = delta
            for name, value in ((a.bare, b), (b.bare, a)):
                if name is None or name in free or name in value.indices:
                    continue
                if value.modulus and not _only_bare(term, name, delta):
                    continue
                low, high = value.bounds(extents)
                inside = low >= 0 and high < extents[name]
                if not inside and (value.modulus or not _is_whole(term, name, extents[name], shapes)):
                    continue
                rest = tuple(d for d in term.deltas if d != delta)
                term, done = _put(term._replace(deltas=rest), name, value), False
                break
            if not done:
                break
    return term


def _is_whole(term: Term, name: str, extent: int, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether an operand is read at an index over an axis of its extent: beyond that range, the product is zero."""
    return any(s.bare == name and shapes[n][k] == extent for n, slots in term.atoms for k, s in enumerate(slots))


def _only_bare(term: Term, name: str, delta: tuple[Slot, Slot]) -> bool:
    """Whether an index stands alone in slots of operands and nowhere else (but in the delta)."""
    slots = [s for _, slots in term.atoms for s in slots if name in s.indices]
    others = [s for d in term.deltas if d != delta for s in d] + list(term.guards)
    return all(s.bare == name for s in slots) and not any(name in s.indices for s in others)


def _put(term: Term, name: str, value: Slot) -> Term:
    """The term with `value` for an index, which may have a modulus where the index stands alone."""
    if not value.modulus:
        return term.put(name, value)
    atoms = (Atom(n, tuple(value if s.bare == name else s for s in slots)) for n, slots in term.atoms)
    return term._replace(atoms=tuple(atoms))


def _product(
    term: Term,
    bound: list[str],
    names: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
    types: Mapping[str, DType],
    dtype: DType,
    ring: Semiring,
    extents: Mapping[str, Size],
) -> Expr:
    sizes = {i: e.evaluate({}) for i, e in extents.items()}
    factors: list[Expr] = []
    kind = dtype
    for name, slots in term.atoms:
        inside = True
        for s, extent in zip(slots, shapes[name], strict=True):
            low, high = s.bounds(sizes)
            inside = inside and low >= 0 and high < extent
        pad = None if inside else _zero(ring, types[name])
        factors.append(Read(names.get(name, name), tuple(s.to_affine() for s in slots), types[name], pad))
        kind = types[name] if types[name].kind == "c" else kind
    if term.coefficient != 1:
        factors.insert(0, Const(term.coefficient, kind))
    factors += [Map("eq", (Position(a.to_affine()), Position(b.to_affine())), _BOOL) for a, b in term.deltas]
    factors += [Map("ge", (Position(g.to_affine()), Position(Affine.constant(0))), _BOOL) for g in term.guards]
    if kind.kind == "c" and dtype.kind != "c":
        return Map("real", (Einsum(tuple(bound), tuple(factors), kind, kind, ring),), dtype)
    return Einsum(tuple(bound), tuple(factors), dtype, accumulation_type(dtype), ring)


def _zero(ring: Semiring, dtype: DType) -> float:
    value = ring.zero_of(dtype)
    return float(value) if not isinstance(value, complex) else 0.0
