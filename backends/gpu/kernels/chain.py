"""Chains of products in a program: the ground on which fused plans are looked for.

A chain is a run of equations, each a product of the value before it with a new factor, which nothing else reads. What
it is follows from the roles of its axes alone: which operands have them, and whether the result does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ....ir.expr import Einsum, Equation, Expr, Map, Program, Read, reads
from ....ir.functions import CAST
from ..nodes import Map as Copied
from ..nodes import Nest, Tensor
from ..views import Layout
from .region import Product, Region

LONGEST = 4  # factors of a chain that is looked for


@dataclass(frozen=True)
class Chain:
    """x, then the factor of each equation, in a region whose equations apply them one after the other."""

    region: Region
    x: Read
    factors: tuple[tuple[int, Read], ...]

    @property
    def last(self) -> int:
        """The number of the last equation."""
        return self.factors[-1][0]

    def axes_of(self, number: int) -> tuple[str, ...]:
        """The axes of a factor."""
        return self.region.axes(*self.factors[number])

    def bound(self, number: int) -> frozenset[str]:
        """The axes that are summed when a factor is applied."""
        equation = self.factors[number][0]
        product = self.region.product(equation)
        assert product is not None
        return frozenset(self.region.axis(equation, n) for n in product.einsum.bound)

    @property
    def x_axes(self) -> tuple[str, ...]:
        """The axes of x."""
        return self.region.axes(self.factors[0][0], self.x)

    @property
    def y_axes(self) -> tuple[str, ...]:
        """The axes of the result."""
        return self.region.result(self.last)


def readers(program: Program) -> dict[str, list[int]]:
    """The equations that read each tensor, once for each time."""
    found: dict[str, list[int]] = {}
    for k, equation in enumerate(program.equations):
        names = [r.tensor for r in reads(equation.expr)]
        for name in (*names, *([equation.update] if equation.update is not None else [])):
            found.setdefault(name, []).append(k)
    return found


def only_reader(program: Program, name: str) -> int | None:
    """The one equation that reads a value, once, where the value is no output."""
    found = readers(program).get(name, [])
    return found[0] if len(found) == 1 and name not in program.outputs else None


def chains(program: Program, start: int, sizes: Mapping[str, int], layouts: Mapping[str, Layout]) -> list[Chain]:
    """The chains that begin with an equation, the longest first; each way to tell x from the first factor."""
    numbers = [start]
    while len(numbers) < LONGEST:
        following = only_reader(program, program.equations[numbers[-1]].name)
        if following is None:
            break
        numbers.append(following)
    found: list[Chain] = []
    for length in range(len(numbers), 1, -1):
        equations = tuple(program.equations[n] for n in numbers[:length])
        region = Region(program, equations, sizes, layouts)
        products = [region.product(k) for k in range(length)]
        if not region.regular or any(p is None for p in products):
            continue
        if not all(_is_bare(e.expr) for e in equations[:-1]):
            continue
        factors = _factors(region, [p for p in products if p is not None])
        if factors is not None:
            first = products[0]
            assert first is not None
            for x, other in (first.operands, first.operands[::-1]):
                found.append(Chain(region, x, ((0, other), *factors)))
    return found


def _is_bare(expr: Expr) -> bool:
    """Whether an expression is one sum, perhaps converted: what is rounded in between is rounded in registers too."""
    return isinstance(uncast(expr), Einsum)


def uncast(expr: Expr) -> Expr:
    """The expression below conversions."""
    while isinstance(expr, Map) and expr.function == CAST:
        expr = expr.args[0]
    return expr


def _factors(region: Region, products: list[Product]) -> tuple[tuple[int, Read], ...] | None:
    """The operand of each later product that is not the value before it."""
    found = []
    for product in products[1:]:
        before = region.equations[product.equation - 1].name
        mine = [r for r in product.operands if r.tensor != before]
        if len(mine) != 1 or mine[0].tensor in region.inside:
            return None
        found.append((product.equation, mine[0]))
    return tuple(found)


# --- the end of a chain -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ending:
    """What is done with the value of a chain before it is stored: `statements` on `value` (none where it is stored as
    it is), the tensors that they read, and those that they store.
    """

    value: str
    statements: tuple[Nest, ...]
    read: tuple[Tensor, ...]
    stored: tuple[Tensor, ...]
    names: tuple[str, ...]


def ending(region: Region, number: int, total: Expr | None = None) -> Ending:
    """The statements from the sum of equation `number`, or from its part `total`, to the last equation of the region.

    A value is stored if it is an output, or if equations outside of the region read it.
    """
    equation = region.equations[number]
    product = region.product(number) if total is None else None
    total = product.einsum if product is not None else total
    assert total is not None
    rest = range(number, len(region.equations))
    if uncast(equation.expr) == uncast(total) and len(rest) == 1:
        return Ending("", (), (), (region.stored(number),), (equation.name,))
    value = region.local("total")
    values: dict[Expr | str, str] = {total: value}
    found: dict[str, Tensor] = {}
    statements: list[Nest] = []
    kept: dict[str, Tensor] = {}
    for k in rest:
        name = region.equations[k].name
        again = any(r.tensor == name for later in region.equations[k + 1 :] for r in reads(later.expr))
        if is_stored(region, k):
            kept[name] = region.stored(k)
        direct = name in kept and not again
        out = kept[name].name if direct else region.local(name)
        statements += region.statements(k, out, values, found)
        if name in kept and again:  # a value that was stored is not read back
            statements.append(Copied(kept[name].name, out, region.result(k)))
    stored = {t.name for t in kept.values()}
    read = tuple(t for t in found.values() if t.name not in stored)
    return Ending(value, tuple(statements), read, tuple(kept.values()), tuple(kept))


def is_stored(region: Region, number: int) -> bool:
    """Whether the value of an equation is wanted outside of the region."""
    name, inside = region.equations[number].name, region.inside
    if name in region.program.outputs:
        return True
    others = (e for e in region.program.equations if e.name not in inside)
    return any(r.tensor == name for e in others for r in reads(e.expr))


def followers(program: Program, taken: tuple[Equation, ...]) -> tuple[Equation, ...]:
    """Equations after a chain that read nothing made in the program but its value and what they make of it."""
    found: list[Equation] = []
    names = {taken[-1].name}
    made = {e.name for e in program.equations}
    for equation in program.equations[program.equations.index(taken[-1]) + 1 :]:
        inner = {r.tensor for r in reads(equation.expr)} & made
        if inner and inner <= names and equation.update is None:
            found.append(equation)
            names.add(equation.name)
    return tuple(found)
