"""A Kronecker product whose result is quantised and packed before it is stored: x is read once, integers are written.

The scale of a position of the batch is the greatest absolute value of its tile, divided by the greatest integer; the
tile never leaves the chip before it is rounded (Sun et al., "FlatQuant", 2024). Two values of four bits make a byte:
the columns are computed as two tiles, the even and the odd ones, so that packing is arithmetic on equal places.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ....ir.semiring import MAX_PLUS
from ....ir.types import BOOL, F32, I8, I32, DType
from ..nodes import Apply, Kernel, Leaf, Literal, Local, Map, Nest, Number, Outer, Seq, Tensor, Tile
from .kronecker import roles
from .plan import product_type

INT4 = 7  # the greatest integer of four bits with a sign, so that scales are symmetric


def kronecker_int4(
    x: Tensor,
    left: Tensor,
    even: Tensor,
    y: Tensor,
    scales: Tensor,
    sizes: Mapping[str, Number],
    *,
    warps: int = 4,
    stages: int = 3,
    precision: str = "ieee",
    inner: DType | None = None,
    title: str = "",
) -> Kernel:
    """y[b,r,s] holds columns 2s (low four bits) and 2s + 1 (high four bits) of left . x . right', divided by scales[b].

    `even` is the right factor at its even rows, with the strides of these; the odd ones lie one row after.
    """
    b, p, q, r, s = roles(x, left, even, y)
    stride = even.strides[even.axes.index(s[-1])]
    assert isinstance(stride, int) and isinstance(even.offset, int), "rows of the right factor lie at known places"
    odd = replace(even, name=f"{even.name}_odd", memory=even.argument, offset=even.offset + stride // 2)
    kind = inner or product_type(x.dtype, even.dtype)
    pair = ("low", "high")
    products = tuple(Tile(n, ("u", f.name), r + s, q) for n, f in zip(pair, (even, odd), strict=True))
    greatest = tuple(Tile(f"{n}_most", (Apply("abs", (n,), F32),), (), r + s, MAX_PLUS, accumulate=F32) for n in pair)
    scale = Apply("div", (Apply("maximum", ("low_most", "high_most"), F32), Literal(float(INT4), F32)), F32)
    statements: tuple[Nest, ...] = (
        Tile("u", (left.name, x.name), r + q, p),
        *products,
        *greatest,
        Map("scale", scale),
        *(Map(f"{n}_steps", steps(n, "scale", INT4)) for n in pair),
        Map(y.name, packed("low_steps", "high_steps"), r + s),
        Map(scales.name, "scale"),
    )
    nest = Local("u", kind, Seq(statements))
    return Kernel(
        (x, left, even, odd, y, scales),
        tuple((a, sizes[a]) for a in b + p + q + r + s),
        Outer(tuple((a, 1) for a in b), nest),
        precision=precision,
        title=title,
        warps=warps,
        stages=stages,
    )


def steps(value: str, scale: str, greatest: int) -> Leaf:
    """A value in steps of the scale, as an integer; all steps are 0 where the scale is."""
    zero = Apply("eq", (scale, Literal(0.0, F32)), BOOL)
    safe = Apply("where", (zero, Literal(1.0, F32), scale), F32)
    rounded = Apply("round", (Apply("div", (value, safe), F32),), F32)
    most = Literal(float(greatest), F32), Literal(-float(greatest), F32)
    return Apply("cast", (Apply("clip", (rounded, most[1], most[0]), F32),), I32)


def packed(low: Leaf, high: Leaf) -> Leaf:
    """Two integers of four bits in one byte, in two's complement."""
    negative = Apply("lt", (low, Literal(0, I32)), BOOL)
    unsigned = Apply("where", (negative, Apply("add", (low, Literal(16, I32)), I32), low), I32)
    return Apply("cast", (Apply("add", (unsigned, Apply("mul", (high, Literal(16, I32)), I32)), I32),), I8)
