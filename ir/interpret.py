"""The meaning of the IR in plain NumPy: the oracle that every pass and every backend is held to.

An expression becomes an array over its own free indices, in the order in which the equation lists them, by
broadcasting; an `Einsum` multiplies its factors over free and bound indices together and then reduces: brute force, no
contraction order and no fast path, so that the text below can be read as the definition. Programs of every stage are
understood. Where the space of an `Einsum` is large, its leading indices are looped over, which bounds memory and
changes nothing else.

Arithmetic is that of the machine: integers wrap (in every semiring), half precisions are computed in f32 and rounded
after each elementwise function, NaN and infinities spread as in NumPy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from math import prod
from typing import Any, TypeAlias

import numpy as np

from .bind import Binder, bind_sizes, check_padding
from .errors import DTypeError, ShapeError, SingularError
from .expr import (
    Const,
    Constraint,
    Einsum,
    Equation,
    Expr,
    Input,
    Linalg,
    Map,
    Pad,
    Position,
    Program,
    Read,
    SizeValue,
    Softmax,
    free_indices,
)
from .functions import CAST, FUNCTIONS
from .index import Affine
from .linalg import evaluate
from .semiring import Semiring
from .size import Size
from .types import BOOL, F64, I64, DType, accumulation_type, dtype_of, promote

Array: TypeAlias = "np.ndarray[Any, Any]"

SPACE_LIMIT = 1 << 22  # points of an Einsum that are held in memory at once
AXES_LIMIT = 60  # NumPy arrays have at most 64 axes


def interpret(program: Program, arrays: Mapping[str, Any], sizes: Mapping[str, int] | None = None) -> dict[str, Array]:
    """The outputs of `program` by name, for an array per input (a list or number is taken in the input's type).

    `sizes` gives size names that no shape determines. A missing array or one of another type raises `DTypeError`,
    shapes that do not fit or break a constraint of the program raise `ShapeError`.

    >>> from .expr import Einsum, Equation, Input, Program, Read
    >>> from .index import Affine, Index
    >>> from .size import Size
    >>> from .types import I64
    >>> n, i = Size.name("n"), Affine.of("i")
    >>> total = Einsum(("i",), (Read("x", (i,), I64), Read("x", (i,), I64)), I64, I64)
    >>> y = Equation("y", (), (), (Index("i", n),), total, I64)
    >>> interpret(Program((Input("x", (n,), I64),), (y,), ("y",)), {"x": [1, 2, 3]})
    {'y': array(14)}
    """
    tensors = interpret_all(program, arrays, sizes)
    return {name: tensors[name] for name in program.outputs}


def interpret_all(
    program: Program, arrays: Mapping[str, Any], sizes: Mapping[str, int] | None = None
) -> dict[str, Array]:
    """Every tensor of `program` by name: inputs, intermediates and outputs. Raises as `interpret` does."""
    tensors = {i.name: _argument(i, arrays) for i in program.inputs}
    known = solve_sizes(program, {name: array.shape for name, array in tensors.items()}, sizes)
    with np.errstate(all="ignore"):
        for equation in program.equations:
            try:
                tensors[equation.name] = _equation(equation, tensors, known)
            except SingularError as error:
                raise error.located(program.source, equation.span) from None
    return tensors


def _argument(tensor: Input, arrays: Mapping[str, Any]) -> Array:
    if tensor.name not in arrays:
        raise DTypeError(f"no array is given for '{tensor.name}'", code="missing-argument")
    given = arrays[tensor.name]
    if not isinstance(given, np.ndarray | np.generic):
        return np.array(given, dtype=tensor.dtype.numpy)
    if dtype_of(given.dtype) != tensor.dtype:
        raise DTypeError(f"'{tensor.name}' is {tensor.dtype}, the array has {given.dtype}", code="argument-type")
    return np.array(given)  # a copy: an output that is an input must not alias the argument


# --- sizes ------------------------------------------------------------------------------------------------------------


def solve_sizes(
    program: Program, shapes: Mapping[str, tuple[int, ...]], sizes: Mapping[str, int] | None = None
) -> dict[str, int]:
    """The value of every size name, from the shapes of the inputs and `sizes`; `ShapeError` where they do not fit."""
    asked = {n for i in program.inputs for s in i.shape for n in s.names}
    solved = asked - Binder(program).unsolved
    given = {name: Size.of(value) for name, value in (sizes or {}).items() if name not in solved}
    if given:  # put in what no shape determines, so that the rest is solved with it
        program = replace(
            program,
            inputs=tuple(replace(i, shape=tuple(s.substitute(given) for s in i.shape)) for i in program.inputs),
            constraints=tuple(_specialised(c, given) for c in program.constraints),
        )
    known = dict(sizes or {}) | bind_sizes(program, shapes)
    for name, value in (sizes or {}).items():
        if known[name] != value:
            raise ShapeError(f"{name} is given as {value}, the arguments say {known[name]}", code="size-mismatch")
    extents = [s for e in program.equations for s in (*e.shape, *(i.extent for i in e.indices))]
    unknown = sorted({n for s in extents for n in s.names} - known.keys())
    if unknown:
        raise ShapeError(f"no argument determines '{unknown[0]}'", code="unknown-size", help="give it among the sizes")
    return known


def _specialised(constraint: Constraint, given: Mapping[str, Size]) -> Constraint:
    def filled(text: str) -> str:
        for name, size in given.items():
            text = text.replace(f"{{{name}}}", str(size))
        return text

    return replace(
        constraint,
        left=constraint.left.substitute(given),
        right=constraint.right.substitute(given),
        values=tuple(v.substitute(given) for v in constraint.values),
        sentence=filled(constraint.sentence),
        help=filled(constraint.help),
    )


# --- expressions ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scope:
    """What an expression is evaluated in: `extents` in axis order; `fixed` indices have one value and are no axes."""

    extents: dict[str, int]
    fixed: dict[str, int]
    tensors: Mapping[str, Array]
    sizes: Mapping[str, int]

    def axes(self, *names: Sequence[str]) -> tuple[str, ...]:
        """Those of `names` that are axes, in order."""
        wanted = {n for group in names for n in group} - self.fixed.keys()
        return tuple(n for n in self.extents if n in wanted)

    def shape(self, axes: tuple[str, ...]) -> tuple[int, ...]:
        """The extents of `axes`."""
        return tuple(self.extents[n] for n in axes)


@dataclass(frozen=True)
class _Value:
    """An array with a name for each axis."""

    array: Array
    axes: tuple[str, ...]

    def over(self, axes: tuple[str, ...]) -> Array:
        """The array with the axes `axes` (a superset, in the same order), those that it lacks of extent 1."""
        extents = dict(zip(self.axes, self.array.shape, strict=True))
        return self.array.reshape([extents.get(n, 1) for n in axes])


def _evaluate(expr: Expr, scope: _Scope) -> _Value:
    match expr:
        case Const(value, dtype):
            return _Value(_number(value, dtype), ())
        case SizeValue(size):
            return _Value(np.array(size.evaluate(scope.sizes), I64.numpy), ())
        case Position(affine):
            axes = scope.axes(affine.indices)
            return _Value(_positions(affine, axes, scope), axes)
        case Read():
            return _read(expr, scope)
        case Map(function, args, dtype):
            return _map(function, [_evaluate(a, scope) for a in args], dtype, scope)
        case Einsum():
            total = _total(expr, scope)
            return _Value(convert(total.array, expr.dtype), total.axes)
        case Softmax():
            return _softmax(expr, scope)
        case Linalg():
            return _linalg(expr, scope)
    raise AssertionError(f"no expression: {expr!r}")


def _positions(affine: Affine, axes: tuple[str, ...], scope: _Scope) -> Array:
    """The values of an index expression, over `axes`."""
    total = np.full((1,) * len(axes), affine.offset.evaluate(scope.sizes), np.int64)
    for name, coefficient in affine.terms:
        scale = coefficient.evaluate(scope.sizes)
        if name in scope.fixed:
            total = total + scale * scope.fixed[name]
        else:
            total = total + scale * _Value(np.arange(scope.extents[name]), (name,)).over(axes)
    return total if affine.modulus is None else np.mod(total, affine.modulus.evaluate(scope.sizes))


def _read(read: Read, scope: _Scope) -> _Value:
    tensor = scope.tensors[read.tensor]
    axes = scope.axes(free_indices(read))
    shape = scope.shape(axes)
    if 0 in shape:
        return _Value(np.empty(shape, read.dtype.numpy), axes)
    slots = [_positions(s, axes, scope) for s in read.slots]
    check_padding(read, tensor.shape)
    inside: Array = np.array(True)
    for k, extent in enumerate(tensor.shape):
        if read.pad == "wrap":
            slots[k] = np.mod(slots[k], extent)
        elif read.pad == "edge":
            slots[k] = np.clip(slots[k], 0, extent - 1)
        inside = inside & (slots[k] >= 0) & (slots[k] < extent)
    if not isinstance(read.pad, str) and read.pad is not None:
        outside = np.full(shape, _number(read.pad, read.dtype))
        if tensor.size == 0:
            return _Value(outside, axes)
        slots = [np.clip(s, 0, n - 1) for s, n in zip(slots, tensor.shape, strict=True)]
        return _Value(np.where(inside, tensor[tuple(slots)], outside), axes)
    if not inside.all():
        place = [int(np.broadcast_to(s, inside.shape)[~inside][0]) for s in slots]
        raise ShapeError(f"{read.tensor}{place} lies outside of its shape {tensor.shape}", code="outside")
    return _Value(np.asarray(tensor[tuple(slots)]).reshape(shape), axes)


def _map(function: str, args: list[_Value], dtype: DType, scope: _Scope) -> _Value:
    axes = scope.axes(*(a.axes for a in args))
    arrays = [a.over(axes) for a in args]
    return _Value(convert(arrays[0], dtype) if function == CAST else apply(function, arrays, dtype), axes)


def _total(expr: Einsum, scope: _Scope) -> _Value:
    """The value of an Einsum in its accumulation type."""
    space = scope.axes(free_indices(expr), expr.bound)
    kept = tuple(n for n in space if n not in expr.bound)
    if 0 in scope.shape(space):  # nothing is summed
        zero = _number(expr.semiring.zero_of(expr.accumulate), expr.accumulate)
        return _Value(np.full(scope.shape(kept), zero), kept)
    if prod(scope.shape(space)) > SPACE_LIMIT or len(space) > AXES_LIMIT:
        return _total_by_slices(expr, space[0], scope)
    semiring, accumulate = expr.semiring, expr.accumulate
    one = _number(semiring.one_of(accumulate), accumulate)
    zero = _number(semiring.zero_of(accumulate), accumulate)
    factors = []
    for value in (_evaluate(f, scope) for f in expr.factors):
        array = value.over(space)
        selects = array.dtype == np.bool_ and accumulate != BOOL
        factors.append(np.where(array, one, zero) if selects else convert(array, accumulate))
    product = reduce(lambda a, b: _product(semiring, a, b, accumulate), factors) if factors else one
    product = np.broadcast_to(product.reshape(product.shape or (1,) * len(space)), scope.shape(space))
    bound = tuple(k for k, name in enumerate(space) if name in expr.bound)
    return _Value(_sum(semiring, product, bound, accumulate), kept)


def _product(semiring: Semiring, a: Array, b: Array, dtype: DType) -> Array:
    """a times b; an integer that stands for an infinity annihilates, where a bare sum would wrap."""
    product = apply(semiring.mul, [a, b], dtype)
    if semiring.annihilates(dtype):
        zero = _number(semiring.zero_of(dtype), dtype)
        return np.where((a == zero) | (b == zero), zero, product)
    return product


def _total_by_slices(expr: Einsum, name: str, scope: _Scope) -> _Value:
    """The same, with a loop over the index `name`."""
    slices = [_total(expr, replace(scope, fixed=scope.fixed | {name: v})) for v in range(scope.extents[name])]
    arrays = [s.array for s in slices]
    if name in expr.bound:
        total = reduce(lambda a, b: apply(expr.semiring.add, [a, b], expr.accumulate), arrays)
        return _Value(total, slices[0].axes)
    axes = scope.axes(slices[0].axes, (name,))
    return _Value(np.stack(arrays, axes.index(name)), axes)


def _softmax(expr: Softmax, scope: _Scope) -> _Value:
    body = _evaluate(expr.body, scope)
    axes = scope.axes(body.axes, expr.along)
    work = accumulation_type(expr.dtype)
    array = np.broadcast_to(convert(body.over(axes), work), scope.shape(axes))
    along = tuple(k for k, name in enumerate(axes) if name in expr.along)
    weights = np.exp(array - np.max(array, axis=along, keepdims=True, initial=-np.inf))
    return _Value(convert(weights / np.sum(weights, axis=along, keepdims=True), expr.dtype), axes)


def _linalg(expr: Linalg, scope: _Scope) -> _Value:
    args = []
    for arg in expr.args:
        value = _evaluate(arg, scope)
        named = [slot.bare for slot in arg.slots] if isinstance(arg, Read) else []
        args.append(value.array.transpose([value.axes.index(str(n)) for n in named]))
    found = evaluate(expr.function, args, expr.assume)
    axes = scope.axes(expr.result)
    return _Value(convert(found, expr.dtype).transpose([expr.result.index(n) for n in axes]), axes)


# --- equations --------------------------------------------------------------------------------------------------------


def _equation(equation: Equation, tensors: Mapping[str, Array], sizes: Mapping[str, int]) -> Array:
    """The tensor that an equation defines: each value goes to its position, values that meet there are added."""
    extents = {i.name: i.extent.evaluate(sizes) for i in equation.indices}
    scope = _Scope(extents, {}, tensors, sizes)
    axes = scope.axes(equation.free)
    work = accumulation_type(equation.dtype)
    value = _evaluate(equation.expr, scope)
    values = convert(np.broadcast_to(value.over(axes), scope.shape(axes)), equation.dtype).reshape(-1)
    values = convert(values, work)
    shape = tuple(s.evaluate(sizes) for s in equation.shape)
    if equation.update is None:
        result = np.full(prod(shape), _number(equation.semiring.zero_of(work), work))
    else:
        result = convert(tensors[equation.update], work).reshape(-1).copy()
    if values.size:
        places = _places(equation, axes, shape, scope)
        for turn, chosen in enumerate(_turns(places)):
            new, at = values[chosen], places[chosen]
            first = turn == 0 and equation.update is None
            result[at] = new if first else apply(equation.semiring.add, [result[at], new], work)
    return convert(result, equation.dtype).reshape(shape)


def _places(equation: Equation, axes: tuple[str, ...], shape: tuple[int, ...], scope: _Scope) -> Array:
    """The row-major number of the output position of every point of `axes`."""
    places = np.zeros((1,) * len(axes), np.int64)
    for slot, extent in zip(equation.slots, shape, strict=True):
        position = _positions(slot, axes, scope)
        if position.min() < 0 or position.max() >= extent:
            raise ShapeError(f"'{equation.name}' is written outside of its shape {shape}: {slot}", code="outside")
        places = places * extent + position
    return np.broadcast_to(places, scope.shape(axes)).reshape(-1)


def _turns(places: Array) -> list[Array]:
    """The points, split so that no two of one turn share a place, each place's points in order."""
    order = np.argsort(places, kind="stable")
    ranked = places[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    rank = np.arange(len(places)) - np.repeat(starts, np.diff(np.r_[starts, len(places)]))
    by_rank = order[np.argsort(rank, kind="stable")]
    return np.split(by_rank, np.cumsum(np.bincount(rank))[:-1])


# --- arithmetic -------------------------------------------------------------------------------------------------------


def convert(array: Array, dtype: DType) -> Array:
    """The values in another type, as NumPy's astype (complex to real drops the imaginary part)."""
    if array.dtype.kind == "c" and dtype.kind not in "cb":
        array = array.real
    if dtype.kind == "c" and array.dtype.kind == "V":  # ml_dtypes has no conversion from bf16 to complex
        array = array.astype(np.float32)
    return array.astype(dtype.numpy, copy=False)


def apply(function: str, arrays: Sequence[Array], dtype: DType) -> Array:
    """A function of `ir.functions` on arrays of any types, as `Map` defines it, with the result in `dtype`."""
    entry = FUNCTIONS[function]
    types = [dtype_of(a.dtype) for a in arrays]
    joint = promote(*(types[1:] if entry.rule == "select" else types))
    work = F64 if entry.rule == "float" and joint.kind in "biu" else accumulation_type(joint)
    args = [convert(convert(a, joint), work) for a in arrays]
    if entry.rule == "select":
        args[0] = convert(arrays[0], BOOL)
    return convert(np.asarray(entry.numpy(*args)), dtype)


def _sum(semiring: Semiring, array: Array, axes: tuple[int, ...], dtype: DType) -> Array:
    """The sum in the semiring over `axes`, none of them empty."""
    kept = tuple(k for k in range(array.ndim) if k not in axes)
    shape = [array.shape[k] for k in kept]
    if not axes:
        return array
    terms = array.transpose(kept + axes).reshape([*shape, prod(array.shape[k] for k in axes)])
    entry = FUNCTIONS[semiring.add]
    if isinstance(entry.numpy, np.ufunc) and entry.rule == "same":
        work = accumulation_type(dtype)
        return convert(np.asarray(entry.numpy.reduce(convert(terms, work), axis=-1, dtype=work.numpy)), dtype)
    while terms.shape[-1] > 1:  # in pairs: halves the terms, an odd one waits
        half = terms.shape[-1] // 2
        pairs = apply(semiring.add, [terms[..., :half], terms[..., half : 2 * half]], dtype)
        terms = np.concatenate([pairs, terms[..., 2 * half :]], axis=-1)
    return terms[..., 0]


def _number(value: Pad | complex, dtype: DType) -> Array:
    """A 0-d array; an infinity in an integer type is its least or greatest value."""
    if dtype.kind in "iu" and isinstance(value, float) and np.isinf(value):
        info = np.iinfo(dtype.numpy)
        value = int(info.min if value < 0 else info.max)
    return convert(np.array(value), dtype)
