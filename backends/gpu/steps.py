"""The steps of a planned program on the GPU: buffers made, filled and dropped, kernels launched, products by torch.

A step is data, made once for sizes and strides (`program`), shown by `explain`, and run many times (`run`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from ...ir.semiring import Scalar
from .choose import Chosen
from .views import Layout


@dataclass(frozen=True)
class Make:
    """A new buffer, dense and row-major; `fill` is a number that it is filled with, None leaves it as it is."""

    name: str
    layout: Layout
    fill: Scalar | None = None


@dataclass(frozen=True, eq=False)
class Constant:
    """A dense array that a plan brings with it, for the buffer `name`: a small transform, say."""

    name: str
    layout: Layout
    values: Any


@dataclass(frozen=True)
class Part:
    """A view of one part, 0 or 1, of the complex numbers in the buffer `source`."""

    name: str
    source: str
    part: int


@dataclass(frozen=True)
class Fill:
    """A number at every place of a buffer."""

    name: str
    value: Scalar


@dataclass(frozen=True)
class Copy:
    """The values of `source` in the buffer `name`, converted to its type."""

    name: str
    source: str


@dataclass(frozen=True)
class Launch:
    """One kernel. `bytes` and `flops` are what it moves and does at least."""

    chosen: Chosen
    output: str
    bytes: int
    flops: int


@dataclass(frozen=True)
class Matrix:
    """A tensor of the program as a stack of matrices: `shape` and `strides` in elements from `offset` on."""

    tensor: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0


@dataclass(frozen=True)
class Product:
    """out = left @ right by torch.matmul (cuBLAS): the operands are matrices as they lie, nothing is copied."""

    out: Matrix
    left: Matrix
    right: Matrix
    bytes: int
    flops: int


@dataclass(frozen=True)
class Drop:
    """Buffers that no later step uses."""

    names: tuple[str, ...]


Step: TypeAlias = "Make | Constant | Part | Fill | Copy | Launch | Product | Drop"


def shown(step: Step) -> str:
    """One line for `explain`.

    >>> shown(Copy("y", "x"))
    'copy x to y'
    """
    match step:
        case Make(name, layout, fill):
            extents = ", ".join(map(str, layout.shape))
            return f"buffer {name}: {layout.dtype}[{extents}]" + ("" if fill is None else f" filled with {fill}")
        case Constant(name, layout):
            return f"constant {name}: {layout.dtype}{list(layout.shape)}"
        case Part(name, source, part):
            return f"{name}: the {('real', 'imaginary')[part]} parts of {source}"
        case Fill(name, value):
            return f"fill {name} with {value}"
        case Copy(name, source):
            return f"copy {source} to {name}"
        case Launch(chosen, output, moved, flops):
            blocks = ", ".join(f"{a} {b}" for a, b in chosen.blocks if b > 1) or "none"
            kernel = chosen.kernel
            return (
                f"kernel {output}: {chosen.programs} programs of {kernel.warps} warps, blocks {blocks}, "
                f"{kernel.precision}, {_amount(moved)}B moved, {_amount(flops)}flop"
            )
        case Product(out, left, right, moved, flops):
            return (
                f"torch.matmul {out.tensor} = {left.tensor} {list(left.shape)} @ {right.tensor} {list(right.shape)}, "
                f"{_amount(moved)}B moved, {_amount(flops)}flop"
            )
        case Drop(names):
            return f"drop {', '.join(names)}"


def _amount(number: int) -> str:
    """A count with a prefix.

    >>> _amount(999), _amount(2_500_000)
    ('999 ', '2.5 M')
    """
    value, prefixes = float(number), iter(" kMGTP")
    prefix = next(prefixes)
    while value >= 1000 and (following := next(prefixes, "")):
        value, prefix = value / 1000, following
    return f"{value:.4g} {prefix}".rstrip() + (" " if prefix == " " else "")


def launches(steps: tuple[Step, ...]) -> int:
    """How many kernels a call launches, fills and copies included."""
    return sum(
        isinstance(s, Launch | Product | Copy | Fill) or (isinstance(s, Make) and s.fill is not None) for s in steps
    )
