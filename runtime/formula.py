"""Expressions as people write them: the short form that `explain` shows in place of IR text."""

from __future__ import annotations

from ..ir.expr import Const, Einsum, Equation, Expr, Linalg, Map, Position, Read, SizeValue, Softmax
from ..ir.semiring import REDUCTIONS

_SIGNS = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "pow": "^",
    "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
}  # fmt: skip


_REDUCTIONS = {semiring.name: name for name, semiring in REDUCTIONS.items()}


def equation_formula(equation: Equation) -> str:
    """An equation in the notation of the language.

    >>> from stein.ir.index import Affine
    >>> from stein.ir.size import Size
    >>> from stein.ir.types import F32
    >>> i = Affine.of("i")
    >>> equation_formula(Equation("y", (i,), (Size.name("n"),), (), Read("x", (i,), F32), F32))
    'y[i] = x[i]'
    """
    left = equation.name + ("" if isinstance(equation.expr, Linalg) else _slots(equation.slots))
    return f"{left} {'+=' if equation.update == equation.name else '='} {formula(equation.expr)}"


def formula(expr: Expr) -> str:
    """An expression in the notation of the language; the names of reductions are those of their semirings."""
    match expr:
        case Const(value):
            return f"{value:g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)
        case SizeValue(size):
            return str(size)
        case Position(affine):
            return str(affine) if affine.bare else f"({affine})"
        case Read():
            return expr.tensor + _slots(expr.slots)
        case Linalg(function, args=args):  # of whole tensors
            return f"{function}({', '.join(a.tensor if isinstance(a, Read) else formula(a) for a in args)})"
        case Softmax(along, body):
            return f"softmax[{','.join(along)}]({formula(body)})"
        case Einsum(bound, factors):
            name = expr.semiring.name
            product = ("*" if expr.semiring.mul == "mul" else " * ").join(map(_tight, factors)) or "1"
            if not bound:
                return product
            head = _REDUCTIONS.get(name, name) if len(factors) == 1 or name == "plustimes" else name
            return f"{head}[{','.join(bound)}] {product}"
        case Map("cast", (arg,), dtype):
            return f"{dtype}({formula(arg)})"
        case Map(function, args):
            if function in _SIGNS:
                return f" {_SIGNS[function]} ".join(map(_tight, args))
            if function == "neg":
                return "-" + _tight(args[0])
            return f"{function}({', '.join(map(formula, args))})"
    raise AssertionError(f"no expression: {expr!r}")


def _tight(expr: Expr) -> str:
    """The formula, in parentheses where it would fall apart."""
    text = formula(expr)
    loose = isinstance(expr, Einsum) and (expr.bound or len(expr.factors) > 1)
    return f"({text})" if loose or (isinstance(expr, Map) and expr.function in _SIGNS) else text


def _slots(slots: tuple[object, ...]) -> str:
    return f"[{','.join(map(str, slots))}]" if slots else ""
