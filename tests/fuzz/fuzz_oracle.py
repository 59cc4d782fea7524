"""What a call should return, and how far the answer may be off.

Outside the compiler. Sums of products are computed from left to right in a higher precision (float64 for 16- and 32-bit
floats, longdouble for 64-bit ones) and exactly, modulo 2^k, for integers. The bound is that of the language design,
`(K + operands + 2) * 1.5 * eps * sum|terms|` with K summed terms (4 in place of 1.5 for complex numbers): K additions,
a conversion and a product per operand each lose at most eps/2 of the magnitude that passes through them, so that
the bound holds for every order of summation with a factor of three to spare. In a network of many operands nobody adds
all K terms one by one: K is at most what pairwise steps that sum four labels each would add. Other semirings are
computed by brute force over the whole index space, and once more by the IR's interpreter.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from math import prod
from typing import Any

import numpy as np
from fuzz_call import Call, Term
from fuzz_operands import Array


@dataclass(frozen=True)
class Expected:
    """The right answer: its value in a wide type, an absolute bound (None: exact) and the type it should have."""

    value: Array
    bound: Array | None
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class Verdict:
    """Right or wrong, the worst error in units of the bound, and what was wrong."""

    ok: bool
    ratio: float = 0.0
    message: str = ""


def expected_of(call: Call, arrays: list[Array]) -> Expected:
    """The right answer for `call` on operands `arrays`."""
    if call.semiring != "plustimes":
        return _semiring(call, arrays)
    dtype = call.dtype
    with np.errstate(all="ignore"):
        if dtype.kind == "b":
            counts = contract(call, [(a != 0).astype(np.int64) for a in arrays])
            return Expected(counts != 0, None, dtype)
        if dtype.kind in "iu":
            wide = np.dtype(np.uint64 if dtype.kind == "u" else np.int64)
            exact = contract(call, [a.astype(dtype).astype(wide) for a in arrays])
            return Expected(exact.astype(dtype), None, dtype)
        return _floating(call, arrays, dtype)


def _floating(call: Call, arrays: list[Array], dtype: np.dtype[Any]) -> Expected:
    eps, tiny = _limits(dtype)[:2]
    double = eps < 1e-12
    real = np.dtype(np.longdouble if double else np.float64)
    wide = (np.dtype(np.clongdouble if double else np.complex128)) if dtype.kind == "c" else real
    operands = [(a.real if a.dtype.kind == "c" and dtype.kind != "c" else a).astype(wide) for a in arrays]
    value = contract(call, operands)
    magnitude = contract(call, [np.abs(a).astype(real) for a in operands])
    count = min(summed_terms(call), len(arrays) * max(2, *call.sizes().values(), 2) ** 4)
    slack = (4.0 if dtype.kind == "c" else 1.5) * (count + len(arrays) + 2)
    bound = slack * (eps * magnitude + tiny)
    return Expected(value, bound, dtype)


def _limits(dtype: np.dtype[Any]) -> tuple[float, float, float]:
    """eps, the smallest subnormal and the largest number."""
    if dtype.kind == "V" or dtype.name == "bfloat16":
        return 2.0**-7, 2.0**-133, 3.38e38
    info = np.finfo(dtype)
    return float(info.eps), float(info.smallest_subnormal), float(info.max)


def summed_terms(call: Call) -> int:
    """K, the number of terms of one element of the result."""
    return prod(n for label, n in call.sizes().items() if label not in call.output)


def contract(call: Call, arrays: list[Array]) -> Array:
    """The sum of products in the type of `arrays`: operands from left to right, a label summed when its last one is in.

    A size-1 axis under a longer label is repeated first, so that summing it counts it as often as the label is long.
    """
    sizes = call.sizes()
    terms = [list(t) for t in call.terms]
    full = [np.broadcast_to(a, [sizes[x] for x in t]) for a, t in zip(arrays, terms, strict=True)]
    result, labels = full[0], terms[0]
    for k in range(1, len(full)):
        needed = {x for t in terms[k + 1 :] for x in t} | set(call.output)
        kept = [x for x in dict.fromkeys(labels + terms[k]) if x in needed]
        result = _pair(result, labels, full[k], terms[k], kept)
        labels = kept
    return _pair(result, labels, np.ones((), result.dtype), [], list(call.output))


def _pair(a: Array, a_labels: list[int], b: Array, b_labels: list[int], kept: list[int]) -> Array:
    if 0 in a.shape or 0 in b.shape:
        # NumPy 2.4's einsum writes outside of its memory where an operand is empty and another one is broadcast.
        extents = dict(zip((*a_labels, *b_labels), (*a.shape, *b.shape), strict=True))
        return np.zeros([extents[x] for x in kept], np.result_type(a, b))
    small = {x: i for i, x in enumerate(dict.fromkeys(a_labels + b_labels))}
    spelled = ([small[x] for x in side] for side in (a_labels, b_labels, kept))
    left, right, out = spelled
    return np.asarray(np.einsum(a, left, b, right, out, optimize=False))


# --- other semirings --------------------------------------------------------------------------------------------------


def _semiring(call: Call, arrays: list[Array]) -> Expected:
    """Brute force over the index space, in double precision (longdouble for doubles)."""
    from stein.ir.semiring import SEMIRINGS
    from stein.ir.types import dtype_of

    semiring, dtype = SEMIRINGS[call.semiring], call.dtype
    wide = dtype if dtype.kind in "biu" else np.dtype(np.longdouble if dtype.itemsize == 8 else np.float64)
    axes = list(call.output) + [x for x in call.sizes() if x not in call.output]
    sizes = call.sizes()
    full = [_spread(a.astype(wide), t, axes, sizes) for a, t in zip(arrays, call.terms, strict=True)]
    mul = _UFUNCS[semiring.mul]
    add = _UFUNCS[semiring.add]
    summed = tuple(range(len(call.output), len(axes)))
    with np.errstate(all="ignore"):
        terms = reduce(mul, full).astype(wide)
        zero = np.asarray(semiring.zero_of(dtype_of(dtype)), wide)
        value = np.asarray(add.reduce(terms, axis=summed, initial=zero) if summed else terms).astype(wide)
        scale = np.asarray(np.abs(terms).max(axis=summed, initial=0) if summed else np.abs(terms))
        spread = reduce(np.add, [np.abs(x) for x in full]) if wide.kind == "f" else None
    if dtype.kind in "biu":
        return Expected(value.astype(dtype), None, dtype)
    assert spread is not None
    eps, tiny, _ = _limits(dtype)
    reach = np.asarray(spread.max(axis=summed, initial=0) if summed else spread)
    # A term loses eps/2 per product; choosing loses nothing. logsumexp adds K roundings, an exp and a log (4 ulp each).
    steps = len(arrays) + 2 + (summed_terms(call) + 8 if call.semiring == "logsumexp" else 0)
    bound = steps * 1.5 * (eps * np.maximum(np.maximum(reach, scale), 1.0) + tiny)
    return Expected(value, bound, dtype)


_UFUNCS: dict[str, Any] = {
    "add": np.add, "mul": np.multiply, "maximum": np.maximum, "minimum": np.minimum, "logaddexp": np.logaddexp,
    "logical_or": np.logical_or, "logical_and": np.logical_and,
}  # fmt: skip


def _spread(array: Array, term: Term, axes: list[int], sizes: dict[int, int]) -> Array:
    """`array` over all `axes`, by broadcasting; a repeated label takes the diagonal."""
    kept = list(dict.fromkeys(term))
    if len(kept) < len(term):
        small = {x: i for i, x in enumerate(kept)}
        array = np.einsum(array, [small[x] for x in term], [small[x] for x in kept])
    order = sorted(range(len(kept)), key=lambda i: axes.index(kept[i]))
    array = array.transpose(order)
    shape = [1] * len(axes)
    for position, i in enumerate(order):
        shape[axes.index(kept[i])] = array.shape[position]
    return np.broadcast_to(array.reshape(shape), [sizes[x] for x in axes])


def interpreted(call: Call, arrays: list[Array]) -> Array:
    """The same call through `stein.ir.interpret` (no size-1 broadcasting): the IR's own meaning of it."""
    from stein.ir.expr import Einsum, Equation, Input, Program, Read
    from stein.ir.index import Affine, Index
    from stein.ir.interpret import interpret
    from stein.ir.semiring import SEMIRINGS
    from stein.ir.size import Size
    from stein.ir.types import dtype_of

    dtype, sizes = dtype_of(call.dtype), call.sizes()
    slots = [tuple(Affine.of(f"i{x}") for x in term) for term in call.terms]
    names = [f"a{k}" for k in range(len(arrays))]
    types = [dtype_of(a.dtype) for a in arrays]
    reads = tuple(Read(n, s, t) for n, s, t in zip(names, slots, types, strict=True))
    bound = tuple(f"i{x}" for x in sizes if x not in call.output)
    expr = Einsum(bound, reads, dtype, dtype, SEMIRINGS[call.semiring])
    indices = tuple(Index(f"i{x}", Size.of(n)) for x, n in sizes.items())
    shape = tuple(Size.of(sizes[x]) for x in call.output)
    left = tuple(Affine.of(f"i{x}") for x in call.output)
    equation = Equation("y", left, shape, indices, expr, dtype, SEMIRINGS[call.semiring])
    inputs = tuple(
        Input(n, tuple(Size.of(k) for k in a.shape), t) for n, a, t in zip(names, arrays, types, strict=True)
    )
    return interpret(Program(inputs, (equation,), ("y",)), dict(zip(names, arrays, strict=True)))["y"]


# --- comparison -------------------------------------------------------------------------------------------------------


def judge(result: Any, expected: Expected) -> Verdict:
    """Compare type, shape and every value."""
    if not isinstance(result, np.ndarray | np.generic):
        return Verdict(False, message=f"the result is a {type(result).__name__}, not an array")
    result = np.asarray(result)
    if result.dtype != expected.dtype:
        return Verdict(False, message=f"type {result.dtype}, expected {expected.dtype}")
    if result.shape != expected.value.shape:
        return Verdict(False, message=f"shape {result.shape}, expected {expected.value.shape}")
    if expected.bound is None:
        wrong = result != expected.value
        return Verdict(True) if not wrong.any() else _first(wrong, result, expected, "exact", np.inf)
    return _judge_floating(result, expected, expected.bound)


def _judge_floating(result: Array, expected: Expected, bound: Array) -> Verdict:
    value = expected.value
    largest = _limits(expected.dtype)[2]
    wide = result.astype(value.dtype)
    with np.errstate(all="ignore"):
        finite = np.isfinite(value)
        # Near the largest number a different order may overflow: not checked. Non-finite values must agree in kind.
        checked = finite & (bound < np.inf) & (np.abs(value) + bound < largest / 4)
        odd = ~finite & np.isfinite(wide)
        if value.dtype.kind != "c":
            odd |= np.isnan(value) & ~np.isnan(wide)
            odd |= np.isinf(value) & (wide != value)
        error = np.where(checked, np.abs(wide - value), 0)
        error = np.where(checked & ~np.isfinite(wide), np.inf, error)
        ratio = np.where(error == 0, 0.0, error / np.where(bound > 0, bound, 1e-300))
    worst = float(ratio.max(initial=0.0))
    if odd.any():
        return _first(odd, result, expected, "NaN or infinity", np.inf)
    if worst > 1:
        return _first(ratio > 1, result, expected, f"{worst:.3g} times the bound", worst)
    return Verdict(True, worst)


def _first(wrong: Array, result: Array, expected: Expected, what: str, ratio: float) -> Verdict:
    place = tuple(int(i) for i in np.argwhere(wrong)[0]) if wrong.ndim else ()
    message = (
        f"{int(wrong.sum())} of {wrong.size} wrong ({what}); at {place}: {result[place]!r}, "
        f"expected {expected.value[place]!r}"
    )
    return Verdict(False, ratio, message)
