"""Gradients of sums in other semirings than that of real numbers: which share of it each term gets.

A greatest (least) value hands its gradient to the terms that reach it, in equal parts (PyTorch's amax does the same);
`logsumexp` by the softmax of the terms; a product the product of all the others (`_of_product`). A term is itself the
semiring's product of the factors.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..ir.expr import Const, Einsum, Equation, Expr, Map, Read
from ..ir.semiring import PLUS_TIMES, PRODUCT, Semiring
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
    zero = Const(0.0, work)
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
        if _never_zero(reverse, term):
            return (incoming, conjugate(call("div", value, term)))
        return (incoming, conjugate(_of_product(reverse, equation, node, term)))
    reverse.refuse(f"a sum in '{semiring.name}' over {work} has no derivative here", node)


def _of_product(reverse: Reverse, equation: Equation, node: Einsum, term: Expr) -> Expr:
    """The product of all terms but one, in time linear in their number, and itself with the right derivatives.

    Let the terms that are not 0 have the product r. A product of the others is r times a polynomial in the terms that
    are 0, which has the value 0, but not the derivative 0: e.g. with one of them, m, the derivative by m of the product
    without k is r / k. With n terms that are 0 it is their elementary symmetric polynomial of degree n, or n - 1 where
    the one left out is among them. Those up to degree 2 are written by Newton's identities with the sums of the terms
    and of their squares; of the higher ones value, first and second derivative are 0, so that the derivatives of the
    product are exact up to the third.
    """
    work, extents = node.accumulate, dict(equation.extents)
    one, zero, half = Const(1.0, work), Const(0.0, work), Const(0.5, work)
    vanishes = call("eq", term, zero)

    def each(base: str, expr: Expr) -> Read:
        return reverse.define(f"{equation.name}.{base}", (*equation.free, *node.bound), expr, extents, work)

    def along(base: str, expr: Expr, semiring: Semiring = PLUS_TIMES) -> Read:
        made = Einsum(node.bound, (expr,), work, work, semiring)
        return reverse.define(f"{equation.name}.{base}", equation.free, made, extents, work)

    def polynomial(degree: Expr, first: Expr, second: Expr) -> Expr:
        """The elementary symmetric polynomial of a degree, from the sum of the variables and that of their squares."""
        pairs = call("mul", half, call("sub", call("mul", first, first), second))
        found: Expr = zero
        for value, expr in ((2.0, pairs), (1.0, first), (0.0, one)):
            found = call("where", call("eq", degree, Const(value, work)), expr, found)
        return found

    present = each("present", call("where", vanishes, one, term))
    absent = each("absent", call("where", vanishes, term, zero))
    squares = each("squares", call("mul", absent, absent))
    number = along("zeros", call("where", vanishes, one, zero))
    rest = along("rest", present, PRODUCT)
    first, second = along("sum", absent), along("sum.squares", squares)
    share = call("mul", rest, polynomial(number, first, second))
    others = each("others", call("sub", first, absent)), each("others.squares", call("sub", second, squares))
    alone = call("mul", rest, polynomial(call("sub", number, one), *others))
    return call("where", vanishes, alone, call("div", share, present))


def _never_zero(reverse: Reverse, term: Expr) -> bool:
    """Whether a term is `where(t == 0, 1, t)` for some t, as those of a product of the terms that are not 0."""
    made = reverse.tensors[term.tensor] if isinstance(term, Read) else None
    match made:
        case Equation(
            update=None,
            expr=Map("where", (Map("eq", (Read() as tested, Const(value=0.0))), Const(value=1.0), Read() as kept)),
        ):
            return tested == kept
    return False


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
