"""From a chain of products to a plan: which structure its axes make, and the kernel for its sizes.

Kronecker (two factors and more), low rank, Monarch and block tensor-train. Each function returns None where the axes
are of another kind, or where no plan of it fits the registers and the shared memory of the goal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from math import prod

from ....ir.count import count
from ....ir.expr import Equation, Program
from ....ir.text_print import print_equation
from ....ir.types import DType
from ..choose import Chosen
from ..frame import ceil_pow2
from ..nodes import Kernel, Number, Tensor, Tile
from ..views import Layout
from . import kronecker, low_rank, monarch
from .chain import Chain, Ending, ending, followers
from .plan import CACHE, MEMORY, REGISTERS, FusedPlan, Goal, Placement, fits_registers, launched, product_type
from .region import Region

EXACT = 32  # a side of the tiles that exact products of f32 stay in registers with
CHUNK = 0.4  # of the second-level cache, that an intermediate may fill
PERSISTENT = 4  # programs a processor that share the factors
STRIDED = ((32, 16), (16, 16), (16, 8), (16, 4))  # rows and columns of the second kernel of a Monarch product
INNER = Placement("u", REGISTERS, 0)  # what stands between two products


def extent(region: Region, axes: tuple[str, ...]) -> int:
    """The positions of some axes together."""
    return prod(region.extents[a] for a in axes)


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
    return FusedPlan(structure, names, results, launches, placements, buffers, (), (), formed, flops, moved, flops)


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
    """The batch, and for each factor the axes that it sums and those that it puts in place; None for other chains."""
    x, y = chain.x_axes, chain.y_axes
    pairs = []
    for number in range(len(chain.factors)):
        bound, own = chain.bound(number), chain.axes_of(number)
        into = tuple(a for a in own if a not in bound)
        if not bound <= {*x} & {*own} or not into or {*into} & {*x} or not {*into} <= {*y}:
            return None
        pairs.append((tuple(a for a in x if a in bound), into))
    summed = {a for into, _ in pairs for a in into}
    batch = tuple(a for a in x if a not in summed)
    if not batch or {*y} != {*batch} | {a for _, into in pairs for a in into}:
        return None
    if any({*batch} & {*chain.axes_of(n)} for n in range(len(pairs))):
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
    rows, into, out, taken = (_wide(region, axes) for axes in (r, q, s, p))
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
    fits = max(into, out, taken) <= 128 and fits_registers(rows * max(into, out), 8)
    if fits and (rows >= 64 or max(into, out) <= 64):
        alike = rows * into <= 64 * 64 and max(taken, out) <= 64
        return whole(share=PERSISTENT * goal.processors if alike else 0)
    if not end.statements and rows < 64 and taken < 64 and into <= 256 and out <= 256:
        inner = _wide(region, q[1:])
        blocks = kronecker.small_left_blocks(taken, into, out, inner, goal)
        if blocks is None:
            return None
        batch, step, stages = blocks
        return kronecker.small_left(
            x, left, right, y, sizes, batch=batch, step=step, stages=stages, precision=goal.precision, title=text
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


def _wide(region: Region, axes: tuple[str, ...]) -> int:
    return prod(ceil_pow2(region.extents[a]) for a in axes)


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
    blocks = low_rank_blocks(_wide(region, tuple(rank)), x.dtype, goal)
    if blocks is None:
        return None
    rows, step, columns, stages = blocks
    kernel = low_rank.low_rank(
        *(x, a, b, y, region.all_sizes()),
        epilogue=end.statements,
        value=end.value,
        extra=end.read,
        rows=rows,
        step=step,
        columns=columns,
        stages=stages,
        precision=goal.precision,
        title=title(region),
    )
    return finished("low_rank", region, (kernel,), end.names, (Placement("h", REGISTERS, 0),))


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


# --- Monarch and block tensor-train -----------------------------------------------------------------------------------


def monarch_plan(chain: Chain, goal: Goal) -> FusedPlan | None:
    """Two block-diagonal factors with a permutation between them, with or without a rank."""
    if len(chain.factors) != 2:
        return None
    region = chain.region
    x_, y_, first, second = ({*chain.x_axes}, {*chain.y_axes}, {*chain.axes_of(0)}, {*chain.axes_of(1)})
    i, late = chain.bound(0), chain.bound(1)
    k = late & x_ & first
    r = late - k
    j = first & second & y_ - x_
    b = x_ - i - k
    result = second - late - j
    if not k or not j or not i or not b or first != i | k | j | r or second != j | late | result:
        return None
    if y_ != b | j | result or b & (first | second) or not result:
        return None
    end = ending(region, chain.last)
    region.run_over(b)
    x, a, c = region.read(0, chain.x), region.read(*chain.factors[0]), region.read(*chain.factors[1])
    return _one_monarch(region, x, a, c, end, goal) or _two_monarchs(region, x, a, c, end, goal)


def _one_monarch(region: Region, x: Tensor, a: Tensor, c: Tensor, end: Ending, goal: Goal) -> FusedPlan | None:
    """One kernel, where 16 rows of the intermediate fit on chip."""
    at = monarch.roles(x, a, c, region.stored(len(region.equations) - 1))
    inner = extent(region, at["k"] + at["j"] + at["r"])
    kind = product_type(x.dtype, c.dtype)
    # The intermediate and its rearranged copy, as accumulators and in shared memory.
    factors = max(extent(region, a.axes), extent(region, c.axes)) * x.dtype.itemsize
    if not small(kind) or not fits_registers(monarch.ROWS * inner, 8) or end.statements:
        return None
    if monarch.ROWS * extent(region, tuple(t for t in x.axes if t not in at["b"])) * 2 + factors > goal.shared:
        return None
    kernel = monarch.fused(x, a, c, end.stored[0], region.all_sizes(), precision=goal.precision, title=title(region))
    structure = "block_tensor_train" if at["r"] else "monarch"
    return finished(structure, region, (kernel,), end.names, (Placement("u", REGISTERS, 0),))


def _two_monarchs(region: Region, x: Tensor, a: Tensor, c: Tensor, end: Ending, goal: Goal) -> FusedPlan | None:
    """Two kernels, a chunk of the batch at a time where the intermediate of it stays in the cache."""
    at = monarch.roles(x, a, c, region.stored(len(region.equations) - 1))
    if end.statements or not small(product_type(x.dtype, c.dtype)):
        return None
    if any(len(at[role]) != 1 for role in "bkjl"):
        return None
    (b,) = at["b"]
    rows = region.extents[b]
    inner = at["k"] + at["r"] + at["j"]
    name = f"{region.equations[-1].name}.inner"
    one = extent(region, inner) * x.dtype.itemsize
    chunk = rows
    while chunk * one > CHUNK * goal.cache_bytes and chunk > 1024:
        chunk = -(-chunk // 2)
    shape = (chunk, *(region.extents[t] for t in inner))
    layout = Layout.dense(shape, x.dtype)
    u = Tensor(region.parameter(name), (b, *inner), x.dtype, layout.strides)
    k, wide = extent(region, at["k"] + at["r"]), extent(region, at["l"])
    block = next((n for n in STRIDED if 2 * n[1] * k * (wide + n[0]) <= goal.shared), None)
    if block is None:
        return None
    sizes = region.all_sizes()
    y = end.stored[0]
    starts = {t.name: f"o_{t.name}" for t in (x, y)} if chunk < rows else {}
    x, y = (_from(t, starts) for t in (x, y))
    make = monarch.block_diagonal(x, a, u, sizes, precision=goal.precision, title=title(region))
    spend = monarch.strided_blocks(
        u, c, y, sizes, precision=goal.precision, title=title(region), rows=block[0], columns=block[1], warps=8
    )
    launches = []
    steps = {t.name: _step(region, t, b) for t in (x, y)}
    for first in range(0, rows, chunk):
        numbers = region.numbers | {f"n_{b}": min(chunk, rows - first)}
        numbers |= {starts[n]: first * steps[n] for n in starts}
        launches += [launched(k, region.arguments, numbers, region.equations[-1].dtype) for k in (make, spend)]
    where = Placement(name, CACHE, 0) if chunk < rows or chunk * one <= CHUNK * goal.cache_bytes else None
    where = where or Placement(name, MEMORY, 2 * rows * one)
    structure = "block_tensor_train" if at["r"] else "monarch"
    return plan_of(structure, region, tuple(launches), end.names, (where,), ((name, layout),))


def _from(tensor: Tensor, starts: Mapping[str, str]) -> Tensor:
    """The tensor from an offset on that is an argument, if it has one."""
    return replace(tensor, offset=starts[tensor.name]) if tensor.name in starts else tensor


def _step(region: Region, tensor: Tensor, axis: str) -> int:
    """The stride of an axis, as a number."""
    stride: Number = tensor.strides[tensor.axes.index(axis)]
    return stride if isinstance(stride, int) else region.numbers[stride]
