"""Gradients of sums in other semirings than that of real numbers: which share of it each term gets.

A greatest (least) value hands its gradient to the terms that reach it, in equal parts (PyTorch's amax does the same);
`logsumexp` by the softmax of the terms; a product the product of all the others, which is right also where factors are
0 (its derivative, in turn, is not where two or more are). A term is itself the semiring's product of the factors.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..ir.expr import Const, Einsum, Equation, Expr, Read
from ..ir.semiring import PRODUCT
from .derivatives import call, conjugate
from .tools import cast, multiplied

if TYPE_CHECKING:
    from .gradient_rules import Reverse


def shares(reverse: Reverse, equation: Equation, node: Einsum, gradient: Read, place: int) -> tuple[Expr, ...]:
    """The factors whose product, summed, is the gradient by factor `place` of a sum in another semiring."""
    work, semiring = node.accumulate, node.semiring
    extents = dict(equation.extents)
    value = Read(equation.name, equation.slots, equation.dtype)
    if equation.dtype != work:  # rounded: no term would equal it
        value = reverse.define(f"{equation.name}.exact", equation.free, replace(node, dtype=work), extents, work)
    term: Expr | None = None
    for factor in node.factors:
        term = multiplied(term, factor, node)
    assert term is not None
    one, zero = Const(1.0, work), Const(0.0, work)
    incoming = cast(gradient, work)
    if semiring.add in ("maximum", "minimum") and work.kind == "f":
        reached = call("eq", term, value)
        count = Einsum(node.bound, (reached,), work, work)
        number = reverse.define(f"{equation.name}.count", equation.free, count, extents, work)
        each = reverse.define(f"{equation.name}.share", equation.free, call("div", incoming, number), extents, work)
        return (each, reached, *_within(reverse, node, term, place))
    if semiring.add == "logaddexp" and work.kind == "f":
        weight = call("exp", call("sub", term, value))
        possible = call("ne", term, Const(float("-inf"), work))
        return (incoming, call("where", possible, weight, zero), *_within(reverse, node, term, place))
    if semiring == PRODUCT:
        vanishes = call("eq", term, zero)
        zeros = Einsum(node.bound, (call("where", vanishes, one, zero),), work, work)
        rest = Einsum(node.bound, (call("where", vanishes, one, term),), work, work, PRODUCT)
        number = reverse.define(f"{equation.name}.zeros", equation.free, zeros, extents, work)
        others = reverse.define(f"{equation.name}.rest", equation.free, rest, extents, work)
        safe = call("where", vanishes, one, term)
        alone = call("where", call("eq", number, one), others, zero)
        slope = call("where", call("eq", number, zero), call("div", others, safe), zero)
        return (incoming, conjugate(call("where", vanishes, alone, slope)))
    reverse.refuse(f"a sum in '{semiring.name}' over {work} has no derivative here", node)


def _within(reverse: Reverse, node: Einsum, term: Expr, place: int) -> tuple[Expr, ...]:
    """The derivative of the semiring's product by one factor, as further factors."""
    work, mul = node.accumulate, node.semiring.mul
    if mul in ("", "add"):
        return ()
    if mul == "mul":
        return tuple(conjugate(f) for k, f in enumerate(node.factors) if k != place)
    if mul in ("minimum", "maximum"):
        one, zero = Const(1.0, work), Const(0.0, work)
        reached = [call("where", call("eq", cast(f, work), term), one, zero) for f in node.factors]
        number: Expr = reached[0]
        for each in reached[1:]:
            number = call("add", number, each)
        return (call("div", reached[place], number),)
    reverse.refuse(f"products in '{node.semiring.name}' are '{mul}', which has no derivative here", node)
