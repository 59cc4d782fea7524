"""A second interpreter of the IR, point by point in plain Python loops; tests compare the two.

It is slow, and shares nothing with the first but the NumPy meaning of each function.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from stein.ir.expr import Const, Einsum, Equation, Expr, Map, Position, Program, Read, SizeValue
from stein.ir.functions import CAST, FUNCTIONS
from stein.ir.index import Affine
from stein.ir.types import DType, promote


def pointwise(program: Program, arrays: dict[str, Any], sizes: dict[str, int]) -> dict[str, Any]:
    """Every tensor of a program without Softmax and half precisions."""
    tensors = dict(arrays)
    with np.errstate(all="ignore"):
        for equation in program.equations:
            tensors[equation.name] = _equation(equation, tensors, sizes)
    return tensors


def _equation(equation: Equation, tensors: dict[str, Any], sizes: dict[str, int]) -> Any:
    extents = {i.name: i.extent.evaluate(sizes) for i in equation.indices}
    add = FUNCTIONS[equation.semiring.add].numpy
    to = equation.dtype.numpy.type
    held: dict[tuple[int, ...], Any] = {}
    if equation.update is not None:
        held = {place: to(value) for place, value in np.ndenumerate(tensors[equation.update])}
    for point in product(*(range(extents[n]) for n in equation.free)):
        env = dict(zip(equation.free, point, strict=True))
        place = tuple(_affine(s, env, sizes) for s in equation.slots)
        value = to(_value(equation.expr, env, extents, tensors, sizes))
        held[place] = to(add(held[place], value)) if place in held else value
    out = np.full([s.evaluate(sizes) for s in equation.shape], to(equation.semiring.zero_of(equation.dtype)))
    for place, value in held.items():
        assert all(0 <= p < n for p, n in zip(place, out.shape, strict=True))
        out[place] = value
    return out


def _affine(affine: Affine, env: dict[str, int], sizes: dict[str, int]) -> int:
    value = affine.offset.evaluate(sizes) + sum(c.evaluate(sizes) * env[n] for n, c in affine.terms)
    return value if affine.modulus is None else value % affine.modulus.evaluate(sizes)


def _value(
    e: Expr, env: dict[str, int], extents: dict[str, int], tensors: dict[str, Any], sizes: dict[str, int]
) -> Any:
    to = e.dtype.numpy.type
    match e:
        case Const(value):
            return to(value)
        case SizeValue(size):
            return to(size.evaluate(sizes))
        case Position(affine):
            return to(_affine(affine, env, sizes))
        case Read():
            return _read(e, tensors[e.tensor], [_affine(s, env, sizes) for s in e.slots])
        case Map(function, args):
            values = [_value(a, env, extents, tensors, sizes) for a in args]
            return _apply(function, values, [a.dtype for a in args], e.dtype)
    assert isinstance(e, Einsum)
    into = e.accumulate.numpy.type
    zero, one = into(e.semiring.zero_of(e.accumulate)), into(e.semiring.one_of(e.accumulate))
    total = None
    for point in product(*(range(extents[n]) for n in e.bound)):
        inner = env | dict(zip(e.bound, point, strict=True))
        term = None
        for factor in e.factors:
            value = _value(factor, inner, extents, tensors, sizes)
            if factor.dtype.kind == "b" and e.accumulate.kind != "b":
                value = one if value else zero
            value = _cast(value, e.accumulate)
            term = value if term is None else into(FUNCTIONS[e.semiring.mul].numpy(term, value))
        term = one if term is None else term
        total = term if total is None else into(FUNCTIONS[e.semiring.add].numpy(total, term))
    return _cast(zero if total is None else total, e.dtype)


def _read(read: Read, tensor: Any, place: list[int]) -> Any:
    if read.pad == "edge":
        place = [min(max(p, 0), n - 1) for p, n in zip(place, tensor.shape, strict=True)]
    if read.pad == "wrap":
        place = [p % n for p, n in zip(place, tensor.shape, strict=True)]
    if all(0 <= p < n for p, n in zip(place, tensor.shape, strict=True)):
        return tensor[tuple(place)]
    assert read.pad is not None and not isinstance(read.pad, str)
    return read.dtype.numpy.type(read.pad)


def _apply(function: str, values: list[Any], types: list[DType], dtype: DType) -> Any:
    if function == CAST:
        return _cast(values[0], dtype)
    if function == "where":
        return _cast(values[1] if values[0] else values[2], dtype)
    joint = promote(*types)
    values = [_cast(v, joint) for v in values]
    if FUNCTIONS[function].rule == "float" and joint.kind in "biu":
        values = [np.float64(v) for v in values]
    return _cast(FUNCTIONS[function].numpy(*values), dtype)


def _cast(value: Any, dtype: DType) -> Any:
    return dtype.numpy.type(value.real if np.iscomplexobj(value) and dtype.kind not in "cb" else value)
