"""Loops: what a planned equation becomes on its way to machine code.

Two levels live here, both plain frozen values. A `Contraction` is the problem: axes with extents and byte strides, a
product of leaves over a semiring, an epilogue. A `Kernel` is one schedule for it: a small tree of loops whose leaf
works on named register tiles. Backends read the tree: `backends.cpu` as LLVM text, a GPU backend as Triton. The
design, with what was measured, is `cpu.md`, "The code generator".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from .semiring import PLUS_TIMES, Scalar, Semiring
from .types import DType


@dataclass(frozen=True)
class Load:
    """The element of operand number `operand` (0 is the first operand; the output is not counted), in its stored
    type.
    """

    operand: int


@dataclass(frozen=True, eq=False)
class Literal:
    """A constant of type `dtype`. Equality is that of the written value: 0.0 and -0.0 differ, NaN equals itself."""

    value: Scalar
    dtype: DType

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Literal) and (repr(self.value), self.dtype) == (repr(other.value), other.dtype)

    def __hash__(self) -> int:
        return hash((repr(self.value), self.dtype))


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

    `dtypes` names the output's element type first, then each operand's. Factors are multiplied and summed in
    `accumulate` by `semiring`; the epilogue may load operands too (they must lack the reduced axes). With `update`,
    the result is added (in the semiring) to what the output holds. With `collides`, several points may share an
    output position: they are added one after the other (`update` must be set). `lookups` are (axis, operand): at each
    point of the other axes that axis takes the one value that the operand holds there, and the point counts for
    nothing where the value is outside of the axis (a gather where the axis is reduced, else a scatter, see
    `ir.lookup`). `sources` tells which operands are one tensor, read at other strides: for each operand the number of
    the first that begins at the same element (empty where all differ).
    """

    axes: tuple[Axis, ...]
    dtypes: tuple[DType, ...]
    factors: tuple[Leaf, ...]
    accumulate: DType
    semiring: Semiring = PLUS_TIMES
    epilogue: Leaf = Total()
    update: bool = False
    collides: bool = False
    lookups: tuple[tuple[int, int], ...] = ()
    sources: tuple[int, ...] = ()


# --- Kernels ---------------------------------------------------------------------------------------------------------
#
# Tensors of a kernel are numbered: 0 is the output, `Load(i)` is tensor i + 1, and the panels and scratch tensors that
# `Pack` and `Local` introduce take the next numbers. Axes have short names ("v", "u", "k0"). An extent or stride is
# known (an int) or an argument, so the same tree gives a kernel for any sizes and a kernel for one size.


@dataclass(frozen=True)
class Tile:
    """out[free] = epilogue(sum over `reduced` of the product of the factors), on what the loops above left of each
    axis.

    Extents that are constant here become registers: every free axis except `vector` must be one. `vector` runs across
    the `lanes` of a register. If it is reduced, `vectors` accumulators take turns and their lanes are summed at the
    end; an extent that is no multiple of the lanes is masked. `unroll` repeats the innermost reduction. `flip` names
    another free axis along which an operand that is strided on `vector` is contiguous: it is loaded along that and
    transposed in registers. Reductions along the `blocked` axes run in blocks of `block` steps with accumulators of
    their own, which are then added to a total: rounding errors of a long sum grow with the block, not with the sum.
    With `update` the value is added to what the output holds.
    """

    factors: tuple[Leaf, ...]
    free: tuple[str, ...]
    reduced: tuple[str, ...]
    vector: str
    lanes: int
    accumulate: DType
    semiring: Semiring = PLUS_TIMES
    epilogue: Leaf = Total()
    out: int = 0
    vectors: int = 1
    unroll: int = 1
    flip: str = ""
    blocked: tuple[str, ...] = ()
    block: int = 256
    update: bool = False


@dataclass(frozen=True)
class Loop:
    """A cascade along one axis: as many blocks of `steps[0]` as fit, then of `steps[1]`, and so on.

    With `cut`, the last block of the last step may be short (the tile masks it). A step that is a name is an
    argument, so cache blocks stay out of the kernel's key. `reduced` blocks add to what the block before them left in
    the output, and only the last one applies the epilogue.
    """

    axis: str
    steps: tuple[int | str, ...]
    body: Nest
    cut: bool = False
    reduced: bool = False


@dataclass(frozen=True)
class Pack:
    """Evaluate `source` on the current block into panels and go on with tensor `panel` in its place.

    A panel holds one block of `steps` along `axis`, the `inner` axes outside it, densely; the last may be short.
    """

    source: Leaf
    panel: int
    dtype: DType
    axis: str
    steps: tuple[int, ...]
    inner: tuple[str, ...]
    slot: int
    body: Nest


@dataclass(frozen=True)
class Local:
    """A dense scratch tensor over the current extents of `axes`: the intermediate of a fused chain."""

    tensor: int
    axes: tuple[str, ...]
    dtype: DType
    slot: int
    body: Nest


@dataclass(frozen=True)
class Seq:
    """Several statements, one after the other, under the same loops."""

    bodies: tuple[Nest, ...]


@dataclass(frozen=True)
class Outer:
    """Output axes of run-time number: an odometer. If `shared`, a call does the positions lo..hi of it, else all of
    them.
    """

    body: Nest
    shared: bool = True


@dataclass(frozen=True)
class Share:
    """A call does the blocks lo..hi of `grain` steps of one axis: how a kernel without an outer axis is split."""

    axis: str
    grain: int
    body: Nest


@dataclass(frozen=True)
class Follow:
    """The integer that tensor `index` holds at this point is the position on `axis`: every tensor moves there, and
    `body` runs.

    Where the position is outside of the axis, `absent` runs instead, if there is one. If `owned`, a call does the
    positions lo..hi only: calls that share the others never write to the same place.
    """

    index: int
    axis: str
    body: Nest
    absent: Nest | None = None
    owned: bool = False


@dataclass(frozen=True)
class Runs:
    """Along `axis`, one stretch after the other in which the lookups `keys` hold the same positions: `body` does one.

    `lookups` are (index tensor, axis). In the body, every tensor stands at the positions of the keys, and `axis` is as
    long as the run. Each `moved` (tensor, lookups) goes, at each step along `axis`, to the positions that those lookups
    hold there. Steps at which any position is outside of its axis are left out. `dense` says that the integers are
    contiguous; of the key `owned`, a call does the positions lo..hi only.
    """

    axis: str
    lookups: tuple[tuple[int, str], ...]
    keys: tuple[int, ...]
    moved: tuple[tuple[int, tuple[tuple[int, str], ...]], ...]
    body: Nest
    dense: bool = False
    owned: int | None = None


@dataclass(frozen=True)
class Guard:
    """`body`, if the integers of tensor `index` mostly stay the same from one step along `axis` to the next
    (`grouped`), or else if they do not. The first few hundred steps decide.
    """

    index: int
    axis: str
    grouped: bool
    body: Nest


@dataclass(frozen=True)
class Triangle:
    """For every position on `row`: `body` on the positions of `column` below it, from the beginning of its block of
    `block` (an argument) positions on. A call does the blocks lo..hi.
    """

    row: str
    column: str
    block: str
    body: Nest


Nest: TypeAlias = Tile | Loop | Pack | Local | Seq | Outer | Share | Follow | Runs | Guard | Triangle

RUN_TIME = "s"  # a stride that is an argument
TABLE = "t"  # an axis whose byte offsets are read from a table: several reduced axes in one


@dataclass(frozen=True)
class Kernel:
    """One schedule: equality of this value is the identity of the machine code.

    `dtypes` and `strides` have a row for each tensor (output first), `axes` names the axes and `extents` fixes some
    of them (None: an argument). A stride is a number of bytes, `RUN_TIME` or `TABLE`. `slots` is the number of
    scratch areas.
    """

    dtypes: tuple[DType, ...]
    axes: tuple[str, ...]
    extents: tuple[int | None, ...]
    strides: tuple[tuple[int | str, ...], ...]
    nest: Nest
    slots: int = 0

    def __hash__(self) -> int:
        """The hash of the whole tree, computed once: kernels are looked up at every launch."""
        known = self.__dict__.get("_hash")
        if known is None:
            known = hash((self.dtypes, self.axes, self.extents, self.strides, self.nest, self.slots))
            object.__setattr__(self, "_hash", known)
        return int(known)


def loads_of(leaf: Leaf) -> tuple[int, ...]:
    """The operands that a leaf loads, each once, in order of appearance.

    >>> loads_of(Apply("mul", (Load(1), Load(0)), DType("f32", "f", 32)))
    (1, 0)
    """
    match leaf:
        case Load(operand):
            return (operand,)
        case Apply(_, args):
            return tuple(dict.fromkeys(o for arg in args for o in loads_of(arg)))
    return ()
