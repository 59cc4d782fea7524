"""Kronecker products of two and three factors, applied to a batch in one kernel.

With x[b,p,q], A[r,p] and C[s,q], y[b,r,s] = A[r,p] C[s,q] x[b,p,q] is two products: u = A x, then y = u C'. Taken in
this order, u is an accumulator that the second product reads as its left operand, from registers: neither memory nor
shared memory sees it. Of three factors, two neighbours are multiplied ahead, until two factors of about 64 remain (a
Hadamard transform of 4096 points is two of 64); FastKron (Jangda and Yadav, 2024) and FlatQuant (Sun et al., 2024) fuse
the same products, the latter with the quantisation that follows.

Every index may be several: factors of (2 2 2 2 2 2) by (2 2 2 2 2 2) are as good as 64 by 64.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from ....ir.types import DType
from ..frame import ceil_pow2
from ..nodes import Apply, Kernel, Load, Local, Loop, Map, Nest, Number, Outer, Seq, Tensor, Tile
from .plan import Goal, product_type, warps_for

SLAB = 64  # rows of a factor that is too large for one tile: the least that a warp group multiplies
STEP = 64  # positions of a sum, or columns of a result, at a time


def roles(
    x: Tensor, left: Tensor, right: Tensor, y: Tensor
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The axes (b, p, q, r, s): batch, summed by the left factor, by the right one, and what these put in place.

    >>> from ....ir.types import F32
    >>> names = [Tensor(n, tuple(a), F32) for n, a in (("x", "bpq"), ("A", "rp"), ("C", "sq"), ("y", "brs"))]
    >>> roles(*names)
    (('b',), ('p',), ('q',), ('r',), ('s',))
    """
    p = tuple(a for a in x.axes if a in left.axes and a not in y.axes)
    q = tuple(a for a in x.axes if a in right.axes and a not in y.axes)
    b = tuple(a for a in x.axes if a not in p + q)
    r = tuple(a for a in y.axes if a in left.axes and a not in b)
    s = tuple(a for a in y.axes if a in right.axes and a not in b)
    return b, p, q, r, s


def kronecker(
    x: Tensor,
    left: Tensor,
    right: Tensor,
    y: Tensor,
    sizes: Mapping[str, Number],
    *,
    epilogue: tuple[Nest, ...] = (),
    value: str = "",
    extra: tuple[Tensor, ...] = (),
    share: int = 0,
    stages: int = 3,
    warps: int = 0,
    precision: str = "ieee",
    inner: DType | None = None,
    title: str = "",
) -> Kernel:
    """Both products for each position of the batch in one program, factors held whole.

    With an `epilogue`, the products give `value`, of which the epilogue makes y and the `extra` tensors. `share` is a
    number of persistent programs, which load the factors once. `inner` is the type of the intermediate.
    """
    b, p, q, r, s = roles(x, left, right, y)
    inner = inner or product_type(x.dtype, right.dtype)
    out = value or y.name
    u = _fresh("u", (x, left, right, y, *extra))
    body: Nest = Seq((Tile(u, (left.name, x.name), r + q, p), Tile(out, (u, right.name), r + s, q), *epilogue))
    nest: Nest = Local(u, inner, body)
    if share:
        nest = Load(left.name, (r, p), Load(right.name, (q, s), nest))
    outer = Outer(tuple((a, 1) for a in b), nest, share, stages if share else 0)
    tile = max(_width(sizes, r) * _width(sizes, q), _width(sizes, r) * _width(sizes, s))
    return Kernel(
        (x, left, right, *extra, y),
        tuple((a, sizes[a]) for a in b + p + q + r + s),
        outer,
        precision=precision,
        title=title,
        warps=warps or max(4, 2 * warps_for(tile) if tile >= 128 * 128 else warps_for(tile)),
        stages=stages,
    )


def slabs(
    x: Tensor,
    left: Tensor,
    right: Tensor,
    y: Tensor,
    sizes: Mapping[str, Number],
    *,
    rows: int = SLAB,
    step: int = STEP,
    epilogue: tuple[Nest, ...] = (),
    value: str = "",
    extra: tuple[Tensor, ...] = (),
    warps: int = 4,
    stages: int = 3,
    precision: str = "ieee",
    inner: DType | None = None,
    title: str = "",
) -> Kernel:
    """A program for `rows` rows of the left factor: the first product in a loop over its sum, the second one by
    columns. x is read once for each slab, from the cache. Each index is one axis; an `epilogue` sums over none.
    """
    b, (p,), (q,), (r,), (s,) = roles(x, left, right, y)
    u = _fresh("u", (x, left, right, y, *extra))
    first = Loop(p, step, Tile(u, (left.name, x.name), (r, q), (p,)), reduced=True)
    spend: Nest = Tile(value or y.name, (u, right.name), (r, s), (q,))
    second = Loop(s, step, Seq((spend, *epilogue)) if epilogue else spend)
    nest = Local(u, inner or product_type(x.dtype, right.dtype), Seq((first, second)))
    return Kernel(
        (x, left, right, *extra, y),
        tuple((a, sizes[a]) for a in (*b, p, q, r, s)),
        Outer((*((a, 1) for a in b), (r, rows)), nest),
        precision=precision,
        title=title,
        warps=warps,
        stages=stages,
    )


def small_left(
    x: Tensor,
    left: Tensor,
    right: Tensor,
    y: Tensor,
    sizes: Mapping[str, Number],
    *,
    batch: int = 8,
    step: int = 0,
    epilogue: tuple[Map, ...] = (),
    value: str = "",
    extra: tuple[Tensor, ...] = (),
    warps: int = 8,
    stages: int = 3,
    precision: str = "ieee",
    inner: DType | None = None,
    title: str = "",
) -> Kernel:
    """For a left factor of few rows beside a large right one: the right product first, on `batch` positions at once, so
    that matrix units have 64 rows and more; then the left one. The intermediate is rearranged once on chip.

    The right factor is held whole, or `step` positions of the first of its summed axes at a time. An
    `epilogue` is as in `kronecker`, of maps.
    """
    b, p, q, r, s = roles(x, left, right, y)
    u = _fresh("u", (x, left, right, y, *extra))
    first: Nest = Tile(u, (x.name, right.name), b + p + s, q)
    if step:
        first = Loop(q[0], step, first, reduced=True)
    second = Tile(value or y.name, (u, left.name), b + s + r, p)
    nest = Local(u, inner or product_type(x.dtype, left.dtype), Seq((first, second, *epilogue)))
    blocks = tuple((a, batch if a == b[-1] else 1) for a in b)
    return Kernel(
        (x, left, right, *extra, y),
        tuple((a, sizes[a]) for a in b + p + q + r + s),
        Outer(blocks, nest),
        precision=precision,
        title=title,
        warps=warps,
        stages=stages,
    )


def small_left_blocks(taken: int, into: int, out: int, inner: int, goal: Goal) -> tuple[int, int, int] | None:
    """Positions of the batch, steps of the sum and stages for a left factor with `taken` columns beside a right one of
    out x into, of which one step takes a multiple of `inner` columns.

    Step 0 holds the right factor whole, which takes too many registers where operands of matrix units come from there.

    >>> small_left_blocks(16, 256, 256, 1, Goal("sm_90")), small_left_blocks(16, 256, 256, 1, Goal("gfx942"))
    ((8, 0, 3), (4, 64, 2))
    """
    for rows, step, stages in ((128, 0, 3), (64, 0, 3), (64, 64, 3), (64, 64, 2), (32, 32, 2)):
        if rows < taken or step % inner or (goal.narrow and not step):
            continue
        held, buffers = (step, stages - 1) if step else (into, 1)
        if 2 * max(buffers * held * (rows + out), rows * out) <= goal.shared:
            return rows // taken, step // inner, stages
    return None


def product_of_factors(first: Tensor, second: Tensor, out: Tensor, sizes: Mapping[str, Number], title: str) -> Kernel:
    """The Kronecker product of two small factors, with all of their axes: made once, ahead of the main kernel."""
    axes = out.axes
    tile = Map(out.name, Apply("mul", (first.name, second.name), out.dtype), axes)
    blocks = tuple((a, 1 if a in axes[:-2] else ceil_pow2(_size(sizes, a))) for a in axes)
    return Kernel((first, second, out), tuple((a, sizes[a]) for a in axes), Outer(blocks, tile), title=title)


def merged(extents: tuple[int, ...]) -> tuple[int, ...]:
    """How many neighbouring factors to multiply together, so that two remain, as equal as may be: the cheapest pair.

    >>> merged((16, 16, 16)), merged((8, 8, 8, 8)), merged((4, 32, 32))
    ((1, 2), (2, 2), (2, 1))
    """
    cuts = range(1, len(extents))
    best = min(cuts, key=lambda k: prod(extents[:k]) + prod(extents[k:]))
    return best, len(extents) - best


def _size(sizes: Mapping[str, Number], axis: str) -> int:
    size = sizes[axis]
    assert isinstance(size, int), f"the size of {axis} shapes a tile and is known"
    return size


def _width(sizes: Mapping[str, Number], axes: tuple[str, ...]) -> int:
    return prod(ceil_pow2(_size(sizes, a)) for a in axes)


def _fresh(stem: str, tensors: tuple[Tensor, ...]) -> str:
    taken = {t.name for t in tensors} | {t.argument for t in tensors}
    while stem in taken:
        stem += "_"
    return stem
