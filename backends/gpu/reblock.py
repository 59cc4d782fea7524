"""The same kernel in other blocks: which axes may have them, and the tree with them.

Part of tuning. A block that goes beyond the end of an axis is masked, so most blocks are a matter of speed; `movable`
is the one place that says which ones are more than that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from .bulk import ALIGNED, LONGEST, SCALAR
from .launch import block_of
from .nodes import Index, Kernel, Load, Local, Loop, Nest, Outer, Seq, Stream, Tensor, Tile, walk

LARGEST = 1 << 13  # positions of one axis in a tile


def blocks_of(kernel: Kernel) -> dict[str, int]:
    """The block of every axis that stands in blocks: those of the programs, then those of the loops.

    >>> from ...ir.types import F32
    >>> nest = Outer((("i", 64),), Loop("k", 32, Tile("y", ("x",), ("i",), ("k",)), reduced=True))
    >>> blocks_of(Kernel((), (("i", 256), ("k", 128)), nest))
    {'i': 64, 'k': 32}
    """
    return dict(_stands(kernel))


def movable(kernel: Kernel) -> dict[str, int]:
    """The axes whose block may be another power of two from 2 up, each with the most that it may be.

    What a kernel computes does not follow from the sizes of its blocks, except for these, which are left out:

    - Axes that are in no block: the plan holds them whole (digits of a transform, a rank, what is summed at once).
    - Axes in blocks of 1. They stand at one position, which is no dimension of a tile: batches of products, digits,
      positions where tables are read (`Index.by`, `Loop.rows`), numbers of chunks. No other axis may come to that, so
      2 is the least.
    - Loops over a list of blocks (`Loop.rows`): the list says where they begin and end, one after the other.
    - Axes that a statement sums over, or a softmax runs along, without a loop that carries it: their one block has to
      hold all of them.
    - Axes in blocks of different sizes, or in those of programs and of a loop: one number does not say their block.
    - Axes of tensors that persistent programs load above their loop: there they are whole.

    The block of a loop over a chunk divides the length of the chunk, which may be a number of run time: it may become
    smaller, not larger.

    >>> from ...ir.types import F32
    >>> sums = Loop("s", 1, Loop("k", 32, Tile("y", ("x",), ("i",), ("s", "k")), reduced=True), True, ("t", "row"))
    >>> axes = (("b", 8), ("row", 9), ("i", 256), ("s", 7), ("k", 128))
    >>> movable(Kernel((), axes, Outer((("b", 1), ("row", 1), ("i", 64)), sums), tables=("t",)))
    {'i': 8192, 'k': 8192}
    """
    stands = list(_stands(kernel))
    sizes = {axis: {b for a, b in stands if a == axis} for axis, _ in stands}
    programs = {a for n in walk(kernel.nest) if isinstance(n, Outer) for a, _ in n.axes}
    loops = [n for n in walk(kernel.nest) if isinstance(n, Loop)]
    fixed = {a for a, found in sizes.items() if len(found) > 1 or SCALAR in found}
    fixed |= {n.axis for n in loops if n.rows is not None or n.axis in programs}
    fixed |= set(_summed_whole(kernel.nest, frozenset()))
    fixed |= {a for n in walk(kernel.nest) if isinstance(n, Outer) and n.share for a in _loaded(kernel, n)}
    chunked = {n.axis for n in loops if n.chunk is not None}
    return {a: b if a in chunked else max(b, LARGEST) for a, b in stands if a not in fixed}


def reblocked(kernel: Kernel, blocks: Mapping[str, int]) -> Kernel | None:
    """The kernel with other blocks for some axes; None where one of them may not be (see `movable`), or where a bulk
    copy cannot move the block that follows.

    >>> from ...ir.types import F32
    >>> nest = Outer((("i", 64),), Loop("k", 32, Tile("y", ("x",), ("i",), ("k",)), reduced=True))
    >>> kernel = Kernel((), (("i", 256), ("k", 128)), nest)
    >>> made = reblocked(kernel, {"k": 64})
    >>> None if made is None else blocks_of(made)
    {'i': 64, 'k': 64}
    >>> reblocked(kernel, {"k": 48}) is reblocked(kernel, {"j": 64}) is None
    True
    """
    now = blocks_of(kernel)
    others = {a: b for a, b in blocks.items() if now.get(a) != b}
    if not others:
        return kernel
    most = movable(kernel)
    if any(a not in most or not 2 <= b <= most[a] or b & (b - 1) for a, b in others.items()):
        return None
    made = replace(kernel, nest=_with(kernel.nest, others))
    return made if all(in_bulk(made, t) for t in made.tensors if t.descriptor) else None


def differing(model: Kernel, kernel: Kernel) -> tuple[tuple[str, int], ...]:
    """The blocks that a kernel has in the model's configuration, of the axes that have others now.

    >>> from ...ir.types import F32
    >>> from .nodes import Map
    >>> model = Kernel((), (("i", 256), ("j", 8)), Outer((("i", 64), ("j", 8)), Map("y", "x")))
    >>> differing(model, replace(model, nest=Outer((("i", 128), ("j", 8)), Map("y", "x"))))
    (('i', 64),)
    """
    now = blocks_of(kernel)
    return tuple((a, b) for a, b in blocks_of(model).items() if now[a] != b)


def in_bulk(kernel: Kernel, tensor: Tensor) -> bool:
    """Whether bulk copies can move the block of a tensor that a kernel moves at a time."""
    block = block_of(kernel, tensor)
    return max(block) <= LONGEST and block[-1] * tensor.dtype.itemsize >= ALIGNED


def _stands(kernel: Kernel) -> Iterator[tuple[str, int]]:
    """Every place where an axis stands in a block."""
    for node in walk(kernel.nest):
        if isinstance(node, Outer):
            yield from node.axes
        elif isinstance(node, Loop):
            yield node.axis, node.block


def _summed_whole(nest: Nest, carried: frozenset[str]) -> Iterator[str]:
    """Axes that a statement sums over, or streams along, outside of a loop that carries the sum."""
    match nest:
        case Tile(reduced=axes) | Stream(along=axes):
            yield from (a for a in axes if a not in carried)
        case Seq(bodies):
            for body in bodies:
                yield from _summed_whole(body, carried)
        case Loop(axis, _, body, reduced):
            yield from _summed_whole(body, carried | {axis} if reduced else carried - {axis})
        case Index() | Load() | Local() | Outer():
            yield from _summed_whole(nest.body, carried)


def _loaded(kernel: Kernel, outer: Outer) -> Iterable[str]:
    """The axes of what is loaded once by each persistent program."""
    axes = {t.name: t.axes for t in kernel.tensors}
    body = outer.body
    while isinstance(body, Load):
        yield from axes[body.tensor]
        body = body.body


def _with(nest: Nest, blocks: Mapping[str, int]) -> Nest:
    match nest:
        case Outer(axes, body):
            return replace(nest, axes=tuple((a, blocks.get(a, b)) for a, b in axes), body=_with(body, blocks))
        case Loop(axis, block, body):
            return replace(nest, block=blocks.get(axis, block), body=_with(body, blocks))
        case Seq(bodies):
            return Seq(tuple(_with(b, blocks) for b in bodies))
        case Index() | Load() | Local():
            return replace(nest, body=_with(nest.body, blocks))
    return nest
