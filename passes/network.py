"""N1: a program as networks: each value a sum of products of atoms, intermediates multiplied out.

What is linear dissolves: products, sums, casts that lose nothing, deltas, guards, and reads of earlier equations of the
same semiring. What is not (a `relu`, a softmax, a quotient) stays as one opaque atom over its indices. The recogniser
and the canonical label work on the result, at known sizes: a size name without a value stands for a large prime of its
own, so that two sizes are equal, and one divides the other, only if that holds for all values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import lcm

from ..ir.errors import Span
from ..ir.expr import (
    Const,
    Constraint,
    Einsum,
    Equation,
    Expr,
    Input,
    Map,
    Position,
    Program,
    Read,
    SizeValue,
    free_indices,
    reads,
    transform,
)
from ..ir.functions import CAST
from ..ir.index import Affine
from ..ir.lookup import lookup_of
from ..ir.semiring import PLUS_TIMES, Semiring
from ..ir.structures.operator import Atom, Let, Operator, Term
from ..ir.structures.slot import Slot, from_affine, slot, var
from ..ir.structures.words import words
from ..ir.text import print_expr
from ..ir.types import promote
from .declared import known_words, operator_of

TERM_LIMIT = 64  # terms and atoms of one network; what would exceed it stays a value of its own
FIRST_PRIME = 100_003  # where the values of unknown sizes begin


@dataclass(frozen=True)
class Opaque:
    """An atom that is no operand: an expression, its operands in order, and its text with both left open."""

    text: str
    operands: tuple[str, ...]
    expr: Expr


@dataclass(frozen=True)
class Network:
    """One value of a program: name[slots] = the sum of the terms, each with slots of its own index names.

    `borders` are equations that it reads as they are. `spans` tell where each operand stands in the source. `declared`
    are arguments that stand as their declared structure says, over operands that `lets` read from them.
    """

    name: str
    semiring: Semiring
    terms: tuple[tuple[tuple[Slot, ...], Term], ...]
    extents: Mapping[str, int]
    shapes: Mapping[str, tuple[int, ...]]
    facts: Mapping[str, frozenset[str]]
    opaques: Mapping[str, Opaque]
    borders: frozenset[str]
    spans: Mapping[str, Span] = field(default_factory=dict, compare=False)
    lets: tuple[Let, ...] = ()
    declared: frozenset[str] = frozenset()

    @property
    def operands(self) -> tuple[str, ...]:
        """Every operand, in order of appearance."""
        names: dict[str, None] = {}
        made = {x.name: tuple(n for t in x.terms for n, _ in t.atoms) for x in self.lets}
        for _, term in self.terms:
            for name, _ in term.atoms:
                opaque = self.opaques.get(name)
                names.update(dict.fromkeys(opaque.operands if opaque else made.get(name, (name,))))
        return tuple(names)


class _Nonlinear(Exception):
    """The expression is no sum of products."""


def known_sizes(program: Program, sizes: Mapping[str, int] | None = None) -> dict[str, int]:
    """A value for every size name: the given ones, what equations between sizes say, else a prime for each.

    >>> from ..ir.text import parse_ir
    >>> known_sizes(parse_ir("input x: f32[n]\\ninput y: f32[m]\\nreturn x"), {"n": 4})["n"]
    4
    """
    found = dict(sizes or {})
    names: dict[str, None] = {}
    shapes = [s for t in program.tensors.values() for s in t.shape]
    shapes += [i.extent for e in program.equations for i in e.indices]
    for size in shapes:
        if size.constant is None:
            names.update(dict.fromkeys(sorted(size.names)))
    equal = [c for c in program.constraints if c.relation == "=="]
    prime = FIRST_PRIME
    for name in names:
        _propagate(equal, found)
        if name not in found:
            found[name] = prime * _divisor(name, program.constraints, found)
            prime = _next_prime(prime)
    return found


def _divisor(name: str, constraints: Sequence[Constraint], found: Mapping[str, int]) -> int:
    """What divides a size whatever its value is, by the constraints (a block size)."""
    known = [c.left for c in constraints if c.relation == "divides" and c.right.single == name]
    return lcm(*(s.evaluate(found) for s in known if s.names <= found.keys()))


def _propagate(equal: Sequence[Constraint], found: dict[str, int]) -> None:
    for c in equal:
        for known, open_side in ((c.left, c.right), (c.right, c.left)):
            if known.names <= found.keys() and not open_side.names <= found.keys():
                solved = open_side.solve(known.evaluate(found), found)
                if solved is not None:
                    found[solved[0]] = solved[1]


def _next_prime(value: int) -> int:
    value += 2
    while any(value % k == 0 for k in range(3, int(value**0.5) + 1, 2)):
        value += 2
    return value


def networks(
    program: Program, sizes: Mapping[str, int] | None = None, values: Iterable[str] | None = None
) -> tuple[Network, ...]:
    """A network for each output (or each of `values`) and for each value that one reads as it is, outputs first."""
    reader = _Reader(program, known_sizes(program, sizes))
    values = program.outputs if values is None else values
    todo = [n for n in values if isinstance(program.tensors[n], Equation)]
    done: dict[str, Network] = {}
    while todo:
        name = todo.pop(0)
        if name not in done:
            done[name] = reader.network(name)
            todo.extend(sorted(done[name].borders))
    return tuple(done.values())


class _Reader:
    """Multiplies out the equations of one program."""

    def __init__(self, program: Program, sizes: Mapping[str, int]) -> None:
        self.program, self.sizes = program, sizes
        self.tensors = program.tensors
        self.shapes = {n: tuple(s.evaluate(sizes) for s in t.shape) for n, t in self.tensors.items()}
        self.facts = {i.name: words(i.structure, sizes) for i in program.inputs if i.structure}
        self.extents: dict[str, int] = {}
        self.opaques: dict[str, Opaque] = {}
        self.semiring = PLUS_TIMES

    def network(self, name: str) -> Network:
        equation = self.tensors[name]
        assert isinstance(equation, Equation)
        self.extents, self.opaques, self.borders, self.spans = {}, {}, set[str](), dict[str, Span]()
        self.lets, self.declared = dict[str, Let](), dict[str, Operator | None]()
        self.semiring = equation.semiring
        self.shapes = {n: s for n, s in self.shapes.items() if n in self.tensors}
        terms = []
        names = self.renamed(equation, equation.free)
        slots = tuple(self.slot(s, names) for s in equation.slots)
        for term in self.values(equation, names):
            terms.append((slots, term))
        for opaque in self.opaques.values():
            self.borders.update(n for n in opaque.operands if isinstance(self.tensors[n], Equation))
        return Network(
            name,
            self.semiring,
            tuple(terms),
            self.extents,
            self.shapes,
            {n: known_words(f, self.semiring) for n, f in self.facts.items()},
            self.opaques,
            frozenset(self.borders),
            self.spans,
            tuple(self.lets.values()),
            frozenset(n for n, o in self.declared.items() if o is not None),
        )

    def renamed(self, equation: Equation, indices: Iterable[str]) -> dict[str, str]:
        """A new name for each index of an equation, with its extent noted."""
        names = {}
        for i in indices:
            names[i] = self.fresh(i, equation.extents[i].evaluate(self.sizes))
        return names

    def fresh(self, base: str, extent: int) -> str:
        name = f"{base.split('~')[0]}~{len(self.extents)}"
        self.extents[name] = extent
        return name

    def slot(self, affine: Affine, names: Mapping[str, str]) -> Slot:
        bare = affine.bare
        return var(names[bare]) if bare is not None else from_affine(affine, self.sizes, names)

    def values(self, equation: Equation, names: dict[str, str]) -> list[Term]:
        """The terms of an equation, which may be one opaque atom."""
        found = self.expand(equation.expr, names, equation)
        if equation.update is not None:
            slots = tuple(self.slot(s, names) for s in equation.slots)
            found = [*found, Term(1, (Atom(equation.update, slots),))]
            self.borders.update({equation.update} - {i.name for i in self.program.inputs})
        return found

    def expand(self, e: Expr, names: dict[str, str], equation: Equation) -> list[Term]:
        """A sum of products equal to an expression, whose free indices are called by `names`."""
        try:
            found = self.linear(e, names, equation)
        except _Nonlinear:
            found = [self.opaque(e, names)]
        if len(found) > TERM_LIMIT or any(len(t.atoms) > TERM_LIMIT for t in found):
            return [self.opaque(e, names)]
        return found

    def linear(self, e: Expr, names: dict[str, str], equation: Equation) -> list[Term]:
        match e:
            case Read():
                return self.read(e, names)
            case Einsum() if e.semiring == self.semiring and self.semiring.mul:
                inner = names | self.renamed(equation, e.bound)
                found = [Term()]
                for factor in e.factors:
                    found = self.times(found, self.factor(factor, inner, equation))
                return found
            case Const() | SizeValue():
                return self.number(e)
            case Map():
                return self.map(e, names, equation)
        raise _Nonlinear

    def times(self, first: list[Term], second: list[Term]) -> list[Term]:
        if len(first) * len(second) > TERM_LIMIT:
            raise _Nonlinear
        return [a.product(b) for a in first for b in second]

    def number(self, e: Const | SizeValue) -> list[Term]:
        value = e.value if isinstance(e, Const) else e.size.evaluate(self.sizes)
        if value == self.semiring.one_of(e.dtype):
            return [Term()]
        if value == self.semiring.zero_of(e.dtype):
            return []
        if self.semiring.mul != "mul" or e.dtype.kind == "b":
            raise _Nonlinear
        return [Term(value)]

    def factor(self, e: Expr, names: dict[str, str], equation: Equation) -> list[Term]:
        """A factor of a product; a comparison of positions selects."""
        term = self.comparison(e, names)
        return self.expand(e, names, equation) if term is None else [term]

    def comparison(self, e: Expr, names: Mapping[str, str]) -> Term | None:
        if not isinstance(e, Map) or e.function not in ("eq", "ge", "gt", "le", "lt"):
            return None
        found = [self.position(a, names) for a in e.args]
        if found[0] is None or found[1] is None:
            return None
        a, b = found[0], found[1]
        if e.function == "eq":
            return Term(1, (), ((a, b),))
        if a.modulus or b.modulus:
            return None
        a, b = (b, a) if e.function in ("le", "lt") else (a, b)
        difference = a.plus(b, -1)
        return Term(1, (), (), (difference.plus(slot((), -1)) if e.function in ("gt", "lt") else difference,))

    def position(self, e: Expr, names: Mapping[str, str]) -> Slot | None:
        match e:
            case Position(affine=affine):
                return self.slot(affine, names)
            case SizeValue(size=size):
                return slot((), size.evaluate(self.sizes))
            case Const(value=value) if isinstance(value, int):
                return slot((), int(value))
        return None

    def map(self, e: Map, names: dict[str, str], equation: Equation) -> list[Term]:
        ring, args = self.semiring, e.args
        if e.function == CAST:
            chosen = self.comparison(args[0], names) if ring == PLUS_TIMES else None
            if chosen is not None:  # a bool as a number: 1 or 0, as where it selects
                return [chosen]
            lossless = promote(args[0].dtype, e.dtype) == e.dtype and args[0].dtype.kind != "b"
            if lossless:
                return self.expand(args[0], names, equation)
        elif e.function == ring.add:
            return [t for a in args for t in self.expand(a, names, equation)]
        elif e.function == ring.mul:
            return self.times(self.factor(args[0], names, equation), self.factor(args[1], names, equation))
        elif ring.ring and e.function in ("neg", "sub"):
            *first, last = args
            minus = [t._replace(coefficient=-t.coefficient) for t in self.expand(last, names, equation)]
            return [t for a in first for t in self.expand(a, names, equation)] + minus
        elif ring.field and e.function == "div" and e.dtype.kind in "fc":
            number = args[1]
            value = number.value if isinstance(number, Const) else None
            value = number.size.evaluate(self.sizes) if isinstance(number, SizeValue) else value
            if value:
                return [t._replace(coefficient=t.coefficient / value) for t in self.expand(args[0], names, equation)]
        raise _Nonlinear

    def read(self, e: Read, names: dict[str, str]) -> list[Term]:
        slots = tuple([self.slot(s, names) for s in e.slots])
        if e.span.end:
            self.spans.setdefault(e.tensor, e.span)
        if e.pad == "wrap":
            if any(s.modulus for s in slots):
                raise _Nonlinear
            shape = self.shapes[e.tensor]
            slots = tuple(slot(s.terms, s.offset, n) for s, n in zip(slots, shape, strict=True))
        elif e.pad is not None and e.pad != self.semiring.zero_of(e.dtype):
            raise _Nonlinear
        source = self.tensors[e.tensor]
        if isinstance(source, Input):
            return self.stated(source, slots) or [Term(1, (Atom(e.tensor, slots),))]
        inlined = self.inlined(source, slots)
        if inlined is None:
            self.borders.add(e.tensor)
            return [Term(1, (Atom(e.tensor, slots),))]
        return inlined

    def stated(self, source: Input, slots: tuple[Slot, ...]) -> list[Term]:
        """What an argument is by its declared structure, at some slots; no terms if it is only itself."""
        if not source.structure or any(s.modulus for s in slots):
            return []
        name = source.name
        if name not in self.declared:
            self.declared[name] = operator_of(source, self.shapes[name], self.sizes, self.semiring)
        operator = self.declared[name]
        if operator is None:
            return []
        self.lets.update({x.name: x for x in operator.lets})
        self.shapes.update({x.name: x.shape for x in operator.lets})
        names = {i: self.fresh(i, operator.extents[i]) for i in operator.indices}
        ends = (operator.rows, (*slots[:-2], slots[-2])), (operator.cols, (*slots[:-2], slots[-1]))
        glue = tuple((var(names[i]), s) for digits, reads in ends for i, s in zip(digits, reads, strict=True))
        terms = [t.renamed(names) for t in operator.terms]
        return [t._replace(deltas=t.deltas + glue) for t in terms]

    def inlined(self, source: Equation, slots: tuple[Slot, ...]) -> list[Term] | None:
        """The terms of an earlier equation at some slots; None if it is no sum of products in this semiring."""
        if source.update is not None or (source.semiring != self.semiring and source.expr.dtype.kind != "b"):
            return None
        if any(s.modulus for s in source.slots):
            return None
        kept = dict(self.opaques)
        names = self.renamed(source, source.free)
        try:
            found = self.linear(source.expr, names, source)
        except _Nonlinear:
            found = []
        if not found or len(self.opaques) > len(kept):
            self.opaques = kept
            return None
        deltas = tuple((self.slot(s, names), q) for s, q in zip(source.slots, slots, strict=True))
        read = [t._replace(deltas=t.deltas + deltas) for t in found]
        return [t for t in read if not self.vanishes(t)]

    def vanishes(self, term: Term) -> bool:
        """Whether two deltas of a term fix an index at two numbers: it is zero everywhere."""
        fixed: dict[str, int] = {}
        for a, b in term.deltas:
            for one, other in ((a, b), (b, a)):
                index = one.bare if not other.terms else None
                if index is not None and fixed.setdefault(index, other.offset) != other.offset:
                    return True
        return False

    def opaque(self, e: Expr, names: Mapping[str, str]) -> Term:
        """One atom for an expression: its name tells its text and its operands, its slots are its free indices."""
        free = free_indices(e)
        text, operands = _skeleton(e, free)
        name = f"?{text}({','.join(operands)})"
        self.opaques[name] = Opaque(text, operands, e)
        if lookup_of(e) is not None:  # at most one 1 for each place of the list
            self.facts[name] = frozenset({"selection"})
        elif isinstance(e, Map) and e.function == "pow":  # rules read the power off its name
            self.facts[name] = frozenset({"power"})
        self.shapes[name] = tuple(self.extents[names[i]] for i in free)
        return Term(1, (Atom(name, tuple(var(names[i]) for i in free)),))


def _skeleton(e: Expr, free: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """The text of an expression with numbers for its free indices and its operands, and the operands."""
    operands = tuple(dict.fromkeys(r.tensor for r in reads(e)))
    values = {i: Affine.of(f"%{k}") for k, i in enumerate(free)}
    numbered = {n: f"${k}" for k, n in enumerate(operands)}

    def rule(node: Expr) -> Expr:
        match node:
            case Read():
                slots = tuple(s.substitute(values) for s in node.slots)
                return Read(numbered[node.tensor], slots, node.dtype, node.pad)
            case Position():
                return Position(node.affine.substitute(values))
        return node

    return re.sub(r"\s+", "", print_expr(transform(e, rule))), operands
