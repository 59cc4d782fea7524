"""Low rank, alone and beside a dense matrix, in one kernel each.

y[b,i] = U[r,i] V[j,r] x[b,j]: a program takes a block of the batch, sums h[b,r] over j, and goes on to multiply h, from
registers, with the columns of U. x is read once and h is never stored. Beside a dense W (a low-rank adapter, Hu et al.,
"LoRA", 2021), the loop over j feeds two accumulators from one block of x, and the small product is added at its end.
"""

from __future__ import annotations

from collections.abc import Mapping

from ....ir.types import F32, DType
from ..nodes import Kernel, Local, Loop, Map, Nest, Number, Outer, Seq, Tensor, Tile
from .plan import product_type


def low_rank(
    x: Tensor,
    first: Tensor,
    second: Tensor,
    y: Tensor,
    sizes: Mapping[str, Number],
    *,
    rows: int = 128,
    step: int = 64,
    columns: int = 128,
    epilogue: tuple[Nest, ...] = (),
    value: str = "",
    extra: tuple[Tensor, ...] = (),
    warps: int = 8,
    stages: int = 3,
    precision: str = "ieee",
    inner: DType | None = None,
    title: str = "",
) -> Kernel:
    """y = second . (first . x) over blocks of `rows` positions of the batch.

    The last axis of the batch, the summed axis and the result's axis are cut in blocks, the rank is held whole.
    """
    batch, summed, rank, result = roles(x, first, second, y)
    h = "h" if "h" not in {t.name for t in (x, first, second, y, *extra)} else "hidden"
    make = Loop(summed, step, Tile(h, (x.name, first.name), (batch[-1], *rank), (summed,)), reduced=True)
    spend: Nest = Tile(value or y.name, (h, second.name), (batch[-1], result), rank)
    if epilogue:
        spend = Seq((spend, *epilogue))
    nest = Local(h, inner or product_type(x.dtype, second.dtype), Seq((make, Loop(result, columns, spend))))
    return Kernel(
        (x, first, second, *extra, y),
        tuple((a, sizes[a]) for a in (*batch, result, summed, *rank)),
        Outer(tuple((a, rows if a == batch[-1] else 1) for a in batch), nest),
        precision=precision,
        title=title,
        warps=warps,
        stages=stages,
    )


def dense_and_low_rank(
    x: Tensor,
    dense: Tensor,
    first: Tensor,
    second: Tensor,
    y: Tensor,
    sizes: Mapping[str, Number],
    *,
    rows: int = 128,
    columns: int = 128,
    step: int = 64,
    epilogue: tuple[Nest, ...] = (),
    value: str = "",
    extra: tuple[Tensor, ...] = (),
    warps: int = 8,
    stages: int = 3,
    precision: str = "ieee",
    inner: DType | None = None,
    title: str = "",
) -> Kernel:
    """y = dense . x + second . (first . x): one loop over the summed axis makes both sums from each block of x."""
    batch, summed, rank, result = roles(x, first, second, y)
    names = {t.name for t in (x, dense, first, second, y, *extra)}
    h = "h" if "h" not in names else "hidden"
    total = value or ("total" if "total" not in names else "total_")
    b = batch[-1]
    both = Seq(
        (
            Tile(total, (x.name, dense.name), (b, result), (summed,)),
            Tile(h, (x.name, first.name), (b, *rank), (summed,)),
        )
    )
    rest = (Tile(total, (h, second.name), (b, result), rank, add=True), *(epilogue or (Map(y.name, total),)))
    nest = Seq((Loop(summed, step, both, reduced=True), *rest))
    inner = inner or product_type(x.dtype, second.dtype)
    return Kernel(
        (x, dense, first, second, *extra, y),
        tuple((a, sizes[a]) for a in (*batch, result, summed, *rank)),
        Outer(
            (*((a, rows if a == b else 1) for a in batch), (result, columns)), Local(h, inner, Local(total, F32, nest))
        ),
        precision=precision,
        title=title,
        warps=warps,
        stages=stages,
    )


def roles(x: Tensor, first: Tensor, second: Tensor, y: Tensor) -> tuple[tuple[str, ...], str, tuple[str, ...], str]:
    """The batch, the summed axis, the rank and the axis of the result.

    >>> tensors = [Tensor(n, tuple(a), F32) for n, a in (("x", "bj"), ("V", "jr"), ("U", "ri"), ("y", "bi"))]
    >>> roles(*tensors)
    (('b',), 'j', ('r',), 'i')
    """
    batch = tuple(a for a in x.axes if a in y.axes)
    (summed,) = (a for a in x.axes if a not in y.axes)
    rank = tuple(a for a in first.axes if a in second.axes)
    (result,) = (a for a in second.axes if a in y.axes and a not in batch)
    return batch, summed, rank, result
