"""What an equation costs beside its operands and its result where values meet at one place of it: a looked-up index of
the result, `y[i] += ... (i == I[s])`, takes atomic operations on a buffer that was filled before.

Used by prices, and by fused plans that do without.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from ...ir.expr import Einsum, Equation, walk
from ...ir.lookup import split_lookups

SUM_BYTES = 4  # of a sum of values with fewer than 32 bits


def scattered(equation: Equation, sizes: Mapping[str, int]) -> tuple[int, int]:
    """(bytes, launches) of a scatter beyond those of `ir.count`; zeros where no index of the result is looked up.

    Sums are filled with zeros, read and written for each point that is added, and converted if they have another type.

    >>> from ...ir.text import parse_ir
    >>> text = "input I: i64[6]\\ninput t: f32[6]\\n"
    >>> text += "y[i]: f32[4] = einsum[plustimes, f32](s; eq(at(i), I[s]), t[s]) over i<4, s<6\\nreturn y"
    >>> scattered(parse_ir(text).equations[0], {})
    (64, 1)
    """
    extents = {i.name: i.extent.evaluate(sizes) for i in equation.indices}
    found = [k for e in walk(equation.expr) if isinstance(e, Einsum) for k in split_lookups(e.factors)[0]]
    looked = [k for k in found if k.index in equation.free]
    if not looked:
        return 0, 0
    names = {*equation.free, *(n for k in looked for n in k.lists)} - {k.index for k in looked}
    width = max(SUM_BYTES, equation.dtype.itemsize)
    elements = prod(s.evaluate(sizes) for s in equation.shape)
    converted = equation.dtype.itemsize < SUM_BYTES
    return width * ((1 + converted) * elements + 2 * prod(extents[n] for n in names)), 1 + converted
