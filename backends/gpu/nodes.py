"""The loop tree of a GPU kernel: the plan that the printer (`source`) writes as Triton.

A tree of its own beside `ir.loops`, because Triton text is made of names and groups: a tile is a value over named axes,
each dimension of it an ordered group of axes, and what vectors, lanes and panels are is Triton's business. A plan is
frozen and says everything: which axes are program ids, which are loops, in which order products are taken, what stays
in registers. `choose` makes plans for single equations, `kernels/` for fused chains.

    Kernel
      Outer    axes that are program ids, in blocks
      Loop     one axis, block by block; carries the accumulators of the tiles that reduce over it
      Load     read a tensor here, once
      Index    an axis whose position is read from a table
      Local    a register tile, stored in no memory
      Seq      one statement after the other
      Tile     a product of factors, summed over axes: `tl.dot`, or multiply and reduce
      Map      an elementwise function of values
      Stream   one step of a softmax whose scores come block by block

An axis is a name with a size. Inside a node, an axis stands at one position (block 1), in a block, or is there as a
whole. Strides count elements. A number may be the name of a run-time argument.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from ...ir.loops import Literal
from ...ir.semiring import PLUS_TIMES, Scalar, Semiring
from ...ir.types import DType

Number: TypeAlias = "int | str"  # known, or the name of an argument

__all__ = [
    "Apply", "Coordinate", "Group", "Index", "Kernel", "Leaf", "Literal", "Load", "Local", "Loop", "Map", "Nest",
    "Number", "Outer", "Seq", "Slot", "Stream", "Tensor", "Tile", "inputs_of", "leaves", "names_of", "walk",
]  # fmt: skip


@dataclass(frozen=True)
class Slot:
    """One axis of a tensor at a position that no stride can say: (offset + sum of factor x axis) mod `modulus`.

    With `table`, the value of that tensor (at this point) is the position instead. Positions outside of 0..`extent`
    are masked; with `clamp` they are moved to the nearest end.
    """

    stride: Number
    terms: tuple[tuple[str, Number], ...] = ()
    offset: Number = 0
    modulus: Number | None = None
    extent: Number | None = None
    clamp: bool = False
    table: str = ""


@dataclass(frozen=True)
class Tensor:
    """Memory with named axes. `strides` has one number an axis, () is dense row-major; any stride may be 0 or negative.

    Several views of one argument share `memory`, the argument's name (the tensor's own by default), and begin `offset`
    elements after it. `slots` add positions that are no strides, of axes that are in `axes` too (with stride 0, if they
    are nowhere else); where one is masked, the value is `pad` (None: the 0 of the semiring). With
    `descriptor` the argument is a host tensor descriptor of the block that the plan reads. A tensor that is `added` to
    takes its values by atomic operations of the semiring of the tile that stores it.
    """

    name: str
    axes: tuple[str, ...]
    dtype: DType
    strides: tuple[Number, ...] = ()
    descriptor: bool = False
    memory: str = ""
    offset: Number = 0
    slots: tuple[Slot, ...] = ()
    pad: Scalar | None = None
    added: bool = False

    @property
    def argument(self) -> str:
        """The name of the argument that holds the memory."""
        return self.memory or self.name


@dataclass(frozen=True)
class Coordinate:
    """An index expression as a value of type i64: (offset + sum of factor x axis) mod `modulus`."""

    terms: tuple[tuple[str, Number], ...]
    offset: Number = 0
    modulus: Number | None = None


@dataclass(frozen=True)
class Apply:
    """An elementwise function of `ir.functions` (or "cast") on leaves; `dtype` is the type of the result.

    Arguments are converted to their promoted type first, as `Map` nodes of the IR do.
    """

    function: str
    args: tuple[Leaf, ...]
    dtype: DType


Leaf: TypeAlias = "str | Literal | Coordinate | Apply"  # a str is the value of a tensor, or of an earlier statement


@dataclass(frozen=True)
class Tile:
    """out[free] = sum over `reduced` of the product of the factors, in `semiring`, on what the loops left of each axis.

    Two factors of plus-times that share a reduced axis, each with a free axis of its own, become a `tl.dot` whose left
    operand is the first factor; anything else is multiplied and reduced. With `add`, the value is added to what `out`
    holds in registers. Factors are converted to `accumulate` first (None: f32 for floats of up to 32 bits, else the
    factors' own type).
    """

    out: str
    factors: tuple[Leaf, ...]
    free: tuple[str, ...]
    reduced: tuple[str, ...] = ()
    semiring: Semiring = PLUS_TIMES
    accumulate: DType | None = None
    add: bool = False


@dataclass(frozen=True)
class Map:
    """out = leaf, element by element, over `free` (by default the axes of the values it is made of)."""

    out: str
    leaf: Leaf
    free: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stream:
    """out = exp(scores - greatest), where `greatest` is the maximum so far of the scores along the axes `along`.

    Stands in a loop over these axes that is `reduced`. `total` sums the weights; it and the `rescaled` values, sums of
    the loop that were made with earlier weights, are multiplied by exp(old greatest - new greatest).
    """

    out: str
    scores: Leaf
    along: tuple[str, ...]
    greatest: str
    total: str
    rescaled: tuple[str, ...] = ()


@dataclass(frozen=True)
class Loop:
    """`body` for each block of `block` positions of an axis. `reduced`: tiles that sum over it carry accumulators.

    `rows` = (table, axis) makes it a block list: the positions table[axis] .. table[axis + 1]. `chunk` = (axis, length)
    does one chunk of `length` positions only (a multiple of the block), that of the position of another axis. `stages`
    is the depth of the software pipeline (0: as launched).
    """

    axis: str
    block: int
    body: Nest
    reduced: bool = False
    rows: tuple[str, str] | None = None
    stages: int = 0
    chunk: tuple[str, Number] | None = None


@dataclass(frozen=True)
class Index:
    """In `body`, `axis` stands at the position that `table` holds at the position of the axis `by`."""

    axis: str
    table: str
    by: str
    body: Nest


Group: TypeAlias = "tuple[str, ...]"


@dataclass(frozen=True)
class Load:
    """Read `tensor` here, once, in dimensions of these `groups` of axes, for all that `body` does with it."""

    tensor: str
    groups: tuple[Group, ...]
    body: Nest


@dataclass(frozen=True)
class Local:
    """A value that lives in registers only, rounded to `dtype` before it is used."""

    name: str
    dtype: DType
    body: Nest


@dataclass(frozen=True)
class Seq:
    """Several statements, one after the other."""

    bodies: tuple[Nest, ...]


@dataclass(frozen=True)
class Outer:
    """Axes (name, block) whose blocks are the programs of the grid; the last one varies fastest.

    With `share`, that many persistent programs take turns, and the loads directly below are made once by each. With
    `grouped`, the programs of the last two axes go in groups of so many blocks of the first of them, so that programs
    that run together share what they read of both.
    """

    axes: tuple[tuple[str, int], ...]
    body: Nest
    share: int = 0
    stages: int = 0
    grouped: int = 0


Nest: TypeAlias = "Tile | Map | Stream | Loop | Index | Load | Local | Seq | Outer"


@dataclass(frozen=True)
class Kernel:
    """A whole kernel: equality of this value is the identity of the code.

    `sizes` gives every axis its size; `tables` names the arguments that `Loop.rows` and `Index` read; `precision` is
    that of products of f32 in `tl.dot`: "ieee", "tf32", "tf32x3", "bf16" or "fp16" (operands rounded, sums in f32).
    `wide` addresses inside of a tile have 64 bits too. `title` is the comment at the head of the source; `warps`,
    `stages` and `fuse_multiply_add` (whether a*b+c outside of `tl.dot` is rounded once) are launch options.
    """

    tensors: tuple[Tensor, ...]
    sizes: tuple[tuple[str, Number], ...]
    nest: Nest
    tables: tuple[str, ...] = ()
    precision: str = "ieee"
    wide: bool = False
    title: str = ""
    warps: int = 4
    stages: int = 3
    fuse_multiply_add: bool = False

    def __hash__(self) -> int:
        """The hash of the whole tree, computed once: kernels are looked up at every launch."""
        known = self.__dict__.get("_hash")
        if known is None:
            known = hash((self.tensors, self.sizes, self.nest, self.tables, self.precision, self.wide, self.title))
            object.__setattr__(self, "_hash", known)
        return int(known)

    @property
    def name(self) -> str:
        """What its function is called: after the result, which is the last tensor."""
        return f"kernel_{self.tensors[-1].name}" if self.tensors else "kernel"


def walk(nest: Nest) -> Iterator[Nest]:
    """Every node, from the top, in order of execution.

    >>> [type(n).__name__ for n in walk(Outer((("i", 32),), Seq((Map("y", "x"), Map("z", "y")))))]
    ['Outer', 'Seq', 'Map', 'Map']
    """
    yield nest
    match nest:
        case Seq(bodies):
            for body in bodies:
                yield from walk(body)
        case Loop() | Index() | Load() | Local() | Outer():
            yield from walk(nest.body)


def leaves(leaf: Leaf) -> Iterator[Leaf]:
    """A leaf and everything below it."""
    yield leaf
    if isinstance(leaf, Apply):
        for arg in leaf.args:
            yield from leaves(arg)


def inputs_of(statement: Tile | Map | Stream) -> tuple[Leaf, ...]:
    """The leaves that a statement is made of."""
    match statement:
        case Tile(factors=factors):
            return factors
        case Map(leaf=leaf) | Stream(scores=leaf):
            return (leaf,)


def names_of(leaf: Leaf) -> tuple[str, ...]:
    """The values that a leaf is made of, each once.

    >>> from ...ir.types import F32
    >>> names_of(Apply("mul", ("x", Apply("exp", ("x",), F32)), F32))
    ('x',)
    """
    return tuple(dict.fromkeys(n for n in leaves(leaf) if isinstance(n, str)))
