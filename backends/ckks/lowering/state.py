"""The state of lowering: the steps and clear equations so far, and the names that are taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ....ir import expr as e
from .indices import shape_of
from .problem import Step


@dataclass(frozen=True)
class Blocks:
    """Which blocks of a matrix, each of `size`, hold anything but zeros: (block row, block column) each."""

    size: tuple[int, int]
    places: tuple[tuple[int, int], ...]


@dataclass
class State:
    """What one run has made. `made` are clear tensors and polynomials that several steps have in common, by what they
    are; `shapes` those of encrypted values.
    """

    program: e.Program
    blocks: Mapping[str, Blocks]
    steps: list[Step] = field(default_factory=list)
    clear: list[e.Equation] = field(default_factory=list)
    made: dict[object, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.encrypted = {i.name for i in self.program.inputs if i.encrypted}
        self.shapes = {i.name: shape_of(i.shape) for i in self.program.inputs if i.encrypted}
        self.taken = set(self.program.tensors)

    def fresh(self, base: str) -> str:
        """A new name: `base.1`, `base.2`, ..."""
        k = 1
        while f"{base}.{k}" in self.taken:
            k += 1
        self.taken.add(f"{base}.{k}")
        return f"{base}.{k}"

    def value(self, base: str, shape: tuple[int, ...]) -> str:
        """The name of a new encrypted value."""
        name = self.fresh(base)
        self.shapes[name] = shape
        self.encrypted.add(name)
        return name

    def clear_tensor(self, name: str) -> e.Input | e.Equation:
        """What defines a clear tensor."""
        return next((q for q in self.clear if q.name == name), None) or self.program.tensors[name]
