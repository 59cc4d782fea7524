"""Softmax as equations: the first pass, after which a program holds only reads, maps and einsums.

softmax[k](e) becomes four equations: the body e (unless it is one read), its maximum, the exponentials of the
difference, and their sum; what stands in its place is the quotient. The body and the exponentials are tensors of
their own, so each is computed once. Fusing them into one streaming pass is left to later work.
"""

from __future__ import annotations

from dataclasses import replace

from ..ir.expr import Einsum, Equation, Expr, Map, Program, Read, Softmax, free_indices, transform, walk
from ..ir.rewrite import Trace
from ..ir.semiring import MAX_PLUS, PLUS_TIMES
from ..ir.types import accumulation_type
from .base import Context
from .tools import Names, cast, definition, has_special_slots, note, read_of, rebuilt


def expand_softmax(program: Program, context: Context, trace: Trace) -> Program:
    """Every Softmax node replaced by max, exp, sum and a division; intermediates are `y.softmax.max` and so on."""
    if not any(isinstance(n, Softmax) for e in program.equations for n in walk(e.expr)):
        return program
    names = Names(program)
    equations: list[Equation] = []
    for equation in program.equations:

        def rule(e: Expr, equation: Equation = equation) -> Expr:
            return _expand(e, equation, names, equations, trace)

        expr = transform(equation.expr, rule)
        equations.append(equation if expr is equation.expr else rebuilt(equation, expr, equation.extents))
    return replace(program, equations=tuple(equations))


def _expand(expr: Expr, equation: Equation, names: Names, out: list[Equation], trace: Trace) -> Expr:
    if not isinstance(expr, Softmax):
        return expr
    base = f"{equation.name}.softmax"
    work = accumulation_type(expr.dtype)
    inner = free_indices(expr.body)
    axes = (*inner, *(a for a in expr.along if a not in inner))
    kept = tuple(a for a in axes if a not in expr.along)
    extents = equation.extents

    def define(part: str, over: tuple[str, ...], value: Expr) -> Read:
        out.append(definition(names.fresh(f"{base}.{part}"), over, value, extents, work, PLUS_TIMES))
        return read_of(out[-1])

    body = cast(expr.body, work)
    if not isinstance(expr.body, Read) or has_special_slots(expr.body):  # converting a read again costs nothing
        body = define("body", axes, body)
    greatest = define("max", kept, Einsum(expr.along, (body,), work, work, MAX_PLUS))
    powers = define("exp", axes, Map("exp", (Map("sub", (body, greatest), work),), work))
    total = define("sum", kept, Einsum(expr.along, (powers,), work, work, PLUS_TIMES))
    result = cast(Map("div", (powers, total), work), expr.dtype)
    note(trace, "softmax", equation.name, expr, result)
    return result
