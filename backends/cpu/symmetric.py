"""Symmetric and Hermitian results with half of the work: `G[i,j] = X[k,i]*X[k,j]` and all that is like it.

If exchanging two axes of a result only exchanges its factors, the result equals its own transpose (or the conjugate of
that). Then block rows are computed up to the diagonal, and the rest is copied across it, so that the result is
symmetric bit for bit. The number of block rows is chosen by price among a few, one of which is: no blocks at all.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from math import prod

from ...ir.loops import RUN_TIME, Apply, Kernel, Leaf, Literal, Load, Loop, Outer, Tile, Total, Triangle
from ...ir.semiring import PLUS_TIMES
from ...ir.types import DType
from .choose import choose
from .compose import stage_of
from .machine import Machine
from .plan import Plan, Stage
from .price import floor
from .problem import Form, Line, Problem, form_of, merged

_ROWS = (2, 4, 8, 16)  # numbers of block rows that are tried
_MIRRORED = 6.0  # cycles to copy one element within a block of the diagonal
_BYTES_PER_CYCLE = 8.0  # of an operand that is packed
_LAUNCH = 3000.0  # cycles of one more kernel
_SURE = 0.9  # of the price of the whole result, which half of it must stay below


def symmetric_plan(problem: Problem, machine: Machine) -> Plan | None:
    """The plan that computes one triangle of a symmetric result and mirrors it; None where there is none, or no gain.

    `flops` of the plan is the part of the operations that is left.
    """
    pair = symmetric_axes(problem)
    if pair is None or problem.steps < 1 << 16:
        return None
    whole = choose(problem, machine)
    if floor(problem, machine) < 2 * _LAUNCH:
        return None
    best: tuple[float, int] | None = None
    for rows in _ROWS:
        price = _price(problem, pair, rows, machine)
        if best is None or price < best[0]:
            best = (price, rows)
    if best is None or best[0] > _SURE * whole.cycles:
        return None
    bounds = _bounds(problem.lines[pair[0]].extent, best[1])
    stages = [_row(problem, pair, first, end, machine) for first, end in bounds]
    stages += [_across(problem, pair, first, end, machine) for first, end in bounds if first]
    stages.append(_diagonal(problem, pair, bounds[0][1], machine))
    n = problem.lines[pair[0]].extent
    return Plan(tuple(stages), (), sum((end - first) * end for first, end in bounds) / n**2, 0.0)


# --- what is symmetric -----------------------------------------------------------------------------------------------


def symmetric_axes(problem: Problem) -> tuple[int, int, bool] | None:
    """(rows, columns, whether transposing conjugates) of a result that equals its transpose; rows lie farther apart.

    The product of all factors must be the same with the two axes exchanged, up to the order of factors, and what
    follows the sum must not tell them apart.
    """
    form, lines = problem.form, problem.lines
    if not problem.sources or form.update or form.collides or not form.semiring.mul:
        return None
    free = [i for i, line in enumerate(lines) if not line.reduced]
    for a in free:
        for b in free:
            if lines[a].extent != lines[b].extent or lines[a].strides[0] <= lines[b].strides[0] or a == b:
                continue
            own = Counter(_shown(problem, f, (a, b)) for f in form.factors)
            turned = [_shown(problem, f, (b, a)) for f in form.factors]
            tail = _shown(problem, form.epilogue, (a, b)), _shown(problem, form.epilogue, (b, a))
            if own == Counter(turned) and tail[0] == tail[1]:
                return a, b, False
            conjugate = Counter(_shown(problem, _conjugated(f, form.dtypes), (b, a)) for f in form.factors)
            if form.complex and own == conjugate and form.epilogue == Total():
                return a, b, True
    return None


def _shown(problem: Problem, leaf: Leaf, pair: tuple[int, int]) -> object:
    """A leaf with its operands replaced by what they are: tensor, start, and strides, those of the pair first."""
    match leaf:
        case Load(operand):
            t = operand + 1
            lines = problem.lines
            others = tuple(line.strides[t] for i, line in enumerate(lines) if i not in pair)
            at = tuple(lines[i].strides[t] for i in pair)
            return problem.sources[operand], problem.form.dtypes[t], problem.offsets[t], at, others
        case Apply(function, args, dtype):
            return function, dtype, tuple(_shown(problem, a, pair) for a in args)
    return leaf


def _conjugated(leaf: Leaf, dtypes: tuple[DType, ...]) -> Leaf:
    """The conjugate of a factor: of a read, of the conjugate of one, or of a real value."""
    match leaf:
        case Apply("conj", (Load(),) as args):
            return args[0]
        case Load(operand):
            return Apply("conj", (leaf,), dtypes[operand + 1]) if dtypes[operand + 1].kind == "c" else leaf
        case Apply("cast", (inner,), dtype) if not _is_complex(inner, dtypes):
            return Apply("cast", (inner,), dtype)
        case Literal(value, dtype):
            return Literal(value.conjugate(), dtype) if isinstance(value, complex) else leaf
    return leaf if not _is_complex(leaf, dtypes) else Apply("conj", (leaf,), _type(leaf, dtypes))


def _type(leaf: Leaf, dtypes: tuple[DType, ...]) -> DType:
    if isinstance(leaf, Load):
        return dtypes[leaf.operand + 1]
    assert isinstance(leaf, Apply | Literal), "a total stands in no factor"
    return leaf.dtype


def _is_complex(leaf: Leaf, dtypes: tuple[DType, ...]) -> bool:
    return _type(leaf, dtypes).kind == "c"


# --- block rows ------------------------------------------------------------------------------------------------------


def _bounds(extent: int, rows: int) -> list[tuple[int, int]]:
    """Equal blocks of full registers, the last one shorter.

    >>> _bounds(100, 4)
    [(0, 32), (32, 64), (64, 96), (96, 100)]
    """
    block = -(-extent // (16 * rows)) * 16
    return [(first, min(first + block, extent)) for first in range(0, extent, block)]


def _price(problem: Problem, pair: tuple[int, int, bool], rows: int, machine: Machine) -> float:
    bounds = _bounds(problem.lines[pair[0]].extent, rows)
    if len(bounds) < 2:
        return float("inf")
    batch = prod(line.extent for i, line in enumerate(problem.lines) if not line.reduced and i not in pair[:2])
    price = 0.0
    for first, end in bounds:
        part = _rectangle(problem, pair, first, end)
        choice = choose(part, machine)
        price += choice.cycles + _LAUNCH
        if choice.family == "packed":  # every block row packs all columns before its end anew
            price += part.steps / (end - first) * problem.form.accumulate.itemsize / _BYTES_PER_CYCLE
        price += batch * (end - first) ** 2 / 2 * _MIRRORED
        if first:
            price += choose(_copy(problem, pair, first, end), machine).cycles + _LAUNCH
    return price


def _rectangle(problem: Problem, pair: tuple[int, int, bool], first: int, end: int) -> Problem:
    """Rows first..end of the result, up to the diagonal block."""
    lines = list(problem.lines)
    rows, columns = pair[0], pair[1]
    offsets = tuple(o + first * s for o, s in zip(problem.offsets, lines[rows].strides, strict=True))
    lines[rows] = lines[rows]._replace(extent=end - first)
    lines[columns] = lines[columns]._replace(extent=end)
    return Problem(problem.form, tuple(lines), offsets)


def _mirror_form(form: Form, conjugate: bool) -> Form:
    dtype = form.dtypes[0]
    leaf: Leaf = Apply("conj", (Load(0),), dtype) if conjugate else Load(0)
    return form_of((dtype, dtype), (leaf,), dtype, PLUS_TIMES)


def _copy(problem: Problem, pair: tuple[int, int, bool], first: int, end: int) -> Problem:
    """The part of rows first..end that lies before their diagonal block, copied across the diagonal."""
    lines, offset = [], problem.offsets[0]
    down, right = problem.lines[pair[0]].strides[0], problem.lines[pair[1]].strides[0]
    for i, line in enumerate(problem.lines):
        if line.reduced:
            continue
        if i == pair[0]:
            lines.append(Line(end - first, (right, down), False))
        elif i == pair[1]:
            lines.append(Line(first, (down, right), False))
        else:
            lines.append(Line(line.extent, (line.strides[0],) * 2, False))
    offsets = (offset + first * right, offset + first * down)
    return Problem(_mirror_form(problem.form, pair[2]), merged(lines), offsets)


def _row(problem: Problem, pair: tuple[int, int, bool], first: int, end: int, machine: Machine) -> Stage:
    part = _rectangle(problem, pair, first, end)
    stage = stage_of(part, choose(part, machine), machine, False, tuple(range(len(problem.form.dtypes))))
    return replace(stage, family=f"lower {stage.family}")


def _across(problem: Problem, pair: tuple[int, int, bool], first: int, end: int, machine: Machine) -> Stage:
    part = _copy(problem, pair, first, end)
    stage = stage_of(part, choose(part, machine), machine, False, (0, 0))
    return replace(stage, family=f"mirrored {stage.family}")


def _diagonal(problem: Problem, pair: tuple[int, int, bool], block: int, machine: Machine) -> Stage:
    """The diagonal blocks, each mirrored in itself."""
    form = _mirror_form(problem.form, pair[2])
    rows, columns = problem.lines[pair[0]], problem.lines[pair[1]]
    outer = [line for i, line in enumerate(problem.lines) if not line.reduced and i not in pair[:2]]
    tile = Tile(form.factors, ("v",), (), "v", 1, form.accumulate)
    nest = Triangle("u", "v", "c", Loop("v", (1,), tile))
    kernel = Kernel(
        form.dtypes, ("u", "v", "c"), (None, None, None), ((RUN_TIME, RUN_TIME, 0),) * 2,
        Outer(nest, shared=False) if outer else nest,
    )  # fmt: skip
    down, right = rows.strides[0], columns.strides[0]
    words = [0, 0, rows.extent, columns.extent, block, right, down, down, right]
    if outer:
        words += [len(outer), prod(line.extent for line in outer), *(line.extent for line in outer)]
        words += [line.strides[0] for line in outer] * 2
    offset = problem.offsets[0]
    count = -(-rows.extent // block)
    cycles = prod(line.extent for line in outer) * rows.extent * block / 2 * _MIRRORED
    return Stage(
        kernel, "mirrored diagonal", tuple(words), ((0, 0, offset), (1, 0, offset)), (), count,
        max(10.0, cycles / machine.frequency),
    )  # fmt: skip
