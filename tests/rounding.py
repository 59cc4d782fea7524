"""How far two evaluations of a program may lie apart: a bound derived from the program, point by point.

Every value is followed as (value, magnitude, error). The magnitude is what the expression gives on absolute operands;
since sums and products may be associated, distributed and factored in any way, an operation rounds by at most a unit
of its magnitude, not of its value (Higham, Accuracy and Stability of Numerical Algorithms, 2002, sections 3.1 and 4.2).
The bound is of first order in n*u where that is far below 1, as here: second-order terms are paid by `SLACK`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import exp, expm1, log, log1p
from typing import Any

import numpy as np

from stein.ir.expr import Const, Einsum, Equation, Expr, Map, Position, Program, Read, SizeValue, Softmax
from stein.ir.functions import CAST, FUNCTIONS
from stein.ir.index import Affine
from stein.ir.semiring import Semiring
from stein.ir.types import BF16, DType

LIBRARY = 8  # units (half an ulp each) that an elementary function may be wrong by
SLACK = 1.01  # (n*u)^2 beside n*u for every n below a million
_EXACT = ("neg", "conj", "real", "imag", "abs", "relu")
_JUMPS = ("round", "floor", "ceil", "sign")
_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge", "logical_or", "logical_and", "logical_not")
_SLOPES = {"sigmoid": 0.25, "tanh": 1.0, "sin": 1.0, "cos": 1.0, "erf": 1.13, "silu": 1.1, "gelu": 1.13}  # greatest


@dataclass(frozen=True)
class Bounded:
    """A number, the value of its expression on absolute operands, and the most that an evaluation may miss it by."""

    value: Any
    magnitude: float
    error: float = 0.0


def unit(dtype: DType) -> float:
    """The relative error of one operation in `dtype`: half an epsilon, four times that for complex products."""
    if dtype.kind in "biu":
        return 0.0
    if dtype == BF16:  # ml_dtypes' type is none of NumPy's
        return 2.0**-8
    return float(np.finfo(dtype.numpy).eps) * (2.0 if dtype.kind == "c" else 0.5)


def differences(program: Program, arrays: dict[str, Any], sizes: dict[str, int]) -> dict[str, np.ndarray[Any, Any]]:
    """For each output, how far two correct evaluations may differ at each position: each of them errs once."""
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    for tensor in program.inputs:
        given = np.asarray(arrays[tensor.name], tensor.dtype.numpy)
        tensors[tensor.name] = _filled(given.shape, {p: exact(v) for p, v in np.ndenumerate(given)}, exact(0))
    with np.errstate(all="ignore"):
        for equation in program.equations:
            tensors[equation.name] = _Evaluation(equation, tensors, sizes).result()
    errors = np.vectorize(lambda b: 2 * SLACK * b.error, otypes=[float])
    return {name: errors(tensors[name]) for name in program.outputs}


def exact(value: Any) -> Bounded:
    """A number without an error. An infinity, the 0 of a semiring, does not round either."""
    return Bounded(value, float(abs(value)) if np.isfinite(value) else 0.0)


def _filled(shape: tuple[int, ...], held: dict[tuple[int, ...], Bounded], rest: Bounded) -> np.ndarray[Any, Any]:
    out = np.empty(shape, object)
    for place in np.ndindex(*shape):
        out[place] = held.get(place, rest)
    return out


class _Evaluation:
    """One equation at known sizes."""

    def __init__(self, equation: Equation, tensors: dict[str, np.ndarray[Any, Any]], sizes: dict[str, int]) -> None:
        self.equation, self.tensors, self.sizes = equation, tensors, sizes
        self.extents = {i.name: i.extent.evaluate(sizes) for i in equation.indices}

    def result(self) -> np.ndarray[Any, Any]:
        equation = self.equation
        old = None if equation.update is None else self.tensors[equation.update]
        held = {} if old is None else {place: old[place] for place in np.ndindex(*old.shape)}
        for point in product(*(range(self.extents[n]) for n in equation.free)):
            env = dict(zip(equation.free, point, strict=True))
            place = tuple(self.affine(s, env) for s in equation.slots)
            value = self.cast(self.value(equation.expr, env), equation.dtype)
            held[place] = self.add([held[place], value], equation.semiring, equation.dtype) if place in held else value
        shape = tuple(s.evaluate(self.sizes) for s in equation.shape)
        return _filled(shape, held, exact(equation.semiring.zero_of(equation.dtype)))

    def affine(self, affine: Affine, env: dict[str, int]) -> int:
        value = affine.offset.evaluate(self.sizes) + sum(c.evaluate(self.sizes) * env[n] for n, c in affine.terms)
        return value if affine.modulus is None else value % affine.modulus.evaluate(self.sizes)

    def value(self, e: Expr, env: dict[str, int]) -> Bounded:
        match e:
            case Const(value):
                return self.cast(exact(value), e.dtype)
            case SizeValue(size):
                return self.cast(exact(size.evaluate(self.sizes)), e.dtype)
            case Position(affine):
                return self.cast(exact(self.affine(affine, env)), e.dtype)
            case Read():
                return self.read(e, env)
            case Map(function, args):
                values = [self.value(a, env) for a in args]
                return self.cast(values[0], e.dtype) if function == CAST else applied(function, values, e.dtype)
            case Einsum():
                return self.einsum(e, env)
            case Softmax():
                return self.softmax(e, env)
        raise AssertionError(f"no bound for {type(e).__name__}")

    def cast(self, b: Bounded, dtype: DType) -> Bounded:
        value = b.value.real if isinstance(b.value, complex) and dtype.kind != "c" else b.value
        if dtype.kind in "biu":
            assert b.error < 1e-3, "a conversion to integers would hide the error"
            return exact(dtype.numpy.type(value))
        return Bounded(dtype.numpy.type(value), b.magnitude, b.error + unit(dtype) * b.magnitude)

    def read(self, read: Read, env: dict[str, int]) -> Bounded:
        tensor, place = self.tensors[read.tensor], [self.affine(s, env) for s in read.slots]
        if read.pad == "edge":
            place = [min(max(p, 0), n - 1) for p, n in zip(place, tensor.shape, strict=True)]
        if read.pad == "wrap":
            place = [p % n for p, n in zip(place, tensor.shape, strict=True)]
        if all(0 <= p < n for p, n in zip(place, tensor.shape, strict=True)):
            found: Bounded = tensor[tuple(place)]
            return found
        assert read.pad is not None and not isinstance(read.pad, str)
        return exact(read.pad)

    def einsum(self, e: Einsum, env: dict[str, int]) -> Bounded:
        one, zero = (exact(v) for v in (e.semiring.one_of(e.accumulate), e.semiring.zero_of(e.accumulate)))
        terms = []
        for point in product(*(range(self.extents[n]) for n in e.bound)):
            inner = env | dict(zip(e.bound, point, strict=True))
            term = None
            for factor in e.factors:
                value = self.value(factor, inner)
                if factor.dtype.kind == "b" and e.accumulate.kind != "b":
                    value = one if value.value else zero
                value = self.cast(value, e.accumulate)
                term = value if term is None else applied(e.semiring.mul, [term, value], e.accumulate)
            terms.append(one if term is None else term)
        return self.cast(self.add(terms, e.semiring, e.accumulate) if terms else zero, e.dtype)

    def add(self, terms: list[Bounded], semiring: Semiring, dtype: DType) -> Bounded:
        """The sum of terms in any order."""
        total = terms[0].value
        for term in terms[1:]:
            total = FUNCTIONS[semiring.add].numpy(total, term.value)
        if semiring.add == "add":
            magnitude = sum(t.magnitude for t in terms)
            return Bounded(total, magnitude, sum(t.error for t in terms) + (len(terms) - 1) * unit(dtype) * magnitude)
        error, magnitude = max(t.error for t in terms), max(t.magnitude for t in terms)
        if semiring.add == "logaddexp":  # passes errors on by a factor of at most 1, and is a sum and two functions
            magnitude = max(1.0, magnitude) + log(len(terms))
            error += len(terms) * (1 + 2 * LIBRARY) * unit(dtype) * magnitude
        elif semiring.add == "mul":
            return self.product(terms, dtype)
        return Bounded(total, magnitude, error)

    def product(self, terms: list[Bounded], dtype: DType) -> Bounded:
        total = terms[0]
        for term in terms[1:]:
            total = applied("mul", [total, term], dtype)
        return total

    def softmax(self, e: Softmax, env: dict[str, int]) -> Bounded:
        points = product(*(range(self.extents[n]) for n in e.along))
        bodies = [self.value(e.body, env | dict(zip(e.along, p, strict=True))) for p in points]
        largest = max(float(b.value) for b in bodies)
        weights = [exp(float(b.value) - largest) for b in bodies]
        value = exp(float(self.value(e.body, env).value) - largest) / sum(weights)
        shift = 2 * max(b.error for b in bodies) + 2 * unit(e.dtype) * max(b.magnitude for b in bodies)
        relative = expm1(2 * shift) + (2 * len(bodies) + 4 * LIBRARY) * unit(e.dtype)
        return Bounded(value, value, value * relative)


def applied(function: str, args: list[Bounded], dtype: DType) -> Bounded:
    """A function of bounded numbers."""
    value = FUNCTIONS[function].numpy(*(a.value for a in args))
    u, magnitude = unit(dtype), max(a.magnitude for a in args)
    if function in ("add", "sub"):
        magnitude = sum(a.magnitude for a in args)
        return Bounded(value, magnitude, sum(a.error for a in args) + u * magnitude)
    if function == "mul":
        a, b = args
        m = a.magnitude * b.magnitude
        return Bounded(value, m, a.magnitude * b.error + b.magnitude * a.error + a.error * b.error + u * m)
    if function == "div":
        a, b = args
        least = float(abs(b.value)) - b.error
        assert least > 0, "a quotient by what may be 0 has no bound"
        m = a.magnitude / least
        return Bounded(value, m, (a.error + m * b.error) / least + u * m)
    if function in _EXACT:
        return Bounded(value, magnitude, args[0].error)
    if function in ("maximum", "minimum", "clip"):
        return Bounded(value, magnitude, max(a.error for a in args))
    if function == "where":
        return args[1] if args[0].value else args[2]
    if function in _COMPARISONS:
        error = sum(a.error for a in args)
        assert not error or error < float(abs(args[0].value - args[-1].value)), "a comparison may flip"
        return exact(value)
    if function in _JUMPS:
        low, high = (FUNCTIONS[function].numpy(args[0].value + s * 2 * args[0].error) for s in (-1, 1))
        assert low == high, "a rounding may go either way"
        return exact(value)
    size = float(abs(value))
    return Bounded(
        value, size, _elementary(function, args, size) + LIBRARY * u * max(size, magnitude * (function == "silu"))
    )


def _elementary(function: str, args: list[Bounded], size: float) -> float:
    """What the errors of its arguments do to a function of this absolute value."""
    a = args[0]
    if not any(b.error for b in args):
        return 0.0
    if function == "exp":
        return size * expm1(a.error)
    if function in _SLOPES:
        return _SLOPES[function] * a.error
    relative = -log1p(-a.error / float(abs(a.value)))
    if function == "log":
        return relative
    if function == "sqrt":
        return size * expm1(relative / 2)
    assert function == "pow", f"no bound for {function}"
    power = args[1]
    turn = abs(log(float(abs(a.value)))) * power.error
    return size * expm1((float(abs(power.value)) + power.error) * relative + turn)
