"""Covers: the rotations by which a matrix takes a vector from one packing to another.

A diagonal is (result ciphertext, operand ciphertext, offset k): slots s with row q[s] of the result and element
p[s + k] of the argument. Each pair of the matrix's pattern must be met exactly once. Where no element and no row is
repeated there is no choice; else offsets are tried in a few orders (small ones first, multiples of the fold's stride
first) and a pair is taken at the first that meets it. Zero diagonals, bands, sparse blocks, wrap-around, replicas,
rectangles, padding and ragged sizes are all decided here, on the arrays that layouts print to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ..core.distinct import distinct
from ..core.layout import Packing
from .matrix import Matrix

Array = np.ndarray[Any, Any]

SAMPLE = 256  # pairs looked at to guess the next offsets; every pair is checked in the end
MOST_PAIRS = 1 << 15  # of a sample: (pair, slot of the element, slot of the row)
MOST_REPEATS = 1024  # slots of an element times slots of a row for which offsets are guessed from pairs
WALKED = 16  # offsets tried at a time where numbers are repeated very often
MOST_FRUITLESS = 4  # offsets tried there for each diagonal that a cover may have
IMPOSSIBLE = 1 << 62  # diagonals where a packing lacks a number
LARGEST_TABLE = 1 << 28  # pairs of a matrix (bytes) for which a choice of slots is considered


@dataclass(frozen=True, eq=False)
class Cover:
    """The diagonals of a map and which slots each of them serves (`masks`: one row of bits per diagonal).

    Diagonals are unique and sorted by (result ciphertext, operand ciphertext, offset).
    """

    places: Array
    masks: Array
    slots: int

    def __len__(self) -> int:
        return len(self.places)

    def served(self, number: int) -> Array:
        """The slots of the result that a diagonal serves, ascending."""
        bits = np.unpackbits(self.masks[number], count=self.slots)
        return np.flatnonzero(bits)


@dataclass(frozen=True, eq=False)
class Sites:
    """In which slots each number of a packing occurs: `where[number]` lists ciphertext * slots + slot, then -1."""

    at: Array
    where: Array
    live: tuple[Array, ...]

    @property
    def complete(self) -> bool:
        """Whether every number occurs."""
        return bool((self.where[:, 0] >= 0).all())

    @property
    def repeats(self) -> int:
        """The most slots that one number has."""
        return int(self.where.shape[1])


def sites(packing: Packing, count: int, period: int) -> Sites:
    """The slots of each of `count` numbers among the first `period` slots of each ciphertext."""
    at = packing.at[:, :period]
    flat = at.ravel()
    filled = np.flatnonzero(flat >= 0)
    order = filled[np.argsort(flat[filled], kind="stable")]
    number = flat[order]
    totals = np.bincount(number, minlength=count)
    starts = np.cumsum(totals) - totals
    where = np.full((count, max(1, int(totals.max(initial=0)))), -1, dtype=np.int32)
    where[number, np.arange(len(order)) - starts[number]] = order
    return Sites(at, where, tuple(np.flatnonzero(row >= 0) for row in at))


def cover(matrix: Matrix, p: Sites, q: Sites, unit: int, limit: int) -> Cover | None:
    """The diagonals by which `matrix` goes from packing p to packing q, or None beyond `limit` of them.

    `unit` is the stride of a fold that follows (1 without one): its multiples are tried first.
    """
    if not p.complete or not q.complete or limit < 1 or not matrix.count:
        return None
    if p.repeats == q.repeats == 1:
        return _forced(matrix, p, q, limit)
    if matrix.rows * matrix.columns > LARGEST_TABLE:
        return None
    best: Cover | None = None
    least = bound(matrix, p, q)
    for rank in _orders(p.at.shape[1], unit):
        found = _chosen(matrix, p, q, rank, limit if best is None else len(best) - 1)
        best = found if found is not None else best
        if best is not None and len(best) <= least:
            break
    return best


def bound(matrix: Matrix, p: Sites, q: Sites) -> int:
    """A lower bound of the number of diagonals: a diagonal meets a row at most as often as q holds it, and so on."""
    return max(least_by_elements(matrix, p), least_by_rows(matrix, q))


def least_by_elements(matrix: Matrix, p: Sites) -> int:
    """The diagonals that a packing of the argument asks for at least."""
    if not p.complete:
        return IMPOSSIBLE
    counts = np.count_nonzero(p.where >= 0, axis=1)
    return max(1, int(np.ceil((matrix.column_counts / counts).max(initial=0) - 1e-9)))


def least_by_rows(matrix: Matrix, q: Sites) -> int:
    """The diagonals that a packing of the result asks for at least."""
    if not q.complete:
        return IMPOSSIBLE
    counts = np.count_nonzero(q.where >= 0, axis=1)
    live = max(map(len, q.live))
    return max(1, int(np.ceil(max((matrix.row_counts / counts).max(initial=0), matrix.count / live) - 1e-9)))


def _orders(slots: int, unit: int) -> list[Array]:
    """Ranks of offsets, one array per order of trying them."""
    k = np.arange(slots, dtype=np.int32)
    near = np.minimum(k, slots - k) * 2 + (k > slots // 2)
    orders = [near, k]  # the second for packings skewed by just what a cover takes, which the first would straddle
    if unit > 1:
        orders.insert(0, near + (k % unit != 0) * (4 * slots))
    return orders


def _forced(matrix: Matrix, p: Sites, q: Sites, limit: int) -> Cover | None:
    """The cover where every pair has one place."""
    slots, operands = p.at.shape[1], len(p.at)
    if matrix.full:
        return _forced_full(p, q, limit)
    if matrix.count > 4 * SAMPLE:
        some = matrix.pair(np.linspace(0, matrix.count - 1, 2 * SAMPLE).astype(np.int64))
        if len(distinct(_codes(q.where[some[0], 0], p.where[some[1], 0], slots, operands))) > limit:
            return None
    row, element = matrix.pair(np.arange(matrix.count))
    at = q.where[row, 0]
    code = _codes(at, p.where[element, 0], slots, operands)
    seen = np.zeros(len(q.at) * operands * slots, dtype=bool)
    seen[code] = True
    found = np.flatnonzero(seen)
    if len(found) > limit:
        return None
    number = np.zeros(len(seen), dtype=np.int64)
    number[found] = np.arange(len(found))
    masks = np.zeros((len(found), slots), dtype=bool)
    masks[number[code], at % slots] = True
    return Cover(_places(found, slots, operands), np.packbits(masks, axis=1), slots)


def _codes(rows_at: Array, elements_at: Array, slots: int, operands: int) -> Array:
    """One number for each (result ciphertext, operand ciphertext, offset)."""
    pair = (rows_at // slots) * operands + elements_at // slots
    apart = elements_at - rows_at
    offset = apart & (slots - 1) if slots & (slots - 1) == 0 else apart % slots  # twice as fast where it can be
    codes: Array = pair * slots + offset
    return codes


def _places(codes: Array, slots: int, operands: int) -> Array:
    pair = codes // slots
    return np.stack([pair // operands, pair % operands, codes % slots], axis=1)


def _forced_full(p: Sites, q: Sites, limit: int) -> Cover | None:
    """The same for a dense matrix: an offset serves every slot where both packings hold something."""
    slots = p.at.shape[1]
    live_p, live_q = p.at >= 0, q.at >= 0
    transform_p, transform_q = np.fft.rfft(live_p, axis=1), np.fft.rfft(live_q, axis=1)
    places, masks, total = [], [], 0
    for d in range(len(q.at)):
        for c in range(len(p.at)):
            met = np.fft.irfft(transform_p[c] * transform_q[d].conj(), slots)
            offsets = np.flatnonzero(met > 0.5)
            total += len(offsets)
            if total > limit:
                return None
            doubled = np.concatenate([live_p[c], live_p[c]])
            for k in offsets.tolist():
                places.append((d, c, k))
                masks.append(np.packbits(live_q[d] & doubled[k : k + slots]))
    return Cover(np.array(places, dtype=np.int64), np.array(masks), slots)


def _chosen(matrix: Matrix, p: Sites, q: Sites, rank: Array, limit: int) -> Cover | None:
    """The cover that takes each pair at the first offset, by rank, among those that are proposed."""
    slots, operands = p.at.shape[1], len(p.at)
    repeats = p.repeats * q.repeats
    sample = max(16, min(max(SAMPLE, min(4 * limit, 4096)), MOST_PAIRS // repeats))
    widest = max(map(len, q.live))
    sampled = repeats <= MOST_REPEATS
    if sampled and len(_propose(matrix, p, q, rank, _spread(matrix.count, sample))) > limit:
        return None  # the order alone settles that all these are used
    walk = _walk(rank, len(q.at) * operands, slots)
    found: dict[int, Array] = {}
    need, scratch = matrix.table.copy(), matrix.scratch
    left, tried = matrix.count, 0
    numbers = _spread(matrix.count, sample)
    while left:
        codes = _propose(matrix, p, q, rank, numbers) if sampled else next(walk)
        tried += len(codes)
        for code in codes.tolist():
            pair, k = divmod(code, slots)
            d, c = divmod(pair, operands)
            at = q.live[d]
            element = p.at[c][(at + k) % slots]
            key = q.at[d][at].astype(np.int64) * matrix.columns + element
            wanted = need[key] & (element >= 0)
            at, key = at[wanted], key[wanted]
            scratch[key] = at
            first = scratch[key] == at  # one slot for each pair
            at, key = at[first], key[first]
            if not len(at):
                continue
            need[key] = False
            left -= len(at)
            found[code] = at
            if left > (limit - len(found)) * widest:
                return None
        if left and sampled:
            rest = np.flatnonzero(need)
            keys = rest[_spread(len(rest), sample)]
            numbers = keys if matrix.full else np.searchsorted(matrix.keys, keys)
        elif tried > MOST_FRUITLESS * limit + WALKED:
            return None
    order = sorted(found)
    masks = np.zeros((len(order), slots), dtype=bool)
    for number, code in enumerate(order):
        masks[number, found[code]] = True
    return Cover(_places(np.array(order, dtype=np.int64), slots, operands), np.packbits(masks, axis=1), slots)


def _walk(rank: Array, pairs: int, slots: int) -> Iterator[Array]:
    """All diagonals in order of rank, some at a time: where numbers are repeated so often that nearly any serves."""
    offsets = np.argsort(rank, kind="stable")
    for start in range(0, slots, WALKED):
        some = offsets[start : start + WALKED]
        yield (some[:, None] + slots * np.arange(pairs)[None, :]).ravel()


@cache
def _spread(count: int, sample: int) -> Array:
    """Up to `sample` numbers below `count`, spread so that no stride of the pattern hides behind theirs."""
    if count <= sample:
        return np.arange(count)
    return distinct((np.arange(sample) * 0.6180339887498949 % 1.0 * count).astype(np.int64))


def _propose(matrix: Matrix, p: Sites, q: Sites, rank: Array, numbers: Array) -> Array:
    """The diagonals at which these pairs would be taken, in order of rank."""
    slots, operands = p.at.shape[1], len(p.at)
    row, element = matrix.pair(numbers)
    rows_at, elements_at = q.where[row][:, :, None], p.where[element][:, None, :]
    code = _codes(rows_at, elements_at, slots, operands).reshape(len(row), -1)
    by_code = np.tile(rank, len(q.at) * operands)
    order = np.where(((rows_at < 0) | (elements_at < 0)).reshape(len(row), -1), 1 << 30, by_code[np.maximum(code, 0)])
    first = np.argmin(order, axis=1)
    taken = distinct(code[np.arange(len(row)), first])
    proposed: Array = taken[np.argsort(rank[taken % slots], kind="stable")]
    return proposed
