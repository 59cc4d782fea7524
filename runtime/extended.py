"""Element types without machine code: Python objects, extended precision. They are evaluated by NumPy's own arithmetic.

NumPy's einsum accepts them, so a drop-in must. The meaning is spelled out by broadcasting: multiply the operands over
the whole index space, then add over the summed labels, in NumPy's loops for that type. No structure, no plan, no
speed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ir.errors import DTypeError
from ..ir.expr import Einsum, Read, reads
from ..ir.semiring import PLUS_TIMES
from ..ir.types import F64
from .operands import Array

if TYPE_CHECKING:
    from .settings import Settings


def evaluate_extended(spec: Any, arrays: Sequence[Array], out: Array | None, settings: Settings) -> Any:
    """Evaluate an einsum on operands of which some are of a type that has no machine code.

    Raises `DTypeError` for types without arithmetic (strings, records, dates), and for other semirings than plustimes.
    """
    from ..frontend.classic import check_shapes, elaborate_spec

    dtype = settings.dtype if settings.dtype is not None else np.result_type(*arrays)
    for number, array in enumerate(arrays):
        if array.dtype.kind not in "biufcO":
            raise DTypeError(f"operand {number} holds elements of type {array.dtype}", code="unsupported-type")
        if settings.dtype is not None and not np.can_cast(array.dtype, dtype, settings.casting):  # type: ignore[arg-type]
            raise DTypeError(f"operand {number} is {array.dtype}, which does not convert to {dtype}", code="casting")
    if settings.semiring != PLUS_TIMES:
        raise DTypeError(f"{settings.semiring.name} is not defined on {dtype}", code="unsupported-type")
    check_shapes(spec, tuple(a.shape for a in arrays))
    ones = tuple(tuple(n == 1 for n in a.shape) for a in arrays)
    program = elaborate_spec(
        spec, tuple(a.ndim for a in arrays), ones, (F64,) * len(arrays), diagonal_output=settings.diagonal_output
    )
    equation = program.equations[-1]
    expr = equation.expr
    names = list(equation.free) + (list(expr.bound) if isinstance(expr, Einsum) else [])
    position = {i.name: k for k, i in enumerate(program.inputs)}
    total: Any = None
    for read in reads(expr):
        factor = _over(read, arrays[position[read.tensor]].astype(dtype), names)
        total = factor if total is None else np.multiply(total, factor)
    axes = tuple(range(len(equation.free), len(names)))
    result = np.add.reduce(total, axis=axes, dtype=dtype) if axes else np.array(total, dtype=dtype)
    result = np.asarray(result, dtype=dtype)
    result = result.transpose([equation.free.index(s.bare) for s in equation.slots if s.bare is not None])
    if out is None:
        return result if result.ndim else result[()]
    if not np.can_cast(dtype, out.dtype, settings.casting):  # type: ignore[arg-type]
        raise DTypeError(f"the result is {dtype}, which does not convert to out's {out.dtype}", code="casting")
    np.copyto(out, result, casting="unsafe")
    return out


def _over(read: Read, array: Array, names: list[str]) -> Array:
    """The operand with one axis for each name, of length 1 where it lacks it."""
    labels: list[str | None] = [s.bare for s in read.slots]
    for axis in reversed([k for k, n in enumerate(labels) if n is None]):
        array = array.take(0, axis=axis)
        del labels[axis]
    while len(set(labels)) < len(labels):
        name = next(n for n in labels if labels.count(n) > 1)
        first = labels.index(name)
        second = labels.index(name, first + 1)
        array = array.diagonal(axis1=first, axis2=second)
        labels = [n for k, n in enumerate(labels) if k not in (first, second)] + [name]
    array = array.transpose([labels.index(n) for n in names if n in labels])
    return array.reshape([array.shape[[m for m in names if m in labels].index(n)] if n in labels else 1 for n in names])
