"""The structures, each in a file of its own, and the one list that makes them known.

A structure is a theorem (`algebra`): an operator, and equal ways to apply it. `SAMPLES` holds instances for the law
suite, `RULES` and `SUM_RULES` how each is found in a term or in a sum of terms. A new structure is a file and a line in
each list.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from .algebra import (
    Batch,
    Beside,
    Defined,
    Leaf,
    Ordered,
    Plus,
    Structure,
    Times,
    Turned,
    identity,
    kron,
    matrix,
    product,
    scaling,
)
from .banded import Banded
from .blast import Blast
from .block_diagonal import BlockDiagonal
from .block_sparse import BlockSparse
from .cp import CP
from .declared import Declared
from .diagonal import Diagonal
from .hadamard import Hadamard
from .householder import Householder
from .kronecker import Kronecker, KroneckerSumOf, Kronsum
from .low_rank import DiagonalPlusLowRank, LowRank, OuterProduct
from .monarch import Monarch
from .operator import Operator
from .permutation import AffinePermutation, Identity, Permutation
from .tensor_train import TensorTrain
from .toeplitz import Level, ScaledToeplitz, Toeplitz
from .tucker import Tucker
from .vandermonde import Vandermonde
from .view import Match, Rule, View

SumRule: TypeAlias = "Callable[[Sequence[View], Sequence[Match | None]], Match | None]"

RULES: tuple[Rule, ...] = (
    Identity.recognise,
    Permutation.recognise,
    Diagonal.recognise,
    BlockSparse.recognise,
    Toeplitz.recognise,
    Banded.recognise,
    ScaledToeplitz.recognise,
    Declared.recognise,
    Hadamard.recognise,
    Vandermonde.recognise,
    OuterProduct.recognise,
    Blast.recognise,
    CP.recognise,
    Tucker.recognise,
    TensorTrain.recognise,
    Monarch.recognise,
    LowRank.recognise,
    Kronecker.recognise,
    KroneckerSumOf.recognise,
)
SUM_RULES: tuple[SumRule, ...] = (Householder.recognise_sum, Kronsum.recognise_sum, KroneckerSumOf.recognise_sum)
