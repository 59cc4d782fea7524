"""The configurations of one kernel that `tune` considers: other blocks, warps, stages, persistent programs, pointers.

They change nothing of what a kernel computes (sums inside of a program may be taken in another order). Which axes may
have other blocks is said in `reblock`; here it is only which of these are worth a thought.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product

from .frame import ceil_pow2
from .nodes import Index, Kernel, Load, Loop, Outer, Tile, walk
from .reblock import blocks_of, movable, reblocked
from .roofline import Device
from .tile import LEAST_DOT
from .work import work_of

WARPS = (4, 8)
STAGES = (2, 3, 4)
SHARES = (2, 4, 8)  # persistent programs for each processor
FARTHEST = 2  # doublings and halvings of blocks, all axes together
TILES = ((64, 64), (64, 128), (128, 64), (128, 128), (64, 256), (128, 256), (256, 128))  # M, N of a product
DEPTHS = (32, 64, 128)  # K of a product


def variants(kernel: Kernel, numbers: Mapping[str, int], device: Device) -> tuple[Kernel, ...]:
    """The kernel as it is, then with other blocks, other warps, other stages of its loops, another number of persistent
    programs, and with pointers in place of descriptors. `numbers` are those that it is launched with.

    >>> from ...ir.types import F32
    >>> from .nodes import Map, Tensor
    >>> from .roofline import H200
    >>> x, y = (Tensor(n, ("i",), F32, (1,)) for n in "xy")
    >>> every = variants(Kernel((x, y), (("i", 100),), Outer((("i", 64),), Map("y", "x"))), {}, H200)
    >>> [(blocks_of(k)["i"], k.warps) for k in every]
    [(64, 4), (64, 8), (16, 4), (16, 8), (32, 4), (32, 8), (128, 4), (128, 8)]
    """
    found: list[Kernel] = []
    for blocks in (blocks_of(kernel), *other_blocks(kernel, numbers, device)):
        for form in dict.fromkeys((kernel, with_pointers(kernel))):
            made = reblocked(form, blocks)
            found += () if made is None else launched_otherwise(made, device)
    return tuple(dict.fromkeys(found))


def launched_otherwise(kernel: Kernel, device: Device) -> Iterator[Kernel]:
    """A kernel as it is, then with other warps, stages and numbers of persistent programs.

    Triton makes a pipeline of the loads of a loop where they are operands of `tl.dot`, or where the loop itself names
    its stages; elsewhere their number is nothing.
    """
    outer = kernel.nest
    looped = any(isinstance(n, Loop) or (isinstance(n, Outer) and n.share and not n.stages) for n in walk(outer))
    piped = looped and bool(work_of(kernel, {}, device).products)
    for warps in dict.fromkeys((kernel.warps, *WARPS)):
        for stages in dict.fromkeys((kernel.stages, *STAGES) if piped else (kernel.stages,)):
            yield replace(kernel, warps=warps, stages=stages)
    if isinstance(outer, Outer) and isinstance(outer.body, Load):  # loads that persistent programs make once
        for programs, stages in product(SHARES, STAGES):
            yield replace(kernel, nest=replace(outer, share=programs * device.multiprocessors, stages=stages))


def with_pointers(kernel: Kernel) -> Kernel:
    """The same kernel without descriptors."""
    return replace(kernel, tensors=tuple(replace(t, descriptor=False) for t in kernel.tensors))


def other_blocks(kernel: Kernel, numbers: Mapping[str, int], device: Device) -> Iterator[dict[str, int]]:
    """Other blocks for the axes that may have them: a doubling or halving or two, of one axis or of two; for a product
    of two matrices also the usual tiles. What is a product for matrix units remains one.
    """
    now, most = blocks_of(kernel), movable(kernel)
    extents = {a: n if isinstance(n, int) else numbers.get(n, most.get(a, 1)) for a, n in kernel.sizes}
    # A block beyond the end of its axis is no use.
    room = {a: max(now[a], min(n, ceil_pow2(extents[a]))) for a, n in most.items()}
    steps = product(range(-FARTHEST, FARTHEST + 1), repeat=len(most))
    near = (dict(zip(most, s, strict=True)) for s in steps if 0 < sum(map(abs, s)) <= FARTHEST)
    wanted = [{a: now[a] << n if n >= 0 else now[a] >> -n for a, n in s.items()} for s in near]
    axes = plain_product(kernel)
    if axes is not None and {*axes} <= {*most}:
        wanted += [dict(zip(axes, (*mn, k), strict=True)) for mn in TILES for k in DEPTHS]
    before = len(work_of(kernel, numbers, device).products)
    seen: list[dict[str, int]] = []
    for blocks in wanted:
        inside = all(2 <= b <= room[a] for a, b in blocks.items())
        if not inside or blocks in seen or all(now[a] == b for a, b in blocks.items()):
            continue
        seen.append(blocks)
        made = reblocked(with_pointers(kernel), blocks)
        if made is not None and len(work_of(made, numbers, device).products) >= before:
            yield blocks


def plain_product(kernel: Kernel) -> tuple[str, str, str] | None:
    """The axes M, N and K of a kernel that is one product of two matrices in blocks, whatever is done with it at the
    end; None for others.

    >>> from ...ir.types import F16
    >>> from .nodes import Tensor
    >>> x, w, y = (Tensor(n, tuple(a), F16) for n, a in (("x", "bik"), ("w", "kj"), ("y", "bij")))
    >>> nest = Loop("k", 64, Tile("y", ("x", "w"), ("b", "i", "j"), ("k",)), reduced=True)
    >>> nest = Outer((("b", 1), ("i", 128), ("j", 128)), nest)
    >>> plain_product(Kernel((x, w, y), tuple((a, 512) for a in "bijk"), nest))
    ('i', 'j', 'k')
    """
    tiles = [n for n in walk(kernel.nest) if isinstance(n, Tile)]
    if len(tiles) != 1 or len(tiles[0].factors) != 2 or any(isinstance(n, Index) for n in walk(kernel.nest)):
        return None
    axes = {t.name: {*t.axes} for t in kernel.tensors}
    left, right = (axes.get(f, set()) if isinstance(f, str) else set() for f in tiles[0].factors)
    cut = {a for a, b in blocks_of(kernel).items() if b >= LEAST_DOT}
    free, summed = ([a for a in group if a in cut] for group in (tiles[0].free, tiles[0].reduced))
    rows, columns = [a for a in free if a in left - right], [a for a in free if a in right - left]
    if len(rows) != 1 or len(columns) != 1 or len(summed) != 1 or len(free) != 2:
        return None
    return rows[0], columns[0], summed[0]
