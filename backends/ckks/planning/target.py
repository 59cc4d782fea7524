"""Lower bounds for encrypted programs, without a plan: what no layout can beat.

A product with a plain vector does at most one entry of a matrix in each slot. So a linear map takes at least its
number of entries over the slots in products, and a rescaling, with as many primes as the levels after it need. The
bound prunes candidates before the search; prices and plans are the planner's.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, prod

import numpy as np

from ..lowering.problem import EncryptedProgram, Linear, Polynomial, Product, Slot, Step, Sum, Term, arguments
from .cost import DEFAULTS, Prices, Rates

STEPS = (Linear, Product, Sum, Polynomial)


def lower_bound(program: EncryptedProgram, rings: Sequence[int], rates: Rates = DEFAULTS) -> float:
    """Milliseconds that every plan of a program takes at least at these rates, in the best of the rings.

    >>> from ....ir.text import parse_ir
    >>> from ..lowering.lower import lower
    >>> inputs = "input A: f64[512, 512]\\ninput encrypted x: f64[512]\\n"
    >>> product = "y[i]: f64[512] = einsum[plustimes, f64](j; A[i, j], x[j]) over i<512, j<512\\nreturn y"
    >>> bound = lower_bound(lower(parse_ir(inputs + product)), (8192,))
    >>> bound == 64 * Prices(8192).multiply_plain(2) + Prices(8192).rescale(2)
    True
    """
    return min(_bound(program, Prices(ring, rates)) for ring in rings)


def _bound(program: EncryptedProgram, prices: Prices) -> float:
    slots, total = prices.ring // 2, 0.0
    below = _levels_below(program)
    for step in program.steps:
        primes = 1 + below[step.name] + _levels(step)  # that a value has before the step, at least
        if isinstance(step, Linear):
            count = entry_count(step, program)
            if count:
                total += ceil(count / slots) * prices.multiply_plain(primes) + prices.rescale(primes)
        elif isinstance(step, Product):
            products = ceil(prod(step.extents.values()) / slots)
            total += products * prices.multiply(primes) + prices.rescale(primes)
    return total


def _levels_below(program: EncryptedProgram) -> dict[str, int]:
    """The levels that are still to come after each step, at least."""
    found = dict.fromkeys((s.name for s in program.steps), 0)
    for step in reversed(program.steps):
        for name in arguments(step):
            if name in found:
                found[name] = max(found[name], found[step.name] + _levels(step))
    return found


def entry_count(step: Linear, program: EncryptedProgram) -> int:
    """At least how many entries of the matrix of a step take part in a product with coefficients."""
    rows, columns = program.shapes[step.name], program.shapes[step.argument]
    counts = [_count(t, rows, columns, program) for t in step.terms if t.coefficients is not None]
    return max(counts, default=0)  # entries of different terms may coincide


def _count(term: Term, rows: tuple[int, ...], columns: tuple[int, ...], program: EncryptedProgram) -> int:
    """The points of a term, less those at which a slot leaves its axis (points that leave two axes count twice)."""
    assert term.coefficients is not None
    table = tuple(s.evaluate({}) for s in program.clear.tensors[term.coefficients].shape)
    extents = dict(term.indices)
    total = prod(extents.values())
    outside = 0.0
    for slots, shape in ((term.rows, rows), (term.columns, columns), (term.at, table)):
        for slot, size in zip(slots, shape, strict=True):
            outside += total * _outside(slot, extents, size)
    return max(0, round(total - outside))


def _outside(slot: Slot, extents: dict[str, int], size: int) -> float:
    """The share of points at which a slot is not on an axis of `size`: its values are counted by convolution."""
    if slot.modulus:
        return max(0.0, (slot.modulus - size) / slot.modulus)
    low, counts = slot.offset, np.ones(1)
    for name, scale in slot.terms:
        run = np.zeros(abs(scale) * (extents[name] - 1) + 1)
        run[:: abs(scale)] = 1.0
        low += min(0, scale) * (extents[name] - 1)
        counts = np.convolve(counts, run)
    inside = counts[max(0, -low) : max(0, size - low)].sum()
    return float(1.0 - inside / counts.sum())


def sizes_of_steps(program: EncryptedProgram) -> tuple[tuple[int, ...], ...]:
    """For each step its kind and the sizes of result, operands and work: equal for programs that differ in names alone.

    `(A x B) x` is the same work whether A or B comes first, where both have the same size: the client's packing of x
    turns one into the other.
    """
    found = []
    for step in program.steps:
        shapes = [prod(program.shapes[n]) for n in (step.name, *arguments(step))]
        points = 0
        if isinstance(step, Linear):
            points = sum(prod(n for _, n in t.indices) for t in step.terms)
        elif isinstance(step, Product):
            points = prod(step.extents.values())
        elif isinstance(step, Polynomial):
            points = len(step.coefficients)
        found.append((STEPS.index(type(step)), *shapes, points))
    return tuple(found)


def depth(program: EncryptedProgram) -> tuple[int, tuple[Step, ...]]:
    """The products in a row on the longest path of a program, and its steps in order.

    A map without coefficients counts for nothing: layouts may do it. Polynomials count as they are evaluated.

    >>> from ....ir.text import parse_ir
    >>> from ..lowering.lower import lower
    >>> inputs = "input encrypted x: f64[2]\\ninput encrypted z: f64[2]\\n"
    >>> text = inputs + "y[i]: f64[2] = mul(mul(x[i], x[i]), z[i]) over i<2\\nreturn y"
    >>> depth(lower(parse_ir(text)))[0]
    2
    """
    best: dict[str, tuple[int, tuple[Step, ...]]] = dict.fromkeys(program.inputs, (0, ()))
    for step in program.steps:
        before, path = max((best[n] for n in arguments(step)), key=lambda found: found[0])
        own = _levels(step)
        best[step.name] = (before + own, (*path, step) if own else path)
    return max((best[n] for n in program.outputs), key=lambda found: found[0], default=(0, ()))


def _levels(step: Step) -> int:
    match step:
        case Linear():
            return int(any(t.coefficients is not None or t.factor not in (1.0, -1.0) for t in step.terms))
        case Product():
            return (len(step.operands) - 1).bit_length() + (step.clear is not None)
        case Polynomial():
            return max(1, (len(step.coefficients) - 1).bit_length())
    return int(any(f not in (1.0, -1.0) for _, f in step.operands))
