"""Which grids of lanes to try for a product: how each index is split into slots and ciphertexts, and in which order.

All splits are priced at once, as arrays; what is left are the choices that no other beats in time, uploads and keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, TypeAlias

import numpy as np

from ..core import fold
from ..core.distinct import distinct
from ..core.layout import Form
from ..lowering.problem import Product
from ..steps.context import Argument, Context, Free
from ..steps.digits import ONLY, REPLICA, read_digits
from ..steps.option import Placed
from ..steps.placements import level_of
from ..steps.trees import Network, orders, tally
from .lanes import Folds, Grid, Lanes, rows

Array = np.ndarray[Any, Any]
Choice: TypeAlias = tuple[float, float, float, float, int, int]  # score, uploads, rotations, level; order, split

MOST_CHOICES = 40_000  # splits priced at once; beyond it every second extent of an index is left out
MOST_UPLOADS = 2048
WASTE = 8  # times the fewest uploads possible: more than that (and than 64) nobody sends
SPARE = "*"  # the replica digit that fills a ciphertext


@dataclass(frozen=True)
class Frame:
    """What operands that are placed already dictate: digits, the forms of their indices, and replicas to make use of.

    `pool` names the replica digits; None stands for a whole ciphertext, free for digits of any size.
    """

    digits: tuple[tuple[str, int], ...] = ()
    ciphertexts: tuple[tuple[str, int], ...] = ()
    forms: Mapping[str, Form] = field(default_factory=dict)
    only: tuple[str, ...] = ()
    pool: tuple[str, ...] | None = None

    def room(self, slots: int) -> int:
        """The slots that new indices can have."""
        sizes = dict(self.digits)
        return slots if self.pool is None else prod(sizes[d] for d in self.pool)


def frame_of(step: Product, shapes: Mapping[str, tuple[int, ...]], arguments: Sequence[Argument]) -> Frame | None:
    """The frame of the placed operand with most axes; None where its packing has no digits, or it is a diagonal."""
    placed = [k for k, a in enumerate(arguments) if isinstance(a, Placed)]
    if not placed:
        return Frame()
    first = max(placed, key=lambda k: (len(step.inputs[k]), -k))
    argument, indices = arguments[first], step.inputs[first]
    assert isinstance(argument, Placed)
    digits = read_digits(argument.packing, shapes[step.operands[first]])
    if digits is None or len(set(indices)) < len(indices):
        return None
    if any(d.axis in (ONLY, REPLICA) for d in digits.ciphertexts):
        return None
    layout = digits.layout(shapes[step.operands[first]])
    pool = tuple(
        name for (name, n), d in zip(layout.digits, digits.slots, strict=True) if d.axis == REPLICA and n & (n - 1) == 0
    )
    forms = {i: layout.form(str(axis)) for axis, i in enumerate(indices)}
    return Frame(layout.digits, layout.ciphertexts, forms, layout.only, pool)


@dataclass(frozen=True)
class Splits:
    """For every choice (entries of the arrays): slots and ciphertexts of each index, and rotations of the folds."""

    lanes: Mapping[str, Array]
    counts: Mapping[str, Array]
    rotations: Array


def choices(step: Product, context: Context, arguments: tuple[Argument, ...]) -> Iterator[Lanes]:
    """The ways to compute a product in lanes that no other beats, best first."""
    frame = frame_of(step, context.shapes, arguments)
    if frame is None:
        return
    splits = splits_of(step, context, frame)
    network = Network.of(step, tuple(map(level_of, arguments)))
    trees = orders(network, context.levels)
    if splits is None or not trees:
        return
    uploads = _uploads(step, arguments, splits)
    outputs = _product([splits.counts[i] for i in step.output], splits.rotations)
    found: list[Choice] = []
    for number, tree in enumerate(trees):
        level = network.level(tree) or 0
        primes = context.primes(level)
        each = context.prices.rotate(primes) + context.prices.add(primes)
        time = tally(tree, network, splits.counts, context).milliseconds + outputs * splits.rotations * each
        score = time + (uploads + outputs) * context.prices.upload(context.primes(0))
        for row in _front(score, uploads, splits.rotations):
            if time[row] <= context.limit:
                figures = (float(score[row]), float(uploads[row]), float(splits.rotations[row]), float(level))
                found.append((*figures, number, row))
    for *_, number, row in _best(found):
        split = {i: (int(lanes[row]), int(splits.counts[i][row])) for i, lanes in splits.lanes.items()}
        grid = grid_of(step, context, frame, split)
        lanes = Lanes(step, context, arguments, grid, trees[number])
        if fits(lanes):
            yield lanes


def fits(lanes: Lanes) -> bool:
    """Whether every placed operand lies on the grid, and what is summed holds nothing but data and zeros."""
    step, extents = lanes.step, lanes.step.extents
    for argument, indices in zip(lanes.arguments, step.inputs, strict=True):
        if isinstance(argument, Placed):
            layout = lanes.grid.layout(indices, extents)
            if rows(layout, argument.packing, lanes.context.slots) is None:
                return False
    held = zip(lanes.arguments, step.inputs, strict=True)
    zeroed = {i for a, indices in held if isinstance(a, Free) or a.packing.clean for i in indices}
    zeroed.update(step.clear_indices)
    return all(_once(lanes.grid, i, extents[i], i in zeroed) for i in lanes.contracted)


def _once(grid: Grid, index: str, extent: int, zeroed: bool) -> bool:
    """Whether a sum over the digits of an index meets every position once, and beyond it nothing but zeros."""
    sizes = dict((*grid.digits, *grid.ciphertexts))
    form = grid.form[index]
    at = np.full(1, form.offset)
    for digit, step in form.terms:
        at = (at[:, None] + step * np.arange(sizes[digit])).ravel()
    inside = at[(at >= 0) & (at < extent)]
    return len(distinct(inside)) == len(inside) == extent and (zeroed or len(at) == extent)


# --- splits


def splits_of(step: Product, context: Context, frame: Frame) -> Splits | None:
    """Every way to split the indices that are not laid out yet."""
    room = frame.room(context.slots)
    new = [i for i in _order(step) if i not in frame.forms]
    whole = frame.pool is None
    candidates = [_candidates(step.extents[i], i in step.output, room, whole) for i in new]
    while prod(map(len, candidates)) > MOST_CHOICES:
        longest = max(candidates, key=len)
        if len(longest) <= 2:
            break
        candidates[candidates.index(longest)] = [*longest[:-1:2], longest[-1]]
    table = np.zeros((1, 0), dtype=np.int64)  # the number of the candidate of each index
    width = np.ones(1, dtype=np.int64)
    for options in candidates:
        widths = np.array([w for _, _, w in options])
        table = np.repeat(table, len(options), axis=0)
        number = np.tile(np.arange(len(options)), len(width))
        width = np.repeat(width, len(options)) * widths[number]
        keep = width <= room
        table, width = np.column_stack([table, number])[keep], width[keep]
        if len(table) > MOST_CHOICES:  # more indices than can be enumerated: the fullest
            keep = np.argsort(-width, kind="stable")[:MOST_CHOICES]
            table, width = table[keep], width[keep]
    if not len(table):
        return None
    one = np.ones(len(table), dtype=np.int64)
    grid = Grid(frame.digits, frame.ciphertexts, tuple(frame.forms.items()), frame.only)
    counts = {i: one * grid.count(i) for i in frame.forms}
    fixed = Folds.of(grid, tuple(i for i in frame.forms if i not in step.output), step.extents, context.slots)
    rotations = one * fixed.rotations
    lanes: dict[str, Array] = {}
    for at, (i, options) in enumerate(zip(new, candidates, strict=True)):
        lanes[i] = np.array([lane for lane, _, _ in options])[table[:, at]]
        counts[i] = np.array([count for _, count, _ in options])[table[:, at]]
        if i not in step.output:
            rotations = rotations + np.array([fold.rotations(lane) for lane, _, _ in options])[table[:, at]]
    return Splits(lanes, counts, rotations)


def _candidates(extent: int, kept: bool, room: int, whole: bool) -> list[tuple[int, int, int]]:
    """(slots, ciphertexts, positions to keep) of an index, few slots first.

    >>> _candidates(6, True, 8, True)
    [(1, 6, 1), (2, 3, 2), (3, 2, 3), (4, 2, 4), (6, 1, 6)]
    >>> _candidates(5, False, 8, True)
    [(1, 5, 1), (2, 3, 2), (3, 2, 3), (4, 2, 4), (5, 1, 5)]
    """
    lanes = {1 << b for b in range((extent - 1).bit_length())} | {extent}
    if whole and kept:
        parts = [c for c in range(2, extent) if c <= 6 or c * 2 % (1 << max(c.bit_length() - 2, 0)) == 0]
        lanes.update(-(-extent // c) for c in parts)
    elif whole:
        lanes.update(3 << b for b in range(extent.bit_length()) if 3 << b < extent)
    found = []
    for lane in sorted(lanes):
        count = -(-extent // lane)
        if not whole:  # bits of a replica
            lane = 1 << (lane - 1).bit_length()
        position = lane if kept else fold.room(lane)
        if position <= room and (position == lane or count == 1):
            found.append((lane, count, position))
    return found


def _order(step: Product) -> tuple[str, ...]:
    """The indices: contracted ones first, so that their sums can be cyclic, then those of the result."""
    every = dict.fromkeys(i for indices in (*step.inputs, step.clear_indices) for i in indices)
    return (*(i for i in every if i not in step.output), *step.output)


def grid_of(step: Product, context: Context, frame: Frame, split: Mapping[str, tuple[int, int]]) -> Grid:
    """The grid of a choice: slots and ciphertexts of each new index."""
    order = [i for i in _order(step) if i in split]
    forms, ciphertexts = dict(frame.forms), list(frame.ciphertexts)
    positions: dict[str, int] = {}
    for i in order:
        lane, count = split[i]
        positions[i] = lane if i in step.output or count > 1 else fold.room(lane)
        terms = [(i, 1)] if lane > 1 and frame.pool is None else []
        if count > 1:
            ciphertexts.append((f"{i}'", count))
            terms.append((f"{i}'", lane))
        forms[i] = Form(tuple(terms))
    if frame.pool is None:
        digits = _spread(context.slots, order, positions, split)
    else:
        digits = _pooled(frame, order, split, forms)
    return Grid(digits, tuple(ciphertexts), tuple((i, forms[i]) for i in (*frame.forms, *order)), frame.only)


def _spread(
    slots: int, order: Sequence[str], positions: dict[str, int], split: Mapping[str, tuple[int, int]]
) -> tuple[tuple[str, int], ...]:
    """Slot digits in a ciphertext of their own: powers of two and replicas to the brim, where there is room."""
    wide = {i: 1 << (n - 1).bit_length() for i, n in positions.items()}
    free = all(split[i][1] == 1 or wide[i] == positions[i] for i in order)  # else elements would occur twice
    if free and prod(wide.values()) <= slots:
        positions = wide
        spare = slots // prod(wide.values())
    else:
        spare = 1
    digits = [(i, positions[i]) for i in order if positions[i] > 1]
    return ((SPARE, spare), *digits) if spare > 1 else tuple(digits)


def _pooled(
    frame: Frame, order: Sequence[str], split: Mapping[str, tuple[int, int]], forms: dict[str, Form]
) -> tuple[tuple[str, int], ...]:
    """Slot digits in the replicas of a frame: each index takes the high end of what is left."""
    sizes = dict(frame.digits)
    pool = list(frame.pool or ())
    pieces: dict[str, list[tuple[str, int]]] = {d: [] for d in pool}
    left = {d: sizes[d] for d in pool}
    for i in order:
        need, terms = split[i][0], []
        for d in pool:
            part = min(need, left[d])
            if part > 1:
                need //= part
                left[d] //= part
                name = f"{i}.{d}"
                pieces[d].append((name, part))
                terms.append((name, need))
        forms[i] = Form((*terms, *forms[i].terms))
    digits: list[tuple[str, int]] = []
    for d, n in frame.digits:
        if d in pieces:
            digits.extend([*pieces[d], *([(d, left[d])] if left[d] > 1 else [])])
        else:
            digits.append((d, n))
    return tuple(digits)


# --- what is worth keeping


def _uploads(step: Product, arguments: Sequence[Argument], splits: Splits) -> Array:
    """Ciphertexts that the client sends for this product, or that are filled by moves for it."""
    total = np.zeros(len(splits.rotations), dtype=np.int64)
    seen: set[tuple[str, ...]] = set()
    for argument, indices in zip(arguments, step.inputs, strict=True):
        if isinstance(argument, Free) and (argument.name, *indices) not in seen:
            seen.add((argument.name, *indices))
            total = total + _product([splits.counts[i] for i in dict.fromkeys(indices)], splits.rotations)
    return total


def _product(factors: Sequence[Array], like: Array) -> Array:
    total = np.ones(len(like), dtype=np.int64)
    for f in factors:
        total = total * f
    return total


def _front(score: Array, uploads: Array, keys: Array) -> list[int]:
    """The rows that no other row beats in all three, the best score first."""
    order = np.lexsort((keys, uploads, score))
    order = order[uploads[order] <= most_uploads(int(uploads.min()))]
    sent, held = uploads[order], keys[order]
    keep = np.zeros(len(order), dtype=bool)
    for k in distinct(held):
        least = np.minimum.accumulate(np.where(held <= k, sent, np.iinfo(np.int64).max))
        before = np.concatenate([[np.iinfo(np.int64).max], least[:-1]])
        keep |= (held == k) & (sent < before)
    return [int(row) for row in order[keep]]


def most_uploads(least: int) -> int:
    """How many uploads are worth thinking of, where `least` is the fewest possible.

    >>> most_uploads(2), most_uploads(32), most_uploads(1000)
    (64, 256, 2048)
    """
    return min(MOST_UPLOADS, max(64, WASTE * least))


def _best(found: list[Choice]) -> list[Choice]:
    """The choices that no other beats in score, uploads, keys and level, the best first."""
    best: list[Choice] = []
    for choice in sorted(found):
        if all(any(choice[k] < b[k] for k in (1, 2, 3)) for b in best):
            best.append(choice)
    return best
