"""Toeplitz products and long convolutions as Fourier transforms on matrix units, one row of the batch in a program.

y[m] = sum over n of h[m - n] x[n]. A transform of F points at F = P Q is two products with small matrices and a
pointwise factor between them (Cooley and Tukey, 1965; on tensor cores: Fu et al., "FlashFFTConv", 2023). With
frequencies f + 1/2 in place of f, the transform of a real x has no frequency that is its own mirror: exactly half of
them decide the rest, and x and y stay real throughout. With n = Q n1 + n2 and f = f1 + P f2, for f1 < P / 2:

    v[f1,n2] = sum over n1 of G[f1,n1] x[n1,n2]            G[f1,n1] = exp(-2 pi i (f1 + 1/2) n1 / P)
    z[f1,f2] = sum over n2 of (v w)[f1,n2] D[n2,f2]        w[f1,n2] = exp(-2 pi i (f1 + 1/2) n2 / F)
    s[f1,m2] = sum over f2 of (z t)[f1,f2] conj D[f2,m2]   D[n2,f2] = exp(-2 pi i n2 f2 / Q)
    y[m1,m2] = real sum over f1 of conj G[f1,m1] (s conj w)[f1,m2]

with t the transform of h. All products but the last read their left operand from registers. G and D carry the factors
that make the sums of squares equal before and after, so that 16-bit numbers neither overflow nor vanish: nothing is
left of the 2 / F of the inverse. Twelve real products of P/2 x P/2 x Q replace one of N x N: at N = 4096, 103 GFLOP for
16384 rows, against 550 for the matrix; tiles of the matrix itself, made on chip from h, would read less but compute all
550, and are slower wherever F / 2 > 12 (P / 2 + Q) / 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil, pi
from typing import Any

import numpy as np

from ....ir.types import F32, DType
from ..frame import ceil_pow2
from ..nodes import Apply, Coordinate, Kernel, Leaf, Local, Loop, Map, Nest, Number, Outer, Seq, Slot, Tensor, Tile

Array = np.ndarray[Any, Any]
RESULT = ("m1", "m2")  # the digits of the axis of y
SMALLEST = 16  # matrix units multiply no smaller tiles


@dataclass(frozen=True)
class Transform:
    """The transform of `points` = `outer` x `inner` points, for x of length `cols` and y of length `rows`.

    >>> Transform.of(4096, 4096)
    Transform(rows=4096, cols=4096, outer=128, inner=64)
    """

    rows: int
    cols: int
    outer: int
    inner: int

    @staticmethod
    def of(rows: int, cols: int) -> Transform:
        """The least power of two without wrap-around, its inner factor as near as may be to half of the outer one."""
        digits = max(2 * SMALLEST * SMALLEST, ceil_pow2(rows + cols - 1)).bit_length() - 1
        return Transform(rows, cols, 1 << (digits - (digits - 1) // 2), 1 << (digits - 1) // 2)

    @property
    def points(self) -> int:
        """The length F."""
        return self.outer * self.inner

    @property
    def half(self) -> int:
        """Values of f1 that are computed."""
        return self.outer // 2

    @property
    def flops(self) -> int:
        """Operations of one row: twelve real products."""
        taken, given = self.blocks(self.cols), self.blocks(self.rows)
        return 2 * self.half * self.inner * (2 * taken + 8 * self.inner + 2 * given)

    def blocks(self, length: int) -> int:
        """Values of n1 that a row of `length` has, a power of two of at least 16."""
        return max(SMALLEST, ceil_pow2(ceil(length / self.inner)))

    def constants(self) -> dict[str, Array]:
        """G, D and w as real and imaginary parts; `dn` is the negated imaginary part of D, `p` the factor that shifts
        the lags of the generator to begin at 1 - cols.
        """
        f1, n1 = np.arange(self.half), np.arange(self.outer)
        n2 = np.arange(self.inner)
        first = np.exp(-2j * pi * np.outer(f1 + 0.5, n1) / self.outer) / np.sqrt(self.half)
        twiddle = np.exp(-2j * pi * np.outer(f1 + 0.5, n2) / self.points)
        second = np.exp(-2j * pi * np.outer(n2, n2) / self.inner) / np.sqrt(self.inner)
        theta = 2 * pi * (f1[:, None] + 0.5 + self.outer * n2[None, :]) / self.points
        scale = np.sqrt(self.half * self.inner)  # the generator is not an end of the transform: its sum is plain
        shift = scale * np.exp(1j * theta * (self.cols - 1))
        found = {}
        for name, value in (("g", first), ("w", twiddle), ("d", second), ("p", shift)):
            found[f"{name}r"], found[f"{name}i"] = value.real, value.imag
        return found | {"dn": -second.imag}


def convolution(
    x: Tensor,
    y: Tensor,
    ends: tuple[str, str],
    lanes: tuple[str, ...],
    sizes: Mapping[str, Number],
    transform: Transform,
    dtype: DType,
    *,
    epilogue: tuple[Map, ...] = (),
    value: str = "",
    extra: tuple[Tensor, ...] = (),
    step: int = 0,
    warps: int = 4,
    stages: int = 1,
    precision: str = "ieee",
    title: str = "",
) -> Kernel:
    """y from x and the spectrum (`tr`, `ti`), for each position of the other axes of x.

    `ends` are the axis of x that is summed, and that of y which takes its place; the spectrum has the axes `lanes` of
    the batch. `dtype` is that of the matrices. An `epilogue` of maps makes y of `value` and of `extra` tensors, with
    the axes of y.
    With a `step`, x is taken and y is made so many columns of n2 and m2 at a time: v and s are never there as a whole,
    which leaves registers for operands where matrix units take them from there.
    """
    (n, m), total = ends, value or "total"
    batch = tuple(a for a in x.axes if a != n)
    taken, given = transform.blocks(transform.cols), transform.blocks(transform.rows)
    source = _digits(x, n, ("n1", "n2"), transform.inner, transform.cols, taken)
    target = _digits(y, m, RESULT, transform.inner, transform.rows, given)
    more = (_digits(t, m, RESULT, transform.inner, transform.rows, given) if m in t.axes else t for t in extra)
    finish = tuple(_map_in_digits(s, m, transform.inner) for s in epilogue)
    h, q = transform.half, transform.inner
    tensors = (
        source,
        *_matrix("g", ("f1", "n1"), (transform.outer, 1), dtype),
        *_matrix("w", ("f1", "n2"), (q, 1), dtype),
        *_matrix("d", ("n2", "f2"), (q, 1), dtype, "rin"),
        *_spectrum(lanes, transform, dtype),
        *_again(_matrix("d", ("f2", "m2"), (q, 1), dtype, "rin"), "inverse"),
        *_again(_matrix("w", ("f1", "m2"), (q, 1), dtype), "inverse"),
        *_again(_matrix("g", ("f1", "m1"), (transform.outer, 1), dtype), "inverse"),
        *more,
        target,
    )
    f1n2, f1f2, f1m2 = ("f1", "n2"), ("f1", "f2"), ("f1", "m2")
    forward: tuple[Nest, ...] = (
        Tile("vr", ("gr", source.name), f1n2, ("n1",)),
        Tile("vi", ("gi", source.name), f1n2, ("n1",)),
        *_times(("ar", "ai"), ("vr", "vi"), ("wr", "wi")),
        Tile("zr", ("ar", "dr"), f1f2, ("n2",)),
        Tile("zr", ("ai", "dn"), f1f2, ("n2",), add=True),
        Tile("zi", ("ar", "di"), f1f2, ("n2",)),
        Tile("zi", ("ai", "dr"), f1f2, ("n2",), add=True),
    )
    back: tuple[Nest, ...] = (
        Tile("sr", ("br", "dr_inverse"), f1m2, ("f2",)),
        Tile("sr", ("bi", "di_inverse"), f1m2, ("f2",), add=True),
        Tile("si", ("bi", "dr_inverse"), f1m2, ("f2",)),
        Tile("si", ("br", "dn_inverse"), f1m2, ("f2",), add=True),
        *_times(("cr", "ci"), ("sr", "si"), ("wr_inverse", "wi_inverse"), conjugate=True),
        Tile(total, ("gr_inverse", "cr"), RESULT, ("f1",)),
        Tile(total, ("gi_inverse", "ci"), RESULT, ("f1",), add=True),
        *(finish or (Map(target.name, total),)),
    )
    between = _times(("br", "bi"), ("zr", "zi"), ("tr", "ti"))
    if step:
        forward = (Loop("n2", step, Seq(forward), reduced=True),)
        back = (Loop("m2", step, Seq(back)),)
    nest: Nest = Seq((*forward, *between, *back))
    for name in ("vr", "vi", "zr", "zi", "sr", "si", total):
        nest = Local(name, F32, nest)
    for name in ("ar", "ai", "br", "bi", "cr", "ci"):
        nest = Local(name, dtype, nest)
    extents = {"f1": h, "f2": q, "n1": taken, "n2": q, "m1": given, "m2": q}
    return Kernel(
        tensors,
        (*((a, sizes[a]) for a in batch), *extents.items()),
        Outer(tuple((a, 1) for a in batch), nest),
        precision=precision,
        title=title,
        warps=warps,
        stages=stages,
    )


def spectrum(
    generator: Tensor,
    lag: str,
    length: int,
    sizes: Mapping[str, Number],
    transform: Transform,
    dtype: DType,
    *,
    first: int,
    warps: int = 8,
    precision: str = "ieee",
    title: str = "",
) -> Kernel:
    """tr, ti: the transform of h, which `generator` holds at d + `first` on its axis `lag` of `length`, for each
    position of its other axes.

    Lags from 1 - cols to rows - 1 are read; what the generator lacks of them is 0.
    """
    q, p = transform.inner, transform.outer
    lanes = tuple(a for a in generator.axes if a != lag)
    offset = first - (transform.cols - 1)
    lags = transform.rows + transform.cols - 1
    strides = dict(zip(generator.axes, generator.strides, strict=True))
    # Of n1 x n2 positions, those past the last lag stand for nothing.
    slot = Slot(strides[lag], (("n1", q), ("n2", 1)), offset, extent=min(length, lags + offset))
    axes, kept = (*lanes, "n1", "n2"), (*(strides[a] for a in lanes), 0, 0)
    taken = replace(generator, axes=axes, strides=kept, slots=(slot,), pad=0)
    tensors = (
        taken,
        *_matrix("g", ("f1", "n1"), (p, 1), F32, suffix="_f32"),
        *_matrix("w", ("f1", "n2"), (q, 1), F32, suffix="_f32"),
        *_matrix("d", ("n2", "f2"), (q, 1), F32, "rin", "_f32"),
        *_matrix("p", ("f1", "f2"), (q, 1), F32, suffix="_f32"),
        *_spectrum(lanes, transform, dtype),
    )
    f1n2, f1f2 = ("f1", "n2"), ("f1", "f2")
    first_sums = Seq(tuple(Tile(f"v{c}", (f"g{c}_f32", taken.name), f1n2, ("n1",)) for c in "ri"))
    statements: tuple[Nest, ...] = (
        Loop("n1", min(p, 2 * SMALLEST), first_sums, reduced=True),
        *_times(("ar", "ai"), ("vr", "vi"), ("wr_f32", "wi_f32")),
        Tile("zr", ("ar", "dr_f32"), f1f2, ("n2",)),
        Tile("zr", ("ai", "dn_f32"), f1f2, ("n2",), add=True),
        Tile("zi", ("ar", "di_f32"), f1f2, ("n2",)),
        Tile("zi", ("ai", "dr_f32"), f1f2, ("n2",), add=True),
        *_times(("tr", "ti"), ("zr", "zi"), ("pr_f32", "pi_f32")),
    )
    nest: Nest = Seq(statements)
    for name in ("vr", "vi", "zr", "zi", "ar", "ai"):
        nest = Local(name, F32, nest)
    extents = {"f1": transform.half, "f2": q, "n1": p, "n2": q}
    return Kernel(
        tensors,
        (*((a, sizes[a]) for a in lanes), *extents.items()),
        Outer((*((a, 1) for a in lanes), ("f1", SMALLEST), ("f2", SMALLEST)), nest),
        precision=precision,
        title=title,
        warps=warps,
        stages=1,
    )


def _spectrum(lanes: tuple[str, ...], transform: Transform, dtype: DType) -> tuple[Tensor, Tensor]:
    """The parts of the transform of the generator, each dense; an axis of the batch has a stride of its own."""
    points = transform.half * transform.inner
    outer = tuple(points if k == len(lanes) - 1 else f"s_t_{a}" for k, a in enumerate(lanes))
    axes, strides = (*lanes, "f1", "f2"), (*outer, transform.inner, 1)
    return Tensor("tr", axes, dtype, strides), Tensor("ti", axes, dtype, strides)


def _digits(tensor: Tensor, axis: str, digits: tuple[str, str], inner: int, length: int, blocks: int) -> Tensor:
    """The tensor with one axis in two digits; positions past `length` are 0 where the digits reach further."""
    at = tensor.axes.index(axis)
    stride = tensor.strides[at]
    axes = (*tensor.axes[:at], *digits, *tensor.axes[at + 1 :])
    if blocks * inner == length and isinstance(stride, int):
        strides = (*tensor.strides[:at], inner * stride, stride, *tensor.strides[at + 1 :])
        return replace(tensor, axes=axes, strides=strides)
    slot = Slot(stride, ((digits[0], inner), (digits[1], 1)), extent=length)
    return replace(
        tensor, axes=axes, strides=(*tensor.strides[:at], 0, 0, *tensor.strides[at + 1 :]), slots=(slot,), pad=0
    )


def _map_in_digits(statement: Map, axis: str, inner: int) -> Map:
    """A map over the axes of the result, with that one in its two digits."""

    def renewed(leaf: Leaf) -> Leaf:
        if isinstance(leaf, Apply):
            return replace(leaf, args=tuple(map(renewed, leaf.args)))
        if isinstance(leaf, Coordinate):
            high, low = RESULT
            terms = (((high, _scaled(f, inner)), (low, f)) if a == axis else ((a, f),) for a, f in leaf.terms)
            return replace(leaf, terms=tuple(t for pair in terms for t in pair))
        return leaf

    free = tuple(n for a in statement.free for n in (RESULT if a == axis else (a,)))
    return replace(statement, leaf=renewed(statement.leaf), free=free)


def _scaled(factor: Number, by: int) -> Number:
    assert isinstance(factor, int), "factors of the positions in a fused kernel are known"
    return factor * by


def _matrix(
    name: str, axes: tuple[str, ...], strides: tuple[int, ...], dtype: DType, parts: str = "ri", suffix: str = ""
) -> tuple[Tensor, ...]:
    """The real and imaginary parts of a constant."""
    return tuple(Tensor(name + part + suffix, axes, dtype, strides) for part in parts)


def _again(tensors: tuple[Tensor, ...], suffix: str) -> tuple[Tensor, ...]:
    """The same memory under other names, for other axes."""
    return tuple(Tensor(f"{t.name}_{suffix}", t.axes, t.dtype, t.strides, memory=t.name) for t in tensors)


def _times(
    out: tuple[str, str], left: tuple[str, str], right: tuple[str, str], conjugate: bool = False
) -> tuple[Nest, Nest]:
    """The product of two complex values, of the second one's conjugate if so said, as two statements."""

    def join(function: str, a: tuple[str, str], b: tuple[str, str]) -> Leaf:
        return Apply(function, (Apply("mul", a, F32), Apply("mul", b, F32)), F32)

    (lr, li), (rr, ri) = left, right
    real = join("add" if conjugate else "sub", (lr, rr), (li, ri))
    imaginary = join("sub", (li, rr), (lr, ri)) if conjugate else join("add", (lr, ri), (li, rr))
    return Map(out[0], real), Map(out[1], imaginary)
