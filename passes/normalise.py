"""Normal form: views and single-use products dissolve into their readers, and the rules of `rules` run to a fixpoint.

After it, a chain of named intermediates that is one product is one Einsum, whose order of contraction is free again
(`t = R*x; y = L*t` is the network L*R*x). Intermediates that are outputs, are used several times, or stand in
something that is not multilinear stay. Sizes stay symbols; nothing here looks at hints.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from ..ir.expr import (
    Einsum,
    Equation,
    Expr,
    Map,
    Position,
    Program,
    Read,
    reads,
    substitute,
    transform,
    walk,
)
from ..ir.index import Affine, Index
from ..ir.rewrite import Trace, rewrite
from ..ir.size import ONE, Size
from ..ir.types import BOOL
from .base import Context
from .rules import EXACT_RULES, NORMAL_RULES, delta_of, is_view
from .tools import is_plain, note, rebuilt, renamed_apart


def normalise(program: Program, context: Context, trace: Trace) -> Program:
    """Rules and inlining until neither changes anything."""
    rules = EXACT_RULES if context.strict else NORMAL_RULES
    while True:
        before = program
        program = simplify_indices(program, context, trace)
        program = rewrite(program, rules, trace)
        program = inline(program, context, trace)
        if program is before:
            return program


# --- R15, R16: indices of the whole equation --------------------------------------------------------------------------


def simplify_indices(program: Program, context: Context, trace: Trace) -> Program:
    """R15 and R16 in every equation."""
    equations = tuple(_simplified(e, trace) for e in program.equations)
    same = all(a is b for a, b in zip(equations, program.equations, strict=True))
    return program if same else replace(program, equations=equations)


def _simplified(equation: Equation, trace: Trace) -> Equation:
    new = merge_composite(squeeze_ones(equation))
    if new is not equation:
        note(trace, "R15 R16 indices", equation.name, equation.expr, new.expr)
    return new


def squeeze_ones(equation: Equation) -> Equation:
    """R15: an index that takes the value 0 only is replaced by 0."""
    single = [i.name for i in equation.indices if i.extent == ONE]
    if not single:
        return equation
    zero = {n: Affine.constant(0) for n in single}

    def unbind(e: Expr) -> Expr:
        return replace(e, bound=tuple(b for b in e.bound if b not in zero)) if isinstance(e, Einsum) else e

    def set_zero(e: Expr) -> Expr:
        match e:
            case Position():
                return replace(e, affine=e.affine.substitute(zero)) if set(e.affine.indices) & set(single) else e
            case Read():
                return replace(e, slots=tuple(s.substitute(zero) for s in e.slots)) if _uses(e, single) else e
        return unbind(e)

    slots = tuple(s.substitute(zero) for s in equation.slots)
    return rebuilt(equation, transform(equation.expr, set_zero), equation.extents, slots)


def _uses(read: Read, names: list[str]) -> bool:
    return any(n in s.indices for s in read.slots for n in names)


def merge_composite(equation: Equation) -> Equation:
    """R16: two indices that occur only together, as i*n + k with n the extent of k, are one index of the product
    length.

    Both must be free, or bound by one Einsum. `y[(i k)] = x[(i k)]` becomes `y[m] = x[m]`.
    """
    extents = equation.extents
    for composite in _affines(equation):
        if len(composite.terms) < 2:
            continue
        for first, scale in composite.terms:
            for second, unit in composite.terms:
                if first != second and scale == unit * extents[second] and _only_together(equation, first, second):
                    return merge_composite(_merged(equation, first, second))
    return equation


def _affines(equation: Equation) -> list[Affine]:
    found = list(equation.slots)
    for e in walk(equation.expr):
        if isinstance(e, Read):
            found.extend(e.slots)
        elif isinstance(e, Position):
            found.append(e.affine)
    return found


def _only_together(equation: Equation, first: str, second: str) -> bool:
    binders = [e.bound for e in walk(equation.expr) if isinstance(e, Einsum)]
    homes = [[b for b in binders if n in b] for n in (first, second)]
    extent = equation.extents[second]
    return homes[0] == homes[1] and all(
        a.coefficient(first) == a.coefficient(second) * extent
        for a in _affines(equation)
        if first in a.indices or second in a.indices
    )


def _merged(equation: Equation, first: str, second: str) -> Equation:
    """The equation with i*n + k written as one index, which keeps the name of the second."""
    extents = {**equation.extents, second: equation.extents[first] * equation.extents[second]}
    gone = {first: Affine.constant(0)}

    def drop(e: Expr) -> Expr:
        match e:
            case Position():
                return replace(e, affine=e.affine.substitute(gone))
            case Read():
                return replace(e, slots=tuple(s.substitute(gone) for s in e.slots))
            case Einsum() if first in e.bound:
                return replace(e, bound=tuple(b for b in e.bound if b != first))
        return e

    slots = tuple(s.substitute(gone) for s in equation.slots)
    indices = tuple(Index(i.name, extents[i.name]) for i in equation.indices)
    return rebuilt(replace(equation, indices=indices), transform(equation.expr, drop), extents, slots)


# --- inlining ---------------------------------------------------------------------------------------------------------


def inline(program: Program, context: Context, trace: Trace) -> Program:
    """Views go into all their readers; a product that is used once, as a factor of a product, dissolves there (R5).

    A product that is written on a diagonal or at other affine slots (`D[i,i] = v[i]`) dissolves as its definition
    says, by deltas, where R6 then removes every one of them.
    """
    while len(program.equations) > 1:
        new = _inlined_once(program, context, trace)
        if new is None:
            break
        program = new
    return program


def _inlined_once(program: Program, context: Context, trace: Trace) -> Program | None:
    uses = Counter(r.tensor for e in program.equations for r in reads(e.expr))
    uses.update(e.update for e in program.equations if e.update is not None)
    for position, equation in enumerate(program.equations):
        if equation.name in program.outputs or equation.update is not None or not uses[equation.name]:
            continue
        view = is_view(equation.expr) and is_plain(equation)
        if not view and (uses[equation.name] != 1 or context.strict or not context.free_order):
            continue
        new = _inlined_everywhere(program, position, view, trace)
        if new is not None:
            return new
    return None


def _inlined_everywhere(program: Program, position: int, view: bool, trace: Trace) -> Program | None:
    source = program.equations[position]
    out: list[Equation] = []
    for k, reader in enumerate(program.equations):
        if k <= position or all(r.tensor != source.name for r in reads(reader.expr)):
            out.append(reader)
            continue
        new = _view_into(source, reader) if view else _product_into(program, source, reader)
        if new is None:
            return None
        note(trace, "inline " + source.name, reader.name, reader.expr, new.expr)
        out.append(new)
    if any(r.tensor == source.name for e in out for r in reads(e.expr)) or any(e.update == source.name for e in out):
        return None
    del out[position]
    return replace(program, equations=tuple(out))


def _view_into(source: Equation, reader: Equation) -> Equation | None:
    """The reader with reads of a view replaced by reads of what it shows (R19)."""
    shown = source.expr if isinstance(source.expr, Read) else source.expr.factors[0]  # type: ignore[union-attr]
    assert isinstance(shown, Read)
    if shown.dtype != source.dtype:
        return None
    for read in reads(reader.expr):
        if read.tensor == source.name and (read.pad is not None or any(s.modulus is not None for s in read.slots)):
            return None

    def rule(e: Expr) -> Expr:
        if not isinstance(e, Read) or e.tensor != source.name:
            return e
        values = {s.bare: slot for s, slot in zip(source.slots, e.slots, strict=True) if s.bare is not None}
        return substitute(shown, values)

    return rebuilt(reader, transform(reader.expr, rule), reader.extents)


def _product_into(program: Program, source: Equation, reader: Equation) -> Equation | None:
    """The reader with the one factor that reads `source` replaced by its product, or None."""
    inner = source.expr
    if not isinstance(inner, Einsum | Read):
        return None
    for outer in walk(reader.expr):
        if not isinstance(outer, Einsum):
            continue
        for place, factor in enumerate(outer.factors):
            if isinstance(factor, Read) and factor.tensor == source.name:
                return _dissolved(program, source, reader, outer, place)
    return None


def _dissolved(program: Program, source: Equation, reader: Equation, outer: Einsum, place: int) -> Equation | None:
    inner, factor = source.expr, outer.factors[place]
    assert isinstance(factor, Read)
    if (
        factor.pad is not None
        or any(s.modulus is not None for s in (*factor.slots, *source.slots))
        or not outer.semiring.mul
    ):
        return None
    if isinstance(inner, Read):
        inner = Einsum((), (inner,), source.dtype, outer.accumulate, outer.semiring)
    if not isinstance(inner, Einsum) or not _same_arithmetic(inner, source, outer):
        return None
    extents: dict[str, Size] = dict(reader.extents)
    values: dict[str, Affine] = {}
    deltas: list[Expr] = []
    new: list[str] = []
    if is_plain(source):
        values = {s.bare: slot for s, slot in zip(source.slots, factor.slots, strict=True) if s.bare is not None}
    else:
        own = {n: source.extents[n] for n in source.free}
        fresh = renamed_apart(Einsum(source.free, (), BOOL, BOOL), {}, own, extents)
        assert isinstance(fresh, Einsum)
        new = list(fresh.bound)
        values = {n: Affine.of(f) for n, f in zip(source.free, new, strict=True)}
        for written, read in zip(source.slots, factor.slots, strict=True):
            deltas.append(Map("eq", (Position(written.substitute(values)), Position(read)), BOOL))
    body = renamed_apart(inner, values, source.extents, extents)
    assert isinstance(body, Einsum)
    bound = (*outer.bound, *new, *body.bound)
    factors = (*outer.factors[:place], *body.factors, *deltas, *outer.factors[place + 1 :])
    merged = replace(outer, bound=bound, factors=factors)
    expr = transform(reader.expr, lambda e: merged if e == outer else e)
    equation = rebuilt(reader, expr, extents)
    return equation if not deltas else _without_deltas(program, reader, equation)


def _same_arithmetic(inner: Einsum, source: Equation, outer: Einsum) -> bool:
    """Whether the product of `source` may be multiplied out in `outer`: one semiring, one type."""
    if inner.semiring != outer.semiring or (not is_plain(source) and source.semiring != outer.semiring):
        return False
    if inner.dtype == BOOL and outer.accumulate != BOOL:
        return False
    inexact = source.dtype.kind == outer.accumulate.kind and source.dtype.kind in "fc"
    return inner.accumulate == outer.accumulate and (
        inexact or (inner.dtype == inner.accumulate and source.dtype == inner.dtype)
    )


def _without_deltas(program: Program, reader: Equation, equation: Equation) -> Equation | None:
    """The equation after R6, if that removes every delta that it did not hold before."""
    equations = tuple(equation if e is reader else e for e in program.equations)
    done = rewrite(replace(program, equations=equations), NORMAL_RULES).tensors[equation.name]
    assert isinstance(done, Equation)

    def count(e: Equation) -> int:
        return sum(1 for n in walk(e.expr) if delta_of(n) is not None)

    padded = any(r.pad is not None for r in reads(done.expr)) and not any(r.pad is not None for r in reads(reader.expr))
    return done if count(done) <= count(reader) and not padded else None


__all__ = ["inline", "merge_composite", "normalise", "simplify_indices", "squeeze_ones"]
