"""Loops: what a planned equation becomes on its way to machine code.

Two levels live here, both plain frozen values. A `Contraction` is the problem: axes with extents and byte strides, a product
of leaves over a semiring, an epilogue. A `Kernel` is one schedule for it: a small tree of loops whose leaf works on named
register tiles. Backends read the tree: `backends.cpu` as LLVM text, a GPU backend as Triton. The design, with what was
measured, is `cpu.md`, "The code generator".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from .semiring import PLUS_TIMES, Scalar, Semiring
from .types import DType


@dataclass(frozen=True)
class Load:
    """The element of operand number `operand` (0 is the first operand; the output is not counted), in its stored type."""

    operand: int


@dataclass(frozen=True)
class Literal:
    """A constant of type `dtype`."""

    value: Scalar
    dtype: DType


@dataclass(frozen=True)
class Apply:
    """An elementwise function of `ir.functions` (or "cast") on leaves; `dtype` is the type of the result.

    Arguments are converted to the promoted type of the arguments first, as `Map` nodes do.
    """

    function: str
    args: tuple[Leaf, ...]
    dtype: DType


@dataclass(frozen=True)
class Total:
    """The reduced value, in the accumulation type. It stands in an epilogue only."""


Leaf: TypeAlias = Load | Literal | Apply | Total


@dataclass(frozen=True)
class Axis:
    """One axis of an iteration space: `extent` steps, `strides` bytes apart (output first, then each operand).

    A stride may be negative, zero or no multiple of the item size. `reduced` axes are summed and have output stride 0.
    """

    extent: int
    strides: tuple[int, ...]
    reduced: bool = False


@dataclass(frozen=True)
class Contraction:
    """out[p] = epilogue(sum over the reduced axes of the product of the factors), at known sizes and strides.

    `dtypes` names the output's element type first, then each operand's. Factors are multiplied and summed in `accumulate`
    by `semiring`; the epilogue may load operands too (they must lack the reduced axes). With `update`, the result is added
    (in the semiring) to what the output holds. With `collides`, several points may share an output position: they are
    added one after the other (`update` must be set).
    """

    axes: tuple[Axis, ...]
    dtypes: tuple[DType, ...]
    factors: tuple[Leaf, ...]
    accumulate: DType
    semiring: Semiring = PLUS_TIMES
    epilogue: Leaf = Total()
    update: bool = False
    collides: bool = False
