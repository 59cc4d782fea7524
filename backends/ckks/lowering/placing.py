"""Lowering one equation: its monomials become steps, its clear factors tensors of the clear program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from ....ir import expr as e
from ....ir.errors import Span
from ....ir.functions import FUNCTIONS
from ....ir.index import Affine, Index
from ....ir.size import Size
from ....ir.types import F64
from .chebyshev import fit
from .indices import every_index, free_of, indices_of, number, shape_of, slot
from .parts import Parts
from .problem import Polynomial, Slot, Term
from .state import State
from .terms import Expansion, Monomial


class Placing:
    """Lowers one equation, with the values that it needs on the way."""

    def __init__(self, whole: State, equation: e.Equation) -> None:
        self.whole, self.equation = whole, equation
        self.extents = {i.name: number(i.extent) for i in equation.indices}
        sizes = {i.name: i.extent for i in equation.indices}
        self.expansion = Expansion(whole.encrypted, sizes, whole.program.source, self)

    def run(self) -> None:
        """Appends the steps of the equation."""
        equation = self.equation
        expansion = self.expansion
        if (equation.semiring.add, equation.semiring.mul) != ("add", "mul") and not _moves(equation):
            expansion.fail(
                f"{equation.semiring.name} of encrypted values cannot be evaluated under CKKS", equation.span
            )
        found = expansion.expand(equation.expr)
        if equation.dtype.kind in "bc":
            expansion.fail(f"an encrypted value of type {equation.dtype} cannot be evaluated under CKKS", equation.span)
        span = equation.expr.span if equation.expr.span.end else equation.span
        self.place(equation.name, equation.slots, shape_of(equation.shape), found, equation.update, span)

    # --- names for values on the way (`terms.Definer`)

    def define(self, expr: e.Expr) -> e.Read:
        """A read of a new value that is computed as `expr`, over its free indices."""
        axes = e.free_indices(expr)
        found = self.expansion.expand(expr)
        slots = tuple(Affine.of(a) for a in axes)
        name = self.whole.value(self.equation.name, tuple(self.extents[a] for a in axes))
        self.place(name, slots, self.whole.shapes[name], found, None, expr.span)
        return e.Read(name, slots, expr.dtype)

    def polynomial(self, function: str, argument: e.Read, approx: e.Approx, span: Span) -> e.Read:
        """A read of a new value: the function, approximated, of a whole encrypted tensor."""
        key = (function, argument.tensor, approx)
        name = self.whole.made.get(key)
        if name is None:
            shape = self.whole.shapes[argument.tensor]
            name = self.whole.made[key] = self.whole.value(self.equation.name, shape)
            fitted = fit(
                FUNCTIONS[function].numpy, approx.degree, approx.low, approx.high, self.whole.program.source, span
            )
            if any(fitted.coefficients[1:]):
                self.whole.steps.append(
                    Polynomial(
                        name, argument.tensor, fitted.coefficients, approx.low, approx.high, True, function,
                        fitted.error, span,
                    )
                )  # fmt: skip
            else:  # a number, whatever the argument
                places = [Monomial(0.0, reads=(argument,)), Monomial(fitted.coefficients[0])]
                self.place(name, argument.slots, shape, places, None, span)
        return replace(argument, tensor=name)

    # --- one value

    def place(
        self,
        name: str,
        slots: tuple[Affine, ...],
        shape: tuple[int, ...],
        found: Sequence[Monomial],
        update: str | None,
        span: Span,
    ) -> None:
        """Appends the steps that compute name[slots] = the sum of `found` (+ the value `update`)."""
        parts = Parts(self, name, slots, shape, span)
        if update is not None:
            parts.add_value(update)
        for monomial in found:
            parts.add(monomial)
        parts.finish()

    def linear_terms(self, monomial: Monomial, slots: Sequence[Affine]) -> list[Term]:
        """The terms of a linear map that a monomial of one read is, for a result at `slots`: one, or one a block."""
        term = self.linear_term(monomial, slots)
        blocks = self.whole.blocks.get(term.coefficients or "")
        pair = tuple(s.bare for s in term.at)
        if blocks is None or len(pair) != 2 or None in pair or pair[0] == pair[1]:
            return [term]
        names = (str(pair[0]), str(pair[1]))
        return [_in_block(term, names, blocks.size, place) for place in blocks.places]

    def linear_term(self, monomial: Monomial, slots: Sequence[Affine]) -> Term:
        """The term of a linear map that a monomial of one read is."""
        (read,) = monomial.reads
        kept = indices_of(slots) | indices_of(read.slots)
        factor, coefficients, at = self.coefficients(monomial, kept)
        used = kept | {n for s in at for n, _ in s.terms}
        return Term(
            tuple((n, self.extents[n]) for n in self.ordered(used)),
            tuple(map(slot, slots)),
            tuple(map(slot, read.slots)),
            coefficients,
            at,
            factor,
        )

    def coefficients(self, monomial: Monomial, kept: set[str]) -> tuple[float, str | None, tuple[Slot, ...]]:
        """(number, clear tensor, its slots): the clear part of a monomial whose other part has the indices `kept`.

        Indices that only clear factors have are summed ahead; one that nothing has counts with its extent.
        """
        inside = free_of(monomial.clear)
        alone = [b for b in monomial.bound if b not in kept and b not in inside]
        factor = monomial.factor * prod(self.extents[b] for b in alone)
        if not monomial.clear:
            return factor, None, ()
        first = monomial.clear[0]
        if len(monomial.clear) == 1 and isinstance(first, e.Read) and inside <= kept and first.pad in (None, 0):
            return factor, first.tensor, tuple(map(slot, first.slots))
        axes = [n for n in self.ordered(inside) if n in kept]
        summed = tuple(n for n in self.ordered(inside) if n not in kept)
        value = e.Einsum(summed, monomial.clear, F64, F64)
        places = tuple(Affine.of(a) for a in axes)
        return factor, self.clear_tensor("coefficients", axes, value), tuple(map(slot, places))

    def clear_tensor(self, what: str, axes: Sequence[str], value: e.Expr) -> str:
        """The name of a tensor over `axes` that the clear program computes as `value`."""
        key = (what, tuple((a, self.extents[a]) for a in axes), value)
        name = self.whole.made.get(key)
        if name is None:
            name = self.whole.made[key] = self.whole.fresh(f"{self.equation.name}.{what}")
            places = tuple(Affine.of(a) for a in axes)
            self.clear_equation(name, places, tuple(self.extents[a] for a in axes), value)
        return name

    def clear_equation(
        self, name: str, slots: tuple[Affine, ...], shape: tuple[int, ...], value: e.Expr, update: str | None = None
    ) -> None:
        """Appends name[slots] = value to the clear program."""
        used = self.ordered(indices_of(slots) | every_index(value))
        self.whole.clear.append(
            e.Equation(
                name, slots, tuple(map(Size.of, shape)), tuple(Index(n, Size.of(self.extents[n])) for n in used), value,
                F64, update=update, span=self.equation.span,
            )
        )  # fmt: skip

    def ordered(self, names: set[str]) -> list[str]:
        """Indices in the order of the equation."""
        return [n for n in self.extents if n in names]


def _in_block(term: Term, names: tuple[str, str], size: tuple[int, int], place: tuple[int, int]) -> Term:
    """The part of a term in which two indices run over one block."""
    start = {n: p * k for n, p, k in zip(names, place, size, strict=True)}
    extent = dict(zip(names, size, strict=True))

    def moved(slots: tuple[Slot, ...]) -> tuple[Slot, ...]:
        return tuple(replace(s, offset=s.offset + sum(c * start.get(n, 0) for n, c in s.terms)) for s in slots)

    indices = tuple((n, extent.get(n, k)) for n, k in term.indices)
    return replace(term, indices=indices, rows=moved(term.rows), columns=moved(term.columns), at=moved(term.at))


def _moves(equation: e.Equation) -> bool:
    """Whether an equation is a copy, in whatever semiring."""
    return isinstance(equation.expr, e.Read) and equation.update is None
