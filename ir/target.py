"""What a machine is to the compiler: a `Target` prices programs, a `Backend` makes them run.

Both are protocols, so that passes can choose between equal programs, and the runtime can call any backend, without
knowing which one it is. A cost is a value apart from the search that minimises it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

from .expr import Program

Array: TypeAlias = "np.ndarray[Any, Any]"


@dataclass(frozen=True)
class Cost:
    """What running something takes: arithmetic operations, bytes moved, kernels launched, and predicted nanoseconds.

    `nanoseconds` is 0 until a target has priced the rest. Costs of steps that run one after the other add up.

    >>> Cost(flops=10, bytes=8, launches=1) + Cost(flops=2, launches=1)
    Cost(flops=12, bytes=8, launches=2, nanoseconds=0.0)
    """

    flops: int = 0
    bytes: int = 0
    launches: int = 0
    nanoseconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.flops + other.flops,
            self.bytes + other.bytes,
            self.launches + other.launches,
            self.nanoseconds + other.nanoseconds,
        )

    @property
    def intensity(self) -> float:
        """Operations per byte (0 where no byte is moved)."""
        return self.flops / self.bytes if self.bytes else 0.0


@runtime_checkable
class Target(Protocol):
    """Where a program is to run, as far as choosing between equal programs goes."""

    @property
    def name(self) -> str:
        """`"cpu"`, `"cuda"`, `"ckks"` or `"reference"`."""
        ...

    def price(self, program: Program, sizes: Mapping[str, int]) -> Cost:
        """The cost of a planned program at these sizes, with `nanoseconds` filled in."""
        ...


@runtime_checkable
class Artifact(Protocol):
    """A compiled program."""

    def run(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by name, for an array of the right type and shape per input."""
        ...

    def source(self, kind: str) -> str:
        """The generated text of one kind; `BackendError` names the kinds that there are."""
        ...


@runtime_checkable
class Backend(Protocol):
    """What turns planned programs into something that runs."""

    @property
    def name(self) -> str:
        """The name of the target."""
        ...

    def available(self) -> bool:
        """Whether it can run here; imports its heavy libraries if need be."""
        ...

    def missing(self) -> str:
        """What to install or attach where it is not available (`install stein[gpu]`); empty where it is."""
        ...

    def compile(self, program: Program, sizes: Mapping[str, int]) -> Artifact:
        """The program for these sizes; `BackendError` if this backend cannot express it."""
        ...
