"""Attention in one kernel: two products with a softmax between them that streams past.

y[i,d] = softmax over j of (score of i and j) times v[j,d], where a score is a sum of products q[i,c] k[j,c] and what is
done with it point by point (a factor, a mask). A program holds a block of queries and takes keys and values block by
block; the weights are the left operand of the second product (Dao, "FlashAttention-2", 2023). A bias of low rank,
f[i,r] g[j,r], is one more product into the same scores (Wu et al., "FlashBias", 2025). Where the keys of one part lack
the batch (a common prefix; Juravsky et al., "Hydragen", 2024), the queries of the whole batch are the rows of one
product with them, and the softmax goes on with what each sequence has of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ....ir.types import F32
from ..nodes import Apply, Kernel, Leaf, Local, Loop, Map, Nest, Number, Outer, Seq, Stream, Tensor, Tile

VALUES = ("scores", "weights", "greatest", "total", "result")  # names inside of the kernel


@dataclass(frozen=True)
class Score:
    """One product of queries and keys: q[.., i, c] k[.., j, c]."""

    query: Tensor
    key: Tensor


def attention(
    scores: tuple[Score, ...],
    values: Tensor,
    y: Tensor,
    sizes: Mapping[str, Number],
    *,
    along: str,
    query: str,
    weigh: Leaf = "scores",
    extra: tuple[Tensor, ...] = (),
    epilogue: tuple[Nest, ...] = (),
    value: str = "",
    rows: int = 128,
    step: int = 64,
    warps: int = 8,
    stages: int = 2,
    precision: str = "ieee",
    title: str = "",
) -> Kernel:
    """One block of `rows` positions of the axis `query` in each program, `step` positions of `along` at a time.

    `weigh` is made of the sum `scores` of the products, and of `extra` tensors; the softmax runs over it.
    """
    columns = tuple(a for a in y.axes if a in values.axes and not any(a in s.query.axes + s.key.axes for s in scores))
    batch = tuple(a for a in y.axes if a not in columns and a != query)
    products = tuple(
        Tile(
            "scores",
            (s.query.name, s.key.name),
            (query, along),
            tuple(a for a in s.query.axes if a in s.key.axes and a not in batch),
            add=n > 0,
        )
        for n, s in enumerate(scores)
    )
    stream = Stream("weights", weigh, (along,), "greatest", "total", ("result",))
    spend = Tile("result", ("weights", values.name), (query, *columns), (along,))
    loop = Loop(along, step, Seq((*products, stream, spend)), reduced=True)
    share = Map(value or y.name, Apply("div", ("result", "total"), F32))
    kind = values.dtype if values.dtype.bits == 16 else F32
    nest: Nest = Seq((loop, share, *epilogue))
    for name, dtype in (("scores", F32), ("weights", kind), ("result", F32)):
        nest = Local(name, dtype, nest)
    tensors = dict.fromkeys((*(t for s in scores for t in (s.query, s.key)), *extra, values, y))
    axes = dict.fromkeys(a for t in tensors for a in t.axes)
    return Kernel(
        tuple(tensors),
        tuple((a, sizes[a]) for a in axes),
        Outer((*((a, 1) for a in batch), (query, rows)), nest),
        precision=precision,
        title=title,
        warps=warps,
        stages=stages,
    )
