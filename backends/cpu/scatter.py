"""Lookups as loops: contractions in which integers say where a tensor is read (gather) or written (scatter).

The axes along which the integers vary are walked one position at a time; at each, the looked-up axes shrink to the
one position that the integers name, and a register tile does what is left: a block product, a row, one number. So
stored blocks are visited and nothing else. Where several points may write to one place, threads share the
destinations, not the points: each walks the whole list and takes what is its own, so that sums have one order whatever
the number of threads. Where destinations are too few, they share an axis of the tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from ...ir.loops import (
    RUN_TIME,
    TABLE,
    Axis,
    Contraction,
    Follow,
    Guard,
    Kernel,
    Leaf,
    Literal,
    Loop,
    Nest,
    Outer,
    Runs,
    Seq,
    Share,
    Tile,
)
from .choose import STEP, Choice, choose
from .compose import base_kernel, share_of
from .machine import Machine
from .plan import Plan, Stage
from .price import full_lanes
from .problem import Line, Problem, problem_of
from .scatter_laid import laid_plan

_STEP = 4.0  # cycles to walk one position of a list
_SCAN = 0.5  # cycles to compare one position of a list
_RUN = 30.0  # cycles to begin and end a run
_SURE = 0.6  # a run must promise this much less: a tile for one position keeps what it gathered in the first cache
_SAMPLE = 1000.0  # cycles to look whether a list stands in groups, and of one more kernel
_LIGHT = 16.0  # cycles of a position below which one thread is no slower than two that both walk the whole list
_APART = 4096  # bytes between steps that are looked up, for the choice of a tile
_FEW = 4  # destinations, or positions, up to which threads rather share an axis of the tile


@dataclass(frozen=True)
class _Split:
    """The axes of a contraction by their part in it: `lookups` are (axis, index tensor), in the order of following;
    `walked` those of the lists whose points may meet, `spread` those whose points never do, `rest` all others.
    """

    lookups: tuple[tuple[int, int], ...]
    walked: tuple[int, ...]
    spread: tuple[int, ...]
    rest: tuple[int, ...]
    owned: int | None  # the lookup whose positions threads share


@dataclass(frozen=True)
class _Form:
    """One way to run a contraction with lookups: what is left for the register tile, and how that is done.

    `run` is the list axis that the tile sums in runs (None: the tile does one position), `line` its number in `small`,
    `inside` the lookups along it. `cycles` is the price.
    """

    small: Problem
    choice: Choice
    cycles: float
    run: int | None = None
    line: int = -1
    inside: tuple[int, ...] = ()


def lookup_plan(problem: Contraction, machine: Machine) -> Plan:
    """The plan of a contraction with lookups, on its tensors as they lie or on copies that are laid out anew."""
    plain = _on_these(problem, machine)
    if not plain.stages:
        return plain
    return laid_plan(problem, machine, plain, lambda other: _on_these(other, machine))


def _on_these(problem: Contraction, machine: Machine) -> Plan:
    """The cheaper of a tile for each position and one for each run."""
    split = _split(problem)
    positions = prod(problem.axes[i].extent for i in (*split.walked, *split.spread))
    single = _each(problem, split, machine, positions)
    if single is None or not positions:
        return Plan((), (), 0.0, 0.0)
    runs = _in_runs(problem, split, machine, positions)
    if split.owned is not None and single.cycles < _LIGHT * positions:
        split = replace(split, owned=None)
    if runs is None or runs.cycles + _SAMPLE >= _SURE * single.cycles:
        stages: tuple[Stage, ...] = (_stage(problem, split, single, machine),)
    elif not _keys(problem, split, runs):
        stages = (_stage(problem, split, runs, machine),)
    else:  # the data decide: the tile for runs where there are some, else that for single positions
        other = _stage(problem, split, single, machine, runs.run)
        grouped = _stage(problem, _split(problem), runs, machine, runs.run)
        stages = (grouped, other)
    small = single.small
    moved = positions * sum(
        size * prod(line.extent for line in small.lines if line.strides[t]) for t, size in enumerate(small.form.sizes)
    )
    work = max(0, len(problem.factors) - 1) + (1 if problem.update else 0) + sum(small.form.work)
    return Plan(stages, (), float(positions * small.steps * work), float(moved))


def _each(problem: Contraction, split: _Split, machine: Machine, positions: int) -> _Form | None:
    """A tile for each position of the lists."""
    small = problem_of(replace(problem, axes=tuple(problem.axes[i] for i in split.rest), lookups=()))
    if small is None:
        return None
    lines = small.lines or (Line(1, (small.form.sizes[0], *(0,) * (len(problem.dtypes) - 1)), False),)
    small = Problem(small.form, lines, small.offsets)
    choice = choose(small, machine, family="direct")
    if small.steps == 1:
        choice = replace(choice, lanes=1, vectors=1)
    store = _stores(small, machine) if problem.update else 0.0
    return _Form(small, choice, positions * (_STEP * len(split.lookups) + choice.cycles * STEP + store))


def _stores(small: Problem, machine: Machine) -> float:
    """Cycles to add a tile's results to what the output holds."""
    results = prod(line.extent for line in small.lines if not line.reduced)
    return 2.0 * -(-results // full_lanes(small.form, machine))


def _in_runs(problem: Contraction, split: _Split, machine: Machine, positions: int) -> _Form | None:
    """A tile for each run of the innermost list, or None where that does not apply."""
    axes = problem.axes
    if not split.walked or problem.collides:
        return None
    run = split.walked[-1]
    inside = tuple(k for k, (_, t) in enumerate(split.lookups) if axes[run].strides[t])
    keys = [split.lookups[k][0] for k in inside if axes[split.lookups[k][0]].strides[0]]
    listed = {split.lookups[k][1] for k in inside}
    looked = [split.lookups[k][0] for k in inside if split.lookups[k][0] not in keys]
    moved = [t for t in range(len(problem.dtypes)) if t and any(axes[a].strides[t] for a in looked)]
    forwards = all(s >= 0 for s in axes[run].strides)
    fixed = [t for _, t in split.lookups if any(axes[split.lookups[k][0]].strides[t] for k in inside)]
    if not inside or not forwards or fixed or any(axes[run].strides[t] for t in moved):
        return None  # lists that are looked up themselves are followed one by one
    length = axes[run].extent // max(1, prod(axes[a].extent for a in keys)) if keys else axes[run].extent
    strides = [_APART if t in moved else s for t, s in enumerate(axes[run].strides)]
    along = Axis(max(2, length), tuple(strides), True)
    small = problem_of(replace(problem, axes=(*(axes[i] for i in split.rest), along), lookups=()))
    if small is None:
        return None
    probe = min(listed)
    line = next((i for i, found in enumerate(small.lines) if found.strides[probe]), -1)
    if line < 0:
        return None  # an empty sum
    choice = choose(small, machine, family="direct")
    if line in choice.table or choice.family == "stream":
        loops = (line, *(i for i in (*choice.table, *choice.loops) if i != line))
        choice = replace(choice, table=(), loops=loops, family="direct", blocked=())
    each = choice.cycles * STEP + _stores(small, machine) + _RUN
    cycles = positions / max(2, length) * each + positions * _SCAN * len(inside)
    return _Form(small, choice, cycles, run, line, inside)


def _split(problem: Contraction) -> _Split:
    axes = problem.axes
    lookups = tuple((axis, operand + 1) for axis, operand in problem.lookups)
    looked = {axis for axis, _ in lookups}
    lists = [
        i for i, a in enumerate(axes)
        if i not in looked and any(a.strides[t] for _, t in lookups)
    ]  # fmt: skip
    walked = [i for i in lists if axes[i].reduced or problem.collides]
    spread = [i for i in lists if i not in walked]
    rest = [i for i in range(len(axes)) if i not in looked and i not in lists]
    owned = None
    if not problem.collides and prod(axes[i].extent for i in spread) < _FEW:
        scattered = [k for k, (axis, _) in enumerate(lookups) if axes[axis].strides[0] and axes[axis].extent >= _FEW]
        owned = max(scattered, key=lambda k: axes[lookups[k][0]].extent, default=None)

    def far(i: int) -> int:
        """Lists are walked in the order in which they are stored."""
        return -max(abs(axes[i].strides[t]) for _, t in lookups)

    return _Split(lookups, tuple(sorted(walked, key=far)), tuple(sorted(spread, key=far)), tuple(rest), owned)


def _stride(stride: int, size: int) -> int | str:
    """How a stride along a list appears in the kernel: contiguous ones are part of its shape."""
    return stride if stride in (0, size) else RUN_TIME


def _keys(problem: Contraction, split: _Split, made: _Form) -> list[int]:
    """The lookups along a run that say where the result is written."""
    return [k for k in made.inside if problem.axes[split.lookups[k][0]].strides[0]]


def _stage(problem: Contraction, split: _Split, made: _Form, machine: Machine, guarded: int | None = None) -> Stage:
    """The kernel of a form with its arguments. With `guarded`, it runs only if the lists along that axis suit it."""
    axes, small, choice = problem.axes, made.small, made.choice
    lines, form = small.lines, small.form
    base, sizes, names = base_kernel(small, choice, machine)
    extra = {f"s{k}": axes[i] for k, i in enumerate(split.walked) if i != made.run}
    extra |= {f"j{k}": axes[axis] for k, (axis, _) in enumerate(split.lookups)}
    outer = [axes[i] for i in split.spread] + [Axis(lines[i].extent, lines[i].strides) for i in choice.outer]
    count = prod(axis.extent for axis in outer)
    along = names.get(made.line, "") if made.run is not None else ""
    nest = _nest(problem, split, made, base.nest, along)
    shares, share, grain = 1, "", 1
    if split.owned is not None:
        shares = axes[split.lookups[split.owned][0]].extent
    elif not form.collides and count >= _FEW:
        shares = count
    elif not form.collides:
        share, grain = share_of(form, lines, choice, names, count)
    if outer:
        nest = Outer(nest, shared=shares > 1 and split.owned is None)
    if share:
        shares = -(-next(lines[i].extent for i, name in names.items() if name == share) // grain)
        nest = Share(share, grain, nest)
    if guarded is not None:
        name = along or f"s{split.walked.index(guarded)}"
        first = next(t for axis, t in split.lookups if axes[axis].strides[0] and axes[guarded].strides[t])
        nest = Guard(first, name, made.run is not None, nest)
    tensors = range(len(form.dtypes))
    rows = tuple(
        base.strides[t] + tuple(_stride(axis.strides[t], form.sizes[t]) for axis in extra.values()) for t in tensors
    )
    fixed = [1 if small.steps == 1 else None] * len(base.axes)  # a single number needs no loop
    kernel = Kernel(form.dtypes, (*base.axes, *extra), (*fixed, *[None] * len(extra)), rows, nest)
    if made.run is not None:  # the tile's own extent of that axis is an estimate
        known = {name: lines[i].extent for i, name in names.items()} | {names[made.line]: axes[made.run].extent}
        sizes = tuple(known.get(name, size) for name, size in zip(base.axes, sizes, strict=True))
    words, tables = _words(kernel, small, choice, sizes, names, extra, outer)
    pointers = tuple((t, t, small.offsets[t]) for t in tensors)
    time = max(10.0, made.cycles / machine.frequency)
    return Stage(kernel, _family(split, made), words, pointers, (), shares, time, tables)


def _family(split: _Split, made: _Form) -> str:
    if not split.walked and split.owned is None:
        return "gather"
    return "scatter" if made.run is None else "scatter in runs"


def _nest(problem: Contraction, split: _Split, made: _Form, body: Nest, along: str) -> Nest:
    """The loops of the lists around `body`; each lookup is followed as soon as all that its integers vary along is
    fixed.
    """
    axes = problem.axes
    loops = [i for i in split.walked if i != made.run]
    depth = {i: k + 1 for k, i in enumerate(loops)}
    levels: dict[int, int] = {}
    for axis, tensor in split.lookups:
        varies = [i for i, a in enumerate(axes) if a.strides[tensor]]
        levels[axis] = max((levels.get(i, depth.get(i, 0)) for i in varies), default=0)
    absent = None if problem.update else _without_terms(body, problem)
    nest = body if made.run is None else _runs_of(problem, split, made, body, along)
    for level in range(len(loops), -1, -1):
        for k, (axis, tensor) in reversed(list(enumerate(split.lookups))):
            if levels[axis] == level and k not in made.inside:
                nest = Follow(tensor, f"j{k}", nest, absent, owned=k == split.owned)
        if level:
            nest = Loop(f"s{split.walked.index(loops[level - 1])}", (1,), nest)
    return nest


def _runs_of(problem: Contraction, split: _Split, made: _Form, body: Nest, along: str) -> Nest:
    axes = problem.axes
    lookups = tuple((split.lookups[k][1], f"j{k}") for k in made.inside)
    keys = tuple(n for n, k in enumerate(made.inside) if axes[split.lookups[k][0]].strides[0])
    moved = []
    for t in range(1, len(problem.dtypes)):
        ways = [pair for n, pair in enumerate(lookups) if n not in keys]
        ways = [(index, name) for index, name in ways if axes[split.lookups[int(name[1:])][0]].strides[t]]
        if ways:
            moved.append((t, tuple(ways)))
    assert made.run is not None
    dense = all(axes[made.run].strides[index] == problem.dtypes[index].itemsize for index, _ in lookups)
    owned = next((n for n, k in enumerate(made.inside) if k == split.owned), None)
    return Runs(along, lookups, keys, tuple(moved), body, dense, owned)


def _without_terms(nest: Nest, problem: Contraction) -> Nest:
    """The same loops with the semiring's 0 for the product: what is written where nothing is selected."""
    match nest:
        case Tile():
            zero: Leaf = Literal(problem.semiring.zero_of(problem.accumulate), problem.accumulate)
            return replace(nest, factors=(zero,))
        case Seq(bodies):
            return Seq(tuple(_without_terms(b, problem) for b in bodies))
    assert not isinstance(nest, Follow)
    return replace(nest, body=_without_terms(nest.body, problem))


def _words(
    kernel: Kernel,
    small: Problem,
    choice: Choice,
    sizes: Sequence[int],
    names: dict[int, str],
    extra: dict[str, Axis],
    outer: Sequence[Axis],
) -> tuple[tuple[int, ...], tuple[tuple[int, tuple[tuple[int, int], ...]], ...]]:
    """The argument words of a kernel in the order of `lower`, and its offset tables."""
    lines, tensors = small.lines, range(len(kernel.dtypes))
    strides = {name: lines[i].strides for i, name in names.items()} | {n: a.strides for n, a in extra.items()}
    words = [0] * len(kernel.dtypes)
    extents = (*sizes, *(axis.extent for axis in extra.values()))
    words += [n for n, known in zip(extents, kernel.extents, strict=True) if known is None]
    tables = []
    for t in tensors:
        for name, stride in zip(kernel.axes, kernel.strides[t], strict=True):
            if stride == RUN_TIME:
                words.append(strides[name][t])
            elif stride == TABLE:
                tables.append((len(words), tuple((lines[i].extent, lines[i].strides[t]) for i in choice.table)))
                words.append(0)
    if outer:
        words += [len(outer), prod(axis.extent for axis in outer), *(axis.extent for axis in outer)]
        for t in tensors:
            words += [axis.strides[t] for axis in outer]
    return tuple(words), tuple(tables)
