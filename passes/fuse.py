"""Fusion of elementwise work, last in the plan: into the prologue of a consumer's factor or the epilogue of a producer.

An equation that one other reads dissolves there, if no expensive work is repeated: a prologue is evaluated again for
every point that reuses its factor. The other way round, an expensive function inside a factor that is reused becomes an
equation of its own (`materialise`). Both decisions weigh the same two numbers, so that neither undoes the other.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from ..ir.expr import (
    Einsum,
    Equation,
    Expr,
    Map,
    Program,
    Read,
    children,
    free_indices,
    reads,
    substitute,
    transform,
    walk,
    with_children,
)
from ..ir.functions import CAST, FUNCTIONS
from ..ir.lookup import lookup_of
from ..ir.rewrite import Trace
from ..ir.size import Size
from .base import Context
from .common import trace_changed
from .constants import ahead, is_ahead
from .contract import axes_of
from .rules import may_divide
from .tools import (
    Hints,
    Names,
    as_map,
    cast,
    definition,
    einsums,
    has_special_slots,
    hints_of,
    holds_einsum,
    is_copy,
    is_injective,
    is_plain,
    nesting,
    note,
    points,
    read_of,
    rebuilt,
    renamed_apart,
    weight,
)

STORE = 4  # units of work that writing and reading back one element costs
LAUNCH = 2000  # units that another kernel costs
DEEPEST = 60  # nested nodes of one expression; a longer chain of functions is cut, its parts are stored
REGISTER_REUSE = 4  # points along a reused axis that share one evaluation inside a kernel, at the least


def repeated_work(expr: Expr, size: int, evaluations: int) -> bool:
    """Whether evaluating `expr` at `evaluations` points is dearer than storing its `size` values once and reading them.

    >>> from ..ir.types import F32
    >>> from ..ir.expr import Const
    >>> exp = Map("exp", (Const(1.0, F32),), F32)
    >>> repeated_work(exp, 10**6, 10**6), repeated_work(exp, 10**6, 10**9)
    (False, True)
    """
    again = max(size, evaluations // min(REGISTER_REUSE, max(1, evaluations // max(1, size)))) - size
    return weight(expr) * again > STORE * size + LAUNCH


# --- materialise ------------------------------------------------------------------------------------------------------


def materialise(program: Program, context: Context, trace: Trace) -> Program:
    """Factors whose evaluation would be repeated too often, or that constants alone decide, become equations."""
    if all(_plain_factors(e) for e in program.equations):
        return program
    names, hints = Names(program), hints_of(context)
    known = {i.name for i in program.inputs if i.const or i.name in context.constants}
    sizes = frozenset[str]().union(*(s.names for i in program.inputs if i.name in known for s in i.shape))
    out: list[Equation] = []
    for equation in program.equations:
        new = _materialised(equation, out, names, hints, known, sizes)
        out.append(new)
        if is_ahead(new, known, sizes):
            known.add(new.name)
        if new is not equation:
            note(trace, "materialise", equation.name, equation.expr, new.expr)
    return program if not trace_changed(out, program) else replace(program, equations=tuple(out))


def _plain_factors(equation: Equation) -> bool:
    return all(not weight(f) for e in einsums(equation.expr) for f in e.factors)


def _materialised(
    equation: Equation, out: list[Equation], names: Names, hints: Hints, known: set[str], sizes: frozenset[str]
) -> Equation:
    if _plain_factors(equation):
        return equation
    extents = hints.extents(equation)

    def stored(factor: Expr, evaluations: int) -> Expr:
        own = free_indices(factor)
        if isinstance(factor, Map) and weight(factor) and own:
            new = definition(
                names.numbered(equation.name),
                axes_of(frozenset(own), (factor,), equation.free),
                factor,
                equation.extents,
                factor.dtype,
                equation.semiring,
            )
            whole = {r.tensor for r in reads(factor)}
            early = bool(whole) and is_ahead(new, known, sizes) and not is_ahead(equation, known, sizes)
            if early or repeated_work(factor, points(own, extents), evaluations):
                out.append(new)
                if early:
                    known.add(new.name)
                return read_of(new)
            names.taken.discard(new.name)
            below = tuple(stored(c, evaluations) for c in children(factor))
            if any(a is not b for a, b in zip(below, children(factor), strict=True)):
                return with_children(factor, below)
        return factor

    def rule(e: Expr) -> Expr:
        if not isinstance(e, Einsum) or len(e.factors) < 2:
            return e
        every = {n for f in e.factors for n in free_indices(f)}
        factors = tuple(stored(f, points(every, extents)) for f in e.factors)
        return e if all(a is b for a, b in zip(factors, e.factors, strict=True)) else replace(e, factors=factors)

    expr = transform(equation.expr, rule)
    return equation if expr is equation.expr else rebuilt(equation, expr, equation.extents)


# --- fuse -------------------------------------------------------------------------------------------------------------


def fuse(program: Program, context: Context, trace: Trace) -> Program:
    """Each equation that one place reads dissolves there where that is legal and repeats no expensive work."""
    if len(program.equations) < 2:
        return program
    hints, early = hints_of(context), ahead(program, context)
    equations = list(program.equations)
    uses = Counter(r.tensor for e in equations for r in reads(e.expr))
    uses.update(e.update for e in equations if e.update is not None)
    position = 0
    while position < len(equations):
        source = equations[position]
        target = _only_reader(source, equations, uses, program)
        if target is not None and not (source.name in early and equations[target].name not in early):
            fuse_one = fused if is_plain(source) else through_view
            new = fuse_one(source, equations[target], hints)
            if new is None and not context.strict:
                new = quotient(source, equations[target], hints)
            if new is not None:
                note(trace, "fuse " + source.name, equations[target].name, equations[target].expr, new.expr)
                equations[target] = new
                del equations[position]
                continue
        position += 1
    return program if not trace_changed(equations, program) else replace(program, equations=tuple(equations))


def _only_reader(source: Equation, equations: list[Equation], uses: Counter[str], program: Program) -> int | None:
    if uses[source.name] != 1 or source.name in program.outputs or source.update is not None:
        return None
    for k, e in enumerate(equations):
        if any(r.tensor == source.name for r in reads(e.expr)):
            return k
    return None


def fused(source: Equation, reader: Equation, hints: Hints) -> Equation | None:
    """`reader` with its one read of `source` replaced by what it reads, or None where that is illegal or dear."""
    (read,) = (r for r in reads(reader.expr) if r.tensor == source.name)
    if has_special_slots(read) or any(has_special_slots(r) for r in reads(source.expr)):
        return None
    if any(lookup_of(e) is not None and any(r is read for r in reads(e)) for e in walk(reader.expr)):
        return None  # the values of a lookup stand in a tensor
    inside = next((e for e in einsums(reader.expr) if any(r is read for r in reads(e))), None)
    if nesting(source.expr) + nesting(reader.expr) > DEEPEST:
        return None
    if holds_einsum(source.expr):
        whole = [s.bare for s in read.slots if s.terms]
        once = None not in whole and len(set(whole)) == len(whole) and set(whole) >= set(reader.free)
        if holds_einsum(reader.expr) or not once or not is_injective(reader):
            return None
    else:
        extents = hints.extents(reader)
        names = set(reader.free) | set(inside.bound if inside is not None else ())
        if inside is not None:
            names |= {n for f in inside.factors for n in free_indices(f)}
        size = points([n for s in source.slots for n in s.indices], hints.extents(source))
        if repeated_work(source.expr, size, points(names, extents)):
            return None
    extents_of: dict[str, Size] = dict(reader.extents)
    values = {s.bare: slot for s, slot in zip(source.slots, read.slots, strict=True) if s.bare is not None}
    body = cast(renamed_apart(source.expr, values, source.extents, extents_of), source.dtype)
    if isinstance(body, Einsum) and not body.bound and not is_copy(reader):
        body = as_map(body)
    expr = transform(reader.expr, lambda e: body if e is read or e == read else e)
    return rebuilt(reader, expr, extents_of)


def quotient(source: Equation, reader: Equation, hints: Hints) -> Equation | None:
    """R10 for `a[k] = p[k] / s`, read as a factor: where s does not depend on what is summed, the sum is divided by it.

    So a softmax followed by a product divides the small result, and the quotient itself is never stored.
    """
    value = source.expr
    if not is_plain(source) or not isinstance(value, Map) or value.function not in ("div", "mul"):
        return None
    (read,) = (r for r in reads(reader.expr) if r.tensor == source.name)
    inside = next((e for e in einsums(reader.expr) if any(f is read for f in e.factors)), None)
    if inside is None or has_special_slots(read) or any(has_special_slots(r) for r in reads(value)):
        return None
    kind = inside.accumulate
    exact = may_divide(inside.semiring, kind) and inside.semiring.mul == "mul"
    if not exact or holds_einsum(value) or not {source.dtype, value.dtype, *(a.dtype for a in value.args)} <= {kind}:
        return None
    values = {s.bare: slot for s, slot in zip(source.slots, read.slots, strict=True) if s.bare is not None}
    first, second = (substitute(a, values) for a in value.args)
    if value.function == "mul" and not set(free_indices(first)) & set(inside.bound):
        first, second = second, first
    if not inside.bound or set(free_indices(second)) & set(inside.bound) or weight(first) > weight(read):
        return None
    factors = tuple(first if f is read else f for f in inside.factors)
    total = cast(Map(value.function, (replace(inside, factors=factors, dtype=kind), second), kind), inside.dtype)
    expr = transform(reader.expr, lambda e: total if isinstance(e, Einsum) and any(f is read for f in e.factors) else e)
    return rebuilt(reader, expr, reader.extents) if is_injective(reader) else None


def through_view(source: Equation, reader: Equation, hints: Hints) -> Equation | None:
    """R19 for a source that leaves positions empty: f of it is f at what it writes, if f maps 0 to 0.

    The source must write no position twice, and the reader be f of all of it, position by position.
    """
    (read,) = (r for r in reads(reader.expr) if r.tensor == source.name)
    whole = [s.bare for s in read.slots]
    fits = (
        is_plain(reader)
        and whole == [s.bare for s in reader.slots]
        and None not in whole
        and is_injective(source)
        and not any(has_special_slots(r) for r in reads(source.expr))
        and not source.semiring.zero_of(source.dtype)
        and not reader.semiring.zero_of(reader.dtype)
        and source.shape == reader.shape
    )
    if not fits or not _keeps_zero(reader.expr):
        return None
    body = cast(source.expr, source.dtype)
    if isinstance(body, Einsum) and not body.bound:
        body = as_map(body)
    expr = transform(reader.expr, lambda e: body if e is read or e == read else e)
    return rebuilt(
        replace(source, name=reader.name, dtype=reader.dtype, semiring=reader.semiring), expr, source.extents
    )


def _keeps_zero(expr: Expr) -> bool:
    """Whether an expression is a chain of functions of one argument, down to a read, that map 0 to 0.

    The polynomial that approximates a function is not known to do what the function does.
    """
    if isinstance(expr, Map) and len(expr.args) == 1:
        keeps = expr.function == CAST or FUNCTIONS[expr.function].zero_preserving
        return keeps and expr.approx is None and _keeps_zero(expr.args[0])
    return isinstance(expr, Read)
