"""The target "reference": programs run by the interpreter of the IR.

It is slow and needs NumPy only; it is there to check other backends against, and to run a program whose compilation is
in doubt. Programs of every stage are accepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from ...ir.count import count_program
from ...ir.errors import BackendError
from ...ir.expr import Program
from ...ir.interpret import interpret
from ...ir.target import Cost
from ...ir.text import print_program

Array: TypeAlias = "np.ndarray[Any, Any]"


@dataclass(frozen=True)
class ReferenceArtifact:
    """A program and the sizes that it was compiled for."""

    program: Program
    sizes: Mapping[str, int]

    def run(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by name; `DTypeError` or `ShapeError` where the arrays do not fit the program."""
        return interpret(self.program, arrays, self.sizes)

    def source(self, kind: str = "ir") -> str:
        """The text of the program: there is no other code."""
        if kind != "ir":
            raise BackendError(f"the reference target has no '{kind}'", code="no-such-source", help='source("ir")')
        return print_program(self.program)


@dataclass(frozen=True)
class ReferenceBackend:
    """The interpreter as a backend and as a target."""

    name: str = "reference"

    def available(self) -> bool:
        """Always: NumPy is a dependency of the core."""
        return True

    def missing(self) -> str:
        """Nothing."""
        return ""

    def compile(self, program: Program, sizes: Mapping[str, int] = MappingProxyType({})) -> ReferenceArtifact:
        """The program, to be interpreted; `sizes` are those that no argument's shape determines."""
        return ReferenceArtifact(program, dict(sizes))

    def price(self, program: Program, sizes: Mapping[str, int]) -> Cost:
        """Operations and bytes as they stand, at a nanosecond each (the order of NumPy on one core)."""
        cost = count_program(program, sizes)
        return Cost(cost.flops, cost.bytes, cost.launches, float(cost.flops + cost.bytes))
