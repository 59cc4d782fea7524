"""From a chain of products to a plan: which structure its axes make, and the kernel for its sizes.

Kronecker (two factors and more) and low rank; `monarch_plans` goes on. Each function returns None where the axes
are of another kind, or where no plan of it fits the registers and the shared memory of the goal.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import prod

from ....ir.count import count
from ....ir.expr import Equation, Program
from ....ir.text_print import print_equation
from ....ir.types import DType
from ..choose import Chosen
from ..frame import ceil_pow2
from ..nodes import Kernel, Map, Tensor, Tile
from ..views import Layout
from . import kronecker, low_rank
from .chain import Chain, Ending, ending, followers
from .plan import REGISTERS, FusedPlan, Goal, Placement, fits_registers, launched
from .region import Region

EXACT = 32  # a side of the tiles that exact products of f32 stay in registers with
LEAST_ROWS = 16  # of the batch, that matrix units multiply
BUSY = 0.75  # of the processors, that must have a program before it takes more rows
PERSISTENT = 4  # programs a processor that share the factors
INNER = Placement("u", REGISTERS, 0)  # what stands between two products


def extent(region: Region, axes: tuple[str, ...]) -> int:
    """The positions of some axes together."""
    return prod(region.extents[a] for a in axes)


def padded(region: Region, axes: tuple[str, ...]) -> int:
    """The positions of some axes together, each filled up to a power of two."""
    return prod(ceil_pow2(region.extents[a]) for a in axes)


def alone(program: Program, equations: tuple[Equation, ...], sizes: Mapping[str, int]) -> tuple[int, int]:
    """Bytes and operations of equations, each in a kernel of its own."""
    costs = [count(e, sizes) for e in equations]
    return sum(c.bytes for c in costs), sum(c.flops for c in costs)


def small(dtype: DType) -> bool:
    """Whether matrix units take the type as it is."""
    return dtype.kind == "f" and dtype.bits == 16


def finished(
    structure: str,
    region: Region,
    kernels: tuple[Kernel, ...],
    stored: tuple[str, ...],
    placements: tuple[Placement, ...] = (),
    buffers: tuple[tuple[str, Layout], ...] = (),
    formed: int = 0,
) -> FusedPlan:
    """A plan whose kernels are launched once each."""
    arguments = dict(region.arguments)
    work = region.equations[-1].dtype
    launches = tuple(launched(k, arguments, region.numbers, work) for k in kernels)
    return plan_of(structure, region, launches, stored, placements, buffers, formed)


def plan_of(
    structure: str,
    region: Region,
    launches: tuple[Chosen, ...],
    stored: tuple[str, ...],
    placements: tuple[Placement, ...] = (),
    buffers: tuple[tuple[str, Layout], ...] = (),
    formed: int = 0,
) -> FusedPlan:
    """A plan of these launches for the equations of a region."""
    moved, flops = alone(region.program, region.equations, region.sizes)
    names = tuple(e.name for e in region.equations)
    results = tuple((n, region.layouts[n]) for n in stored)
    return FusedPlan(
        structure,
        names,
        results,
        launches,
        placements,
        buffers,
        formed=formed,
        flops=flops,
        alone=moved,
        alone_flops=flops,
    )


# --- Kronecker --------------------------------------------------------------------------------------------------------


def kronecker_plan(chain: Chain, goal: Goal) -> FusedPlan | None:
    """A chain in which each factor replaces digits of x by others: y[b,r..,s..] from x[b,p..,q..].

    Equations that follow, and sum over no axis of the batch, are computed from the tile in registers.
    """
    parts = kronecker_parts(chain)
    if parts is None:
        return None
    region = chain.region
    later = followers(region.program, region.equations)
    for taken in range(len(later), -1, -1):
        wide = Region(region.program, region.equations + later[:taken], region.sizes, region.layouts)
        if wide.regular and (found := _kronecker(Chain(wide, chain.x, chain.factors), goal)) is not None:
            return found
    return None


def kronecker_parts(chain: Chain) -> tuple[tuple[str, ...], list[tuple[tuple[str, ...], tuple[str, ...]]]] | None:
    """The batch, and for each factor the axes that it sums and those that it puts in place; None for other chains.

    Factors may have axes of the batch, such as groups that have factors of their own.
    """
    x, y = chain.x_axes, chain.y_axes
    pairs = []
    for number in range(len(chain.factors)):
        bound, own = chain.bound(number), chain.axes_of(number)
        lanes = {*own} & {*x} & {*y} - bound
        into = tuple(a for a in own if a not in bound | lanes)
        if not bound <= {*x} & {*own} or not into or {*into} & {*x} or not {*into} <= {*y}:
            return None
        pairs.append((tuple(a for a in x if a in bound), into))
    summed = {a for into, _ in pairs for a in into}
    batch = tuple(a for a in x if a not in summed)
    if not batch or {*y} != {*batch} | {a for _, into in pairs for a in into}:
        return None
    return batch, pairs


def _kronecker(chain: Chain, goal: Goal) -> FusedPlan | None:
    region = chain.region
    parts = kronecker_parts(chain)
    assert parts is not None
    batch, pairs = parts
    region.run_over(batch)
    end = ending(region, chain.last)
    results = {a for _, into in pairs for a in into}
    for equation in region.equations[chain.last + 1 :]:
        k = region.equations.index(equation)
        own = {region.axis(k, i.name) for i in equation.indices}
        kept = {*region.result(k)}
        if not own <= results | {*batch} or not {*batch} <= kept:
            return None
    y = next((t for t in end.stored if {*t.axes} == {*chain.y_axes}), None)
    if y is None:
        return None
    x = region.read(0, chain.x)
    order = sorted(range(len(pairs)), key=lambda n: x.axes.index(pairs[n][0][0]))
    factors = [(region.read(*chain.factors[n]), *pairs[n]) for n in order]
    extra = tuple(t for t in (*end.read, *end.stored) if t != y)
    if len(factors) == 2:
        kernel = _two_factors(x, factors[0][0], factors[1][0], y, region, end, extra, goal)
        return None if kernel is None else finished("kronecker", region, (kernel,), end.names, (INNER,))
    if any({*batch} & {*chain.axes_of(n)} for n in range(len(pairs))):
        return None  # products of factors are formed ahead for all of the batch, or not at all
    return _many_factors(x, factors, y, region, end, extra, goal)


def _two_factors(
    x: Tensor,
    left: Tensor,
    right: Tensor,
    y: Tensor,
    region: Region,
    end: Ending,
    extra: tuple[Tensor, ...],
    goal: Goal,
) -> Kernel | None:
    """The kernel of two factors for these sizes, None where none fits."""
    _, p, q, r, s = kronecker.roles(x, left, right, y)
    sizes, text = region.all_sizes(), title(region)
    rows, into, out, taken = (padded(region, axes) for axes in (r, q, s, p))
    whole = partial(
        kronecker.kronecker,
        *(x, left, right, y, sizes),
        epilogue=end.statements,
        value=end.value,
        extra=extra,
        precision=goal.precision,
        title=text,
    )
    slabs = partial(
        kronecker.slabs,
        *(x, left, right, y, sizes),
        epilogue=end.statements,
        value=end.value,
        extra=extra,
        precision=goal.precision,
        title=text,
    )
    single = len(p) == len(q) == len(r) == len(s) == 1 and not any(isinstance(n, Tile) for n in end.statements)
    if goal.exact and not small(x.dtype):
        if max(rows, into, out, taken) <= EXACT:
            return whole()
        return slabs(rows=EXACT, step=EXACT, stages=2) if single and into <= 8 * EXACT else None
    lanes = {*left.axes, *right.axes} - {*p, *q, *r, *s}  # of the batch, with which factors change
    fits = max(into, out, taken) <= 128 and fits_registers(rows * max(into, out), 8)
    if fits and (rows >= 64 or max(into, out) <= 64):
        alike = rows * into <= 64 * 64 and max(taken, out) <= 64 and not lanes
        return whole(share=PERSISTENT * goal.processors if alike else 0)
    maps = tuple(n for n in end.statements if isinstance(n, Map))
    if maps == end.statements and not lanes and rows < 64 and taken < 64 and into <= 256 and out <= 256:
        inner = padded(region, q[1:])
        blocks = kronecker.small_left_blocks(taken, into, out, inner, goal)
        if blocks is None:
            return None
        batch, step, stages = blocks
        return kronecker.small_left(
            *(x, left, right, y, sizes),
            batch=batch,
            step=step,
            epilogue=maps,
            value=end.value,
            extra=extra,
            stages=stages,
            precision=goal.precision,
            title=text,
        )
    if single and rows % kronecker.SLAB == 0 and into <= 256:
        stage = 2 * kronecker.STEP * (kronecker.SLAB + into)
        return slabs(stages=3 if 3 * stage <= goal.shared else 2)
    return None


def _many_factors(
    x: Tensor,
    factors: list[tuple[Tensor, tuple[str, ...], tuple[str, ...]]],
    y: Tensor,
    region: Region,
    end: Ending,
    extra: tuple[Tensor, ...],
    goal: Goal,
) -> FusedPlan | None:
    """Neighbours multiplied ahead until two factors remain."""
    cut, _ = kronecker.merged(tuple(extent(region, p) for _, p, _ in factors))
    made: list[Kernel] = []
    buffers: list[tuple[str, Layout]] = []
    sides: list[Tensor] = []
    for group in (factors[:cut], factors[cut:]):
        tensor, p, r = group[0]
        for other, more_p, more_r in group[1:]:
            p, r = p + more_p, r + more_r
            name = f"{y.name}.factor.{len(buffers)}"
            shape = tuple(region.extents[a] for a in r + p)
            layout = Layout.dense(shape, tensor.dtype)
            buffers.append((name, layout))
            out = Tensor(region.parameter(name), r + p, layout.dtype, layout.strides)
            sizes = {a: region.extents[a] for a in r + p}
            text = f"{out.name} = {tensor.name} times {other.name}, for all of their indices"
            made.append(kronecker.product_of_factors(tensor, other, out, sizes, text))
            tensor = out
        sides.append(tensor)
    kernel = _two_factors(x, sides[0], sides[1], y, region, end, extra, goal)
    if kernel is None:
        return None
    return finished("kronecker", region, (*made, kernel), end.names, (INNER,), tuple(buffers), len(made))


def title(region: Region) -> str:
    """The equations of a region, a line each."""
    return "\n".join(print_equation(e) for e in region.equations)


# --- low rank ---------------------------------------------------------------------------------------------------------


def low_rank_plan(chain: Chain, goal: Goal) -> FusedPlan | None:
    """A chain of two factors, of which the first one brings what the second one sums: h[b,r], then y[b,i]."""
    if len(chain.factors) != 2:
        return None
    region = chain.region
    first, second = chain.axes_of(0), chain.axes_of(1)
    summed, rank = chain.bound(0), chain.bound(1)
    batch = tuple(a for a in chain.x_axes if a not in summed)
    result = tuple(a for a in second if a not in rank)
    if not rank or {*first} != summed | rank or {*chain.y_axes} != {*batch, *result} or not batch:
        return None
    if len(summed) != 1 or len(result) != 1 or rank & {*batch} or {*second} & {*batch}:
        return None
    region.run_over(batch)
    end = ending(region, chain.last)
    x, a, b = region.read(0, chain.x), region.read(*chain.factors[0]), region.read(*chain.factors[1])
    y = end.stored[0]
    blocks = low_rank_blocks(padded(region, tuple(rank)), x.dtype, goal)
    if blocks is None:
        return None
    rows, step, columns, stages = blocks
    others = extent(region, batch) // region.extents[batch[-1]]
    while rows > LEAST_ROWS and others * -(-region.extents[batch[-1]] // rows) < BUSY * goal.processors:
        rows //= 2
    kernel = low_rank.low_rank(
        *(x, a, b, y, region.all_sizes()),
        epilogue=end.statements,
        value=end.value,
        extra=end.read,
        rows=rows,
        step=step,
        columns=columns,
        warps=8 if rows > 2 * LEAST_ROWS else 4,
        stages=stages,
        precision=goal.precision,
        title=title(region),
    )
    plan = finished("low_rank", region, (kernel,), end.names, (Placement("h", REGISTERS, 0),))
    return None if plan.starves(goal) else plan


def low_rank_blocks(rank: int, dtype: DType, goal: Goal) -> tuple[int, int, int, int] | None:
    """Rows of the batch, steps of the sum, columns of the result and stages for a rank. None if none fits.

    The intermediate takes rows x rank accumulators; blocks of operands are held once for each stage.
    """
    if small(dtype):
        for rows, step, columns, stages in ((128, 64, 128, 3), (128, 32, 64, 2), (64, 32, 64, 2)):
            shared = 2 * max(stages * step * (rows + rank), stages * rank * columns + rows * rank)
            if fits_registers(rows * max(rank, columns), 8) and shared <= goal.shared:
                return rows, step, columns, stages
        return None
    if goal.exact:
        return (32, 32, 64, 2) if rank <= 128 else None
    return (64, 32, 64, 2) if rank <= 256 else None
