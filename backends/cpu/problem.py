"""Contractions made small: what the scheduler looks at instead of the `Contraction` it was given.

Axes of one step go, axes are turned so that the output (or the first operand that moves) runs forwards, neighbouring
axes that are one loop in every tensor are merged, and an empty reduction becomes a constant. `Form` is what is left
when sizes and strides are taken away; forms are interned, so that choosing a kernel need not hash trees of dataclasses.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from typing import NamedTuple

from ...ir.loops import Apply, Axis, Contraction, Leaf, Literal, Load, Total, loads_of
from ...ir.semiring import Semiring
from ...ir.types import DType, real_type

# Rough cycles of one vector operation; what is not named costs one.
_COSTS = {"exp": 12, "log": 16, "tanh": 20, "erf": 20, "gelu": 24, "silu": 16, "sigmoid": 14, "sin": 30, "cos": 30,
          "pow": 50, "logaddexp": 30, "div": 6, "sqrt": 8}  # fmt: skip


class Line(NamedTuple):
    """One axis: extent, byte strides (output first), and whether it is summed."""

    extent: int
    strides: tuple[int, ...]
    reduced: bool


@dataclass(frozen=True, eq=False)
class Form:
    """A contraction without sizes. Equal forms are the same object (`form_of`), so they hash by identity.

    `tensors_of[f]` are the tensors that factor f loads; `inputs` are the tensors of factors, `extra` those of the
    epilogue only. `work` is the rough cost of evaluating the factors once, beyond one multiplication. `partial` says
    that the output can hold partial sums; `bytewise` that products of bytes are taken, which processors emulate;
    `normalises` that even a sum of one term changes it (any value that is not zero becomes one).
    """

    dtypes: tuple[DType, ...]
    factors: tuple[Leaf, ...]
    accumulate: DType
    semiring: Semiring
    epilogue: Leaf
    update: bool
    collides: bool
    sizes: tuple[int, ...] = field(init=False)
    tensors_of: tuple[tuple[int, ...], ...] = field(init=False)
    inputs: tuple[int, ...] = field(init=False)
    extra: tuple[int, ...] = field(init=False)
    work: tuple[float, ...] = field(init=False)
    part: int = field(init=False)
    widest: int = field(init=False)
    complex: bool = field(init=False)
    fused: bool = field(init=False)
    plain: bool = field(init=False)
    streaming: bool = field(init=False)
    partial: bool = field(init=False)
    bytewise: bool = field(init=False)
    normalises: bool = field(init=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "sizes", tuple(t.itemsize for t in self.dtypes))
        put(self, "tensors_of", tuple(tuple(o + 1 for o in loads_of(leaf)) for leaf in self.factors))
        put(self, "inputs", tuple(dict.fromkeys(t for tensors in self.tensors_of for t in tensors)))
        put(self, "extra", tuple(o + 1 for o in loads_of(self.epilogue)))
        put(self, "work", tuple(_cost(leaf) for leaf in self.factors))
        put(self, "part", real_type(self.accumulate).itemsize)
        types = [*self.dtypes, *(t for leaf in (*self.factors, self.epilogue) for t in _types(leaf))]
        put(self, "widest", max(real_type(t).itemsize for t in types))
        put(self, "complex", self.accumulate.kind == "c")
        put(self, "streaming", self.semiring.add == "logaddexp")
        put(self, "fused", self.semiring.add == "add" and self.accumulate.kind in "fc")
        put(self, "plain", self.epilogue == Total())
        fits = self.dtypes[0] == self.accumulate and not self.streaming
        put(self, "partial", fits and (self.plain or not self.update))
        put(self, "normalises", self.semiring.add.startswith("logical") and self.accumulate.kind != "b")
        put(self, "bytewise", self.accumulate.bits == 8 and self.accumulate.kind in "iu" and self.semiring.mul == "mul")


def _cost(leaf: Leaf) -> float:
    if isinstance(leaf, Apply):
        return _COSTS.get(leaf.function, 1) + sum(_cost(a) for a in leaf.args)
    return 0.0


def _types(leaf: Leaf) -> tuple[DType, ...]:
    if isinstance(leaf, Apply):
        return (leaf.dtype, *(t for a in leaf.args for t in _types(a)))
    return (leaf.dtype,) if isinstance(leaf, Literal) else ()


@lru_cache(maxsize=4096)
def form_of(
    dtypes: tuple[DType, ...],
    factors: tuple[Leaf, ...],
    accumulate: DType,
    semiring: Semiring,
    epilogue: Leaf = Total(),
    update: bool = False,
    collides: bool = False,
) -> Form:
    """The interned form of a contraction."""
    return Form(dtypes, factors, accumulate, semiring, epilogue, update, collides)


def copy_form(dtype: DType) -> Form:
    """The form of a plain copy."""
    from ...ir.semiring import PLUS_TIMES

    return form_of((dtype, dtype), (Load(0),), dtype, PLUS_TIMES)


@dataclass(frozen=True)
class Problem:
    """A form at sizes: few, merged axes. `offsets` are bytes to add to each tensor's address (for turned axes).

    `sources` is that of the contraction: which operands are one tensor.
    """

    form: Form
    lines: tuple[Line, ...]
    offsets: tuple[int, ...]
    sources: tuple[int, ...] = ()

    @property
    def steps(self) -> int:
        """Points of the iteration space."""
        return prod(line.extent for line in self.lines)


def problem_of(contraction: Contraction) -> Problem | None:
    """The normal form of a contraction; None where there is nothing to compute."""
    c = contraction
    factors, axes = c.factors, c.axes
    if any(a.extent == 0 for a in axes):
        if any(a.extent == 0 and not a.reduced for a in axes):
            return None
        factors = (Literal(c.semiring.zero_of(c.accumulate), c.accumulate),)
        axes = tuple(a for a in axes if not a.reduced)
    form = form_of(c.dtypes, factors, c.accumulate, c.semiring, c.epilogue, c.update, c.collides)
    lines, offsets = _turned(axes, len(c.dtypes), form)
    return Problem(form, merged(lines), tuple(offsets), c.sources)


def _turned(axes: tuple[Axis, ...], tensors: int, form: Form) -> tuple[list[Line], list[int]]:
    """Axes of more than one step, running forwards; and how far that moves each tensor."""
    lines, offsets = [], [0] * tensors
    for axis in axes:
        n, strides = axis.extent, axis.strides
        if n == 1 and not (axis.reduced and form.normalises):
            continue
        first = next((s for s in strides if s), 0)
        if first < 0 and not form.collides:
            for t, s in enumerate(strides):
                offsets[t] += (n - 1) * s
            strides = tuple([-s for s in strides])
        lines.append(Line(n, strides, axis.reduced))
    return lines, offsets


def merged(lines: list[Line]) -> tuple[Line, ...]:
    """Merge any two axes where one is a whole number of rounds of the other in every tensor, until there are none."""
    lines = list(lines)
    again = len(lines) > 1
    while again:
        again = False
        for i, (n, outer, reduced) in enumerate(lines):
            for j, (m, inner, same) in enumerate(lines):
                if (
                    i != j
                    and reduced == same
                    and outer[0] == inner[0] * m
                    and all(a == b * m for a, b in zip(outer, inner, strict=True))
                ):
                    lines[j] = Line(n * m, inner, reduced)
                    del lines[i]
                    again = len(lines) > 1
                    break
            if again:
                break
    return tuple(lines)
