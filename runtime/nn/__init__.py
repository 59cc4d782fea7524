"""`stein.nn`: linear layers with structured weights for PyTorch, each of which is one stein program.

They stand where torch.nn.Linear stands: (in_features, out_features, ..., bias, device, dtype), any leading axes, state
dicts, `.half()`, `.to(device)`, autocast, `torch.compile(fullgraph=True)`, `torch.func`. `layer.dense_weight()` is the
matrix that a layer stands for, `layer.flops(batch)` what one call costs.
"""

from __future__ import annotations

from .base import StructuredLinear
from .blocks import Blast, BlockDiagonal, BlockSparse, BlockTensorTrain, Monarch
from .kronecker import Kronecker, TensorTrain
from .low_rank import LoRA, LowRank
from .toeplitz import Circulant, Toeplitz

__all__ = [
    "Blast",
    "BlockDiagonal",
    "BlockSparse",
    "BlockTensorTrain",
    "Circulant",
    "Kronecker",
    "LoRA",
    "LowRank",
    "Monarch",
    "StructuredLinear",
    "TensorTrain",
    "Toeplitz",
]
