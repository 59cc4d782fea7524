"""How the result of an einsum lies in memory: NumPy's `order`, with the rule of its iterator for "K"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .expression import Expression
from .operands import Array


def result_layouts(
    expression: Expression, arrays: Sequence[Array], sizes: Mapping[str, int], order: str
) -> Mapping[str, Any] | None:
    """How the result is to lie in memory: None for row-major, else its layout by name."""
    if order == "C":
        return None
    plain = all(a.flags.c_contiguous and 1 not in a.shape and 0 not in a.shape for a in arrays)
    if plain and order in expression.row_major:  # the strides of such operands are in one order for all sizes
        return None
    from ..backends.cpu.native_record import Layout

    equation = expression.program.equations[-1]
    shape = tuple(s.evaluate(sizes) for s in equation.shape)
    axes = list(range(len(shape)))
    if order == "F" or (order == "A" and all(a.flags.f_contiguous for a in arrays)):
        axes.reverse()
    elif order == "K":
        axes = _kept_order(expression, arrays, len(shape))
    if axes == sorted(axes):
        if plain:
            expression.row_major.add(order)
        return None
    return {equation.name: Layout.dense(equation.dtype, shape, tuple(axes))}


def _kept_order(expression: Expression, arrays: Sequence[Array], rank: int) -> list[int]:
    """The axes of the result, outermost first, as NumPy's iterator orders them for these operands.

    The rule is that of numpy's nditer (order "K"): an insertion sort by strides, in which two axes change places only
    if an operand that has both of them says so and none before it says otherwise.
    """
    from ..ir.expr import reads

    equation = expression.program.equations[-1]
    position = {i.name: k for k, i in enumerate(expression.arguments)}
    names = [s.bare for s in equation.slots]
    names += sorted(i.name for i in equation.indices if i.name not in names)
    rows: list[list[int]] = []
    for read in reads(equation.expr):
        array = arrays[position[read.tensor]]
        row = [0] * len(names)
        for slot, stride, extent in zip(read.slots, array.strides, array.shape, strict=True):
            if slot.bare is not None and extent != 1:
                row[names.index(slot.bare)] += stride
        rows.append(row)
    order: list[int] = []  # innermost first
    for axis in range(len(names) - 1, -1, -1):
        place = len(order)
        for k in range(len(order) - 1, -1, -1):
            verdict = _outside(rows, order[k], axis)
            if verdict is None:
                continue
            if not verdict:
                break
            place = k
        order.insert(place, axis)
    return [axis for axis in reversed(order) if axis < rank]


def _outside(rows: list[list[int]], inner: int, axis: int) -> bool | None:
    """Whether axis `inner` should lie outside `axis`; None if no operand has both."""
    verdict = None
    for row in rows:
        if row[axis] and row[inner]:
            if abs(row[inner]) <= abs(row[axis]):
                return False
            verdict = True
    return verdict
