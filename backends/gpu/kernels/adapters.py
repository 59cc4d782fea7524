"""Matching a dense product beside one of low rank: y = W x + U (V x), an adapter on a layer.

Three equations: the hidden value V x, its product with U, and the sum with the dense product of the same x.
"""

from __future__ import annotations

from collections.abc import Mapping

from ....ir.expr import Einsum, Expr, Map, Program, Read, reads, walk
from ..views import Layout
from . import low_rank
from .chain import ending, only_reader, uncast
from .plan import REGISTERS, FusedPlan, Goal, Placement, fits_registers
from .products import extent, finished, small, title
from .region import Place, Region


def adapter_plan(
    program: Program, start: int, sizes: Mapping[str, int], layouts: Mapping[str, Layout], goal: Goal
) -> FusedPlan | None:
    """The plan of such a sum whose hidden value is made by equation `start`."""
    second = only_reader(program, program.equations[start].name)
    third = None if second is None else only_reader(program, program.equations[second].name)
    if second is None or third is None:
        return None
    equations = tuple(program.equations[n] for n in (start, second, third))
    added = _sum_with(equations[2].expr, equations[1].name)
    if added is None:
        return None
    total, dense = added
    for mine in reads(equations[0].expr):
        theirs = next((f for f in dense.factors if isinstance(f, Read) and f.tensor == mine.tensor), None)
        if theirs is not None:
            same = _same(mine, theirs)
            region = Region(program, equations, sizes, layouts, same)
            if region.regular:
                return _plan(region, mine, dense, total, goal)
    return None


def _sum_with(expr: Expr, name: str) -> tuple[Expr, Einsum] | None:
    """The addition of a tensor to a sum of products, and that sum."""
    for node in walk(expr):
        if isinstance(node, Map) and node.function == "add":
            parts = [uncast(a) for a in node.args]
            sums = [p for p in parts if isinstance(p, Einsum)]
            if len(sums) == 1 and any(isinstance(p, Read) and p.tensor == name for p in parts):
                return node, sums[0]
    return None


def _same(first: Read, third: Read) -> tuple[tuple[Place, Place], ...]:
    """The places of the shared operand in the first and in the third equation."""
    pairs = zip(first.slots, third.slots, strict=True)
    return tuple(((0, a.bare), (2, b.bare)) for a, b in pairs if a.bare is not None and b.bare is not None)


def _plan(region: Region, x: Read, dense: Einsum, total: Expr, goal: Goal) -> FusedPlan | None:
    products = region.product(0), region.product(1), region.product(2, dense)
    if any(p is None for p in products):
        return None
    hidden, spent, beside = (p for p in products if p is not None)
    first = next(r for r in hidden.operands if r.tensor != x.tensor)
    second = next(r for r in spent.operands if r.tensor not in region.inside)
    matrix = next(r for r in beside.operands if r.tensor != x.tensor)
    x_axes, y_axes = region.axes(0, x), region.result(2)
    summed = {region.axis(0, n) for n in hidden.einsum.bound}
    rank = {region.axis(1, n) for n in spent.einsum.bound}
    batch = tuple(a for a in x_axes if a not in summed)
    result = {*y_axes} - {*batch}
    if len(summed) != 1 or len(result) != 1 or not rank or not batch or {*region.axes(0, first)} != summed | rank:
        return None
    if {*region.axes(1, second)} != rank | result or {*region.axes(2, matrix)} != summed | result:
        return None
    region.run_over(batch)
    end = ending(region, 2, total)
    blocks = adapter_blocks(extent(region, tuple(rank)), small(region.layouts[x.tensor].dtype), goal)
    if blocks is None:
        return None
    rows, columns, step, stages = blocks
    kernel = low_rank.dense_and_low_rank(
        region.read(0, x),
        region.read(2, matrix),
        region.read(0, first),
        region.read(1, second),
        end.stored[0],
        region.all_sizes(),
        epilogue=end.statements,
        value=end.value,
        extra=end.read,
        rows=rows,
        columns=columns,
        step=step,
        stages=stages,
        precision=goal.precision,
        title=title(region),
    )
    return finished("dense_and_low_rank", region, (kernel,), end.names, (Placement("h", REGISTERS, 0),))


def adapter_blocks(rank: int, half: bool, goal: Goal) -> tuple[int, int, int, int] | None:
    """Rows, columns, steps of the sum and stages for a rank: both accumulators in registers, both blocks of operands in
    shared memory for each stage.
    """
    options = ((128, 128, 64, 3), (128, 128, 32, 2), (64, 64, 32, 2)) if half else ((64, 64, 16, 2),)
    for rows, columns, step, stages in options:
        shared = (2 if half else 4) * (stages * step * (rows + columns + rank) + rank * columns)
        if fits_registers(rows * (columns + rank), 8) and shared <= goal.shared and rank <= 2 * columns:
            return rows, columns, step, stages
    return None
