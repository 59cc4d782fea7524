"""Block-sparse products: the stored blocks of one block row after the other, from a list that is data.

y[b,I,a] = sum over the blocks s of row I of W[s,a,c] x[b,J(s),c], where the blocks of row I are pointer[I] ..
pointer[I + 1] and J(s) is a table: compressed block rows. Two such products with the same or different lists, and
silu(g) * h between them (the gated layer of BLaST, Okanovic et al., 2025), are one kernel that reads x once where the
lists are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ....ir.types import F32
from ..nodes import Apply, Index, Kernel, Local, Loop, Map, Nest, Number, Outer, Seq, Tensor, Tile


@dataclass(frozen=True)
class BlockList:
    """Names of the axes and tables of a list of blocks: `pointers` by block row, `columns` by block."""

    row: str
    column: str
    block: str
    pointers: str
    columns: str


def block_sparse(
    x: Tensor,
    weights: Tensor,
    y: Tensor,
    blocks: BlockList,
    sizes: Mapping[str, Number],
    *,
    rows: int = 128,
    epilogue: tuple[Nest, ...] = (),
    value: str = "",
    extra: tuple[Tensor, ...] = (),
    warps: int = 0,
    stages: int = 3,
    precision: str = "ieee",
    title: str = "",
) -> Kernel:
    """One block row and `rows` positions of the batch in each program; blocks are whole.

    x has axes (batch.., column, c), weights (block, a, c) in any order, y (batch.., row, a).
    """
    batch, summed, result = _roles(x, weights, y, blocks)
    b = batch[-1]
    out = value or y.name
    body: Nest = _sum_of_blocks(out, x, weights, blocks, (b, result), summed)
    if epilogue:
        body = Local(out, F32, Seq((body, *epilogue)))
    return Kernel(
        (x, weights, y, *extra),
        tuple((a, sizes[a]) for a in (*batch, blocks.row, blocks.column, blocks.block, summed, result)),
        Outer((*((a, rows if a == b else 1) for a in batch), (blocks.row, 1)), body),
        tables=(blocks.pointers, blocks.columns),
        precision=precision,
        title=title,
        warps=warps or _warps(sizes[result]),
        stages=stages,
    )


def gated(
    x: Tensor,
    gate: Tensor,
    up: Tensor,
    y: Tensor,
    lists: tuple[BlockList, BlockList],
    sizes: Mapping[str, Number],
    *,
    second: Tensor | None = None,
    function: str = "silu",
    rows: int = 128,
    warps: int = 0,
    stages: int = 2,
    precision: str = "ieee",
    title: str = "",
) -> Kernel:
    """y = function(gate . x) * (up . x), for two block-sparse matrices; one loop if both have the same list.

    Of two lists, the second one looks up an axis of its own: `second` is x with that.
    """
    batch, summed, result = _roles(x, gate, y, lists[0])
    b = batch[-1]
    names = {t.name for t in (x, gate, up, y)}
    g, h = ("g", "h") if not {"g", "h"} & names else ("gate_sum", "up_sum")
    if lists[0] == lists[1]:
        tiles = tuple(Tile(n, (x.name, w.name), (b, result), (lists[0].block, summed)) for n, w in ((g, gate), (h, up)))
        sums: tuple[Nest, ...] = (_over_blocks(lists[0], Seq(tiles)),)
    else:
        assert second is not None, "the second list looks up another axis of x"
        parts = zip((g, h), (x, second), (gate, up), lists, strict=True)
        sums = tuple(_sum_of_blocks(n, v, w, k, (b, result), summed) for n, v, w, k in parts)
    product = Map(y.name, Apply("mul", (Apply(function, (g,), F32), h), F32))
    axes = dict.fromkeys((*batch, lists[0].row, *(a for k in lists for a in (k.column, k.block)), summed, result))
    return Kernel(
        (x, *(() if second is None else (second,)), gate, up, y),
        tuple((a, sizes[a]) for a in axes),
        Outer(
            (*((a, rows if a == b else 1) for a in batch), (lists[0].row, 1)),
            Local(g, F32, Local(h, F32, Seq((*sums, product)))),
        ),
        tables=tuple(dict.fromkeys(t for k in lists for t in (k.pointers, k.columns))),
        precision=precision,
        title=title,
        warps=warps or _warps(sizes[result]),
        stages=stages,
    )


def _sum_of_blocks(out: str, x: Tensor, weights: Tensor, blocks: BlockList, free: tuple[str, ...], summed: str) -> Nest:
    return _over_blocks(blocks, Tile(out, (x.name, weights.name), free, (blocks.block, summed)))


def _over_blocks(blocks: BlockList, body: Nest) -> Nest:
    """`body` for each block of the row: the column that it stands in is looked up."""
    follow = Index(blocks.column, blocks.columns, blocks.block, body)
    return Loop(blocks.block, 1, follow, reduced=True, rows=(blocks.pointers, blocks.row))


def _roles(x: Tensor, weights: Tensor, y: Tensor, blocks: BlockList) -> tuple[tuple[str, ...], str, str]:
    batch = tuple(a for a in x.axes if a in y.axes)
    (summed,) = (a for a in x.axes if a in weights.axes)
    (result,) = (a for a in y.axes if a in weights.axes and a != blocks.block)
    return batch, summed, result


def _warps(block: Number) -> int:
    """Eight warps where a block is 64 wide and more."""
    return 8 if isinstance(block, int) and block >= 64 else 4
