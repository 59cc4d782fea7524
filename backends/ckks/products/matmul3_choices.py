"""Which matrix products in three moving parts to try: index roles, blocks, offsets, lanes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product as cross
from math import prod
from typing import Any

import numpy as np

from ..lowering.problem import Product
from ..steps.context import Argument, Context
from ..steps.option import Placed
from ..steps.placements import Awaited, level_of
from ..steps.trees import has_clear
from .lane_choices import Frame, grid_of, most_uploads, splits_of
from .matmul3 import Matmul3
from .matmul3_plan import FRAMES, Plan, figures

Array = np.ndarray[Any, Any]

LEAST_BLOCK = 4  # below it lanes do as well
MOST_PLANS = 6  # of a product that later steps compute on: each comes in several frames


@dataclass(frozen=True)
class Shape:
    """A block of size d on a grid of this height and width, which wraps in x or does not; and the lanes left to it."""

    size: int
    height: int
    width: int
    wraps: bool
    lanes: int


def choices(step: Product, context: Context, arguments: tuple[Argument, ...]) -> Iterator[Matmul3]:
    """The ways that no other beats in time, uploads and keys, best first; none for what is no matrix product."""
    level = max(map(level_of, arguments), default=0)
    if len(step.operands) != 2 or has_clear(step) or level >= context.levels:
        return
    found = _all_plans(step, context, arguments, level)
    placed = any(isinstance(a, Placed) for a in arguments)
    waiting = any(isinstance(a, Awaited) for a in arguments)  # moves want few ciphertexts more than speed
    most = most_uploads(int(min((f[1] for f in found), default=0)))
    best: list[tuple[float, float, float]] = []
    for score, uploads, keys, plan in found:
        if len(best) == MOST_PLANS and step.name not in context.final and not waiting:
            break
        if uploads <= most and all(uploads < b[1] or keys < b[2] for b in best):
            options = list(_framed(step, context, arguments, plan, placed))
            if options:
                best.append((score, uploads, keys))
                yield from options


def _all_plans(
    step: Product, context: Context, arguments: tuple[Argument, ...], level: int
) -> list[tuple[float, float, float, Plan]]:
    """The plans for all blocks, by score; of placed operands they depend on the number of ciphertexts alone."""
    counts = tuple(a.packing.ciphertexts if isinstance(a, Placed) else None for a in arguments)
    key = ("matmul3 plans", step.name, level, counts)
    if key not in context.memory:
        found: list[tuple[float, float, float, Plan]] = []
        for core in cores(step):
            for shape in shapes([step.extents[i] for i in core], context.slots):
                found.extend(_plans(step, context, arguments, core, shape, level))
        context.memory[key] = sorted(found, key=lambda f: f[:3])
    plans: list[tuple[float, float, float, Plan]] = context.memory[key]
    return plans


def _framed(
    step: Product, context: Context, arguments: tuple[Argument, ...], plan: Plan, placed: bool
) -> Iterator[Matmul3]:
    """A plan in the frames that placed operands ask for; of inputs, in those that suit later steps."""
    if not placed:
        for name in ("xy",) if step.name in context.final else ("xy", "yx", "rows", "columns"):
            yield Matmul3(step, context, arguments, replace(plan, frame=name))
        return
    ways = [(0, 1, -1) if isinstance(a, Placed) and a.packing.clean else (0,) for a in arguments]
    doublings = sorted(cross(*ways), key=lambda d: (d[0] != 0) + (d[1] != 0))
    for name in FRAMES:
        bare = Matmul3(step, context, arguments, replace(plan, frame=name))
        if not bare.may_fit:
            continue
        for left, right in doublings:
            option = replace(bare, plan=replace(bare.plan, doubled=(left, right)))
            if option.fits:
                yield option
                break


def cores(step: Product) -> Iterator[tuple[str, str, str]]:
    """(row, inner, column): an index of the left operand, one of both that is summed, one of the right."""
    left, right = (tuple(i) for i in step.inputs)
    if len(set(left)) < len(left) or len(set(right)) < len(right):
        return
    rows = [i for i in left if i not in right and i in step.output]
    inner = [i for i in left if i in right and i not in step.output]
    columns = [i for i in right if i not in left and i in step.output]
    yield from (
        (r, m, c)
        for r, m, c in cross(rows, inner, columns)
        if min(step.extents[r], step.extents[m], step.extents[c]) >= LEAST_BLOCK
    )


def shapes(extents: list[int], slots: int) -> Iterator[Shape]:
    """Blocks for a product of these extents: powers of two, whole matrices, equal parts of them."""
    largest = max(extents)
    sizes = {1 << b for b in range(2, (largest - 1).bit_length() + 1)}
    for parts in (1, 2, 3, 4, 5, 6, 8):
        least = -(-largest // parts)
        sizes.update(_smooth(least))
    for size in sorted(sizes):
        if size < LEAST_BLOCK:
            continue
        if size & (size - 1) == 0 and 2 * size * size <= slots:
            lanes = slots // (2 * size * size)
            yield from (Shape(size, slots // (2 * size * n), 2 * size, True, n) for n in _powers(lanes))
        elif size & (size - 1):
            wide = 2 * size - 1
            if wide * wide <= slots:
                yield Shape(size, wide, wide, False, slots // (wide * wide))


def _powers(most: int) -> list[int]:
    return [1 << b for b in range(most.bit_length())]


def _smooth(least: int) -> set[int]:
    """The next few sizes that have small factors: those are cut into offsets evenly."""
    found: set[int] = set()
    size = least
    while len(found) < 3:
        rest = size
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1 or size == least:
            found.add(size)
        size += 1
    return found


def parts_of(size: int) -> list[tuple[int, int, int]]:
    """(t, p, q) with t p q = size.

    >>> parts_of(4)
    [(1, 1, 4), (1, 2, 2), (1, 4, 1), (2, 1, 2), (2, 2, 1), (4, 1, 1)]
    """
    divisors = [n for n in range(1, size + 1) if size % n == 0]
    return [(t, p, size // t // p) for t in divisors for p in divisors if size // t % p == 0]


def _plans(
    step: Product,
    context: Context,
    arguments: tuple[Argument, ...],
    core: tuple[str, str, str],
    shape: Shape,
    level: int,
) -> Iterator[tuple[float, float, float, Plan]]:
    """Plans for one block with (score, uploads, keys)."""
    blocks = replace(step, extents={i: -(-n // shape.size) if i in core else n for i, n in step.extents.items()})
    if shape.wraps and shape.lanes > prod(1 << (n - 1).bit_length() for n in blocks.extents.values()):
        return  # more lanes than there is to put into them: the grid with fewer has more replicas instead
    inside = replace(context, ring=2 * shape.lanes)
    splits = splits_of(blocks, inside, Frame())
    if splits is None:
        return

    def cells(indices: tuple[str, ...]) -> Array:
        found: Array = np.prod([splits.counts[i] for i in dict.fromkeys(indices)], axis=0, dtype=np.int64)
        return found

    left, right, results = (cells(i) for i in (*step.inputs, step.output))
    pairs = cells((*step.inputs[0], *step.inputs[1]))
    sent = [n for a, n in zip(arguments, (left, right), strict=True) if not isinstance(a, Placed)]
    uploads = sum(sent, start=np.zeros_like(left))
    chosen: list[tuple[float, float, float, int, tuple[int, int, int], bool]] = []
    for parts in parts_of(shape.size):
        found = figures(parts, (left, right, results, pairs), splits.rotations, context, level)
        score = found["milliseconds"] + (uploads + results) * context.prices.upload(context.primes(0))
        for row in _rows(arguments, (left, right), score, uploads):
            for chained in (False, True):
                keys = _keys(parts, chained) + splits.rotations[row]
                chosen.append((float(score[row]), float(uploads[row]), float(keys), row, parts, chained))
    front: list[tuple[float, float, float, int, tuple[int, int, int], bool]] = []
    for choice in sorted(chosen):
        if all(choice[1] < f[1] or choice[2] < f[2] for f in front):
            front.append(choice)
    for score, uploaded, keys, row, parts, chained in front:
        split = {i: (int(splits.lanes[i][row]), int(splits.counts[i][row])) for i in splits.lanes}
        grid = grid_of(blocks, inside, Frame(), split)
        plan = Plan(core, "xy", shape.size, parts, shape.height, shape.width, shape.wraps, shape.lanes, grid, chained)
        yield score, uploaded, keys, plan


def _rows(arguments: tuple[Argument, ...], counts: tuple[Array, Array], score: Array, uploads: Array) -> list[int]:
    """The choices worth a look: the best, and that with the fewest uploads, among those that placed operands allow."""
    allowed = np.ones(len(score), dtype=bool)
    for argument, count in zip(arguments, counts, strict=True):
        if isinstance(argument, Placed):
            allowed &= count == argument.packing.ciphertexts
    rows = np.flatnonzero(allowed)
    if not len(rows):
        return []
    best, least = rows[np.argmin(score[rows])], rows[np.lexsort((score[rows], uploads[rows]))[0]]
    return sorted({int(best), int(least)})


def _keys(parts: tuple[int, int, int], chained: bool) -> int:
    """How many rotations need a key."""
    steps = [min(n - 1, 1) if chained else n - 1 for n in parts]
    return 2 * sum(steps)
