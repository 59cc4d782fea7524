"""Matching Toeplitz products, y[b,i] = t[i - j + c] x[b,j] and the like, for the plan by Fourier transforms.

The matrix itself could be made on chip, block by block, from t; that takes all operations of the dense product. The
transforms are taken where they need fewer. Their matrices are rounded to the type of x, so errors are relative to the
norm of a row of x, not to single elements of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod

from ....ir.expr import Equation, Program, Read
from ....ir.size import ONE
from ....ir.types import F32
from ..nodes import Map
from ..steps import Constant
from ..views import Layout
from . import toeplitz
from .chain import ending
from .plan import REGISTERS, FusedPlan, Goal, Placement, launched
from .products import plan_of, small, title
from .region import Region

WIDEST = 64  # a side of the matrices with which all four intermediates stay in registers
AXES = ("f1", "f2", "n1", "n2", "m1", "m2")
PARTS = ("g", "w", "d", "t", "p", "v", "a", "z", "b", "s", "c")
NAMES = (*AXES, *(p + q for p in PARTS for q in "rin"), "total")


def convolution_plan(
    program: Program, start: int, sizes: Mapping[str, int], layouts: Mapping[str, Layout], goal: Goal
) -> FusedPlan | None:
    """The plan of an equation that is one product with a Toeplitz matrix."""
    equation = program.equations[start]
    region = Region(program, (equation,), sizes, layouts, avoid=NAMES)
    product = region.product(0)
    if product is None or len(product.einsum.bound) != 1 or any(s.bare is None for s in equation.slots):
        return None
    bound = product.einsum.bound[0]
    for x, generator in (product.operands, product.operands[::-1]):
        found = _lag(equation, x, generator, bound)
        if found is not None and (small(region.layouts[x.tensor].dtype) or not goal.exact):
            return _plan(region, x, generator, bound, *found, goal)
    return None


def _lag(equation: Equation, x: Read, generator: Read, bound: str) -> tuple[int, str, bool] | None:
    """The slot of the generator that holds i - j + c, i, and whether the slot is j - i + c instead, as in the product
    with the transposed matrix; None where the product is of another kind.
    """
    slots = [k for k, s in enumerate(generator.slots) if s.bare is None]
    free = {s.bare for s in equation.slots}
    if len(slots) != 1 or x.pad is not None or generator.pad not in (None, 0, 0.0):
        return None
    slot = generator.slots[slots[0]]
    terms = dict(slot.terms)
    if slot.modulus is not None or len(terms) != 2 or bound not in terms:
        return None
    (result,) = (n for n in terms if n != bound)
    factors = terms[result], terms[bound]
    if factors not in ((ONE, -ONE), (-ONE, ONE)) or result not in free or any(s.bare is None for s in x.slots):
        return None
    own = [s.bare for s in x.slots]
    lanes = {s.bare for s in generator.slots if s.bare is not None}
    if own.count(bound) != 1 or result in own or {*own} - {bound} != free - {result} or not lanes <= {*own} - {bound}:
        return None
    return slots[0], result, factors[0] != ONE


def _plan(
    region: Region, x: Read, generator: Read, bound: str, slot: int, result: str, turned: bool, goal: Goal
) -> FusedPlan | None:
    n, m = region.axis(0, bound), region.axis(0, result)
    transform = toeplitz.Transform.of(region.extents[m], region.extents[n])
    if transform.flops >= 2 * transform.rows * transform.cols or max(transform.half, transform.inner) > WIDEST:
        return None
    region.run_over(a for a in region.axes(0, x) if a != n)
    end = ending(region, 0)
    epilogue = tuple(s for s in end.statements if isinstance(s, Map))
    if epilogue != end.statements or len(end.stored) != 1:
        return None
    lag = region.local("lag")
    layout = region.layouts[generator.tensor]
    length = layout.shape[slot]
    region.extents[lag] = length
    axes = tuple(lag if k == slot else region.axis(0, s.bare or "") for k, s in enumerate(generator.slots))
    held = region.tensor(generator.tensor, axes)
    lanes = tuple(a for a in axes if a != lag)
    source = region.read(0, x)
    kind = source.dtype if small(source.dtype) else F32
    first = generator.slots[slot].offset.evaluate(region.sizes)
    if turned:  # from its end to its begin
        strides, first = [*held.strides], length - 1 - first
        step = strides[slot]
        if not isinstance(step, int):
            return None
        strides[slot] = -step
        held = replace(held, strides=tuple(strides), offset=(length - 1) * step)
    sizes = region.all_sizes()
    text = title(region)
    kernels = (
        toeplitz.spectrum(
            held, lag, length, sizes, transform, kind, first=first,
            title=f"the transform of {generator.tensor}, for\n{text}",
        ),
        toeplitz.convolution(
            source, end.stored[0], (n, m), lanes, sizes, transform, kind, epilogue=epilogue, extra=end.read,
            value=end.value, step=toeplitz.SMALLEST if goal.narrow else 0, precision=goal.precision, title=text,
        ),
    )  # fmt: skip
    name = region.equations[0].name
    arguments = dict(region.arguments)
    constants = []
    for part, values in transform.constants().items():
        for dtype, suffix in ((kind, ""), (F32, "_f32")):
            parameter = part + suffix
            arguments[parameter] = f"{name}.{parameter}"
            constants.append(Constant(f"{name}.{parameter}", Layout.dense(values.shape, dtype), values))
    shape = (*(region.extents[a] for a in lanes), transform.half, transform.inner)
    layout_t = Layout.dense(shape, kind)
    buffers = tuple((f"{name}.{part}", layout_t) for part in ("tr", "ti"))
    arguments |= {"tr": f"{name}.tr", "ti": f"{name}.ti"}
    numbers = region.numbers | {f"s_t_{a}": layout_t.strides[k] for k, a in enumerate(lanes)}
    work = region.equations[0].dtype
    launches = tuple(launched(k, arguments, numbers, work) for k in kernels)
    used = {t for c in launches for _, t in c.tensors}
    places = tuple(Placement(v, REGISTERS, 0) for v in ("v", "z", "s"))
    plan = plan_of("toeplitz", region, launches, end.names, places, buffers, 1)
    rows = prod(region.extents[a] for a in region.axes(0, x) if a != n)
    return replace(plan, constants=tuple(c for c in constants if c.name in used), flops=transform.flops * rows)
