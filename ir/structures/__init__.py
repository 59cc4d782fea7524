"""The structures, each in a file of its own, and the one list that makes them known.

A structure is a theorem (`algebra`): an operator, and equal ways to apply it. `samples` gives instances for the law
suite (a function: nothing is built on import), `RULES` and `SUM_RULES` say how each is found in a term or in a sum of
terms. A new structure is a file and a line in each list.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from .algebra import (
    Batch,
    Beside,
    Defined,
    Either,
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
from .chain import Chain, Superposed
from .coarse import Coarse
from .convolution import Convolution
from .cp import CP
from .declared import Declared
from .diagonal import Diagonal
from .hadamard import Hadamard
from .householder import Householder
from .kronecker import Kronecker, KroneckerSumOf, Kronsum
from .low_rank import DiagonalPlusLowRank, LowRank, OuterProduct
from .monarch import Monarch
from .near import shared_digit, two_slots
from .operator import Operator
from .permutation import AffinePermutation, Identity, Permutation
from .products import Product
from .reshaped import Reshaped
from .tensor_train import TensorTrain
from .toeplitz import Level, ScaledToeplitz, Toeplitz
from .triangular import Triangular
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
    Convolution.recognise,
    Triangular.recognise,
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
    Coarse.recognise,
    Superposed.recognise,
    Product.recognise,
    Chain.recognise,
    KroneckerSumOf.recognise,
    two_slots,
    shared_digit,
)
SUM_RULES: tuple[SumRule, ...] = (Householder.recognise_sum, Kronsum.recognise_sum, KroneckerSumOf.recognise_sum)


def samples() -> dict[str, Structure]:
    """An instance of every structure and of typical compositions, for the law suite: join by being listed here."""
    t = Toeplitz.of(6, 5)
    a = matrix("A", 3, 4)
    both = kron(a, matrix("B", 5, 2))
    return {
        "identity": Identity((3, 2)),
        "affine_permutation": AffinePermutation(7, 3, 2),
        "permutation": Permutation(5),
        "diagonal": Diagonal((3, 4)),
        "kronecker": Kronecker((3, 5), (4, 2)),
        "kronecker_three": Kronecker((3, 2, 2), (2, 4, 3)),
        "kronecker_sum_of": KroneckerSumOf(3, (2, 4), (3, 2)),
        "kronsum": Kronsum(3, 4),
        "monarch": Monarch(3, 4, 6, 5),
        "btt": Monarch(3, 4, 6, 5, 2),
        "low_rank": LowRank(7, 6, 2),
        "outer_product": OuterProduct(3, 4),
        "dplr": DiagonalPlusLowRank(6, 2),
        "lora": DiagonalPlusLowRank(6, 2, full=True),
        "toeplitz": t,
        "hankel": Toeplitz.hankel(4, 7),
        "circulant": Toeplitz.circulant(6),
        "strided_toeplitz": Toeplitz((Level(4, 3, 11, 2, -1, 4),)),
        "two_level_toeplitz": Toeplitz((Level(3, 4, 6, 1, -1, 3), Level(2, 3, 4, 1, 1, 0))),
        "scaled_toeplitz": ScaledToeplitz(t),
        "convolution": Convolution.of_strides(11, 3),
        "strided_convolution": Convolution.of_strides(11, 3, 2, (3, 2)),
        "banded": Banded(6, 7, 1, 2),
        "banded_by_rows": Banded(21, 19, 1, 1, "a", True),
        "block_diagonal": BlockDiagonal(4, 3, 2),
        "block_sparse": BlockSparse((4, 6), (3, 2), 5),
        "sparse": BlockSparse((4, 6), (1, 1), 5),
        "blast": Blast(2, 3, 4, 2, 3),
        "cp": CP((4,), (3, 5), 2),
        "tucker": Tucker((4, 2), (3,), (2, 2, 3)),
        "tensor_train": TensorTrain((2, 3, 4), (4, 3, 2), (2, 3)),
        "hadamard": Hadamard(3),
        "householder": Householder(7),
        "vandermonde": Vandermonde(4, 5),
        "lower": Triangular(13, 13),
        "upper": Triangular(9, 14, True),
        "tall_lower": Triangular(14, 9, False, "W", True),
        "reshaped": Reshaped(both, (15,), (2, 4)),
        "transposed_monarch": Turned(Monarch(3, 4, 6, 5)),
        "transposed_toeplitz": Turned(t),
        "transposed_banded": Turned(Banded(6, 7, 1, 2)),
        "transposed_block_sparse": Turned(BlockSparse((4, 6), (3, 2), 5)),
        "shuffled_kronecker": Ordered(both, (1, 0), (0, 1)),
        "toeplitz_beside_dense": Beside(t, a),
        "toeplitz_beside_toeplitz": Beside(t, Toeplitz.of(3, 4, "u")),
        "batch_toeplitz": Batch(t, 3),
        "batch_kronecker": Batch(both, 3, frozenset({"B"})),
        "batch_transposed_toeplitz": Batch(Turned(t), 2),
        "transposed_batch": Turned(Batch(Beside(t, a), 2)),
        "rotation": product(Hadamard(3), scaling("d", (2, 2, 2)), Hadamard(3)),
        "product": Times(Turned(both), both),
        "sum": Plus(both, Kronecker((3, 5), (4, 2), ("C", "D"))),
    }


__all__ = [
    "CP",
    "RULES",
    "SUM_RULES",
    "AffinePermutation",
    "Banded",
    "Batch",
    "Beside",
    "Blast",
    "BlockDiagonal",
    "BlockSparse",
    "Chain",
    "Coarse",
    "Convolution",
    "Declared",
    "Defined",
    "Diagonal",
    "DiagonalPlusLowRank",
    "Either",
    "Hadamard",
    "Householder",
    "Identity",
    "Kronecker",
    "KroneckerSumOf",
    "Kronsum",
    "Leaf",
    "Level",
    "LowRank",
    "Match",
    "Monarch",
    "Operator",
    "Ordered",
    "OuterProduct",
    "Permutation",
    "Plus",
    "Product",
    "Reshaped",
    "Rule",
    "ScaledToeplitz",
    "Structure",
    "SumRule",
    "Superposed",
    "TensorTrain",
    "Times",
    "Toeplitz",
    "Triangular",
    "Tucker",
    "Turned",
    "Vandermonde",
    "View",
    "identity",
    "kron",
    "matrix",
    "product",
    "samples",
    "scaling",
]
