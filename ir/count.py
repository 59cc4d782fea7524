"""Counts operations and bytes of equations at known sizes, without pricing them.

Planning and `explain` compare programs by these figures; a `Target` turns them into time. The rules are those of
opt_einsum, so that figures can be set beside its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from .expr import Einsum, Equation, Expr, Linalg, Map, Program, Read, Softmax, free_indices, reads, walk
from .functions import CAST
from .index import Affine
from .linalg import FUNCTIONS as LINALG
from .lookup import is_listed, split_lookups
from .target import Cost


def count(equation: Equation, sizes: Mapping[str, int]) -> Cost:
    """Operations of one equation as it stands, and the bytes that it touches at least.

    An Einsum costs, for every point of its space, one multiplication fewer than it has factors, and one addition if it
    sums (opt_einsum counts the same from two factors on). An elementwise function costs 1 a point, a conversion
    nothing, a softmax 5 (greatest, difference, exponential, sum, quotient), a function of matrices what LAPACK's usual
    algorithm takes (`ir.linalg`). Every operand is read once: of each tensor,
    the largest part that one read reaches. The result is written once; an update also reads it.

    >>> from .expr import Read
    >>> from .index import Index
    >>> from .size import Size
    >>> from .types import F32
    >>> i, j, k = map(Affine.of, "ijk")
    >>> product = Einsum(("j",), (Read("A", (i, j), F32), Read("B", (j, k), F32)), F32, F32)
    >>> indices = tuple(Index(name, Size.name(name)) for name in "ijk")
    >>> shape = (Size.name("i"), Size.name("k"))
    >>> count(Equation("y", (i, k), shape, indices, product, F32), {"i": 2, "j": 3, "k": 4})
    Cost(flops=48, bytes=104, launches=1, nanoseconds=0.0)
    """
    extents = {i.name: i.extent.evaluate(sizes) for i in equation.indices}
    flops = sum(_operations(e, extents) for e in walk(equation.expr))
    touched: dict[str, int] = {}
    for read in reads(equation.expr):
        touched[read.tensor] = max(touched.get(read.tensor, 0), _reach(read, extents, sizes) * read.dtype.itemsize)
    result = prod(s.evaluate(sizes) for s in equation.shape) * equation.dtype.itemsize
    if equation.update is not None:
        flops += prod(extents[n] for n in equation.free)
        touched[equation.update] = max(touched.get(equation.update, 0), result)
    return Cost(flops, sum(touched.values()) + result, launches=1)


def count_program(program: Program, sizes: Mapping[str, int]) -> Cost:
    """The sum over all equations."""
    return sum((count(e, sizes) for e in program.equations), Cost())


def _operations(expr: Expr, extents: Mapping[str, int]) -> int:
    """What the node itself costs, over all its points."""
    if isinstance(expr, Linalg):
        shapes = [tuple(extents[n] for n in free_indices(a)) for a in expr.args]
        return LINALG[expr.function].operations(shapes)
    each = {Einsum: 0, Softmax: 5, Map: 1}.get(type(expr), 0)
    names: tuple[str, ...] = free_indices(expr)
    if isinstance(expr, Einsum):  # a lookup is an address: its index takes one value at each point of the others
        lookups, _ = split_lookups(expr.factors)
        names = tuple({*names, *expr.bound}.difference(found.index for found in lookups))
        each = max(0, len(expr.factors) - len(lookups) - 1) + bool(expr.bound)
    if isinstance(expr, Map) and is_listed(expr):
        each = 0
    if isinstance(expr, Map) and expr.function == CAST:
        each = 0
    return each * prod(extents[n] for n in names)


def _reach(read: Read, extents: Mapping[str, int], sizes: Mapping[str, int]) -> int:
    """The elements that a read can touch: no more than its points, nor than the box that its slots span."""
    points = prod(extents[n] for n in free_indices(read))
    return min(points, prod(_span(slot, extents, sizes) for slot in read.slots))


def _span(slot: Affine, extents: Mapping[str, int], sizes: Mapping[str, int]) -> int:
    reach = 1 + sum(abs(c.evaluate(sizes)) * max(0, extents[n] - 1) for n, c in slot.terms)
    return reach if slot.modulus is None else min(reach, slot.modulus.evaluate(sizes))
