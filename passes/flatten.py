"""Programs with one operation an equation: what is put in front of a reverse sweep.

Afterwards the right side of an equation is one `Map`, `Einsum`, `Softmax` or `Linalg` of atoms, or an atom. Atoms are
numbers, index values, reads, and whole expressions of an integer or bool type, through which no derivative passes. An
equation that writes anything but one bare index an axis, or adds to a tensor, has an atom only. The other passes put
what is split here together again where that pays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..ir.expr import Equation, Expr, Linalg, Map, Program, Read, children, free_indices, with_children
from ..ir.semiring import PLUS_TIMES
from ..ir.size import Size
from .tools import Names, definition, holds_einsum, read_of, rebuilt


def flatten(program: Program) -> Program:
    """The same program with an equation, `y.step.1` and so on, for each operation inside of another.

    >>> from ..ir.text import parse_ir, print_program
    >>> lines = "input A: f64[n, n]", "input x: f64[n]"
    >>> body = "y[i]: f64[n] = exp(einsum[plustimes, f64](j; A[i, j], x[j])) over i<n, j<n"
    >>> print("\\n".join(print_program(flatten(parse_ir("\\n".join((*lines, body, "return y"))))).splitlines()[2:4]))
    y.step.1[i]: f64[n] = einsum[plustimes, f64](j; A[i, j], x[j]) over i<n, j<n
    y[i]: f64[n] = exp(y.step.1[i]) over i<n
    """
    names, out = Names(program), list[Equation]()
    for equation in program.equations:
        split = _Split(equation, names, out)
        whole = is_simple(equation) or isinstance(equation.expr, Linalg)
        expr = split.node(equation.expr) if whole else split.atom(equation.expr)
        out.append(equation if expr is equation.expr else rebuilt(equation, expr, equation.extents))
    same = len(out) == len(program.equations) and all(a is b for a, b in zip(out, program.equations, strict=True))
    return program if same else replace(program, equations=tuple(out))


def is_simple(equation: Equation) -> bool:
    """Whether an equation writes each position of its tensor once, by a bare index of its own on each axis."""
    bare = [s.bare for s in equation.slots]
    fits = all(n is not None and equation.extents[n] == e for n, e in zip(bare, equation.shape, strict=True))
    return equation.update is None and fits and len(set(bare)) == len(bare)


class _Split:
    """The splitting of one equation; what comes off it goes to `out`."""

    def __init__(self, equation: Equation, names: Names, out: list[Equation]) -> None:
        self.base, self.names, self.out = equation.name, names, out
        self.extents: Mapping[str, Size] = equation.extents

    def atom(self, expr: Expr) -> Expr:
        """The expression, or the read of a new equation for it."""
        passive = expr.dtype.kind in "biu" and not holds_einsum(expr)
        if passive or (not isinstance(expr, Linalg) and not children(expr) and not holds_einsum(expr)):
            return expr
        name = self.names.numbered(f"{self.base}.step")
        value = self.node(expr)
        made = definition(name, free_indices(value), value, self.extents, expr.dtype, PLUS_TIMES)
        self.out.append(replace(made, span=expr.span))
        return replace(read_of(made), span=expr.span)

    def node(self, expr: Expr) -> Expr:
        """The same operation on atoms."""
        old = children(expr)
        if isinstance(expr, (Linalg, Read)) or not old:
            return expr
        new = tuple(self.atom(c) for c in old)
        if isinstance(expr, Map) and expr.dtype.kind in "biu" and not holds_einsum(expr):
            return expr
        return expr if all(a is b for a, b in zip(old, new, strict=True)) else with_children(expr, new)
