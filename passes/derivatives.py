"""Derivatives of the elementwise functions, as expressions.

`pull(function, place, args, value, cotangent)` is the cotangent of one argument: the cotangent of the value times the
conjugate of the derivative, which is PyTorch's convention for complex numbers (the gradient of a real function is that
direction in which it grows). Where a function has a corner, the value is PyTorch's too: relu and abs have 0 at 0, ties
of maximum and minimum are shared evenly. Everything computes in one type, that of `cotangent`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import pi, sqrt
from typing import TypeAlias

from ..ir.expr import Const, Expr, Map
from ..ir.functions import FUNCTIONS
from ..ir.semiring import Scalar
from ..ir.types import DType, promote

Rule: TypeAlias = "Callable[[_Terms], Expr | None]"


def call(function: str, *args: Expr) -> Map:
    """A `Map` of an elementwise function, with the type that follows from its arguments."""
    return Map(function, args, FUNCTIONS[function].result(tuple(a.dtype for a in args)))


def conjugate(expr: Expr) -> Expr:
    """The conjugate of a complex expression, a real one itself."""
    return call("conj", expr) if expr.dtype.kind == "c" else expr


def has_rule(function: str) -> bool:
    """Whether there is a rule for a function (one that is constant wherever it is smooth has a rule that says so)."""
    return function in _RULES


def pull(function: str, place: int, args: Sequence[Expr], value: Expr, cotangent: Expr) -> Expr | None:
    """The cotangent of argument `place`, or None where the derivative is 0 everywhere.

    `args` and `value` have the type of `cotangent`, except the condition of "where".

    >>> from ..ir.expr import Read
    >>> from ..ir.text import print_expr
    >>> from ..ir.types import F64
    >>> x, y, g = (Read(n, (), F64) for n in "xyg")
    >>> print_expr(pull("tanh", 0, [x], y, g), dict.fromkeys("xyg", F64))
    'mul(g[], sub(1.0:f64, mul(y[], y[])))'
    """
    return _RULES[function][place](_Terms(tuple(args), value, cotangent))


class _Terms:
    """What the rules speak of: the arguments a, b, c, the value y, the cotangent g."""

    def __init__(self, args: tuple[Expr, ...], value: Expr, cotangent: Expr) -> None:
        self.args, self.y, self.g = args, value, cotangent
        self.dtype: DType = cotangent.dtype
        self.a, self.b, self.c = (*args, *(value,) * 3)[:3]

    def number(self, value: Scalar) -> Const:
        """A number in the type of the cotangent."""
        return Const(value, self.dtype)

    def times(self, factor: Expr) -> Expr:
        """g times the conjugate of `factor`."""
        return call("mul", self.g, conjugate(factor))

    def only(self, condition: Expr, value: Expr | None = None) -> Expr:
        """`value` (g where there is none) where the condition holds, else 0."""
        return call("where", condition, self.g if value is None else value, self.number(0.0))


def _tied(comparison: str, place: int) -> Rule:
    """Of maximum and minimum: all to the argument that wins, half to each of two equal ones."""

    def rule(t: _Terms) -> Expr:
        mine, other = (t.a, t.b) if place == 0 else (t.b, t.a)
        half = call("mul", t.g, t.number(0.5))
        return call("where", call("eq", mine, other), half, t.only(call(comparison, mine, other)))

    return rule


def _power_base(t: _Terms) -> Expr | None:
    if isinstance(t.b, Const):
        if t.b.value == 0:
            return None
        if t.b.value == 1:
            return t.g
        if t.b.value == 2:
            return t.times(call("mul", t.b, t.a))
        return t.times(call("mul", t.b, call("pow", t.a, t.number(t.b.value - 1))))
    slope = t.times(call("mul", t.b, call("pow", t.a, call("sub", t.b, t.number(1.0)))))
    return call("where", call("eq", t.b, t.number(0.0)), t.number(0.0), slope)


def _power_exponent(t: _Terms) -> Expr:
    slope = t.times(call("mul", t.y, call("log", t.a)))
    zero = call("eq", t.a, t.number(0.0))
    if t.dtype.kind != "c":  # 0^b is 0 for all b > 0, and torch takes that for b = 0 too
        zero = call("logical_and", zero, call("ge", t.b, t.number(0.0)))
    return call("where", zero, t.number(0.0), slope)


def _share_of_logaddexp(place: int) -> Rule:
    def rule(t: _Terms) -> Expr:
        least = t.number(float("-inf"))
        mine = t.args[place]
        share = call("exp", call("sub", mine, t.y))
        return t.only(call("ne", mine, least), call("mul", t.g, share))

    return rule


def _absolute(t: _Terms) -> Expr:
    if t.a.dtype.kind != "c":
        return call("mul", t.g, call("sign", t.a))
    zero = call("eq", t.y, Const(0.0, t.y.dtype))
    safe = call("where", zero, Const(1.0, t.y.dtype), t.y)
    return call("mul", t.g, call("div", t.a, safe))


def _gelu(t: _Terms) -> Expr:
    below = call("mul", t.number(0.5), call("add", t.number(1.0), call("erf", call("mul", t.a, t.number(sqrt(0.5))))))
    density = call("exp", call("mul", t.number(-0.5), call("mul", t.a, t.a)))
    return t.times(call("add", below, call("mul", call("mul", t.a, density), t.number(1 / sqrt(2 * pi)))))


def _silu(t: _Terms) -> Expr:
    gate, one = call("sigmoid", t.a), t.number(1.0)
    return t.times(call("mul", gate, call("add", one, call("mul", t.a, call("sub", one, gate)))))


def _one_minus_square(t: _Terms) -> Expr:
    return t.times(call("sub", t.number(1.0), call("mul", t.y, t.y)))


def _between(t: _Terms) -> Expr:
    return t.only(call("logical_and", call("ge", t.a, t.b), call("le", t.a, t.c)))


def _at_low(t: _Terms) -> Expr:
    return t.only(call("logical_and", call("lt", t.a, t.b), call("le", t.b, t.c)))


def _at_high(t: _Terms) -> Expr:
    return t.only(call("gt", call("maximum", t.a, t.b), t.c))


def _imaginary(t: _Terms) -> Expr:
    return call("mul", t.g, Const(1j, promote(t.dtype, t.a.dtype)))


def _nothing(t: _Terms) -> None:
    return None


def _given(t: _Terms) -> Expr:
    return t.g


_RULES: Mapping[str, tuple[Rule, ...]] = {
    "add": (_given, _given),
    "sub": (_given, lambda t: call("neg", t.g)),
    "mul": (lambda t: t.times(t.b), lambda t: t.times(t.a)),
    "div": (
        lambda t: call("div", t.g, conjugate(t.b)),
        lambda t: call("neg", call("div", t.times(t.y), conjugate(t.b))),
    ),
    "pow": (_power_base, _power_exponent),
    "neg": (lambda t: call("neg", t.g),),
    "maximum": (_tied("gt", 0), _tied("gt", 1)),
    "minimum": (_tied("lt", 0), _tied("lt", 1)),
    "logaddexp": (_share_of_logaddexp(0), _share_of_logaddexp(1)),
    "where": (_nothing, lambda t: t.only(t.a), lambda t: call("where", t.a, t.number(0.0), t.g)),
    "clip": (_between, _at_low, _at_high),
    "exp": (lambda t: t.times(t.y),),
    "log": (lambda t: call("div", t.g, conjugate(t.a)),),
    "sqrt": (lambda t: call("div", t.g, call("mul", t.number(2.0), conjugate(t.y))),),
    "abs": (_absolute,),
    "sin": (lambda t: t.times(call("cos", t.a)),),
    "cos": (lambda t: call("neg", t.times(call("sin", t.a))),),
    "tanh": (_one_minus_square,),
    "sigmoid": (lambda t: t.times(call("mul", t.y, call("sub", t.number(1.0), t.y))),),
    "relu": (lambda t: t.only(call("gt", t.y, t.number(0.0))),),
    "gelu": (_gelu,),
    "silu": (_silu,),
    "erf": (lambda t: t.times(call("mul", t.number(2 / sqrt(pi)), call("exp", call("neg", call("mul", t.a, t.a))))),),
    "conj": (lambda t: call("conj", t.g),),
    "real": (_given,),
    "imag": (_imaginary,),
    **dict.fromkeys(("sign", "floor", "ceil", "round"), (_nothing,)),
}
