"""Lookups in the plan: `(j == J[s])` stays beside the tensor that it moves, and the order of contraction sees a gather.

`prepare` runs before `order`: every index value stands in a tensor, and each looked-up index moves one factor only
(`sum[j] (j == J[s])*x[j]*z[j]` looks up twice). `contracted` is what `order` does with such a product: a gathered
factor counts as a tensor over the indices of its list, so that the path is chosen for stored blocks, not for the dense
matrix; a scatter is joined to the last kernel, which adds each point where it belongs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from ..ir.expr import Const, Einsum, Equation, Expr, Map, Program, Read, free_indices, substitute, transform, walk
from ..ir.functions import CAST
from ..ir.index import Affine, Index
from ..ir.lookup import Lookup, is_listed, lookup_of, split_lookups
from ..ir.rewrite import Trace
from ..ir.types import I64
from .base import Context
from .common import trace_changed
from .contract import axes_of
from .tools import Names, cast, definition, fresh_index, note, read_of, rebuilt


class Splitter(Protocol):
    """What `order` offers: the equations so far, and its own treatment of a product without lookups."""

    out: list[Equation]

    def contracted(self, einsum: Einsum, equation: Equation, sizes: dict[str, int]) -> Expr:
        """The last kernel of a product; the others are added to `out`."""

    def define(self, expr: Expr, equation: Equation) -> Expr:
        """A read of a new equation that computes `expr`."""


def prepare(program: Program, context: Context, trace: Trace) -> Program:
    """Index values stand in tensors, and each looked-up index of a product moves one factor."""
    names = Names(program)
    out: list[Equation] = []
    for equation in program.equations:
        if not any(lookup_of(e) is not None for e in walk(equation.expr)):
            out.append(equation)
            continue
        new = _Apart(equation, names, out).equation
        out.append(new)
        if new is not equation:
            note(trace, "lookup", equation.name, equation.expr, new.expr)
    return replace(program, equations=tuple(out)) if trace_changed(out, program) else program


class _Apart:
    """One equation with its lookups in normal form."""

    def __init__(self, equation: Equation, names: Names, out: list[Equation]) -> None:
        self.source, self.names, self.out = equation, names, out
        self.extents = dict(equation.extents)

        def rule(e: Expr) -> Expr:
            return self.apart(self.stored(e)) if isinstance(e, Einsum) and e.semiring.mul else e

        expr = transform(equation.expr, rule)
        self.equation = equation if expr == equation.expr else self.rebuilt(expr)

    def rebuilt(self, expr: Expr) -> Equation:
        """The equation with new indices among its own."""
        indices = tuple(Index(n, e) for n, e in self.extents.items())
        return rebuilt(replace(self.source, indices=indices), expr, self.extents)

    def stored(self, einsum: Einsum) -> Einsum:
        """Index values that are computed become tensors."""
        factors = []
        for factor in einsum.factors:
            factor = _selection(factor, einsum)
            found = lookup_of(factor)
            if found is not None and not is_listed(factor) and found.value.dtype.kind in "iu":
                value = found.value if isinstance(found.value, Read) else cast(found.value, I64)
                axes = axes_of(frozenset(free_indices(value)), (value,), self.source.free)
                new = definition(
                    self.names.numbered(self.source.name), axes, value, self.extents, value.dtype, self.source.semiring
                )
                self.out.append(new)
                factor = Lookup(found.index, read_of(new)).factor
            factors.append(factor)
        return replace(einsum, factors=tuple(factors))

    def apart(self, einsum: Einsum) -> Einsum:
        """A lookup of its own for every factor that uses its index; a looked-up index of the result keeps one, too."""
        lookups, _ = split_lookups(einsum.factors)
        factors, bound = list(einsum.factors), list(einsum.bound)
        for found in reversed(lookups):
            own = next(k for k, f in enumerate(factors) if lookup_of(f) == found)
            users = [k for k, f in enumerate(factors) if k != own and found.index in free_indices(f)]
            for k in users if found.index not in einsum.bound else users[1:]:
                name = fresh_index(found.index, self.extents)
                self.extents[name] = self.extents[found.index]
                bound.append(name)
                factors[k] = substitute(factors[k], {found.index: Affine.of(name)})
                factors.append(Lookup(name, found.value).factor)
        return replace(einsum, bound=tuple(bound), factors=tuple(factors))


def _selection(factor: Expr, einsum: Einsum) -> Expr:
    """The lookup that a factor is in another type: its conversion to 1 or 0, or the choice between those."""
    if not isinstance(factor, Map) or not factor.args or lookup_of(factor.args[0]) is None:
        return factor
    semiring, kind = einsum.semiring, einsum.accumulate
    if factor.function == CAST and semiring.mul == "mul":
        return factor.args[0]
    if factor.function == "where" and isinstance(factor.args[1], Const) and isinstance(factor.args[2], Const):
        values = factor.args[1].value, factor.args[2].value
        return factor.args[0] if values == (semiring.one_of(kind), semiring.zero_of(kind)) else factor
    return factor


def has_lookups(einsum: Einsum) -> bool:
    """Whether a product holds lookups that a kernel can follow."""
    return bool(split_lookups(einsum.factors)[0])


def stores_selection(program: Program) -> bool:
    """Whether an equation makes a matrix of a lookup: 0 everywhere but where the list says, and never worth storing."""
    for equation in program.equations:
        expr = equation.expr
        inside = expr.args[0] if isinstance(expr, Map) and expr.function in (CAST, "where") else expr
        if lookup_of(inside) is not None:
            return True
    return False


def contracted(splitter: Splitter, einsum: Einsum, equation: Equation, sizes: dict[str, int]) -> Expr:
    """The last kernel of a product with lookups; those before it are added to the splitter's equations."""
    lookups, _ = split_lookups(einsum.factors)
    last = _scattering(lookups, einsum)
    held = {n for found in last for n in (found.index, *found.lists)}
    left = tuple(f for f in einsum.factors if lookup_of(f) not in last)
    inner = replace(einsum, bound=tuple(b for b in einsum.bound if b not in held), factors=left)
    start = len(splitter.out)
    total = splitter.contracted(_bundled(inner), equation, sizes)
    splitter.out[start:] = [
        e if (new := _unbundled(e.expr)) is e.expr else replace(e, expr=new) for e in splitter.out[start:]
    ]
    total = _unbundled(total)
    if not last:
        return total
    if not isinstance(total, Einsum):
        read = splitter.define(total, equation)
        total = replace(einsum, bound=(), factors=(read,))
    bound = tuple(b for b in einsum.bound if b in held)
    return replace(einsum, bound=(*bound, *total.bound), factors=(*(found.factor for found in last), *total.factors))


def _scattering(lookups: tuple[Lookup, ...], einsum: Einsum) -> tuple[Lookup, ...]:
    """The lookups that say where the result is written, and those that these depend on."""
    chosen: list[Lookup] = []
    for found in reversed(lookups):
        if found.index not in einsum.bound or any(found.index in other.lists for other in chosen):
            chosen.append(found)
    return tuple(reversed(chosen))


def _bundled(einsum: Einsum) -> Einsum:
    """R4: each lookup and the factor that it moves as one inner product, a tensor over the list and the rest."""
    lookups, _ = split_lookups(einsum.factors)
    factors = list(einsum.factors)
    bound = list(einsum.bound)
    for found in reversed(lookups):
        own = next(f for f in factors if lookup_of(f) == found)
        moved = [f for f in factors if f is not own and found.index in free_indices(f)]
        factors = [f for f in factors if f is not own and all(f is not m for m in moved)]
        factors.append(
            Einsum((found.index,), (own, *moved), einsum.accumulate, einsum.accumulate, einsum.semiring, einsum.span)
        )
        bound.remove(found.index)
    return replace(einsum, bound=tuple(bound), factors=tuple(factors))


def _unbundled(expr: Expr) -> Expr:
    """R5: inner products that `_bundled` made dissolve again."""

    def rule(e: Expr) -> Expr:
        if not isinstance(e, Einsum) or not any(_is_bundle(f) for f in e.factors):
            return e
        bound, factors = list(e.bound), list[Expr]()
        for f in e.factors:
            if isinstance(f, Einsum) and _is_bundle(f):
                bound += f.bound
                factors += f.factors
            else:
                factors.append(f)
        return replace(e, bound=tuple(bound), factors=tuple(factors))

    return transform(expr, rule)


def _is_bundle(expr: Expr) -> bool:
    return isinstance(expr, Einsum) and bool(expr.factors) and is_listed(expr.factors[0])
