"""Block sizes: how much of each axis one program of a kernel takes at a time.

Used by `choose` for single equations; fused plans and `tune` bring blocks of their own. The rules are those of the
design page: the axis along which memory is contiguous is never split below a few dozen elements; a product of matrices
takes tiles that Hopper's warp-group instructions can use (M >= 64, K >= 16) and smaller ones where there would be fewer
programs than processors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod

from .frame import ceil_pow2

DOT_TILE = {16: (128, 128, 64), 32: (64, 64, 32), 8: (128, 128, 64)}  # bits of an element -> M, N, K
LEAST_TILE = 16  # of a dimension of tl.dot
PRODUCT_TILE = (16, 32, 8)  # M, N, K of a product of matrices by vector instructions
TILE_ELEMENTS = 4096  # of a product that is reduced by vector instructions
GROUPED = 8  # rows of blocks of a product that are computed together, for the second-level cache
SQUARE = 64  # positions on each side of a tile that is transposed
ELEMENTWISE = 1024  # elements a program, eight for each of 128 threads
ACCUMULATORS = 128 * 128  # from which on a tile of f32 sums takes eight warps


@dataclass(frozen=True)
class Shape:
    """What block sizes depend on. `factors` and `result` are the axes of each operand, `units` the axes of stride 1.

    `bits` is the width of an element of the factors, `dot` says that the sum is a product of two matrices. `single`
    axes stand at one position in each program.
    """

    free: tuple[str, ...]
    bound: tuple[str, ...]
    extents: Mapping[str, int]
    factors: tuple[frozenset[str], ...]
    units: frozenset[str]
    bits: int
    dot: bool
    processors: int
    single: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Blocks:
    """`outer` axes are programs, `loops` stand inside, from the outermost; each with its block. `grouped` is that of
    `nodes.Outer`.
    """

    outer: tuple[tuple[str, int], ...]
    loops: tuple[tuple[str, int], ...]
    warps: int = 4
    stages: int = 3
    dot: bool = False
    grouped: int = 0


def roles(free: Iterable[str], a: frozenset[str], b: frozenset[str]) -> tuple[list[str], list[str], list[str]]:
    """(batch, M, N): the free axes of both factors, of the first alone, and of the second alone.

    >>> roles("bij", frozenset("bik"), frozenset("bkj"))
    (['b'], ['i'], ['j'])
    """
    free = list(free)
    return [x for x in free if x in a and x in b], [x for x in free if x in a - b], [x for x in free if x in b - a]


def share(axes: Iterable[str], shape: Shape, room: int, least: int = 1) -> dict[str, int]:
    """Blocks for some axes, in all at most `room` positions: contiguous axes first, then long ones.

    Where all of them together are shorter than `least`, the first takes a block beyond its end.

    >>> shape = Shape(("i", "j"), (), {"i": 100, "j": 6}, (), frozenset("j"), 32, False, 1)
    >>> share("ij", shape, 64), share("j", shape, 64, 16)
    ({'j': 8, 'i': 8}, {'j': 16})
    """
    ordered = sorted(set(axes) - shape.single, key=lambda a: (a not in shape.units, -shape.extents[a], a))
    found: dict[str, int] = {}
    for axis in ordered:
        found[axis] = min(room, ceil_pow2(shape.extents[axis]))
        room //= found[axis]
    taken = prod(found.values())
    if ordered and taken < least:
        found[ordered[0]] *= least // taken
    return found


def blocks_of(shape: Shape) -> Blocks:
    """The blocks of one equation."""
    if shape.dot:
        return _dot_blocks(shape)
    if not shape.bound:
        return _arranged(shape, _elementwise(shape), 4, 1)
    return _sum_blocks(shape)


def _elementwise(shape: Shape) -> dict[str, int]:
    """Where tensors are contiguous along different axes, a square tile, so that each of them is moved in long runs."""
    along = [a for a in shape.free if a in shape.units]
    if len(along) < 2:
        return share(shape.free, shape, ELEMENTWISE)
    longest = sorted(along, key=lambda a: -shape.extents[a])[:2]
    return {a: min(SQUARE, ceil_pow2(shape.extents[a])) for a in longest}


def _dot_blocks(shape: Shape) -> Blocks:
    a, b = shape.factors
    batch, rows, columns = roles(shape.free, a, b)
    tile_m, tile_n, tile_k = DOT_TILE[shape.bits]
    size = {name: prod(shape.extents[x] for x in axes) for name, axes in (("m", rows), ("n", columns))}
    tile_m = max(LEAST_TILE, min(tile_m, ceil_pow2(size["m"])))
    tile_n = max(LEAST_TILE, min(tile_n, ceil_pow2(size["n"])))
    alone = prod(shape.extents[x] for x in shape.free if x not in (*rows, *columns))

    def programs() -> int:
        return alone * -(-size["m"] // tile_m) * -(-size["n"] // tile_n)

    while programs() < shape.processors and tile_m * tile_n > 64 * 64:
        if tile_n >= tile_m:
            tile_n //= 2
        else:
            tile_m //= 2
    found = share(rows, shape, tile_m, LEAST_TILE) | share(columns, shape, tile_n, LEAST_TILE)
    found |= dict.fromkeys(batch, 1)
    found |= share(shape.bound, shape, tile_k, LEAST_TILE)
    made = _arranged(shape, found, 8 if tile_m * tile_n >= ACCUMULATORS else 4, 3, dot=True)
    widest = [max(axes, key=lambda a: found.get(a, 1)) for axes in (rows, columns)]
    last = tuple((a, found[a]) for a in widest)
    return replace(made, outer=(*(p for p in made.outer if p not in last), *last), grouped=GROUPED)


def _sum_blocks(shape: Shape) -> Blocks:
    """A reduction without `tl.dot`: rows by rows where memory is contiguous along what is summed, else by columns."""
    different = {f & frozenset(shape.free) for f in shape.factors}
    outer_product = len(different) > 1 and not any(all(f <= g for f in different) for g in different)
    if outer_product and len(shape.factors) == 2:
        batch, rows, columns = roles(shape.free, *shape.factors)
        found = dict.fromkeys(batch, 1) | share(rows, shape, PRODUCT_TILE[0]) | share(columns, shape, PRODUCT_TILE[1])
        return _arranged(shape, found | share(shape.bound, shape, PRODUCT_TILE[2]), 4, 2)
    along = bool(shape.units & set(shape.bound)) and not outer_product
    alone = all(shape.extents[a] == 1 or a in shape.single for a in shape.free)
    summed = share(shape.bound, shape, TILE_ELEMENTS if alone else 512 if along else 16)
    room = TILE_ELEMENTS // max(1, prod(summed.values()))
    found = share(shape.free, shape, min(room, 16 if along else 256))
    return _arranged(shape, found | summed, 4, 2)


def _arranged(shape: Shape, found: Mapping[str, int], warps: int, stages: int, dot: bool = False) -> Blocks:
    outer = tuple((a, found.get(a, 1)) for a in shape.free)
    loops = sorted(((a, found.get(a, 1)) for a in shape.bound), key=lambda pair: pair[1])
    return Blocks(outer, tuple(loops), warps, stages, dot)
