"""Candidates: whole programs in which a value is computed through a structure that was found, or through its matrix.

A finding speaks of one value as a linear function of one operand. Each method of its term gives an equal program: the
operand is read into digits, the structure is applied, the digits are put back into the value's shape, and what does not
depend on the operand (a bias, the other terms of a sum) is added. `formed` is the other end: the matrix is stored, and
multiplied once. Nothing is chosen here; the caller prices the programs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from math import prod

from ..ir.expr import Const, Einsum, Equation, Expr, Input, Map, Program, Read, free_indices, transform, walk
from ..ir.index import Affine, Index
from ..ir.semiring import PLUS_TIMES
from ..ir.structures import Plus, Structure
from ..ir.structures.build import Builder, Method, Value, applied, close
from ..ir.structures.operator import Atom, Let, Operand, Operator, Term
from ..ir.structures.slot import var
from ..ir.structures.view import View, defined, leaf, operator_of
from ..ir.types import DType, accumulation_type, promote
from .canonical import NotLinear, views
from .network import Network, known_sizes, networks
from .recognise import Finding, recognise_views
from .reshaped import placed, reshaped
from .tools import Names, bound_indices, cast


def rewritten(
    program: Program, finding: Finding, sizes: Mapping[str, int] | None = None
) -> tuple[tuple[str, Program], ...]:
    """(method, program) for each way to apply the term of a finding.

    A finding on one term of a sum (`finding.number`) replaces that term: the others are contracted as they are.
    Programs are at the given sizes, those that the finding was made with. There is none for facts without a term, where
    a size is not known, and for a method that the value's type or semiring does not admit.

    >>> from ..ir.text import parse_ir
    >>> from .recognise import recognise
    >>> inputs = "input t: f64[7]\\ninput x: f64[4]\\n"
    >>> product = "y[i]: f64[4] = einsum[plustimes, f64](j; t[i-j+3], x[j]) over i<4, j<4\\nreturn y"
    >>> program = parse_ir(inputs + product)
    >>> [name for name, _ in rewritten(program, recognise(program, "x")[0])][:2]
    ['contraction', 'fft']
    """
    site = _site(program, finding.value, finding.argument, sizes) if finding.term is not None else None
    if site is None or finding.term is None:
        return ()
    if finding.number is None:
        named = [(m.name, m) for m in finding.term.methods()]
        return site.programs(named, finding.term.operator())
    return _in_sum(site, finding.term, finding.number)


def _in_sum(site: _Site, term: Structure, number: int) -> tuple[tuple[str, Program], ...]:
    """The methods of one term beyond its contraction; and, if it is the first that has any, those of all terms."""
    found = recognise_views(site.views, site.network.semiring == PLUS_TIMES)
    pairs = [(v, m) for k, v, m in found if k is not None and v is not None]
    if number >= len(pairs):
        return ()
    terms = [defined(leaf(v), v) if m is None or m.term is None else m.term for v, m in pairs]
    others = [t for k, t in enumerate(terms) if k != number]
    written = [defined(leaf(v), v) for k, (v, _) in enumerate(pairs) if k != number]
    plain = [t.methods()[0] for t in written]
    named = [(m.name, _plus([m, *plain])) for m in term.extra()]
    if named and number == next(k for k, t in enumerate(terms) if t.extra()) and any(t.extra() for t in others):
        best = _plus([(*t.extra(), t.methods()[0])[0] for t in (term, *others)])
        named.append((best.name, best))
    # A term that is known by its formula alone (a Hadamard matrix) has fewer operands than its network.
    return site.programs(named, reduce(Plus, [term, *others, *written]).operator())


def _plus(methods: Sequence[Method]) -> Method:
    """All methods applied to x, and the results added."""

    def run(b: Builder, x: Value) -> Value:
        return reduce(b.sum, [m.run(b, x) for m in methods])

    order = ("semiring", "ring", "complex")
    return Method(" plus ".join(m.name for m in methods), run, max((m.needs for m in methods), key=order.index))


def formed(program: Program, value: str, argument: str, sizes: Mapping[str, int] | None = None) -> Program | None:
    """The program in which the matrix of a value as a function of an operand is stored, and multiplied once.

    Digits that result and operand share are a batch of the product: they are axes of the matrix only if it depends on
    them. None where the value is no linear function of the operand, or a size is not known.

    >>> from ..ir.text import parse_ir
    >>> inputs = "input A: f64[2, 3]\\ninput B: f64[4, 5]\\ninput x: f64[3, 5]\\n"
    >>> product = "y[i, k]: f64[2, 4] = einsum[plustimes, f64](j, l; A[i, j], B[k, l], x[j, l]) over i<2, j<3, k<4, l<5"
    >>> made = formed(parse_ir(inputs + product + "\\nreturn y"), "y", "x")
    >>> [(e.name, tuple(map(str, e.shape))) for e in made.equations]
    [('y.matrix', ('2', '4', '3', '5')), ('y', ('2', '4'))]
    """
    site = _site(program, value, argument, sizes)
    if site is None:
        return None
    pairs = _shared(site.views)
    operator = reduce(Operator.plus, map(operator_of, site.views))

    def run(b: Builder, x: Value) -> Value:
        op = b.adopt(operator)
        terms = op.terms
        for p, q in pairs:
            terms = tuple(_untwinned(t.put(op.cols[q], var(op.rows[p]))) for t in terms)
        cols = {op.cols[q]: op.rows[p] for p, q in pairs}
        used = set[str]().union(*(t.indices for t in terms))
        axes = [i for i in op.rows if i in used or i not in cols.values()] + [i for i in op.cols if i not in cols]
        w = b.let([b.extents[i] for i in axes], map(var, axes), terms)
        read = Atom(x.name, tuple(var(cols.get(i, i)) for i in op.cols))
        product = Term(1, (Atom(w.name, tuple(map(var, axes))), read))
        return b.let(op.shape[0], map(var, op.rows), [product])

    needs = "ring" if any(t.coefficient != 1 for t in operator.terms) else "semiring"
    made = site.programs([("dense", Method("dense", run, needs))], operator)
    return _named_matrix(program, made[0][1], value) if made else None


def _shared(found: Sequence[View]) -> list[tuple[int, int]]:
    """(position in the result, position in the operand) of the digits that are the same in every term."""
    sides = [(v.digits(v.out), v.digits(v.x)) for v in found]
    rows, cols = sides[0]
    pairs = [(p, q) for p, i in enumerate(rows) for q, j in enumerate(cols) if i == j]
    return [(p, q) for p, q in pairs if all(out[p] == x[q] for out, x in sides)]


def _untwinned(term: Term) -> Term:
    return term._replace(deltas=tuple(d for d in term.deltas if d[0] != d[1]))


def _named_matrix(old: Program, new: Program, value: str) -> Program:
    """The new program with its one big intermediate called `value.matrix`."""
    known = {e.name for e in old.equations}
    made = [e for e in new.equations if e.name not in known and not isinstance(e.expr, Read)]
    matrix = next((e.name for e in made if e.name.startswith(f"{value}.apply.")), None)
    if matrix is None:
        return new
    name = Names(new).fresh(f"{value}.matrix")
    return replace(new, equations=tuple(_renamed(e, {matrix: name}) for e in new.equations))


# --- where a value is replaced ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Site:
    """One value of a program as a linear function of one of its operands, at known sizes."""

    program: Program
    value: Equation
    argument: Input | Equation
    network: Network
    views: tuple[View, ...]
    sizes: Mapping[str, int]

    @property
    def dtype(self) -> DType:
        """The type that the replacement computes in: what the value's own sums are kept in."""
        kinds = [e.accumulate for e in walk(self.value.expr) if isinstance(e, Einsum)]
        own = self.value.dtype
        if own.kind not in "fc":
            return own
        return reduce(promote, [k for k in kinds if k.kind in "fc"], accumulation_type(own))

    def programs(self, methods: Iterable[tuple[str, Method]], operator: Operator) -> tuple[tuple[str, Program], ...]:
        """The whole program for each method that is right here."""
        if not self.fits(operator):
            return ()
        found = []
        for name, method in methods:
            if method.allowed(self.dtype, self.value.semiring):
                part = applied(method, operator, (), self.dtype, self.value.semiring, "x'", "y'")
                found.append((name, self.spliced(part, operator.shape)))
        return tuple(found)

    def fits(self, operator: Operator) -> bool:
        """Whether every operand is a tensor of a fitting type (or a formula, or opaque), and the operator speaks of the
        whole value and the whole argument.
        """
        for name, operand in operator.operands.items():
            if name in self.network.opaques or operand.formula is not None:
                continue
            tensor = self.program.tensors.get(name)
            if tensor is None or not self.converts(tensor.dtype):
                return False
        ends = [prod(s.evaluate(self.sizes) for s in t.shape) for t in (self.value, self.argument)]
        return self.converts(self.argument.dtype) and ends == list(operator.size)

    def converts(self, dtype: DType) -> bool:
        """Whether a tensor may be converted to the type of the replacement."""
        if dtype == self.dtype:
            return True
        if dtype.kind == "b":
            return self.value.semiring == PLUS_TIMES
        return promote(dtype, self.dtype) == self.dtype

    def spliced(self, part: Program, shape: tuple[tuple[int, ...], tuple[int, ...]]) -> Program:
        """The program with the equations of `part`, and of the rest of the value, in place of the value's own."""
        writer = _Writer(self)
        value = self.value
        outer = tuple(s.evaluate(self.sizes) for s in self.argument.shape)
        renamed = {e.name: writer.names.fresh(f"{value.name}.{e.name}") for e in part.equations}
        renamed["x'"] = source = writer.converted(self.argument.name)
        if outer != shape[1]:
            renamed["x'"] = writer.names.fresh(f"{value.name}.argument")
            writer.out += reshaped(source, outer, renamed["x'"], shape[1], self.dtype, writer.names)
        for i in part.inputs:
            if i.name != "x'":
                renamed[i.name] = writer.converted(i.name)
        result = tuple(s.evaluate(self.sizes) for s in value.shape)
        rest = [t for _, t in self.network.terms if all(n != self.argument.name for n, _ in t.atoms)]
        direct = not rest and self.dtype == value.dtype
        last = value.name if direct else writer.names.fresh(f"{value.name}.linear")
        own = part.outputs[0]
        equations = list(part.equations)
        merged = None if result == shape[0] else placed(equations[-1], result)
        if merged is not None:
            equations[-1] = merged
        if result == shape[0] or merged is not None:
            renamed[own] = last
        writer.out += [_renamed(e, renamed) for e in equations]
        if renamed[own] != last:
            writer.out += reshaped(renamed[own], shape[0], last, result, self.dtype, writer.names)
        if not direct:
            writer.finish(last, rest)
        k = self.program.equations.index(value)
        return replace(
            self.program, equations=(*self.program.equations[:k], *writer.out, *self.program.equations[k + 1 :])
        )


def _site(program: Program, value: str, argument: str, sizes: Mapping[str, int] | None) -> _Site | None:
    """The value as a function of the operand; None where it is no linear one, or a size is not known."""
    equation, operand = program.tensors[value], program.tensors.get(argument)
    if not isinstance(equation, Equation) or operand is None:
        return None
    if any(not s.names <= set(sizes or {}) for t in program.tensors.values() for s in t.shape):
        return None
    network = next((n for n in networks(program, sizes) if n.name == value), None)
    if network is None:
        return None
    try:
        found = views(network, argument)
    except NotLinear:
        return None
    if not found or not _inside(network):
        return None
    return _Site(program, equation, operand, network, found, known_sizes(program, sizes))


def _inside(network: Network) -> bool:
    """Whether opaque values are read within their range (equal texts over other ranges share a name)."""
    for _, term in network.terms:
        for name, slots in term.atoms:
            if name not in network.opaques:
                continue
            for s, extent in zip(slots, network.shapes[name], strict=True):
                low, high = s.bounds(network.extents)
                if low < 0 or high >= extent:
                    return False
    return True


class _Writer:
    """Writes the equations that stand around a replaced value."""

    def __init__(self, site: _Site) -> None:
        self.site = site
        self.names = Names(site.program)
        self.out: list[Equation] = []
        self.known: dict[str, str] = {}

    def converted(self, name: str) -> str:
        """The name of a tensor, or opaque value, in the type of the replacement; defined now where it is not there."""
        if name not in self.known:
            self.known[name] = self._converted(name)
        return self.known[name]

    def _converted(self, name: str) -> str:
        site = self.site
        opaque = site.network.opaques.get(name)
        if opaque is not None:
            new = self.names.numbered(f"{site.value.name}.factor")
            slots = site.network.shapes[name]
            inner = bound_indices(opaque.expr)
            free = [i for i in site.value.extents if i not in inner]
            order = [i for i in free_indices(opaque.expr) if i in free]
            assert len(order) == len(slots), "an opaque value has an axis for each of its free indices"
            extents = site.value.extents
            indices = tuple(Index(i, extents[i]) for i in (*order, *inner))
            shape = tuple(extents[i] for i in order)
            expr = self._in_type(opaque.expr)
            self.out.append(
                Equation(new, tuple(map(Affine.of, order)), shape, indices, expr, site.dtype, site.value.semiring)
            )
            return new
        tensor = site.program.tensors[name]
        if tensor.dtype == site.dtype:
            return name
        new = self.names.fresh(f"{name}.{site.dtype.name}")
        indices = tuple(Index(f"i{k}", s) for k, s in enumerate(tensor.shape))
        slots_ = tuple(Affine.of(i.name) for i in indices)
        expr = self._in_type(Read(name, slots_, tensor.dtype))
        self.out.append(Equation(new, slots_, tensor.shape, indices, expr, site.dtype))
        return new

    def _in_type(self, expr: Expr) -> Expr:
        """A factor in the type of the value: a bool counts as the semiring's 1 or 0."""
        site, semiring = self.site, self.site.value.semiring
        if expr.dtype.kind != "b" or site.dtype.kind == "b" or semiring.mul == "mul":
            return cast(expr, site.dtype)
        one, zero = semiring.one_of(site.dtype), semiring.zero_of(site.dtype)
        return Map("where", (expr, Const(one, site.dtype), Const(zero, site.dtype)), site.dtype)

    def finish(self, linear: str, rest: Sequence[Term]) -> None:
        """The value itself: what was made of the operand, plus the terms that do not depend on it."""
        site, value = self.site, self.site.value
        indices = tuple(Index(f"i{k}", s) for k, s in enumerate(value.shape))
        slots = tuple(Affine.of(i.name) for i in indices)
        total: Expr = Read(linear, slots, site.dtype)
        if rest:
            total = Map(value.semiring.add, (total, Read(self._rest(rest), slots, site.dtype)), site.dtype)
        total = cast(total, value.dtype)
        self.out.append(replace(value, slots=slots, indices=indices, expr=total, update=None))

    def _rest(self, rest: Sequence[Term]) -> str:
        site, network = self.site, self.site.network
        name = self.names.fresh(f"{site.value.name}.rest")
        slots = network.terms[0][0]
        shape = tuple(s.evaluate(site.sizes) for s in site.value.shape)
        used = set[str]().union(*(t.indices for t in rest), *(s.indices for s in slots))
        let = Let(name, shape, slots, tuple(rest), {i: network.extents[i] for i in used})
        operands = {n: Operand(network.shapes[n]) for t in rest for n, _ in t.atoms}
        made = close(operands, [let], name, site.dtype, site.value.semiring)
        names = {n: self.converted(n) for n in operands}
        self.out += [_renamed(e, names) for e in made.equations]
        return name


def _renamed(equation: Equation, names: Mapping[str, str]) -> Equation:
    def rule(e: Expr) -> Expr:
        return replace(e, tensor=names.get(e.tensor, e.tensor)) if isinstance(e, Read) else e

    return replace(equation, name=names.get(equation.name, equation.name), expr=transform(equation.expr, rule))
