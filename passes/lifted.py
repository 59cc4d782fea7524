"""Products inside of functions become values of their own, before structure is looked for.

`relu(sum[j] W[i,j]*x[j])` is no linear function of x, but what relu is applied to is one. The recogniser speaks of
values, so that inner product gets a name; fusion puts it back where it was once everything is planned.
"""

from __future__ import annotations

from dataclasses import replace

from ..ir.expr import Einsum, Equation, Expr, Map, Program, Softmax, children, free_indices, walk, with_children
from ..ir.functions import CAST
from .contract import axes_of
from .tools import Names, definition, read_of, rebuilt

LINEAR = ("add", "sub", "neg", "mul", "div", "real", CAST)  # a network sees through these itself


def lifted(program: Program) -> Program:
    """The program with each sum of products that stands inside of a function in an equation `name.inner` before.

    >>> from ..ir.text import parse_ir, print_program
    >>> head = "input W: f64[3, 3]\\ninput x: f64[3]\\n"
    >>> text = head + "y[i]: f64[3] = relu(einsum[plustimes, f64](j; W[i, j], x[j])) over i<3, j<3\\nreturn y"
    >>> print(print_program(lifted(parse_ir(text))))
    input W: f64[3, 3]
    input x: f64[3]
    y.inner[i]: f64[3] = einsum[plustimes, f64](j; W[i, j], x[j]) over i<3, j<3
    y[i]: f64[3] = relu(y.inner[i]) over i<3
    return y
    <BLANKLINE>
    """
    names: Names | None = None
    out: list[Equation] = []
    for equation in program.equations:
        if not any(_has_sum(f) for f in _functions(equation.expr, equation)):
            out.append(equation)
            continue
        names = names or Names(program)
        out.append(_lifted(equation, names, out))
    return program if names is None else replace(program, equations=tuple(out))


def _is_function(expr: Expr, equation: Equation) -> bool:
    if isinstance(expr, Softmax):
        return True
    ring = (equation.semiring.add, equation.semiring.mul)
    return isinstance(expr, Map) and expr.function not in (*LINEAR, *ring)


def _functions(expr: Expr, equation: Equation) -> list[Expr]:
    """The outermost functions of an expression."""
    if _is_function(expr, equation):
        return [expr]
    return [f for c in children(expr) for f in _functions(c, equation)]


def _has_sum(expr: Expr) -> bool:
    """Whether a sum of products stands anywhere in an expression."""
    return any(isinstance(e, Einsum) and e.bound for e in walk(expr))


def _lifted(equation: Equation, names: Names, out: list[Equation]) -> Equation:
    def visit(e: Expr, inside: bool) -> Expr:
        if inside and isinstance(e, Einsum) and e.bound:
            axes = axes_of(frozenset(free_indices(e)), (e,), equation.free)
            name = names.fresh(f"{equation.name}.inner")
            new = replace(
                definition(name, axes, e, equation.extents, e.dtype, equation.semiring),
                span=e.span if e.span.end else equation.span,
            )
            out.append(new)
            return read_of(new)
        inner = inside or _is_function(e, equation)
        old = children(e)
        new_children = tuple(visit(c, inner) for c in old)
        return e if all(a is b for a, b in zip(old, new_children, strict=True)) else with_children(e, new_children)

    return rebuilt(equation, visit(equation.expr, False), equation.extents)
