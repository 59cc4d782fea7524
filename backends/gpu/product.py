"""Products of matrices as they lie in memory, for torch.matmul: what a library does as well as it can be done.

An equation is one if its indices fall into batch, M, N and K, each of which every operand runs through with one
stride, so that nothing has to be copied first.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from ...ir.expr import Einsum, Equation, Read
from ...ir.semiring import PLUS_TIMES
from ...ir.types import BF16, C64, C128, F16, F32, F64
from .blocks import roles
from .choose import Settings
from .steps import Matrix, Product
from .views import Layout, View, Views


def product_of(
    equation: Equation,
    sizes: Mapping[str, int],
    layouts: Mapping[str, Layout],
    settings: Settings,
    bytes: int = 0,
    flops: int = 0,
) -> Product | None:
    """The product that an equation is, or None.

    >>> from ...ir.text import parse_ir
    >>> text = "input A: f16[n, m]\\ninput B: f16[m, k]\\n"
    >>> text += "y[i,j]: f16[n, k] = einsum[plustimes, f32](l; A[i,l], B[l,j]) over i<n, j<k, l<m\\nreturn y"
    >>> sizes, shapes = {"n": 32, "m": 64, "k": 48}, {"A": (32, 64), "B": (64, 48), "y": (32, 48)}
    >>> found = product_of(parse_ir(text).equations[0], sizes, {n: Layout.dense(s, F16) for n, s in shapes.items()},
    ...                    Settings())
    >>> found.left.shape, found.right.strides
    ((32, 64), (48, 1))
    """
    expr = equation.expr
    if not isinstance(expr, Einsum) or not _plain(equation, expr, settings):
        return None
    views = Views(equation, sizes, layouts)
    names = [views.read(f) for f in expr.factors if isinstance(f, Read)]
    out = views.result(equation.name, equation.slots).name
    free, bound = views.simplify(
        (tuple(views.axes[n] for n in equation.free), tuple(views.axes[n] for n in expr.bound)), frozenset()
    )
    shown = views.views
    if len(set(names)) < 2 or any(v.positions for v in shown.values()):
        return None
    a, b = (frozenset(x for x, s in shown[n].strides.items() if s) for n in names)
    batch, rows, columns = roles(free, a, b)
    if len(batch) > 1 or not (len(rows) == len(columns) == len(bound) == 1) or len(free) > len(batch) + 2:
        return None
    if set(bound) - (a & b):
        return None
    # A result that is contiguous along M is the transposed product.
    if shown[out].strides[columns[0]] != 1:
        rows, columns, names = columns, rows, names[::-1]
    extents = views.extents
    left = _matrix(shown[names[0]], [*batch, *rows, *bound], extents)
    right = _matrix(shown[names[1]], [*batch, *bound, *columns], extents)
    result = _matrix(shown[out], [*batch, *rows, *columns], extents)
    if left is None or right is None or result is None or result.strides[-1] != 1:
        return None
    return Product(result, left, right, bytes, flops)


def _plain(equation: Equation, expr: Einsum, settings: Settings) -> bool:
    """Whether types, semiring and form are those of a product of two stored matrices."""
    if expr.semiring != PLUS_TIMES or len(expr.factors) != 2 or equation.update is not None:
        return False
    types = {equation.dtype, *(f.dtype for f in expr.factors)}
    if len(types) != 1 or not all(isinstance(f, Read) for f in expr.factors):
        return False
    (kind,) = types
    if expr.dtype not in (kind, expr.accumulate):
        return False
    if kind == F32 and settings.precision != "ieee":
        return False
    return is_bare(equation) and (kind, expr.accumulate) in (
        (F16, F32), (BF16, F32), (F32, F32), (F64, F64), (C64, C64), (C128, C128)
    )  # fmt: skip


def is_bare(equation: Equation) -> bool:
    """Whether the result is written at bare indices, each position once."""
    bare = [s.bare for s in equation.slots]
    return None not in bare and len(set(bare)) == len(bare)


def _matrix(view: View, axes: list[str], extents: Mapping[str, int]) -> Matrix | None:
    """A view as a matrix over these axes (a batch axis may come first); None if BLAS would need a copy of it."""
    shape = tuple(extents[a] for a in axes)
    strides = tuple(view.strides.get(a, 0) for a in axes)
    first, second = strides[-2:]
    dense = (second == 1 and first >= shape[-1]) or (first == 1 and second >= shape[-2])
    if not dense or min(strides) < 0 or prod(shape) == 0:
        return None
    return Matrix(view.tensor, shape, strides, view.offset)
