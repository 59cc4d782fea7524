"""Conversions: into a wider type of the same kind and out of it again is one conversion, and no other pair is."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from stein.ir.expr import Map, Program, Read, walk
from stein.ir.interpret import interpret
from stein.ir.rewrite import Trace
from stein.ir.text import parse_ir
from stein.ir.types import DTYPES, DType
from stein.passes.base import Context
from stein.passes.normalise import normalise

TYPES = tuple(t for t in DTYPES.values() if t.kind != "b")


def there_and_back(first: DType, wide: DType, last: DType) -> Program:
    return parse_ir(f"input x: {first}[n]\ny[i]: {last}[n] = cast[{last}](cast[{wide}](x[i])) over i<n\nreturn y")


def values(dtype: DType) -> np.ndarray:
    """Numbers at which conversions round, overflow, lose a sign or a not-a-number."""
    if dtype.kind in "iu":
        info = np.iinfo(dtype.numpy)
        ends = [info.min, info.max, info.max // 2, info.max // 3, info.max - 1]
        return np.array([0, 1, 3, 100, *ends], dtype=dtype.numpy)
    ordinary = [0.0, -0.0, 1.5, -2.75, 1 / 3, 1e-3, 65504.0, 7e4, 3.4e38, 1e-7, 1e-42, np.inf, -np.inf, np.nan]
    with np.errstate(over="ignore"):
        return np.array(ordinary).astype(dtype.numpy)


def normal(program: Program) -> Program:
    return normalise(program, Context({}), Trace())


def casts(program: Program) -> int:
    return sum(isinstance(e, Map) and e.function == "cast" for e in walk(program.equations[-1].expr))


@pytest.mark.parametrize("first", TYPES, ids=lambda t: t.name)
def test_two_conversions_keep_their_value(first: DType) -> None:
    given = {"x": values(first)}
    for wide, last in product(TYPES, TYPES):
        real_of_complex = (first.kind == "c" != wide.kind) or (wide.kind == "c" != last.kind)
        if wide in (first, last) or real_of_complex:  # a conversion that is none, or one that the language refuses
            continue
        program = there_and_back(first, wide, last)
        done = normal(program)
        with np.errstate(all="ignore"):
            want, got = interpret(program, given)["y"], interpret(done, given)["y"]
        assert np.array_equal(want, got, equal_nan=True) and np.array_equal(np.signbit(want.real), np.signbit(got.real))
        widened = first.kind == wide.kind and wide.bits > first.bits
        assert casts(done) == (0 if widened and first == last else 1 if widened else 2), (wide, last)


def test_a_widened_value_that_is_read_elsewhere_is_a_view() -> None:
    """What gradients of half precision are made of: a transposed copy dissolves into its reader."""
    text = "input x: bf16[n, m]\nt[j, i]: bf16[m, n] = cast[bf16](cast[f32](x[i, j])) over i<n, j<m\n"
    text += "y[j]: f32[m] = einsum[plustimes, f32](i; t[j, i], t[j, i]) over i<n, j<m\nreturn y"
    (equation,) = normal(parse_ir(text)).equations
    assert {r.tensor for r in walk(equation.expr) if isinstance(r, Read)} == {"x"}
