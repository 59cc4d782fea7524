"""What a step offers the planner: ways to compute it, each with the layouts it takes and gives, and its price.

The planner knows no kind of step; the files of the kinds (`linear`, `product`, `polynomial`, `sums`) know no search.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ..core.circuit import Builder
from ..core.layout import Packing


@dataclass(frozen=True)
class Work:
    """Operations of a method, by kind, and predicted milliseconds of one core. Works of steps add up.

    >>> (Work(rotations=1, milliseconds=2.0) + Work(rotations=2)).rotations
    3
    """

    rotations: int = 0
    plain_products: int = 0
    cipher_products: int = 0
    relinearisations: int = 0
    rescales: int = 0
    additions: int = 0
    milliseconds: float = 0.0

    def __add__(self, other: Work) -> Work:
        mine, theirs = vars(self), vars(other)
        return Work(**{k: mine[k] + theirs[k] for k in mine})


@dataclass(frozen=True)
class Placed:
    """Where a value is, as far as the planner has decided: its packing, and the level it has there.

    `text` is the symbolic layout for people.
    """

    packing: Packing
    level: int
    text: str = ""


class Option(Protocol):
    """One way to compute a step."""

    @property
    def work(self) -> Work:
        """What it takes."""
        ...

    @property
    def takes(self) -> tuple[Placed, ...]:
        """Where each encrypted operand must be (at that level or a higher one)."""
        ...

    @property
    def gives(self) -> Placed:
        """Where the result is."""
        ...

    @property
    def steps(self) -> frozenset[int]:
        """The rotations that it needs keys for."""
        ...

    def emit(self, builder: Builder, operands: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
        """Writes its operations; one node for each ciphertext of each operand in, one for each of the result out."""
        ...

    def decision(self) -> Mapping[str, Any]:
        """What a saved plan has to remember (JSON) so that the same option is made again without a search."""
        ...

    def describe(self) -> str:
        """One line for `explain`."""
        ...
