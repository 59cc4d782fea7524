"""Low rank, alone and beside a dense weight."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from .base import Factor, StructuredLinear, check_positive


class LowRank(StructuredLinear):
    """W = U V with `rank` columns of U."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int,
        bias: bool = True,
        *,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.rank = check_positive(rank, "rank")
        super().__init__(
            "U[o,r] * V[r,i] * x[n,i]",
            {"o": out_features},
            (in_features,),
            {"V": Factor((rank, in_features), in_features), "U": Factor((out_features, rank), rank)},
            bias,
            device,
            dtype,
        )

    def options(self) -> dict[str, Any]:
        """The rank."""
        return {"rank": self.rank}


class LoRA(StructuredLinear):
    """A dense weight that is kept, plus a low-rank one that is trained: W + (alpha / rank) U V.

    Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021): U starts at 0, V as in a dense layer, so at
    first the layer is the dense one. W and the bias take no gradient. `LoRA.beside(linear, rank)` adapts a
    torch.nn.Linear.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int = 8,
        alpha: float | None = None,
        bias: bool = True,
        *,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.rank = check_positive(rank, "rank")
        self.alpha = float(rank if alpha is None else alpha)
        scale = self.alpha / rank
        super().__init__(
            f"W[o,i] * x[n,i] + {scale!r} * U[o,r] * V[r,i] * x[n,i]",
            {"o": out_features},
            (in_features,),
            {
                "W": Factor((out_features, in_features), in_features),
                "V": Factor((rank, in_features), in_features),
                "U": Factor((out_features, rank), rank),
            },
            bias,
            device,
            dtype,
        )
        self.W.requires_grad_(False)
        if self.bias is not None:
            self.bias.requires_grad_(False)

    @classmethod
    def beside(cls, linear: nn.Linear, rank: int = 8, alpha: float | None = None) -> LoRA:
        """The layer that starts as a copy of `linear`."""
        weight = linear.weight
        made = cls(
            linear.in_features, linear.out_features, rank, alpha, linear.bias is not None,
            device=weight.device, dtype=weight.dtype,
        )  # fmt: skip
        with torch.no_grad():
            made.W.copy_(weight)
            if made.bias is not None:
                made.bias.copy_(linear.bias)
        return made

    def reset_parameters(self) -> None:
        """W, V and the bias as in torch.nn.Linear, U zero."""
        with torch.no_grad():
            nn.init.kaiming_uniform_(self.W, math.sqrt(5))
            nn.init.kaiming_uniform_(self.V, math.sqrt(5))
            self.U.zero_()
            if self.bias is not None:
                bound = 1 / math.sqrt(max(1, self.in_features))
                self.bias.uniform_(-bound, bound)

    def options(self) -> dict[str, Any]:
        """Rank and scale."""
        return {"rank": self.rank, "alpha": self.alpha}

    W: Tensor
    V: Tensor
    U: Tensor
