"""The choice of a schedule: which axis goes into vector lanes, which into registers, and which family of loops around
them.

All candidates are priced by one formula (`price`). A family follows from the price of its candidate, never from the
name of an operation. Pure; nothing here knows LLVM.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from .machine import Machine
from .price import Candidate, cheapest, flip_lanes, full_lanes, tile_height, volumes
from .problem import Form, Line, Problem

MAX_TABLE = 1 << 16
LONG_SUM = 1 << 13  # terms that one accumulator may take before sums are blocked
_LONG_AXIS = 1 << 10
_SMALL = 1 << 14  # steps below which a rare pattern of strides takes the kernel for any strides
_GATHER_LANES = 16
STEP = 0.55  # cycles of the priced unit, a vector step: processors do nearly two at once
_BYTES_PER_NANOSECOND = 20.0
_BYTES_TURNED = 6.0  # of a transpose, whose rows lie on different pages


@dataclass(frozen=True)
class Choice:
    """A schedule as numbers of axes: `vector`, `rows` and `columns` (register axes), reduced axes in loops and in a
    table, and the outer ones; with the register tile (`lanes`, `height` rows, `width` columns, `vectors`). `cycles`
    is the price.
    """

    vector: int
    rows: int | None
    columns: int | None
    loops: tuple[int, ...]
    table: tuple[int, ...]
    outer: tuple[int, ...]
    lanes: int
    height: int
    width: int
    vectors: int
    cycles: float
    family: str = "direct"
    flip: bool = False
    cold: bool = False
    rows_first: bool = False
    blocked: tuple[int, ...] = ()  # axes that are summed in blocks; -1 is the table


def choose(problem: Problem, machine: Machine, constants: bool = False, family: str | None = None) -> Choice:
    """The cheapest schedule of a problem; `family` forces "direct" or "packed" where that is possible."""
    form, lines = problem.form, problem.lines
    if not lines:
        lines = (Line(1, (form.sizes[0], *(0 for _ in form.sizes[1:])), False),)
        problem = replace(problem, lines=lines)
    if form.collides:
        return _serial(problem, machine)
    best = cheapest(problem, machine, family)
    if best.packed:
        return _packed(problem, machine, best)
    return _direct(problem, machine, best, constants, forced=family is not None)


def nanoseconds(problem: Problem, choice: Choice, machine: Machine) -> float:
    """Rough time of a schedule on one core: arithmetic, or memory where the tensors do not fit the cache."""
    moved = moved_bytes(problem)
    rate = _BYTES_TURNED if choice.flip else _BYTES_PER_NANOSECOND
    memory = moved / rate if moved > machine.level2 else 0.0
    return max(choice.cycles * STEP / machine.frequency, memory, 10.0)


def moved_bytes(problem: Problem) -> float:
    """Bytes of the elements that are touched, each once."""
    touched = volumes(problem.lines, len(problem.form.sizes))
    return float(sum(size * volume for size, volume in zip(problem.form.sizes, touched, strict=True)))


# --- from a candidate to a choice ------------------------------------------------------------------------------------


def _by_stride(lines: tuple[Line, ...], indices: list[int], tensor: int = 0) -> tuple[int, ...]:
    """Indices with large strides of a tensor first: the order of nested loops."""
    return tuple(sorted(indices, key=lambda i: -abs(lines[i].strides[tensor])))


def _packed(problem: Problem, machine: Machine, best: Candidate) -> Choice:
    form, lines = problem.form, problem.lines
    assert best.rows is not None
    used = (best.vector, best.rows)

    def order(i: int) -> tuple[bool, int]:
        """Contiguous axes inside: blocks are filled from there, and panels are copied along them."""
        strides = lines[i].strides
        return any(strides[t] == form.sizes[t] for t in form.inputs), -max(map(abs, strides))

    loops = sorted((i for i, line in enumerate(lines) if line.reduced), key=order)
    outer = _by_stride(lines, [i for i, line in enumerate(lines) if not line.reduced and i not in used])
    vectors, height = 3, 8 if machine.registers >= 32 else 4
    if form.bytewise:  # each product is a dozen instructions: a smaller tile, for the sake of the compiler
        vectors, height = 1, 4
    return Choice(
        best.vector, best.rows, None, tuple(loops), (), outer, best.lanes, height, 1, vectors, best.cycles, "packed"
    )


def _serial(problem: Problem, machine: Machine) -> Choice:
    """Scatter with collisions: points one after the other, or one vector at a time along an axis that does not
    collide.
    """
    form, lines = problem.form, problem.lines
    good = [i for i, line in enumerate(lines) if not line.reduced and abs(line.strides[0]) >= form.sizes[0]]

    def rank(i: int) -> tuple[bool, int]:
        return lines[i].strides[0] == form.sizes[0], lines[i].extent

    outs = [i for i, line in enumerate(lines) if not line.reduced]
    v = max(good, key=rank) if good else outs[0] if outs else 0
    lanes = min(_GATHER_LANES, full_lanes(form, machine)) if v in good else 1
    reduced = sorted((i for i in range(len(lines)) if lines[i].reduced), key=lambda i: lines[i].extent)
    outer = tuple(i for i in outs if i != v)
    across = lines[v].reduced
    loops, table = _reductions(lines, [i for i in reduced if i != v], across, False)
    passes = problem.steps / max(1, lines[v].extent) * -(-lines[v].extent // lanes)
    cycles = passes * (4.0 + sum(form.work) + (lanes if lanes > 1 else 0))
    return Choice(v, None, None, loops, table, outer, lanes, 1, 1, 1, cycles, "serial", cold=True)


def _reductions(
    lines: tuple[Line, ...], reduced: list[int], across: bool, constants: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(loops, table): the longest reduction is a loop, the others one table of offsets; known sizes keep all loops."""
    by_extent = sorted(reduced, key=lambda i: lines[i].extent)
    table: list[int] = []
    loops = by_extent
    if not constants and len(by_extent) > (0 if across else 1):
        few = by_extent if across else by_extent[:-1]
        if prod(lines[i].extent for i in few) <= MAX_TABLE:
            table, loops = few, by_extent[len(few) :]
    if len(loops) > 1:
        loops = sorted(loops, key=lambda i: -max(map(abs, lines[i].strides)))
    return tuple(loops), tuple(table)


def _direct(problem: Problem, machine: Machine, best: Candidate, constants: bool, forced: bool) -> Choice:
    form, lines = problem.form, problem.lines
    v, u, x, lanes = best.vector, best.rows, best.columns, best.lanes
    n, strides, across = lines[v]
    steps = problem.steps
    depth = prod(line.extent for line in lines if line.reduced)
    pure = not any(line.reduced for line in lines)
    used = (*form.inputs, *form.extra)
    classes = [0 if not strides[t] else 1 if strides[t] == form.sizes[t] else 2 for t in (0, *used)]
    warm = all(c != 2 for c in classes) and len(set(form.dtypes)) == 1
    cold = steps < _SMALL and not constants and not forced and not warm
    if cold:
        u = x = None
    row = lines[u].strides if u is not None else ()
    turned = (
        u is not None
        and not across
        and pure
        and any(row[t] == form.sizes[t] and strides[t] not in (0, row[t]) for t in form.inputs)
    )
    squares = flip_lanes(lanes, n, lines[u].extent) if turned and u is not None else 0
    flip = squares > 0
    if flip:
        lanes = squares
    if u is not None and not flip and not any(not row[t] for t in form.inputs):
        u = x = None  # nothing is reused along it
    if flip or 2 in classes or cold:
        lanes = min(lanes, _GATHER_LANES)
    height = 1 if u is None else lanes if flip else tile_height(form, machine, x is not None)
    width = 1 if x is None else 4 if machine.registers >= 32 else 2
    if form.streaming:
        width, x = 1, None
    vectors = _vectors(form, machine, n, lanes, height, across, flip, cold, x is not None, steps)
    inside = [i for i in (v, u, x) if i is not None]
    reduced = [i for i, line in enumerate(lines) if line.reduced and i != v]
    loops, table = _reductions(lines, reduced, across, constants)
    outer = _by_stride(lines, [i for i, line in enumerate(lines) if not line.reduced and i not in inside])
    whole = depth * n * form.sizes[0]
    # Rows outside: the right operand stays in the first cache, or there is nothing but stores, best done row by row.
    rows_first = steps > 1 << 16 and not across and u is not None and not flip and (pure or whole <= machine.level1)
    stream = (
        not across and u is None and len(loops) == 1 and not table and form.partial and whole > 1 << 16 and not cold
    )
    blocked = () if stream or not form.fused else _blocked(lines, loops, table, v if across else None, lanes * vectors)
    return Choice(
        v, u, x, loops, table, outer, lanes, height, width, vectors, best.cycles,
        "stream" if stream else "direct", flip, cold, rows_first, blocked,
    )  # fmt: skip


def _blocked(
    lines: tuple[Line, ...], loops: tuple[int, ...], table: tuple[int, ...], across: int | None, group: int
) -> tuple[int, ...]:
    """The reductions to sum in blocks: the long ones, or the outermost, of a sum with many terms in one accumulator."""
    terms = {-1: prod(lines[i].extent for i in table)} if table else {}
    terms |= {i: lines[i].extent for i in loops}
    if across is not None:
        terms[across] = lines[across].extent // group
    if prod(max(1, n) for n in terms.values()) <= LONG_SUM:
        return ()
    return tuple(i for i, n in terms.items() if n > _LONG_AXIS) or tuple(terms)[:1]


def _vectors(
    form: Form,
    machine: Machine,
    n: int,
    lanes: int,
    height: int,
    across: bool,
    flip: bool,
    cold: bool,
    dots: bool,
    steps: int,
) -> int:
    """How many vectors wide the register tile is: what leaves the fewest, fullest tiles."""
    if form.streaming or cold or flip:
        return 1
    if across:
        return 1 if dots or height > 4 else 2 if height > 1 else 4
    count = -(-n // lanes)
    if form.bytewise:
        return 1
    if form.complex:
        options: tuple[int, ...] = (1, 2)
    elif height > 1:
        options = (1, 2, 3)
    else:
        options = (1,) if steps < _SMALL or sum(form.work) > 4 else (4,)

    def price(q: int) -> float:
        if count < q:
            return float("inf") if q > 1 else 0.0
        return (count // q) * (4 * q + 1.5) + (count % q) * 7 * (count > 1) - q * 0.01

    return min(options, key=price) if len(options) > 1 or count >= options[0] else 1
