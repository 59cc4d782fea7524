"""Plain vectors of products, sums and polynomials: numbers, and entries of clear tensors, by slot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Constant:
    """One number in the slots where `mask` is true (in all slots if there is no mask), 0 in the others."""

    number: float
    slots: int
    mask: Array | None = field(default=None, repr=False)

    @property
    def reads(self) -> tuple[str, ...]:
        """No tensor."""
        return ()

    def vector(self, tensors: Mapping[str, Array]) -> Array:
        """The slots.

        >>> Constant(2.0, 3).vector({})
        array([2., 2., 2.])
        """
        full = np.full(self.slots, self.number)
        return full if self.mask is None else np.where(self.mask, full, 0.0)


@dataclass(frozen=True, eq=False)
class Entries:
    """factor x the entries of a clear tensor with the flat numbers `at`; 0 where that is negative."""

    tensor: str
    at: Array = field(repr=False)
    factor: float = 1.0

    @property
    def reads(self) -> tuple[str, ...]:
        """The tensor."""
        return (self.tensor,)

    def vector(self, tensors: Mapping[str, Array]) -> Array:
        """The slots.

        >>> Entries("w", np.array([1, -1, 0]), 2.0).vector({"w": np.array([3.0, 4.0])})
        array([8., 0., 6.])
        """
        flat = np.append(np.asarray(tensors[self.tensor], dtype=float).ravel(), 0.0)
        found: Array = flat[self.at] * self.factor
        return found
