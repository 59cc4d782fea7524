"""The steps of a planned program on the GPU: buffers made, filled and dropped, kernels launched, products by torch.

A step is data, made once for sizes and strides (`program`), shown by `explain`, and run many times (`run`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ...ir.semiring import Scalar
from .choose import Chosen
from .views import Layout

TABLE_BYTES = 4  # of a number in a list of blocks
ORDERING = 8  # kernels of torch that bring a list in order


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
class BlockRows:
    """A list of stored blocks in order of their block rows: buffers `pointers`, `columns` and `order` of i32.

    The blocks of row I are those at places pointers[I] .. pointers[I + 1]; of each place, `columns` has the block
    column, `order` the number of the block. `rows_of` and `columns_of` are tensors of integers of `itemsize` bytes that
    say, in any order, where each of the `blocks` stands; what stands outside of the grid of `extents` (rows, columns)
    is at no place. A `constant` list has the same values in every run, and is brought in order once.
    """

    pointers: str
    columns: str
    order: str
    rows_of: str
    columns_of: str
    extents: tuple[int, int]
    blocks: int
    itemsize: int
    constant: bool = False

    @property
    def names(self) -> tuple[str, str, str]:
        """The buffers that are made."""
        return self.pointers, self.columns, self.order

    @property
    def bytes(self) -> int:
        """Bytes of a call through device memory: what is read, and the tables, written and read by the next kernel."""
        tables = TABLE_BYTES * (self.extents[0] + 1 + 2 * self.blocks)
        return tables if self.constant else 2 * tables + 2 * self.itemsize * self.blocks


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
class Origin:
    """Where the configuration of a kernel comes from, times in microseconds (0: unknown).

    It is the `model`'s first choice, the only one that is fit to run (`alone`), the fastest of `candidates` that were
    `timed` in this process, or one that was `kept` from an earlier one. `first` is the time of the model's choice,
    `blocks` are the blocks that axes have there, where they have others now.

    >>> str(Origin("timed", 8, 41.2, 47.04)), str(Origin())
    ('timed: 41.2 us, the fastest of 8; 47 us as first chosen', 'by the model')
    >>> str(Origin("kept", 8, 41.2, 47.04, (("i", 128),)))
    'kept: 41.2 us, the fastest of 8; 47 us as first chosen, in blocks i 128'
    """

    how: Literal["model", "alone", "timed", "kept"] = "model"
    candidates: int = 0
    microseconds: float = 0.0
    first: float = 0.0
    blocks: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        if self.how == "model":
            return "by the model"
        blocks = "in blocks " + ", ".join(f"{a} {b}" for a, b in self.blocks) if self.blocks else ""
        if self.candidates == 1:
            kept = " (kept)" if self.how == "kept" else ""
            return f"the only one that is fit to run{kept}" + (f"; first chosen {blocks}" if blocks else "")
        first = f"{self.first:.3g} us as first chosen" if self.first else "first chosen" if blocks else ""
        found = f"{self.how}: {self.microseconds:.3g} us, the fastest of {self.candidates}"
        return found + (f"; {first}" if first else "") + (f"{',' * bool(self.first)} {blocks}" if blocks else "")


@dataclass(frozen=True)
class Launch:
    """One kernel. `bytes` and `flops` are what it moves and does at least, `origin` tells how its configuration was
    chosen.
    """

    chosen: Chosen
    output: str
    bytes: int
    flops: int
    origin: Origin = Origin()


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


Step: TypeAlias = "Make | Constant | BlockRows | Part | Fill | Copy | Launch | Product | Drop"


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
        case BlockRows(rows_of=rows, columns_of=columns, blocks=blocks, extents=(high, wide)):
            return f"{blocks} blocks at ({rows}, {columns}) in order of {high} block rows of {wide}"
        case Part(name, source, part):
            return f"{name}: the {('real', 'imaginary')[part]} parts of {source}"
        case Fill(name, value):
            return f"fill {name} with {value}"
        case Copy(name, source):
            return f"copy {source} to {name}"
        case Launch(chosen, output, moved, flops, origin):
            cut = ", ".join(f"{a} {b}" for a, b in chosen.blocks if b > 1) or "none"
            kernel = chosen.kernel
            fused = ", fused multiply-adds" if kernel.fuse_multiply_add else ""
            bulk = ", ".join(t.name for t in kernel.tensors if t.descriptor)
            return (
                f"kernel {output}: {chosen.programs} programs of {kernel.warps} warps, blocks {cut}, "
                f"{kernel.precision}{fused}, {_amount(moved)}B moved, {_amount(flops)}flop"
                + (f", bulk copies of {bulk}" if bulk else "")
                + f"; configuration {origin}"
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
    ordered = ORDERING * sum(isinstance(s, BlockRows) and not s.constant for s in steps)
    return ordered + sum(
        isinstance(s, Launch | Product | Copy | Fill) or (isinstance(s, Make) and s.fill is not None) for s in steps
    )
