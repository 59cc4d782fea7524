"""What a matrix product in three moving parts is decided by: the frame, the offsets, blocks; and what that takes.

See `matmul3` for the geometry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..steps.context import Context
from .lanes import Grid

Array = np.ndarray[Any, Any]
Vector = tuple[int, int]

ROW, INNER, COLUMN = 0, 1, 2


@dataclass(frozen=True)
class Frame:
    """Which index lies along x, which along y, and which along x + y (numbers of row, inner, column)."""

    name: str
    x: int
    y: int
    sum: int

    def position(self, index: int, x: Array, y: Array) -> Array:
        """The position on an index at places of the grid."""
        return x if index == self.x else y if index == self.y else x + y

    def vector(self, offsets: Mapping[int, int]) -> Vector:
        """The move in the grid that changes two indices by these offsets."""
        if self.x in offsets and self.y in offsets:
            return offsets[self.x], offsets[self.y]
        if self.x in offsets:
            return offsets[self.x], offsets[self.sum] - offsets[self.x]
        return offsets[self.sum] - offsets[self.y], offsets[self.y]


FRAMES = {
    f.name: f
    for f in (
        Frame("xy", ROW, COLUMN, INNER),
        Frame("yx", COLUMN, ROW, INNER),
        Frame("right", INNER, COLUMN, ROW),
        Frame("left", INNER, ROW, COLUMN),
        Frame("rows", ROW, INNER, COLUMN),
        Frame("columns", COLUMN, INNER, ROW),
    )
}
LEFT, RIGHT, RESULT = (ROW, INNER), (INNER, COLUMN), (ROW, COLUMN)


@dataclass(frozen=True)
class Plan:
    """What a product in three moving parts is decided by: names of row, inner and column index; the frame; the size d
    of a block; how many offsets of the inner index, the row and the column (t p q = d); the width of the grid and its
    height; whether x wraps; the slots of each place of the grid, and how blocks and batches lie in them; whether
    rotations are chained from single steps; and for each operand whether its rows are stored twice first (by a
    rotation; 1: again behind themselves, -1: before).
    """

    core: tuple[str, str, str]
    frame: str
    size: int
    parts: tuple[int, int, int]
    height: int
    width: int
    wraps: bool
    lanes: int
    blocks: Grid
    chained: bool = False
    doubled: tuple[int, int] = (0, 0)

    def encoded(self) -> dict[str, Any]:
        """The plan as JSON."""
        return {**vars(self), "blocks": self.blocks.encoded()}

    @staticmethod
    def decoded(data: Mapping[str, Any]) -> Plan:
        """The plan of `encoded`."""
        core, parts = data["core"], data["parts"]
        return Plan(
            (core[0], core[1], core[2]), data["frame"], data["size"], (parts[0], parts[1], parts[2]), data["height"],
            data["width"], data["wraps"], data["lanes"], Grid.decoded(data["blocks"]), data["chained"],
            (data["doubled"][0], data["doubled"][1]),
        )  # fmt: skip


def figures(
    parts: tuple[int, int, int], counts: tuple[Any, Any, Any, Any], folds: Any, context: Context, level: int
) -> dict[str, Any]:
    """Operations and milliseconds, for numbers or for arrays of choices: `counts` has the ciphertexts of the left and
    the right operand and of the result, and the pairs of ciphertexts that are multiplied.
    """
    t, p, q = parts
    left, right, results, cells = counts
    before, after, prices = context.primes(level), context.primes(level + 1), context.prices
    babies = left * (t * p - 1) + right * (t * q - 1)
    giants = results * (p * q - 1 + folds)
    products, settled = cells * t * p * q, results * p * q
    time = babies * prices.rotate(before) + giants * (prices.rotate(after) + prices.add(after))
    time = time + products * prices.multiply(before) + (products - settled) * prices.add(before)
    time = time + settled * (prices.rescale(before) + prices.relinearise(after))
    return {
        "rotations": babies + giants,
        "cipher_products": products,
        "relinearisations": settled,
        "rescales": settled,
        "additions": products - settled + giants,
        "milliseconds": time,
    }
