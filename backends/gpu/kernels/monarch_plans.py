"""From a chain of two block-diagonal products to a plan: Monarch and block tensor-train, in one kernel or in two.

Beside `products`, for the kernels of `monarch`. One kernel where 16 rows of the batch fit on chip beside the factors,
else two that hand on the intermediate through the second-level cache, a chunk of the batch at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..frame import ceil_pow2
from ..nodes import Coordinate, Map, Number, Tensor, Tile, leaves
from ..views import Layout
from . import monarch
from .chain import Chain, Ending, ending
from .plan import CACHE, MEMORY, REGISTERS, FusedPlan, Goal, Placement, fits_registers, launched, product_type
from .products import extent, finished, padded, plan_of, small, title
from .region import Region

CHUNK = 0.4  # of the second-level cache, that an intermediate may fill; what passes beside it takes as much
LEAST_CHUNK = 1024  # rows of the batch that keep a GPU busy
SLAB = 16  # positions of j at a time in one kernel: a sector of 32 bytes of each row
STRIDED = ((32, 16), (16, 16), (16, 8), (16, 4))  # rows and columns of the second kernel of two


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
    region.run_over(b)
    end = ending(region, chain.last)
    if any(isinstance(s, Tile) for s in end.statements) or len(end.stored) != 1:
        return None
    x, a, c = region.read(0, chain.x), region.read(*chain.factors[0]), region.read(*chain.factors[1])
    return _one_monarch(region, x, a, c, end, goal) or _two_monarchs(region, x, a, c, end, goal)


def _one_monarch(region: Region, x: Tensor, a: Tensor, c: Tensor, end: Ending, goal: Goal) -> FusedPlan | None:
    """One kernel, where 16 rows of the batch fit on chip beside both factors, or beside slabs of them.

    The widest slab of which two programs fit on a processor, each of which computes while the other waits for memory;
    else the widest of which one fits.
    """
    at = monarch.roles(x, a, c, region.stored(len(region.equations) - 1))
    if not small(product_type(x.dtype, c.dtype)):
        return None
    columns = extent(region, at["j"])
    slabs = (columns, SLAB) if columns > SLAB and len(at["j"]) == 1 else (columns,)
    fitting = [(_on_chip(region, x, at, slab, goal), slab) for slab in slabs if _in_registers(region, at, slab)]
    fitting = [(needed, slab) for needed, slab in fitting if needed <= goal.shared]
    if not fitting:
        return None
    _, slab = next((found for found in fitting if 2 * found[0] <= goal.shared), fitting[0])
    kernel = monarch.fused(
        x,
        a,
        c,
        end.stored[0],
        region.all_sizes(),
        columns=slab if slab < columns else 0,
        epilogue=end.statements,
        value=end.value,
        extra=end.read,
        precision=goal.precision,
        title=title(region),
    )
    structure = "block_tensor_train" if at["r"] else "monarch"
    return finished(structure, region, (kernel,), end.names, (Placement("u", REGISTERS, 0),))


def _in_registers(region: Region, at: Mapping[str, tuple[str, ...]], slab: int) -> bool:
    """Whether the sums of both products of a slab fit into the registers of eight warps."""
    wide = max(padded(region, at["k"] + at["r"]), padded(region, at["l"]))
    return fits_registers(monarch.ROWS * ceil_pow2(slab) * wide, 8)


def _on_chip(region: Region, x: Tensor, at: Mapping[str, tuple[str, ...]], slab: int, goal: Goal) -> int:
    """Bytes of shared memory that a Monarch product takes: 16 rows, and what it holds of a factor.

    NVIDIA's matrix units read both from there at once; on AMD's they pass through it to registers one after the other.
    """
    rows = monarch.ROWS * padded(region, at["k"] + at["i"])
    ends = max(padded(region, at["i"]), padded(region, at["l"]))
    factor = ceil_pow2(slab) * padded(region, at["k"] + at["r"]) * ends
    return x.dtype.itemsize * (max(rows, factor) if goal.architecture.startswith("gfx") else rows + factor)


def _two_monarchs(region: Region, x: Tensor, a: Tensor, c: Tensor, end: Ending, goal: Goal) -> FusedPlan | None:
    """Two kernels, a chunk of the batch at a time where the intermediate of it stays in the cache."""
    at = monarch.roles(x, a, c, region.stored(len(region.equations) - 1))
    if not small(product_type(x.dtype, c.dtype)):
        return None
    if any(len(at[role]) != 1 for role in "bkjl"):
        return None
    (b,) = at["b"]
    rows = region.extents[b]
    inner = at["k"] + at["r"] + at["j"]
    name = f"{region.equations[-1].name}.inner"
    one = extent(region, inner) * x.dtype.itemsize
    chunk, factors = rows, (extent(region, a.axes) + extent(region, c.axes)) * x.dtype.itemsize
    while chunk * one > CHUNK * goal.cache_bytes and chunk > LEAST_CHUNK:
        chunk = -(-chunk // 2)
    cached = 2 * chunk * one + factors <= goal.cache_bytes and not _located(end, b)
    chunk = chunk if cached else rows
    shape = (chunk, *(region.extents[t] for t in inner))
    layout = Layout.dense(shape, x.dtype)
    u = Tensor(region.parameter(name), (b, *inner), x.dtype, layout.strides)
    k, wide = extent(region, at["k"] + at["r"]), extent(region, at["l"])
    block = next((n for n in STRIDED if 2 * n[1] * k * (wide + n[0]) <= goal.shared), None)
    if block is None:
        return None
    sizes = region.all_sizes()
    y = end.stored[0]
    batched = [t for t in (x, y, *end.read) if b in t.axes]
    starts = {t.name: f"o_{t.name}" for t in batched} if chunk < rows else {}
    x, y, *extra = (_from(t, starts) for t in (x, y, *end.read))
    make = monarch.block_diagonal(x, a, u, sizes, precision=goal.precision, title=title(region))
    spend = monarch.strided_blocks(
        *(u, c, y, sizes),
        rows=block[0],
        columns=block[1],
        epilogue=end.statements,
        value=end.value,
        extra=tuple(extra),
        warps=8,
        precision=goal.precision,
        title=title(region),
    )
    launches = []
    steps = {t.name: _step(region, t, b) for t in batched}
    for first in range(0, rows, chunk):
        numbers = region.numbers | {f"n_{b}": min(chunk, rows - first)}
        numbers |= {starts[n]: first * steps[n] for n in starts}
        launches += [launched(k, region.arguments, numbers, region.equations[-1].dtype) for k in (make, spend)]
    where = Placement(name, CACHE, 0) if cached else Placement(name, MEMORY, 2 * rows * one)
    structure = "block_tensor_train" if at["r"] else "monarch"
    made = plan_of(structure, region, tuple(launches), end.names, (where,), ((name, layout),))
    return replace(made, resident=tuple(region.arguments[t.argument] for t in (a, c))) if cached else made


def _located(end: Ending, axis: str) -> bool:
    """Whether the ending takes positions along an axis as numbers, which a chunk does not know."""
    maps = (s for s in end.statements if isinstance(s, Map))
    parts = (part for s in maps for part in leaves(s.leaf))
    return any(isinstance(part, Coordinate) and axis in dict(part.terms) for part in parts)


def _from(tensor: Tensor, starts: Mapping[str, str]) -> Tensor:
    """The tensor from an offset on that is an argument, if it has one."""
    return replace(tensor, offset=starts[tensor.name]) if tensor.name in starts else tensor


def _step(region: Region, tensor: Tensor, axis: str) -> int:
    """The stride of an axis, as a number."""
    stride: Number = tensor.strides[tensor.axes.index(axis)]
    return stride if isinstance(stride, int) else region.numbers[stride]
