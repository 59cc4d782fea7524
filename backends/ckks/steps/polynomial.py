"""Polynomials of encrypted values, slot by slot, in logarithmic depth.

A polynomial of degree d is cut at the largest power of two m <= d into q T_m + r, again and again (Paterson and
Stockmeyer 1973; in the Chebyshev basis by T_i T_j = (T_(i+j) + T_|i-j|) / 2, so that coefficients stay small). Pieces
of degree below `babies` are sums of plain products. With two babies the depth is the logarithm of d + 1 and no less is
possible; more babies take fewer products, and a level more. Everything that is added meets before one rescaling and
one relinearisation, where plain products bring all scales to the same value exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..core.circuit import Builder
from ..core.layout import Packing
from ..core.numbers import is_whole, times
from ..lowering.problem import Polynomial
from .context import Argument, Context
from .option import Option, Placed, Work
from .placements import Common, common, restored, saved
from .tallied import work_of
from .vectors import Constant

Array = np.ndarray[Any, Any]
Coefficients = tuple[float, ...]
Pieces = tuple[list[tuple[int, float]], list[tuple[Coefficients, int]], float]

MOST_BABIES = 32


@dataclass(frozen=True)
class Evaluation:
    """One way to evaluate a polynomial: `babies`, a power of two, is what it is cut down to."""

    step: Polynomial
    context: Context
    place: Common
    babies: int

    @property
    def argument(self) -> Placed:
        """Where the argument lies."""
        return self.place.operands[0]

    @cached_property
    def scale(self) -> float:
        """What the argument is multiplied by first, to bring its range to -1..1."""
        return 2 / (self.step.high - self.step.low) if self.step.chebyshev else 1.0

    @cached_property
    def shift(self) -> float:
        """What is added to the argument then."""
        step = self.step
        return -(step.high + step.low) / (step.high - step.low) if step.chebyshev else 0.0

    @property
    def masks(self) -> bool:
        """Whether slots that hold no element are brought to 0 first: a polynomial of what a fold left may overflow."""
        return self.step.chebyshev and not self.argument.packing.clean

    @property
    def base(self) -> int:
        """The level of the argument once it is mapped to -1..1."""
        moved = self.masks or not is_whole(self.scale)
        return self.argument.level + moved

    @cached_property
    def coefficients(self) -> Coefficients:
        """The coefficients without zeros at the end."""
        return tuple(float(c) for c in np.trim_zeros(np.array(self.step.coefficients, dtype=float), "b"))

    @cached_property
    def level(self) -> int:
        """The level of the result."""
        return self._need(self.coefficients)

    @property
    def takes(self) -> tuple[Placed, ...]:
        """The argument, wherever it is."""
        return (self.argument,)

    @cached_property
    def gives(self) -> Placed:
        """The same packing, some levels lower."""
        packing = self.argument.packing
        clean = packing.clean or self.masks
        return Placed(Packing(packing.at, clean=clean), self.level, self.argument.text)

    @cached_property
    def work(self) -> Work:
        """Counted on one ciphertext: all are alike."""
        builder = Builder(self.context.slots)
        start = builder.switch(builder.input("", 0), self.argument.level)
        first = len(builder.nodes)
        _Evaluator(self, builder, None).value(start)
        one = work_of(builder.nodes[first:], self.context)
        count = self.argument.packing.ciphertexts
        return Work(**{name: value * count for name, value in vars(one).items()})

    @property
    def steps(self) -> frozenset[int]:
        """No rotation."""
        return frozenset()

    def emit(self, builder: Builder, operands: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
        """The polynomial of each ciphertext."""
        masks: dict[bytes, Array] = {}
        found = []
        for node, row in zip(operands[0], self.gives.packing.at, strict=True):
            mask = masks.setdefault((row >= 0).tobytes(), row >= 0)
            partial = self.gives.packing.clean and not mask.all()
            found.append(_Evaluator(self, builder, mask if partial else None).value(node))
        return tuple(found)

    def decision(self) -> Mapping[str, Any]:
        """How far it is cut down."""
        return {"method": "polynomial", "babies": self.babies, **saved(self.place)}

    def describe(self) -> str:
        """Degree, depth and the range that the argument has to keep."""
        degree, name = len(self.coefficients) - 1, self.step.function or "polynomial"
        text = f"{name} of degree {degree} in {self.level - self.argument.level} levels"
        return text + (f" on {self.step.low:g}..{self.step.high:g}" if self.step.chebyshev else "")

    # --- the cut

    def pieces(self, coefficients: Coefficients) -> Pieces:
        """(single terms, products q T_m, constant) that add up to a polynomial."""
        terms: list[tuple[int, float]] = []
        products: list[tuple[Coefficients, int]] = []
        rest = list(coefficients)
        while len(rest) > self.babies:
            m = 1 << (len(rest) - 1).bit_length() - 1
            high, rest = rest[m:], rest[:m]
            if self.step.chebyshev:
                for j, c in enumerate(high[1:], 1):
                    rest[m - j] -= c
                high[1:] = [2 * c for c in high[1:]]
            if any(high[1:]):
                products.append((tuple(high), m))
            elif high[0]:
                terms.append((m, high[0]))
            while rest and not rest[-1]:
                rest.pop()
        terms.extend((k, c) for k, c in enumerate(rest) if k and c)
        return terms, products, rest[0] if rest else 0.0

    def power_level(self, k: int) -> int:
        """The level of T_k."""
        return self.base + (k - 1).bit_length()

    def _need(self, coefficients: Coefficients) -> int:
        """The least level that the value of a polynomial can have."""
        terms, products, _ = self.pieces(coefficients)
        if not products and len(terms) == 1 and is_whole(terms[0][1]):
            return self.power_level(terms[0][0])
        plain = [self.power_level(k) + (not is_whole(c)) for k, c in terms]
        return max([self.base, *plain, *(max(self._need(q), self.power_level(m)) + 1 for q, m in products)])


class _Evaluator:
    """Writes an evaluation for one ciphertext. Constants are added where `mask` is true (everywhere without one)."""

    def __init__(self, plan: Evaluation, builder: Builder, mask: Array | None) -> None:
        self.plan, self.builder, self.mask, self.span = plan, builder, mask, plan.step.span
        self.powers: dict[int, int] = {}

    def value(self, argument: int) -> int:
        """The polynomial's node."""
        plan, step = self.plan, self.plan.step
        assert len(plan.coefficients) > 1, "a constant polynomial is no step on an encrypted value"
        if step.chebyshev and plan.argument.packing.clean:
            self.builder.claim(argument, max(abs(step.low), abs(step.high)))  # the range is the user's word
        self.powers[1] = self._claimed(self._mapped(argument), (0.0, 1.0))
        return self._polynomial(plan.coefficients, plan.level)

    def _claimed(self, node: int, coefficients: Coefficients) -> int:
        """A value with its bound: Chebyshev polynomials are at most 1 on their range, which intervals do not see."""
        if self.plan.step.chebyshev:
            self.builder.claim(node, sum(map(abs, coefficients)))
        return node

    def _mapped(self, node: int) -> int:
        """The argument brought to -1..1."""
        plan, builder = self.plan, self.builder
        if plan.masks or not is_whole(plan.scale):
            plain = Constant(plan.scale, builder.slots, self.mask if plan.masks else None)
            node = builder.rescale(builder.multiply_plain(node, plain, self.span), self.span)
        else:
            node = times(builder, node, plan.scale, self.span)
        return self._plus(node, plan.shift)

    def _plus(self, node: int, number: float) -> int:
        if not number:
            return node
        return self.builder.add_plain(node, Constant(number, self.builder.slots, self.mask), self.span)

    def _power(self, k: int) -> int:
        """T_k, or x^k."""
        builder = self.builder
        if k not in self.powers:
            i, j = (k + 1) // 2, k // 2
            node = builder.multiply(self._power(i), self._power(j), self.span)
            if self.plan.step.chebyshev and i != j:  # T_k = 2 (T_i T_j - T_1 / 2)
                node = builder.add(node, self._plain(1, -0.5, builder.nodes[node].level))
            node = builder.relinearise(builder.rescale(node, self.span), self.span)
            if self.plan.step.chebyshev:
                node = builder.add(node, node, self.span)
                node = self._plus(node, -1.0 if i == j else 0.0)
            self.powers[k] = self._claimed(node, (1.0,))
        return self.powers[k]

    def _plain(self, k: int, number: float, level: int) -> int:
        """number x T_k at a level, not rescaled."""
        builder = self.builder
        node = builder.switch(self._power(k), level)
        return builder.multiply_plain(node, Constant(number, builder.slots), self.span)

    def _polynomial(self, coefficients: Coefficients, target: int) -> int:
        """The value of a polynomial at a level."""
        builder = self.builder
        terms, products, constant = self.plan.pieces(coefficients)
        if not products and len(terms) == 1 and is_whole(terms[0][1]):
            k, number = terms[0]
            node = self._plus(builder.switch(times(builder, self._power(k), number, self.span), target), constant)
            return self._claimed(node, coefficients)
        pending, settled = [], []
        for q, m in products:
            high = self._polynomial(q, target - 1)
            pending.append(builder.multiply(high, builder.switch(self._power(m), target - 1), self.span))
        for k, number in terms:
            if self.plan.power_level(k) == target:
                settled.append(times(builder, self._power(k), number, self.span))
            else:
                pending.append(self._plain(k, number, target - 1))
        if pending:
            node = builder.rescale(builder.total(pending), self.span)
            settled.append(builder.relinearise(node, self.span))
        return self._claimed(self._plus(builder.total(settled), constant), coefficients)


def options(step: Polynomial, context: Context, arguments: tuple[Argument, ...]) -> Iterator[Option]:
    """The evaluations that no other beats in time and levels, the quickest first."""
    for place in common(context.shapes[step.argument], step.name, context, arguments):
        found: list[Evaluation] = []
        babies = 2
        while babies <= min(MOST_BABIES, max(2, len(step.coefficients))):
            evaluation = Evaluation(step, context, place, babies)
            if evaluation.level <= context.levels and evaluation.work.milliseconds <= context.limit:
                found.append(evaluation)
            babies *= 2
        found.sort(key=lambda e: (e.work.milliseconds, e.level))
        for n, evaluation in enumerate(found):
            if all(evaluation.level < earlier.level for earlier in found[:n]):
                yield evaluation


def restore(step: Polynomial, context: Context, arguments: tuple[Argument, ...], decision: Mapping[str, Any]) -> Option:
    """The evaluation of a saved plan."""
    place = restored(context, arguments, context.shapes[step.argument], decision)
    return Evaluation(step, context, place, int(decision["babies"]))
