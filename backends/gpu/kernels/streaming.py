"""Matching attention: a softmax between two products, as the passes have written it out.

The equations are the scores (a product, perhaps with a second one added, and what is done with them), their maximum,
the exponentials, their sum, the quotient and the product with the values; the quotient may stand after the last product
instead. Nothing but the result is stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod

from ....ir.expr import Einsum, Expr, Map, Program, Read, reads, walk
from ....ir.semiring import MAX_PLUS
from ..frame import ceil_pow2
from ..nodes import Apply, Leaf, Tensor
from ..views import Layout
from . import attention
from .chain import ending, readers, uncast
from .plan import REGISTERS, FusedPlan, Goal, Placement
from .products import finished, small, title
from .region import Product, Region, cast

WIDEST = 256  # channels of a query that are held with a block of keys


@dataclass(frozen=True)
class _Softmax:
    """The numbers of the equations of one softmax in the program, and the expression of its scores."""

    greatest: int
    weights: int
    total: int
    share: int | None
    product: int
    scores: Expr


def attention_plan(
    program: Program, start: int, sizes: Mapping[str, int], layouts: Mapping[str, Layout], goal: Goal
) -> FusedPlan | None:
    """The plan of an attention of which equation `start` is the first."""
    for found in _softmaxes(program, start):
        before = _made_for(program, found)
        if before is None or start != min((*before, found.greatest)):
            continue
        numbers = sorted({*before, found.greatest, found.weights, found.total, found.product} | _some(found.share))
        region = Region(program, tuple(program.equations[n] for n in numbers), sizes, layouts, avoid=attention.VALUES)
        if region.regular:
            plan = _plan(region, found, numbers, goal)
            if plan is not None:
                return plan
    return None


def _some(number: int | None) -> set[int]:
    return set() if number is None else {number}


def _softmaxes(program: Program, start: int) -> list[_Softmax]:
    """Every softmax whose maximum is taken in an equation from `start` on."""
    read_by = readers(program)
    found = []
    for k in range(start, len(program.equations)):
        top = uncast(program.equations[k].expr)
        if not isinstance(top, Einsum) or top.semiring != MAX_PLUS or len(top.factors) != 1 or len(top.bound) != 1:
            continue
        made = _after(program, read_by, k, top.factors[0])
        if made is not None:
            found.append(made)
    return found


def _after(program: Program, read_by: Mapping[str, list[int]], k: int, scores: Expr) -> _Softmax | None:
    """The softmax whose maximum is equation `k`, if everything after it is as expected."""
    equations = program.equations
    following = read_by.get(equations[k].name, [])
    if len(following) != 1 or equations[k].name in program.outputs:
        return None
    weights = following[0]
    exponential = uncast(equations[weights].expr)
    if not isinstance(exponential, Map) or exponential.function != "exp" or equations[weights].name in program.outputs:
        return None
    inner = uncast(exponential.args[0])
    if not isinstance(inner, Map) or inner.function != "sub":
        return None
    subtracted = uncast(inner.args[1])
    if not isinstance(subtracted, Read) or subtracted.tensor != equations[k].name or inner.args[0] != scores:
        return None
    users = read_by.get(equations[weights].name, [])
    sums = [n for n in users if _is_sum_of(equations[n].expr, equations[weights].name)]
    rest = [n for n in users if n not in sums]
    if len(sums) != 1 or len(rest) != 1 or equations[sums[0]].name in program.outputs:
        return None
    total, other = sums[0], rest[0]
    if read_by.get(equations[total].name, []) != [other]:
        return None
    if any(isinstance(e, Einsum) for e in walk(equations[other].expr)):
        return _Softmax(k, weights, total, None, other, scores)
    share = uncast(equations[other].expr)
    if not isinstance(share, Map) or share.function != "div" or equations[other].name in program.outputs:
        return None
    product = read_by.get(equations[other].name, [])
    return _Softmax(k, weights, total, other, product[0], scores) if len(product) == 1 else None


def _is_sum_of(expr: Expr, name: str) -> bool:
    top = uncast(expr)
    return (
        isinstance(top, Einsum)
        and top.semiring.name == "plustimes"
        and len(top.factors) == 1
        and len(top.bound) == 1
        and isinstance(read := uncast(top.factors[0]), Read)
        and read.tensor == name
    )


def _made_for(program: Program, found: _Softmax) -> tuple[int, ...] | None:
    """The equations that make the scores and nothing else: all that is made in the program for the softmax alone."""
    place = {e.name: n for n, e in enumerate(program.equations)}
    read_by = readers(program)
    taken: list[int] = []
    allowed = {found.greatest, found.weights}
    todo = [r.tensor for r in reads(found.scores)]
    while todo:
        name = todo.pop()
        if name not in place or place[name] in taken:
            continue
        if not {*read_by[name]} <= allowed | {*taken} or name in program.outputs:
            continue
        if not any(isinstance(e, Einsum) for e in walk(program.equations[place[name]].expr)):
            continue
        taken.append(place[name])
        todo += [r.tensor for r in reads(program.equations[place[name]].expr)]
    return tuple(sorted(taken)) or None


@dataclass
class _Scores:
    """The products that make the scores, as (equation, query, key), and the tensors read beside them."""

    region: Region
    along: str
    products: list[tuple[int, Read, Read]] = field(default_factory=list)
    sums: int = 0
    extra: dict[str, Tensor] = field(default_factory=dict)

    def leaf(self, equation: int, expr: Expr) -> Leaf | None:
        """The expression with the sum of all products as the value `scores`; None where there is no such one sum."""
        if self.collected(equation, expr):
            self.sums += 1
            return cast("scores", expr)
        match expr:
            case Read() if expr.tensor in self.region.inside:
                made = self.region.inside[expr.tensor]
                return self.leaf(made, self.region.equations[made].expr)
            case Map(function, args, dtype):
                leaves = [self.leaf(equation, a) for a in args]
                known = tuple(leaf for leaf in leaves if leaf is not None)
                return Apply(function, known, dtype) if len(known) == len(leaves) else None
            case Einsum():
                return None
        return self.region.leaf(equation, expr, {}, self.extra)

    def collected(self, equation: int, expr: Expr) -> bool:
        """Whether an expression is a product of queries and keys, or the sum of two; they are taken then."""
        if isinstance(expr, Map) and expr.function == "add":
            mine = list(self.products)
            if all(self.collected(equation, uncast(a)) for a in expr.args):
                return True
            self.products = mine
            return False
        if isinstance(expr, Read) and expr.tensor in self.region.inside:
            equation = self.region.inside[expr.tensor]
            expr = uncast(self.region.equations[equation].expr)
        if not isinstance(expr, Einsum):
            return False
        product = self.region.product(equation, expr)
        if product is None:
            return False
        pair = sorted(product.operands, key=lambda r: self.along in self.region.axes(equation, r))
        if [self.along in self.region.axes(equation, r) for r in pair] != [False, True]:
            return False
        self.products.append((equation, pair[0], pair[1]))
        return True


def _plan(region: Region, found: _Softmax, numbers: list[int], goal: Goal) -> FusedPlan | None:
    at = {n: k for k, n in enumerate(numbers)}
    top = uncast(region.equations[at[found.greatest]].expr)
    assert isinstance(top, Einsum)
    along, last = region.axis(at[found.greatest], top.bound[0]), at[found.product]
    scores = _Scores(region, along)
    weigh = scores.leaf(at[found.greatest], found.scores)
    product = _last_product(region, last)
    if weigh is None or scores.sums != 1 or product is None:
        return None
    weights = region.equations[at[found.weights if found.share is None else found.share]].name
    (values_read,) = (r for r in product.operands if r.tensor != weights)
    values_axes, y_axes = region.axes(last, values_read), region.result(last)
    total: Expr | None = product.einsum
    if found.share is None:
        total = _quotient(region.equations[last].expr, product.einsum, region.equations[at[found.total]].name)
    keys = {a for k, _, key in scores.products for a in region.axes(k, key)}
    queries = [a for a in y_axes if a not in keys and a not in values_axes]
    if not queries or total is None or {region.axis(last, n) for n in product.einsum.bound} != {along}:
        return None
    query = queries[-1]
    if not all(query in region.axes(k, q) for k, q, _ in scores.products) or along not in values_axes:
        return None
    columns = {a for a in values_axes if a not in keys and a in y_axes}
    region.run_over(({*y_axes} - columns) | {along})
    scores.extra.clear()
    scores.products.clear()
    weigh = scores.leaf(at[found.greatest], found.scores)  # again, with the arguments of run time
    assert weigh is not None
    end = ending(region, last, total)
    pairs = tuple(attention.Score(region.read(k, q), region.read(k, key)) for k, q, key in scores.products)
    values = region.read(last, values_read)
    held = [*(p.query for p in pairs), values]
    width = max(prod(region.extents[a] for a in t.axes if a not in region.running) for t in held)
    blocks = attention_blocks(region.extents[query], width, small(values.dtype), goal)
    if blocks is None:
        return None
    rows, step, warps = blocks
    kernel = attention.attention(
        pairs,
        values,
        end.stored[0],
        region.all_sizes(),
        along=along,
        query=query,
        weigh=weigh,
        extra=(*scores.extra.values(), *end.read),
        epilogue=end.statements,
        value=end.value,
        rows=rows,
        step=step,
        warps=warps,
        precision=goal.precision,
        title=title(region),
    )
    places = tuple(Placement(n, REGISTERS, 0) for n in ("scores", "weights"))
    return finished("attention", region, (kernel,), end.names, places)


def _last_product(region: Region, last: int) -> Product | None:
    """The product with the values; its weights may be converted first."""
    sums = [e for e in walk(region.equations[last].expr) if isinstance(e, Einsum)]
    if len(sums) != 1 or len(sums[0].factors) != 2:
        return None
    plain = replace(sums[0], factors=tuple(uncast(f) for f in sums[0].factors))
    found = region.product(last, plain)
    return None if found is None else replace(found, einsum=sums[0])


def _quotient(expr: Expr, einsum: Einsum, total: str) -> Expr | None:
    """The division of the last product by the sum of the weights."""
    for node in walk(expr):
        if isinstance(node, Map) and node.function == "div":
            left, right = (uncast(a) for a in node.args)
            if left == einsum and isinstance(right, Read) and right.tensor == total:
                return node
    return None


def attention_blocks(queries: int, width: int, half: bool, goal: Goal) -> tuple[int, int, int] | None:
    """For heads of `width` channels: queries in a program, keys at a time, warps. None if a head is too wide."""
    few = max(16, ceil_pow2(queries))
    if half and width <= WIDEST:
        rows = min(128 if width <= 128 else 64, few)
        return rows, 64, 8 if rows == 128 else 4
    if not half and width <= WIDEST // 2:
        return min(64, few), 16 if goal.exact else 32, 8
    return None
