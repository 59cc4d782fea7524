"""Kronecker products, sums of them, and tensor trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ...ir.errors import ShapeError
from .base import Factor, StructuredLinear, check_positive, near_root

DIGITS = 8  # factors that a layer may have: each has a letter for its row and one for its column


class Kronecker(StructuredLinear):
    """W as a sum of `terms` Kronecker products of small matrices, whose shapes (rows, columns) are `shapes`.

    If not given, there are two, with sizes near the square roots. `terms` above 1 is the layer of Zhang et al.,
    "Beyond Fully-Connected Layers with Quaternions: Parameterization of Hypercomplex Multiplications with 1/n
    Parameters" (2021).

    >>> import torch
    >>> layer = Kronecker(12, 6, shapes=((2, 3), (3, 4)), bias=False)
    >>> torch.allclose(layer.dense_weight(), torch.kron(layer.A0, layer.A1), atol=1e-6)
    True
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        shapes: Sequence[tuple[int, int]] | None = None,
        terms: int = 1,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if shapes is None:
            rows, columns = near_root(out_features), near_root(in_features)
            shapes = ((rows, columns), (out_features // rows, in_features // columns))
        check_shapes(shapes, in_features, out_features)
        self.shapes, self.terms = tuple(shapes), check_positive(terms, "terms")
        several, letters = terms > 1, range(len(shapes))
        reads = [f"A{k}[{'s,' if several else ''}i{k},j{k}]" for k in letters]
        factors = {
            f"A{k}": Factor((terms, r, c) if several else (r, c), c * (terms if several and k == 0 else 1))
            for k, (r, c) in enumerate(shapes)
        }
        super().__init__(
            " * ".join([*reads, f"x[n,{','.join(f'j{k}' for k in letters)}]"]),
            {f"i{k}": r for k, (r, _) in enumerate(shapes)},
            [c for _, c in shapes],
            factors,
            bias,
            device,
            dtype,
        )

    def options(self) -> dict[str, Any]:
        """Shapes of the factors, number of terms."""
        return {"shapes": self.shapes, "terms": self.terms}


class TensorTrain(StructuredLinear):
    """W as a tensor train (a matrix product operator): site k is rows x columns `shapes[k]`, neighbours share `rank`
    values.

    Novikov et al., "Tensorizing Neural Networks" (2015).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int,
        bias: bool = True,
        *,
        shapes: Sequence[tuple[int, int]] | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if shapes is None:
            rows, columns = near_root(out_features), near_root(in_features)
            shapes = ((rows, columns), (out_features // rows, in_features // columns))
        check_shapes(shapes, in_features, out_features)
        self.shapes, self.rank = tuple(shapes), check_positive(rank, "rank")
        last = len(shapes) - 1
        factors, reads = {}, []
        for k, (r, c) in enumerate(shapes):
            left, right = [rank] if k else [], [rank] if k < last else []
            factors[f"G{k}"] = Factor((*left, r, c, *right), c * (rank if k < last else 1))
            names = [*([f"r{k - 1}"] if k else []), f"i{k}", f"j{k}", *([f"r{k}"] if k < last else [])]
            reads.append(f"G{k}[{','.join(names)}]")
        super().__init__(
            " * ".join([*reads, f"x[n,{','.join(f'j{k}' for k in range(len(shapes)))}]"]),
            {f"i{k}": r for k, (r, _) in enumerate(shapes)},
            [c for _, c in shapes],
            factors,
            bias,
            device,
            dtype,
        )

    def options(self) -> dict[str, Any]:
        """Rank and shapes of the sites."""
        return {"rank": self.rank, "shapes": self.shapes}


def check_shapes(shapes: Sequence[tuple[int, int]], columns: int, rows: int) -> None:
    """`ShapeError` unless the rows of the shapes multiply to `rows`, and their columns to `columns`."""
    high = wide = 1
    for r, c in shapes:
        high, wide = high * r, wide * c
    if (high, wide) != (rows, columns) or not 1 <= len(shapes) <= DIGITS:
        raise ShapeError(
            f"the shapes {tuple(shapes)} make a matrix of {high} x {wide}, not of {rows} x {columns}",
            code="size-mismatch",
            help=f"up to {DIGITS} pairs (rows, columns)",
        )
