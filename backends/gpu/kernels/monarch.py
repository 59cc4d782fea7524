"""Monarch and block tensor-train products: two block-diagonal factors with a permutation between them.

y[b,l,j] = L[j,l,k] R[k,j,i] x[b,k,i] (Dao et al., "Monarch", 2022), with a rank r shared by both factors in the block
tensor-train (Qiu et al., "Compute Better Spent", 2024). The second product sums over k, for which the first one is a
batch: a program that keeps the intermediate needs all k of some rows of the batch at once. Where 16 rows of it fit on
chip, one kernel does both products. Otherwise there are two, each with coalesced accesses, and the plan says whether
the intermediate stays in the second-level cache (a chunk of the batch at a time) or goes through memory.
"""

from __future__ import annotations

from collections.abc import Mapping

from ....ir.types import DType
from ..nodes import Kernel, Load, Local, Loop, Nest, Number, Outer, Seq, Tensor, Tile
from .plan import product_type

ROWS = 16  # rows of the batch that a matrix unit takes at least


def roles(x: Tensor, first: Tensor, second: Tensor, y: Tensor) -> dict[str, tuple[str, ...]]:
    """The axes by role: b batch; i summed first; k in x and both factors; j in both factors and y; r the rank; l.

    >>> from ....ir.types import F32
    >>> pairs = (("x", "bki"), ("R", "kji"), ("L", "jlk"), ("y", "blj"))
    >>> roles(*(Tensor(n, tuple(a), F32) for n, a in pairs))["k"]
    ('k',)
    """
    ends = set(first.axes) & set(second.axes)
    return {
        "b": tuple(a for a in x.axes if a in y.axes and a not in first.axes + second.axes),
        "i": tuple(a for a in x.axes if a in first.axes and a not in ends),
        "k": tuple(a for a in x.axes if a in ends and a not in y.axes),
        "j": tuple(a for a in y.axes if a in ends and a not in x.axes),
        "r": tuple(a for a in first.axes if a in ends and a not in x.axes + y.axes),
        "l": tuple(a for a in y.axes if a in second.axes and a not in ends),
    }


def fused(
    x: Tensor,
    first: Tensor,
    second: Tensor,
    y: Tensor,
    sizes: Mapping[str, Number],
    *,
    rows: int = ROWS,
    columns: int = 0,
    epilogue: tuple[Nest, ...] = (),
    value: str = "",
    extra: tuple[Tensor, ...] = (),
    warps: int = 8,
    stages: int = 1,
    precision: str = "ieee",
    inner: DType | None = None,
    title: str = "",
) -> Kernel:
    """One kernel: a program for `rows` positions of the batch, which goes through j in slabs of `columns` (0: all).

    Both products need all of k, so x stays on chip from slab to slab, while a slab of both factors passes. With an
    `epilogue`, the products give `value`, of which it makes y and reads the `extra` tensors.
    """
    at = roles(x, first, second, y)
    b, j = at["b"], at["j"]
    u = "u" if "u" not in {t.name for t in (x, first, second, y, *extra)} else "inner"
    make = Tile(u, (x.name, first.name), (*at["k"], b[-1], *j, *at["r"]), at["i"])
    spend = Tile(value or y.name, (u, second.name), (*j, b[-1], *at["l"]), at["k"] + at["r"])
    nest: Nest = Local(u, inner or product_type(x.dtype, second.dtype), Seq((make, spend, *epilogue)))
    if columns:
        nest = Load(x.name, (at["k"], b[-1:], at["i"]), Loop(j[-1], columns, nest))
    return Kernel(
        (x, first, second, *extra, y),
        tuple((a, sizes[a]) for role in at.values() for a in role),
        Outer(tuple((a, rows if a == b[-1] else 1) for a in b), nest),
        precision=precision,
        title=title,
        warps=warps,
        stages=stages,
    )


def block_diagonal(
    x: Tensor,
    factor: Tensor,
    y: Tensor,
    sizes: Mapping[str, Number],
    *,
    rows: int = 128,
    columns: int = 0,
    step: int = 0,
    warps: int = 4,
    stages: int = 3,
    precision: str = "ieee",
    title: str = "",
) -> Kernel:
    """y[b,k,j] = R[k,j,i] x[b,k,i]: a program for each block of the matrix and `rows` positions of the batch.

    The sum is taken whole, or in steps of `step` positions; the columns whole, or `columns` at a time.
    """
    batch = tuple(a for a in x.axes if a in y.axes and a not in factor.axes)
    blocks = tuple(a for a in x.axes if a in y.axes and a in factor.axes)
    summed = tuple(a for a in x.axes if a in factor.axes and a not in y.axes)
    result = tuple(a for a in y.axes if a not in batch + blocks)
    b = batch[-1]
    tile = Tile(y.name, (x.name, factor.name), (b, *result), summed)
    nest = Loop(summed[-1], step, tile, reduced=True) if step else tile
    cut = tuple((a, columns) for a in result[-1:]) if columns else ()
    return Kernel(
        (x, factor, y),
        tuple((a, sizes[a]) for a in batch + blocks + summed + result),
        Outer((*((a, rows if a == b else 1) for a in batch), *((a, 1) for a in blocks), *cut), nest),
        precision=precision,
        title=title,
        warps=warps,
        stages=stages,
    )


def strided_blocks(
    u: Tensor,
    factor: Tensor,
    y: Tensor,
    sizes: Mapping[str, Number],
    *,
    rows: int = 128,
    columns: int = 16,
    epilogue: tuple[Nest, ...] = (),
    value: str = "",
    extra: tuple[Tensor, ...] = (),
    warps: int = 4,
    stages: int = 1,
    precision: str = "ieee",
    title: str = "",
) -> Kernel:
    """y[b,l,j] = L[j,l,k] u[b,k,j], where the blocks j lie innermost: `columns` of them in a program, so that every
    access is a whole 32-byte sector. The batched product is a three-dimensional one. An `epilogue` is as in `fused`.
    """
    batch = tuple(a for a in u.axes if a in y.axes and a not in factor.axes)
    j = tuple(a for a in u.axes if a in y.axes and a in factor.axes)
    k = tuple(a for a in u.axes if a in factor.axes and a not in y.axes)
    result = tuple(a for a in y.axes if a not in batch + j)
    b = batch[-1]
    nest: Nest = Tile(value or y.name, (u.name, factor.name), (*j, b, *result), k)
    if epilogue:
        nest = Seq((nest, *epilogue))
    return Kernel(
        (u, factor, *extra, y),
        tuple((a, sizes[a]) for a in batch + k + j + result),
        Outer((*((a, rows if a == b else 1) for a in batch), *((a, columns if a == j[-1] else 1) for a in j)), nest),
        precision=precision,
        title=title,
        warps=warps,
        stages=stages,
    )
