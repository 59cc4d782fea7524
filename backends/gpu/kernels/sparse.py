"""Matching block-sparse products, y[b,I,a] = W[s,a,c] x[b,J(s),c] summed over the stored blocks s of row I, and gated
pairs of them, u = silu(g) h with g and h of the same x.

In a program, the list of blocks is two lookups, `(i == R[s])` on a free index and `(j == C[s])` on a summed one, of
tensors of integers in any order (`ir.lookup`). The plan sorts them into block rows first (`steps.BlockRows`); alone,
the equation adds each block to its row of the result by atomic operations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from ....ir.expr import Einsum, Equation, Expr, Program, Read, reads, walk
from ....ir.lookup import split_lookups
from ....ir.semiring import PLUS_TIMES
from ....ir.types import I32, I64
from ..frame import ceil_pow2
from ..nodes import Kernel, Nest, Tensor
from ..scattered import scattered
from ..steps import BlockRows
from ..views import Layout
from . import block_sparse
from .chain import Ending, ending, is_stored, readers, uncast
from .digits import in_digits
from .plan import REGISTERS, FusedPlan, Goal, Placement, fits_registers
from .products import EXACT, finished, small, title
from .region import Place, Region

LEAST = 16  # rows and columns of a block from which on matrix units multiply it


@dataclass(frozen=True)
class Listed:
    """A sum over stored blocks in an equation, by names of its indices; `rows` and `columns` are the tensors that say
    where the blocks stand.
    """

    einsum: Einsum
    x: Read
    weights: Read
    rows: str
    columns: str
    row: str
    column: str
    block: str
    summed: str
    result: str

    @property
    def places(self) -> tuple[str, str]:
        """The tensors of the list: products with the same ones go over it together."""
        return self.rows, self.columns


def listed(equation: Equation) -> Listed | None:
    """The block-sparse product in an equation with bare slots, None where it has none (or other sums beside it)."""
    sums = [e for e in walk(equation.expr) if isinstance(e, Einsum)]
    if len(sums) != 1 or sums[0].semiring != PLUS_TIMES or len(sums[0].bound) != 3 or equation.update is not None:
        return None
    (einsum,) = sums
    lookups, rest = split_lookups(einsum.factors)
    free = [k for k in lookups if k.index not in einsum.bound]
    bound = [k for k in lookups if k.index in einsum.bound]
    if len(free) != 1 or len(bound) != 1 or len(rest) != 2:
        return None
    tables = free[0].value, bound[0].value
    if any(not isinstance(t, Read) or len(t.slots) != 1 or t.dtype not in (I32, I64) for t in tables):
        return None
    (block,) = {s.bare for t in tables for s in reads(t)[0].slots} if _same_slot(tables) else (None,)
    mine = [f for f in rest if isinstance(f, Read) and any(s.bare == block for s in f.slots)]
    other = [f for f in rest if isinstance(f, Read) and f not in mine]
    if block is None or block not in einsum.bound or len(mine) != 1 or len(other) != 1:
        return None
    weights, x = {s.bare for s in mine[0].slots}, {s.bare for s in other[0].slots}
    row, column = free[0].index, bound[0].index
    summed = {*einsum.bound} - {block, column}
    result = weights - {block, *summed}
    names = {s.bare for s in equation.slots}
    if weights != {block, *summed, *result} or len(mine[0].slots) != 3 or len(result) != 1 or len(summed) != 1:
        return None
    if not x >= {column, *summed} or x - {column, *summed} != names - {row, *result} or not x - {column, *summed}:
        return None
    if not {row, *result} <= names:
        return None
    (c,), (a,) = summed, result
    rows, columns = (reads(t)[0].tensor for t in tables)
    return Listed(einsum, other[0], mine[0], rows, columns, row, column, block, str(c), str(a))


def _same_slot(tables: tuple[Expr, ...]) -> bool:
    slots = [reads(t)[0].slots[0] for t in tables]
    return slots[0] == slots[1] and slots[0].bare is not None


def sparse_plan(
    program: Program, start: int, sizes: Mapping[str, int], layouts: Mapping[str, Layout], goal: Goal
) -> FusedPlan | None:
    """The plan of a block-sparse product that equation `start` is, or of a gated pair of which it is the first."""
    for numbers in (*_pairs(program, start), (start,)):
        equations = tuple(program.equations[n] for n in numbers)
        if not any(scattered(e, sizes)[0] for e in equations):
            continue
        found = in_digits(equations, layouts, sizes)
        if found is not None:
            plan = _plan(program, *found, sizes, goal)
            if plan is not None:
                stored = tuple((name, layouts[name]) for name, _ in plan.stored)
                return replace(plan, stored=stored)
    return None


def _pairs(program: Program, start: int) -> tuple[tuple[int, ...], ...]:
    """The numbers of a gated pair: two products that one equation reads, the first of them equation `start`."""
    read_by = readers(program)
    users = {*read_by.get(program.equations[start].name, [])}
    if len(users) != 1:
        return ()
    (last,) = users
    place = {e.name: n for n, e in enumerate(program.equations)}
    made = sorted({place[r.tensor] for r in reads(program.equations[last].expr) if r.tensor in place})
    if len(made) != 2 or made[0] != start:
        return ()
    return ((*made, last),)


def _plan(
    program: Program,
    equations: tuple[Equation, ...],
    layouts: Mapping[str, Layout],
    sizes: Mapping[str, int],
    goal: Goal,
) -> FusedPlan | None:
    """The plan of one product with its epilogue, or of two with the equation that joins them."""
    parts = [listed(e) for e in equations[:2]]
    products = [p for p in parts if p is not None]
    if len(products) < len(parts) or any(p.x.pad is not None or p.weights.pad is not None for p in products):
        return None
    same: list[tuple[Place, Place]] = []
    if len(products) == 2:
        first, second = products
        if first.x.tensor != second.x.tensor or not _alike(first.x, second.x, first, second):
            return None
        same.append(((0, first.summed), (1, second.summed)))
        if first.places == second.places:
            same += [((0, first.block), (1, second.block)), ((0, first.column), (1, second.column))]
    region = Region(program, equations, sizes, layouts, tuple(same))
    if not region.regular:
        return None
    for k, product in enumerate(products):
        length = (region.extents[region.axis(k, product.block)],)
        if any(region.layouts[t].shape != length for t in product.places) or 0 in region.extents.values():
            return None
    batch = _batch(region, 0, products[0])
    return _made(region, products, batch, goal) if len(products) == 1 or _joined(region, products, batch) else None


def _joined(region: Region, products: list[Listed], batch: tuple[str, ...]) -> bool:
    """Whether two products make the same places, and the last equation only combines them there, point by point."""
    places = [(region.axis(k, p.row), region.axis(k, p.result), *_batch(region, k, p)) for k, p in enumerate(products)]
    last = region.equations[2]
    if places[0] != places[1] or {region.axis(2, i.name) for i in last.indices} != {*places[0]}:
        return False
    if any(isinstance(e, Einsum) and e.bound for e in walk(last.expr)):
        return False
    return not any(is_stored(region, k) or uncast(region.equations[k].expr) != p.einsum for k, p in enumerate(products))


def _alike(first: Read, second: Read, a: Listed, b: Listed) -> bool:
    """Whether two reads of x have the looked-up and the summed index in the same slots."""
    roles = [
        tuple({k.column: "column", k.summed: "summed"}.get(s.bare or "", "") for s in r.slots)
        for r, k in ((first, a), (second, b))
    ]
    return roles[0] == roles[1]


def _batch(region: Region, number: int, product: Listed) -> tuple[str, ...]:
    """The axes of x that the result keeps."""
    own = {product.column, product.summed}
    return tuple(region.axis(number, s.bare or "") for s in product.x.slots if s.bare not in own)


def _made(region: Region, products: list[Listed], batch: tuple[str, ...], goal: Goal) -> FusedPlan | None:
    result, summed = region.axis(0, products[0].result), region.axis(0, products[0].summed)
    x_type = region.layouts[products[0].x.tensor].dtype
    types = {region.layouts[t].dtype for p in products for t in (p.x.tensor, p.weights.tensor)}
    sides = region.extents[result], region.extents[summed]
    if min(sides) < LEAST or types != {x_type} or x_type.kind != "f" or x_type.bits > 32:
        return None
    high, wide = map(ceil_pow2, sides)
    blocks = blocks_of(high, wide, len(products), small(x_type), goal)
    if blocks is None:
        return None
    region.run_over((*batch, *(region.axis(k, p.block) for k, p in enumerate(products))))
    lists: dict[tuple[str, str], tuple[block_sparse.BlockList, BlockRows]] = {}
    for k, product in enumerate(products):
        if product.places not in lists:
            lists[product.places] = _list(region, k, product, len(lists), goal)
    kernel = _kernel(region, products, lists, blocks, goal)
    if kernel is None:
        return None
    steps = tuple(made for _, made in lists.values())
    names = tuple(e.name for k, e in enumerate(region.equations) if is_stored(region, k))
    values = ("g", "h") if len(products) == 2 else ()
    places = tuple(Placement(v, REGISTERS, 0) for v in values)
    structure = "gated_block_sparse" if len(products) == 2 else "block_sparse"
    plan = finished(structure, region, (kernel,), names, places)
    return replace(plan, lists=steps, alone=plan.alone + sum(scattered(e, region.sizes)[0] for e in region.equations))


def _list(region: Region, k: int, product: Listed, number: int, goal: Goal) -> tuple[block_sparse.BlockList, BlockRows]:
    """The axes and tables of a list, and the step that makes the tables."""
    same = {i.name for i in region.program.inputs if i.const} | {*goal.fixed}
    block = region.axis(k, product.block)
    place = region.local("place")
    region.extents[place] = region.extents[block]
    region.running |= {place}
    stem = region.equations[-1].name + (f".{number}" if number else "")
    made = BlockRows(
        f"{stem}.pointers",
        f"{stem}.columns",
        f"{stem}.order",
        product.rows,
        product.columns,
        (region.extents[region.axis(k, product.row)], region.extents[region.axis(k, product.column)]),
        region.extents[block],
        region.layouts[product.rows].dtype.itemsize,
        {*product.places} <= same,
    )
    tables = [region.parameter(n) for n in made.names]
    row, column = region.axis(k, product.row), region.axis(k, product.column)
    return block_sparse.BlockList(row, column, block, place, *tables), made


def _kernel(
    region: Region,
    products: list[Listed],
    lists: Mapping[tuple[str, str], tuple[block_sparse.BlockList, BlockRows]],
    blocks: Blocks,
    goal: Goal,
) -> Kernel | None:
    x = region.read(0, products[0].x)
    weights = [region.read(k, p.weights) for k, p in enumerate(products)]
    own = [lists[p.places][0] for p in products]
    more = {"precision": goal.precision, "title": title(region), **asdict(blocks)}
    if len(products) == 1:
        end = ending(region, 0, products[0].einsum)
        y = _result(end, region)
        if y is None:
            return None
        return block_sparse.block_sparse(
            x, weights[0], y, own[0], region.all_sizes(), epilogue=end.statements, value=end.value, extra=end.read,
            **more,
        )  # fmt: skip
    values = (region.local("g"), region.local("h"))
    found: dict[str, Tensor] = {}
    known: dict[Expr | str, str] = {e.name: v for e, v in zip(region.equations, values, strict=False)}
    y = region.stored(2)
    statements: tuple[Nest, ...] = region.statements(2, y.name, known, found)
    second = None if own[0] == own[1] else region.read(1, products[1].x)
    return block_sparse.gated(
        x, weights[0], weights[1], y, (own[0], own[1]), region.all_sizes(), second=second, names=values,
        epilogue=statements, extra=tuple(found.values()), **more,
    )  # fmt: skip


def _result(end: Ending, region: Region) -> Tensor | None:
    """The one tensor that is stored."""
    return end.stored[0] if len(end.stored) == 1 else None


@dataclass(frozen=True)
class Blocks:
    """What a program takes at a time: `rows` of the batch, of a block `columns` of its rows and `step` of its columns
    (0: all of them).
    """

    rows: int
    columns: int = 0
    step: int = 0
    warps: int = 8
    stages: int = 3


def blocks_of(result: int, summed: int, products: int, half: bool, goal: Goal) -> Blocks | None:
    """What a program takes of blocks of result x summed: all sums in registers, the operands of each stage in shared
    memory. None where a block is too large.

    >>> blocks_of(128, 128, 1, True, Goal("sm_90"))
    Blocks(rows=128, columns=0, step=0, warps=8, stages=3)
    """
    if not half and goal.exact:  # ordinary multiply-adds take both operands from registers
        return Blocks(EXACT, min(EXACT, result), min(EXACT, summed), 4, 2)
    for blocks in (Blocks(128), Blocks(128, stages=2), Blocks(64, warps=4), Blocks(64, warps=4, stages=2)):
        shared = (2 if half else 4) * (blocks.stages - 1) * summed * (blocks.rows + products * result)
        if fits_registers(products * blocks.rows * result, blocks.warps) and shared <= goal.shared:
            return blocks
    return None
