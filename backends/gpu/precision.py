"""Error bounds: how far the result of an equation on the GPU may lie from the exact one, by precision and length.

A sum of n products errs by at most (n + 1) u times the sum of their absolute values, u being the unit of the type it is
kept in (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1); operands that are rounded first add
two units of the type that they are rounded to. Stated by `explain`, and what the tests hold kernels to.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from ...ir.expr import Einsum, Equation, walk
from ...ir.semiring import PLUS_TIMES
from ...ir.types import BF16, F16, F32, DType

UNITS = {"f16": 2.0**-11, "bf16": 2.0**-8, "f32": 2.0**-24, "f64": 2.0**-53}
ROUNDED = {"ieee": 0.0, "tf32": 2.0**-11, "tf32x3": 2.0**-22, "bf16": 2.0**-8, "fp16": 2.0**-11}  # unit of an operand


def relative_error(length: int, accumulate: DType, result: DType, operands: DType, precision: str = "ieee") -> float:
    """The error of a sum of `length` products, relative to the sum of their absolute values.

    >>> relative_error(1, F32, F16, F16) < 2**-10
    True
    """
    rounded = ROUNDED[precision] if operands == F32 else 0.0
    own = UNITS.get(result.name, 0.0) if result != accumulate else 0.0
    return (length + 1) * UNITS.get(accumulate.name, 0.0) + 2 * rounded + own


def error_bound(equation: Equation, sizes: Mapping[str, int], precision: str = "ieee") -> str:
    """The bound of an equation in words, "" where nothing of it is rounded or it is no sum of products."""
    einsum = next((e for e in walk(equation.expr) if isinstance(e, Einsum) and e.bound), None)
    if einsum is None or einsum.semiring != PLUS_TIMES or einsum.accumulate.kind != "f":
        return ""
    extents = {i.name: i.extent.evaluate(sizes) for i in equation.indices}
    length = prod(extents[n] for n in einsum.bound)
    widest = max((f.dtype for f in einsum.factors), key=lambda t: t.bits, default=einsum.dtype)
    products = len(einsum.factors) > 1 and widest in (F16, BF16, F32)
    found = relative_error(length, einsum.accumulate, equation.dtype, widest, precision if products else "ieee")
    return f"at most {found:.1e} of the sum of absolute values ({length} terms in {einsum.accumulate})"
