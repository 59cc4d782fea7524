"""Block diagonal: one dense block for each value of a digit that rows and columns share."""

from __future__ import annotations

from dataclasses import dataclass

from .algebra import Batch, Structure, matrix
from .build import Method
from .operator import Operator


@dataclass(frozen=True)
class BlockDiagonal(Structure):
    """`blocks` blocks of rows x cols. The recogniser finds it as a batch of dense blocks.

    >>> BlockDiagonal(4, 3, 2).operator().size
    (12, 8)
    """

    blocks: int
    rows: int
    cols: int
    name: str = "W"

    def operator(self) -> Operator:
        """A batch of one operand."""
        return Batch(matrix(self.name, self.rows, self.cols), self.blocks).operator()

    def extra(self) -> tuple[Method, ...]:
        """None: the contraction is a batched product already."""
        return ()
