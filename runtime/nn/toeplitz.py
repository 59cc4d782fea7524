"""Layers whose weight is constant along diagonals: one value for each difference of the indices."""

from __future__ import annotations

from typing import Any

import torch

from .base import Factor, StructuredLinear


class Toeplitz(StructuredLinear):
    """W[i,j] = t[i-j+in_features-1]: a convolution over all offsets, of out_features + in_features - 1 parameters."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            f"t[i-j+{in_features - 1}] * x[n,j]",
            {"i": out_features},
            (in_features,),
            {"t": Factor((out_features + in_features - 1,), in_features)},
            bias,
            device,
            dtype,
            ranges=f" for i in 0..{out_features}",
        )


class Circulant(StructuredLinear):
    """W[i,j] = c[(i-j) mod features]: a cyclic convolution."""

    def __init__(
        self, features: int, bias: bool = True, *, device: Any = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__(
            f"c[(i-j) mod {features}] * x[n,j]",
            {"i": features},
            (features,),
            {"c": Factor((features,), features)},
            bias,
            device,
            dtype,
        )
