"""Steps: the contractions that an equation becomes at known sizes, with the tensors that they work on.

Between `equations`, which makes them, and `program`, which gives every tensor a buffer and every step a plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from ...ir.loops import Axis, Contraction, Literal
from ...ir.types import DType
from .native_record import Layout


@dataclass(frozen=True)
class Counting:
    """A table of the integers low..high (inclusive), modulo `modulus` if that is not 0: the values of an index
    expression.
    """

    low: int
    high: int
    modulus: int = 0


Tensor: TypeAlias = "str | Counting"


@dataclass(frozen=True)
class Operand:
    """A tensor, from a byte offset on. A size used as a number is a one-element `Counting`."""

    tensor: Tensor
    offset: int = 0


@dataclass(frozen=True)
class Step:
    """One contraction and the tensors that it works on, the output first."""

    problem: Contraction
    operands: tuple[Operand, ...]


class Filled(NamedTuple):
    """An equation at known sizes: the extent of each axis; strides, operand and type of each tensor, output first."""

    extents: list[int]
    rows: list[tuple[int, ...]]
    operands: list[Operand]
    dtypes: list[DType]


def fill_step(name: str, out: Layout, value: Literal) -> Step:
    """The step that sets every element of a tensor to a constant."""
    axes = tuple(Axis(n, (s,)) for n, s in zip(out.shape, out.strides, strict=True))
    return Step(Contraction(axes, (out.dtype,), (value,), out.dtype), (Operand(name),))


def sources_of(operands: Sequence[Operand]) -> tuple[int, ...]:
    """For each operand (the output is the first) the number of the first that is the same tensor from the same element
    on; nothing where all differ.
    """
    first: dict[Operand, int] = {}
    numbers = tuple([first.setdefault(o, k) for k, o in enumerate(operands[1:])])
    return numbers if len(first) < len(numbers) else ()
