"""What a schedule costs, before it is chosen: one formula for every candidate.

The unit is one vector step (a fused multiply-add on a full register). A candidate costs its vector steps times
(arithmetic + loads divided by their reuse + what the caches add + the share of the store and of the loops around it).
No operation has a case of its own; families differ only in which terms appear. Pure; nothing here knows LLVM.
"""

from __future__ import annotations

from math import gcd, prod
from typing import NamedTuple

from .machine import Machine
from .problem import Form, Line, Problem

_GATHERED = 1.6  # steps per lane of a gather; a scatter costs a quarter more
_LEVEL2 = 1.4  # steps for a line from the second cache, and from beyond it
_BEYOND = 6.0
_LINE, _PAGE = 64, 4096  # bytes; the sets of the first cache repeat after a page
_TILE = 24.0  # steps to enter a register tile, to enter its innermost loop, and to go to the next outer position
_LOOP = 10.0
_POSITION = 40.0
_DEEPEST = 1 << 17
_ENOUGH = 1.05  # times the least possible price: other candidates are not looked at


class Candidate(NamedTuple):
    """Axes for the lanes and the registers, and the price. `lanes` is the width of the vectors."""

    cycles: float
    vector: int
    rows: int | None
    columns: int | None
    lanes: int
    packed: bool = False


def volumes(lines: tuple[Line, ...], tensors: int) -> list[int]:
    """Elements of each tensor that are touched."""
    volume = [1] * tensors
    for n, strides, _ in lines:
        for t in range(tensors):
            if strides[t]:
                volume[t] *= n
    return volume


def full_lanes(form: Form, machine: Machine) -> int:
    """Lanes of a full vector of the accumulation type, fewer where much wider types take part."""
    size = max(2 if form.bytewise else form.part, form.widest // 2 if form.inputs else form.widest)
    return max(1, machine.vector_bytes // size)


def tile_height(form: Form, machine: Machine, columns: bool) -> int:
    """Rows of a register tile."""
    height = 4 if columns or form.complex or form.streaming or form.bytewise else 8
    if machine.registers < 32:
        height = min(height, 2 if form.complex else 4)
    return min(height, 2) if form.streaming else height


def floor(problem: Problem, machine: Machine) -> float:
    """What no schedule of a problem with reuse can beat by much: full vectors, full tiles, everything in cache."""
    form = problem.form
    full = full_lanes(form, machine)
    filled = min([-(-line.extent // full) * full / line.extent for line in problem.lines], default=full)
    return problem.steps / full * filled * (arithmetic(form) + 0.46)


def flip_lanes(lanes: int, across: int, along: int) -> int:
    """Width of the squares that are transposed in registers, for extents `across` lanes and `along` rows; 0 if there
    are none worth it. What no square covers is gathered.

    >>> flip_lanes(16, 1000, 1000), flip_lanes(16, 24, 24), flip_lanes(16, 12, 12), flip_lanes(16, 3, 100)
    (16, 8, 4, 0)
    """

    def price(width: int) -> float:
        covered = (across // width * width) * (along // width * width) / (across * along)
        return covered * (2.0 * width.bit_length()) / width + (1 - covered) * 2 * _GATHERED

    widths = [w for w in (16, 8, 4) if w <= min(lanes, across, along)]
    return min(widths, key=price, default=0)


def arithmetic(form: Form) -> float:
    """Steps of the arithmetic of one point."""
    return 20.0 if form.streaming else 1.0 if form.fused else 2.0


def cheapest(problem: Problem, machine: Machine, family: str | None) -> Candidate:
    """The best candidate; `family` forces "direct" or "packed" where that is possible."""
    prices = _Prices(problem, machine)
    form, lines, outs = problem.form, problem.lines, prices.outs
    rows = _row_axes(form, lines, outs)
    best: Candidate | None = None
    enough = 0.0 if family == "packed" else _ENOUGH * floor(problem, machine)
    for v in _vector_axes(form, lines):
        across = lines[v].reduced
        if best is not None and prices.least(v) >= best.cycles:
            continue
        useful: list[int | None] = [i for i in rows if i != v]  # rows never cost more than no rows
        for u in useful or [None]:
            x = _second_axis(form, lines, outs, u, v) if across and u is not None else None
            found = prices.direct(v, u, x)
            if best is None or found.cycles < best.cycles * 0.999:
                best = found
                if found.cycles <= enough:
                    return found
            if u is not None and not across and prices.depth > 1 and family != "direct":
                packed = prices.packed(v, u)
                if packed is not None and (packed.cycles < best.cycles or (family == "packed" and not best.packed)):
                    best = packed
    assert best is not None
    return best


def _vector_axes(form: Form, lines: tuple[Line, ...]) -> list[int]:
    """Axes worth trying for the lanes: those contiguous somewhere, and the longest output and reduced axes."""
    unit = [i for i, line in enumerate(lines) if any(s == n for s, n in zip(line.strides, form.sizes, strict=True))]
    unit.sort(key=lambda i: lines[i].strides[0] != form.sizes[0])
    if len(lines) <= 3:
        return [*unit, *(i for i in range(len(lines)) if i not in unit)]
    longest = sorted(range(len(lines)), key=lambda i: -lines[i].extent)[:2]
    return list(dict.fromkeys(unit + longest))


def _row_axes(form: Form, lines: tuple[Line, ...], outs: list[int]) -> list[int]:
    """Output axes worth trying for the register rows: an operand is reused along them, or is contiguous there."""
    good = [
        i for i in outs
        if any(not lines[i].strides[t] or lines[i].strides[t] == form.sizes[t] for t in form.inputs)
    ]  # fmt: skip
    return sorted(good, key=lambda i: -lines[i].extent)[:3]


def _second_axis(form: Form, lines: tuple[Line, ...], outs: list[int], u: int | None, v: int) -> int | None:
    """A second register axis for tiles of dot products: the longest along which some operand is reused."""
    good = [i for i in outs if i not in (u, v) and any(not lines[i].strides[t] for t in form.inputs)]
    return max(good, key=lambda i: lines[i].extent, default=None)


def _uneven(extent: int, height: int) -> float:
    """How much more a cascade of rows (8, 2, 1) costs than full tiles: low tiles wait for their loads and results."""
    if extent >= 64 or extent < height:
        return 1.0
    whole, left = divmod(extent, height)
    low = max(1, height // 4)
    return (whole * height + left // low * low * 1.5 + left % low * 2.0) / extent


class _Prices:
    """The formula, with what all candidates of a problem share."""

    def __init__(self, problem: Problem, machine: Machine) -> None:
        self.form, self.lines, self.machine = problem.form, problem.lines, machine
        lines, tensors = self.lines, len(self.form.sizes)
        self.full = full_lanes(self.form, machine)
        self.steps = problem.steps
        reduced = [line for line in lines if line.reduced]
        self.depth = prod([line.extent for line in reduced])
        self.deep = [prod([line.extent for line in reduced if line.strides[t]]) for t in range(tensors)]
        self.outs = [i for i, line in enumerate(lines) if not line.reduced]
        self.base = arithmetic(self.form)
        self.units = [
            {i for i, line in enumerate(lines) if line.strides[t] == self.form.sizes[t]} for t in range(tensors)
        ]

    def lanes(self, n: int) -> int:
        """Width of the vectors along an axis of `n` steps."""
        full = self.full
        return full if n > full // 4 or full <= 4 or len(self.form.inputs) != 2 else max(1, full // 4)

    def level(self, bytes_: float) -> float:
        """Steps for a line of something that is read again and again."""
        if bytes_ <= 0.75 * self.machine.level1:
            return 0.0
        return _LEVEL2 if bytes_ <= 0.6 * self.machine.level2 else _BEYOND

    def met_again(self, t: int) -> bool:
        """Whether some output axis that an operand lacks makes it read again."""
        return any(not self.lines[i].strides[t] and self.lines[i].extent > 1 for i in self.outs)

    def crowding(self, t: int, run: int) -> float:
        """How many times more of the first cache a block of an operand takes; its rows of `run` bytes lie at a stride.

        Lines whose addresses differ by a multiple of a page share a set; a stride of 2048 bytes leaves half of one page
        in use twice, and all other sets empty.
        """
        rows = 1
        steps = sorted((abs(line.strides[t]), line.extent) for line in self.lines if line.reduced and line.strides[t])
        stride = 0
        for step, extent in steps:
            if step <= max(run, _LINE):
                run = max(run, step * extent)
            elif extent >= rows:
                stride, rows = step, extent
        if rows == 1:
            return 1.0
        places = min(rows, _PAGE // gcd(stride, _PAGE))  # different ones before they repeat
        lines = places * -(-run // _LINE)
        used = min(rows * -(-run // _LINE), _PAGE // _LINE)
        return max(1.0, used / lines)

    def least(self, v: int) -> float:
        """What no candidate with these lanes is below: its arithmetic, and the gathers of a full tile."""
        n, strides, across = self.lines[v]
        if self.depth == 1:
            return 0.0
        lanes, sizes = self.lanes(n), self.form.sizes
        if not across and len(self.form.factors) == 2:
            return self.steps / n * -(-n // lanes) * self.base  # panels need no gathers
        gathers = sum([1 for t in self.form.inputs if strides[t] and strides[t] != sizes[t]])
        return self.steps / n * -(-n // lanes) * (self.base + gathers * _GATHERED * lanes / (16 if across else 8))

    # --- direct -------------------------------------------------------------------------------------------------------

    def direct(self, v: int, u: int | None, x: int | None) -> Candidate:
        """A register tile on the operands where they lie."""
        form, lines = self.form, self.lines
        n, _, across = lines[v]
        lanes = self.flipped(v, u) or self.lanes(n)
        height = 1 if u is None else min(tile_height(form, self.machine, x is not None), lines[u].extent)
        width = 1 if x is None else min(4, lines[x].extent)
        vectors = 1 if across else min(3, -(-n // lanes))
        tile = height * width * vectors
        cost = self.base + self.work(v, u, height, vectors)
        for t in form.inputs:
            cost += self.load(t, v, u, x, lanes, (height, width, vectors))
        cost += self.store(v, lanes)
        inner = max((line.extent for i, line in enumerate(lines) if line.reduced and i != v), default=1)
        if across:
            inner = max(1, n // lanes)
        terms = max(1, self.depth // lanes if across else self.depth)
        if self.depth > 1:
            cost += _TILE / (tile * terms) + _LOOP / (tile * max(1, min(inner, terms)))
        passes = self.steps / n * -(-n // lanes)
        positions = prod([lines[i].extent for i in self.outs if i not in (v, u, x)])
        if u is not None:
            cost *= _uneven(lines[u].extent, height)
        return Candidate(passes * cost + (positions - 1) * _POSITION, v, u, x, lanes)

    def flipped(self, v: int, u: int | None) -> int:
        """Lanes if an operand is transposed in registers, else 0."""
        form, (n, strides, across) = self.form, self.lines[v]
        if u is None or across or self.depth > 1:
            return 0
        if not any(u in self.units[t] and strides[t] not in (0, form.sizes[t]) for t in form.inputs):
            return 0
        return flip_lanes(self.full, n, self.lines[u].extent)

    def work(self, v: int, u: int | None, height: int, vectors: int) -> float:
        """Evaluating the factors, shared by the points of the tile that reuse them."""
        cost = 0.0
        for f, work in enumerate(self.form.work):
            if work:
                tensors = self.form.tensors_of[f]
                reuse = height if u is not None and not any(self.lines[u].strides[t] for t in tensors) else 1
                cost += work / (reuse * (vectors if not any(self.lines[v].strides[t] for t in tensors) else 1))
        return cost

    def load(self, t: int, v: int, u: int | None, x: int | None, lanes: int, tile: tuple[int, int, int]) -> float:
        """Loads of one operand for one vector step, and what the caches add where it is read again."""
        form, lines = self.form, self.lines
        height, width, vectors = tile
        n, strides, across = lines[v]
        size, stride = form.sizes[t], strides[t]
        lacks_u = u is not None and not lines[u].strides[t]
        lacks_x = x is not None and not lines[x].strides[t]
        reuse = (height if lacks_u else 1) * (width if lacks_x else 1) * (1 if stride else vectors)
        fetched = 1.0  # lines of the cache for one load
        if not stride:
            load = 1.0
            if any(line.reduced and abs(line.strides[t]) == size for line in lines):
                fetched = size / min(self.run(t), _LINE)
            elif u in self.units[t]:
                fetched = 1 / min(height, _LINE // size)
        elif stride == size:
            load = 1.0
        elif u in self.units[t] and self.flipped(v, u):
            load = 2.0 * lanes.bit_length() - 1  # shuffles of a transpose in registers
        else:
            load = _GATHERED * lanes
            fetched = lanes * min(1.0, abs(stride) / 64)
        again, rows = 0.0, lines[u].extent if u is not None else 1
        if lacks_u and rows > height:
            run = (width if across else vectors * lanes if stride else 1) * size
            again = self.level(self.deep[t] * run * self.crowding(t, run))
        elif stride and not across and self.depth > 1 and u is not None and not lacks_u:
            again = self.level(self.deep[t] * size * vectors * lanes * rows) if self.met_again(t) else 0.0
        elif (not across and not stride and n > vectors * lanes) or (
            lacks_x and x is not None and lines[x].extent > width
        ):
            run = size * (height if u in self.units[t] else 1)
            again = self.level(self.deep[t] * size * rows * self.crowding(t, run))
        return (load + again * fetched) / reuse

    def store(self, v: int, lanes: int) -> float:
        """The share of a vector step in storing (or folding) its result."""
        form = self.form
        n, strides, across = self.lines[v]
        if across:
            return 0.7 * lanes.bit_length() * lanes / max(n, self.depth)
        extra = sum(1 if strides[t] in (0, form.sizes[t]) else _GATHERED * lanes for t in form.extra)
        stride, write = strides[0], 1.0
        if stride != form.sizes[0]:
            whole = prod([self.lines[i].extent for i in self.outs]) * form.sizes[0]
            write = lanes * (1.25 * _GATHERED + self.level(whole) * min(1.0, abs(stride) / 64))
        return (write + extra) / self.depth

    # --- packed -------------------------------------------------------------------------------------------------------

    def packed(self, v: int, u: int) -> Candidate | None:
        """Both operands copied into panels; None where the family does not apply or cannot pay."""
        form, lines = self.form, self.lines
        if len(form.factors) != 2 or form.complex or form.streaming or not form.semiring.mul:
            return None
        n, strides, _ = lines[v]
        m, row, _ = lines[u]
        lanes, depth = self.lanes(n), self.depth
        if 2 * n <= lanes or m < 4 or depth < 32 or m * n * depth <= 80**3:
            return None
        sides = [(not any(strides[t] for t in ts), not any(row[t] for t in ts)) for ts in form.tensors_of]
        if sorted(sides) != [(False, True), (True, False)]:
            return None
        if not form.partial and depth * form.part > _DEEPEST:
            return None  # without partial sums in the output, a panel holds the whole depth
        batch = self.steps / (m * n * depth)
        left, right = sides.index((True, False)), sides.index((False, True))
        copies = (self.pack(left, u, m) + self.pack(right, v, n)) * depth * batch / lanes
        step = self.base + 1 / 8 + 1 / 3 + 0.06 + self.store(v, lanes)
        passes = self.steps / n * -(-n // lanes) * _uneven(m, tile_height(form, self.machine, False))
        return Candidate(passes * step + copies + batch * 2000, v, u, None, lanes, packed=True)

    def run(self, t: int, axis: int | None = None) -> int:
        """Bytes that lie side by side along the reduced axes (and one more)."""
        run = self.form.sizes[t]
        inside = [(abs(x.strides[t]), x.extent) for i, x in enumerate(self.lines) if x.reduced or i == axis]
        for stride, extent in sorted(inside):
            if stride == run:
                run *= extent
        return run

    def partial_lines(self, t: int, axis: int) -> float:
        """What `lanes` elements of a panel cost more where only parts of the cache lines belong to it."""
        size, run = self.form.sizes[t], self.run(t, axis)
        if run >= _LINE:
            return 0.0
        whole = size * prod([line.extent for line in self.lines if line.strides[t]])
        return self.full * size * (1 / run - 1 / _LINE) * self.level(whole)

    def pack(self, factor: int, axis: int, extent: int) -> float:
        """Steps for `lanes` elements of a panel, times the extent of its axis."""
        form, lines = self.form, self.lines
        each = 3.0 + form.work[factor]
        for t in form.tensors_of[factor]:
            each += self.partial_lines(t, axis)
            if lines[axis].strides[t] in (0, form.sizes[t]):
                continue
            near = [lines[i].extent for i in self.units[t] if lines[i].reduced]
            width = flip_lanes(self.full, extent, near[0]) if near else 0
            each += self.full * ((2.0 * width.bit_length()) / width if width else 1.5 * _GATHERED)
        return each * extent
