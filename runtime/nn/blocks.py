"""Layers made of blocks: Monarch and block tensor train, block-diagonal, block-sparse, BLAST."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...ir.errors import ShapeError
from .base import Factor, StructuredLinear, check_divides, check_positive, near_root


class BlockTensorTrain(StructuredLinear):
    """W with a block of rank `rank` for each pair of an input digit k and an output digit j.

    y[l,j] = sum over k, i, r of L[j,l,k,r] R[k,j,i,r] x[k,i]: Qiu et al., "Compute Better Spent: Replacing Dense Layers
    with Structured Matrices" (2024). `blocks` is (values of k, values of j); they divide in_features and out_features,
    and are near their square roots if not given.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int = 2,
        bias: bool = True,
        *,
        blocks: tuple[int, int] | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        k, j = blocks if blocks is not None else (near_root(in_features), near_root(out_features))
        i, m = check_divides(k, in_features, "blocks[0]"), check_divides(j, out_features, "blocks[1]")
        self.rank, self.blocks = check_positive(rank, "rank"), (k, j)
        super().__init__(
            "L[j,l,k,r] * R[k,j,i,r] * x[n,k,i]",
            {"l": m, "j": j},
            (k, i),
            {"R": Factor((k, j, i, rank), i), "L": Factor((j, m, k, rank), k * rank)},
            bias,
            device,
            dtype,
        )

    def options(self) -> dict[str, Any]:
        """Rank and blocks."""
        return {"rank": self.rank, "blocks": self.blocks}


class Monarch(StructuredLinear):
    """W as two block-diagonal factors with a stride permutation between them.

    y[l,j] = sum over k, i of L[j,l,k] R[k,j,i] x[k,i]: Dao et al., "Monarch: Expressive Structured Matrices for
    Efficient and Accurate Training" (2022). `blocks` is (values of k, values of j), as of `BlockTensorTrain`.

    >>> import torch
    >>> layer = Monarch(16, 16)
    >>> layer(torch.ones(3, 16)).shape, sum(p.numel() for p in layer.parameters())
    (torch.Size([3, 16]), 144)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        blocks: tuple[int, int] | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        k, j = blocks if blocks is not None else (near_root(in_features), near_root(out_features))
        i, m = check_divides(k, in_features, "blocks[0]"), check_divides(j, out_features, "blocks[1]")
        self.blocks = (k, j)
        super().__init__(
            "L[j,l,k] * R[k,j,i] * x[n,k,i]",
            {"l": m, "j": j},
            (k, i),
            {"R": Factor((k, j, i), i), "L": Factor((j, m, k), k)},
            bias,
            device,
            dtype,
        )

    def options(self) -> dict[str, Any]:
        """The blocks."""
        return {"blocks": self.blocks}


class BlockDiagonal(StructuredLinear):
    """W with `blocks` equal blocks on its diagonal: each group of outputs reads one group of inputs."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        blocks: int = 4,
        bias: bool = True,
        *,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        i, o = check_divides(blocks, in_features, "blocks"), check_divides(blocks, out_features, "blocks")
        self.blocks = blocks
        super().__init__(
            "W[g,o,i] * x[n,g,i]",
            {"g": blocks, "o": o},
            (blocks, i),
            {"W": Factor((blocks, o, i), i)},
            bias,
            device,
            dtype,
        )

    def options(self) -> dict[str, Any]:
        """The blocks."""
        return {"blocks": self.blocks}


class Blast(StructuredLinear):
    """W of `blocks` x `blocks` blocks, of rank `rank`, that share bases along block rows and columns.

    y[i,a] = sum over j, c, r of U[i,a,r] S[i,j,r] V[j,c,r] x[j,c]: Lee et al., "BLAST: Block-Level Adaptive Structured
    Matrices for Efficient Deep Neural Network Inference" (2024).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int,
        blocks: int = 4,
        bias: bool = True,
        *,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        c, a = check_divides(blocks, in_features, "blocks"), check_divides(blocks, out_features, "blocks")
        self.rank, self.blocks = check_positive(rank, "rank"), blocks
        super().__init__(
            "U[i,a,r] * S[i,j,r] * V[j,c,r] * x[n,j,c]",
            {"i": blocks, "a": a},
            (blocks, c),
            {
                "V": Factor((blocks, c, rank), c),
                "S": Factor((blocks, blocks, rank), blocks),
                "U": Factor((blocks, a, rank), rank),
            },
            bias,
            device,
            dtype,
        )

    def options(self) -> dict[str, Any]:
        """Rank and blocks."""
        return {"rank": self.rank, "blocks": self.blocks}


class BlockSparse(StructuredLinear):
    """W of which only some `block` x `block` blocks are stored; `rows` and `columns` list their places.

    `places` gives the list of (block row, block column). Without it each block row gets the same number of blocks, a
    share `density` of all (at least one), in columns drawn from PyTorch's generator. Only stored blocks are computed
    with, forward and backward. A GPU brings the lists in order once, and again where PyTorch counts a change of them
    (a loaded state, new tensors); what is written past it, through `.data` say, is not seen.
    """

    W: Tensor
    rows: Tensor
    columns: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        block: int = 16,
        density: float = 0.25,
        bias: bool = True,
        *,
        places: Sequence[tuple[int, int]] | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        wide, high = check_divides(block, in_features, "block"), check_divides(block, out_features, "block")
        chosen = _drawn(high, wide, density) if places is None else [(int(r), int(c)) for r, c in places]
        if any(not (0 <= r < high and 0 <= c < wide) for r, c in chosen) or len(set(chosen)) < len(chosen):
            raise ShapeError(f"places are different pairs from {high} block rows and {wide} columns", code="bad-places")
        self.block, self.density = block, len(chosen) / max(1, high * wide)
        super().__init__(
            "(p == rows[s]) * W[s,a,c] * x[n,columns[s],c]",
            {"p": high, "a": block},
            (wide, block),
            {"W": Factor((len(chosen), block, block), block)},
            bias,
            device,
            dtype,
            declared="rows, columns: i64[S]\n",
            ranges=f" for p in 0..{high}",
            fixed=("rows", "columns"),
        )
        self.register_buffer("rows", torch.tensor([r for r, _ in chosen], device=device, dtype=torch.int64))
        self.register_buffer("columns", torch.tensor([c for _, c in chosen], device=device, dtype=torch.int64))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As in every layer; what is summed in one output are the blocks of its row."""
        super().reset_parameters()
        if hasattr(self, "rows"):
            with torch.no_grad():
                in_row = (self.rows[:, None] == self.rows[None, :]).sum(1)
                self.W /= torch.sqrt(in_row).to(self.W.dtype)[:, None, None]

    def tensors(self) -> dict[str, Tensor]:
        """The blocks and their places."""
        return {**super().tensors(), "rows": self.rows, "columns": self.columns}

    def options(self) -> dict[str, Any]:
        """Order of a block, share of stored blocks."""
        return {"block": self.block, "density": round(self.density, 4)}


def _drawn(high: int, wide: int, density: float) -> list[tuple[int, int]]:
    if not 0 < density <= 1:
        raise ShapeError(f"density is {density!r}; it is above 0 and at most 1", code="bad-density")
    number = min(wide, max(1, math.ceil(density * wide)))
    return [(r, int(c)) for r in range(high) for c in sorted(torch.randperm(wide)[:number].tolist())]
