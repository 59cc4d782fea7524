"""Block-sparse products: the stored blocks of one block row after the other, from a list that is data.

y[b,I,a] = sum over the blocks s of row I of W[s,a,c] x[b,J(s),c], where the blocks of row I are pointer[I] ..
pointer[I + 1] and J(s) is a table: compressed block rows. Blocks may be stored in any order; a list of places names
the block of each. Two such products with the same or different lists, and silu(g) * h
between them (the gated layer of BLaST, Okanovic et al., 2025), are one kernel that reads x once where the lists are
the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ....ir.types import F32
from ..nodes import Apply, Index, Kernel, Local, Loop, Map, Nest, Number, Outer, Seq, Tensor, Tile


@dataclass(frozen=True)
class BlockList:
    """Names of the axes and tables of a list of blocks: `pointers` by block row, then for each place in the list
    `columns`, the block column, and `order`, the number of the block.
    """

    row: str
    column: str
    block: str
    place: str
    pointers: str
    columns: str
    order: str

    @property
    def tables(self) -> tuple[str, ...]:
        """The arguments that hold the list."""
        return self.pointers, self.columns, self.order

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes of the list."""
        return self.column, self.block, self.place


def block_sparse(
    x: Tensor,
    weights: Tensor,
    y: Tensor,
    blocks: BlockList,
    sizes: Mapping[str, Number],
    *,
    rows: int = 128,
    columns: int = 0,
    step: int = 0,
    epilogue: tuple[Nest, ...] = (),
    value: str = "",
    extra: tuple[Tensor, ...] = (),
    warps: int = 0,
    stages: int = 3,
    precision: str = "ieee",
    title: str = "",
) -> Kernel:
    """One block row and `rows` positions of the batch in each program; of a block `columns` of a and `step` of c at a
    time (0: it is taken whole).

    x has axes (batch.., column, c), weights (block, a, c) in any order, y (batch.., row, a).
    """
    batch, summed, result = _roles(x, weights, y, blocks)
    b = batch[-1]
    out = value or y.name
    body = _over_blocks(blocks, _tile(out, x, weights, blocks, (b, result), summed), summed, step)
    if epilogue:
        body = Local(out, F32, Seq((body, *epilogue)))
    return Kernel(
        (x, weights, *extra, y),
        tuple((a, sizes[a]) for a in (*batch, blocks.row, *blocks.axes, summed, result)),
        Outer(_programs(batch, rows, blocks.row, result, columns), body),
        tables=blocks.tables,
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
    names: tuple[str, str] = ("g", "h"),
    epilogue: tuple[Nest, ...] = (),
    extra: tuple[Tensor, ...] = (),
    rows: int = 128,
    columns: int = 0,
    step: int = 0,
    warps: int = 0,
    stages: int = 2,
    precision: str = "ieee",
    title: str = "",
) -> Kernel:
    """y = function(gate . x) * (up . x), for two block-sparse matrices; one loop if both have the same list.

    Of two lists, the second one looks up an axis of its own: `second` is x with that. An `epilogue` makes y of the two
    sums, which have these `names`.
    """
    batch, summed, result = _roles(x, gate, y, lists[0])
    b, (g, h) = batch[-1], names
    free = (b, result)
    if lists[0] == lists[1]:
        tiles = tuple(_tile(n, x, w, lists[0], free, summed) for n, w in ((g, gate), (h, up)))
        sums: tuple[Nest, ...] = (_over_blocks(lists[0], Seq(tiles), summed, step),)
    else:
        assert second is not None, "the second list looks up another axis of x"
        parts = zip((g, h), (x, second), (gate, up), lists, strict=True)
        sums = tuple(_over_blocks(k, _tile(n, v, w, k, free, summed), summed, step) for n, v, w, k in parts)
    product = epilogue or (Map(y.name, Apply("mul", (Apply(function, (g,), F32), h), F32)),)
    axes = dict.fromkeys((*batch, lists[0].row, *(a for k in lists for a in k.axes), summed, result))
    return Kernel(
        (x, *(() if second is None else (second,)), gate, up, *extra, y),
        tuple((a, sizes[a]) for a in axes),
        Outer(
            _programs(batch, rows, lists[0].row, result, columns),
            Local(g, F32, Local(h, F32, Seq((*sums, *product)))),
        ),
        tables=tuple(dict.fromkeys(t for k in lists for t in k.tables)),
        precision=precision,
        title=title,
        warps=warps or _warps(sizes[result]),
        stages=stages,
    )


def _programs(batch: tuple[str, ...], rows: int, row: str, result: str, columns: int) -> tuple[tuple[str, int], ...]:
    """The axes of the grid with their blocks."""
    cut = ((result, columns),) if columns else ()
    return (*((a, rows if a == batch[-1] else 1) for a in batch), (row, 1), *cut)


def _tile(out: str, x: Tensor, weights: Tensor, blocks: BlockList, free: tuple[str, ...], summed: str) -> Tile:
    return Tile(out, (x.name, weights.name), free, (blocks.place, summed))


def _over_blocks(blocks: BlockList, body: Nest, summed: str, step: int) -> Nest:
    """`body` for each block of the row, `step` positions at a time: its number and its column are looked up."""
    if step:
        body = Loop(summed, step, body, reduced=True)
    follow = Index(blocks.block, blocks.order, blocks.place, Index(blocks.column, blocks.columns, blocks.place, body))
    return Loop(blocks.place, 1, follow, reduced=True, rows=(blocks.pointers, blocks.row))


def _roles(x: Tensor, weights: Tensor, y: Tensor, blocks: BlockList) -> tuple[tuple[str, ...], str, str]:
    batch = tuple(a for a in x.axes if a in y.axes)
    (summed,) = (a for a in x.axes if a in weights.axes)
    (result,) = (a for a in y.axes if a in weights.axes and a != blocks.block)
    return batch, summed, result


def _warps(block: Number) -> int:
    """Eight warps where a block is 64 wide and more."""
    return 8 if isinstance(block, int) and block >= 64 else 4
