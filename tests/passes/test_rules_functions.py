"""Rule R19 of language.md: an elementwise function passes through what only moves elements, and through nothing else.

Through permutations, broadcasts and diagonals that are read it always does. Through diagonals that are written, which
leave positions at the semiring's 0, only where the function maps that 0 to itself. Through sums never.
"""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stein.ir.expr import Approx, Einsum, Map, Program, walk
from stein.ir.functions import FUNCTIONS, Function
from stein.ir.interpret import apply
from stein.ir.rewrite import Trace
from stein.ir.semiring import BOOLEAN, PLUS_TIMES, Semiring
from stein.ir.text import parse_ir
from stein.ir.types import BOOL, F64, I64
from stein.passes.base import Context
from stein.passes.fuse import fuse
from stein.passes.normalise import normalise
from stein.tests.passes.products import MIN_MAX, SEMIRINGS, assert_same, dtype_of, ir, planned

UNARY = tuple(f for f in FUNCTIONS.values() if f.arity == 1 and f.name != "logical_not")
unary = pytest.mark.parametrize("function", UNARY, ids=lambda f: f.name)
every_semiring = pytest.mark.parametrize("semiring", (*SEMIRINGS, MIN_MAX), ids=lambda s: s.name)
quick = settings(max_examples=15, deadline=None)
FOUR = {"n": 4}


def applied(function: str, argument: str) -> tuple[str, str]:
    """The text of f(argument) for an f64 argument, and the type it has."""
    return f"{function}({argument})", FUNCTIONS[function].result((F64,)).name


@unary
def test_r19_the_table_of_functions_tells_which_keep_zero(function: Function) -> None:
    f = function
    for dtype in (F64, I64):
        zero = np.zeros((), dtype.numpy)
        with np.errstate(divide="ignore"):
            assert (apply(f.name, [zero], f.result((dtype,))) == 0) == f.zero_preserving


def view(choose: random.Random) -> tuple[str, str]:
    """A statement t = x with axes of x exchanged, repeated or broadcast, and the labels of t."""
    labels = [choose.choice("abc") for _ in range(choose.randrange(1, 4))]
    kept = sorted(set(labels))
    kept += [c for c in "abc" if c not in kept and choose.random() < 0.3]
    choose.shuffle(kept)
    ranges = ", ".join(f"{c}<n" for c in sorted(set(kept)))
    shape = ", ".join("n" for _ in kept)
    text = f"input x: f64[{', '.join('n' for _ in labels)}]\n"
    return text + f"t[{', '.join(kept)}]: f64[{shape}] = x[{', '.join(labels)}] over {ranges}", "".join(kept)


@unary
@quick
@given(st.randoms(use_true_random=False))
def test_r19_through_permutations_diagonals_and_broadcasts(function: Function, choose: random.Random) -> None:
    name = function.name
    source, labels = view(choose)
    read = "".join(choose.sample("ijk", len(labels)) if choose.random() < 0.5 else choose.choices("ijk", k=len(labels)))
    kept = sorted(set(read))
    choose.shuffle(kept)
    expr, dtype = applied(name, f"t[{', '.join(read)}]")
    shape, ranges = ", ".join("n" for _ in kept), ", ".join(f"{c}<n" for c in sorted(set(kept)))
    program = ir(source, f"y[{', '.join(kept)}]: {dtype}[{shape}] = {expr} over {ranges}")
    after = normalise(program, Context(), Trace())
    assert [e.name for e in after.equations] == ["y"]
    assert isinstance(after.equations[0].expr, Map)
    assert not any(isinstance(e, Einsum) for e in walk(after.equations[0].expr))
    with np.errstate(all="ignore"):
        assert_same(program, after, choose.randrange(1000), FOUR)


def embedded(f: str, semiring: Semiring, slots: str = "i, i") -> Program:
    """f of a vector on a diagonal, the rest at the 0 of the semiring."""
    dtype = dtype_of(semiring).name
    over = "" if semiring.name == "plustimes" else f" in {semiring.name}"
    known = {s.name: s for s in (*SEMIRINGS, MIN_MAX)}
    result = FUNCTIONS[f].result((dtype_of(semiring),)).name
    text = (
        f"input v: {dtype}[n]\nD[{slots}]: {dtype}[n, n] = v[i] over i<n{over}\n"
        f"y[i, j]: {result}[n, n] = {f}(D[i, j]) over i<n, j<n\nreturn y"
    )
    return parse_ir(text, known)


@unary
@every_semiring
def test_r19_through_a_written_diagonal_only_if_zero_stays_zero(function: Function, semiring: Semiring) -> None:
    f = function
    if semiring == BOOLEAN and f.rule == "same" and f.name in ("neg", "sign", "relu", "floor", "ceil", "round"):
        pytest.skip("no function of bools")
    program = embedded(f.name, semiring)
    after = fuse(program, Context(sizes={"n": 9}), Trace())
    zero = semiring.zero_of(dtype_of(semiring)) == 0
    assert (len(after.equations) == 1) == (zero and f.zero_preserving)
    assert_same(program, after, 3, FOUR)
    assert_same(program, planned(program, sizes={"n": 9}), 4, FOUR)


@pytest.mark.parametrize("slots", ["i, 0", "0, i", "i, {n-1}-i"])
def test_r19_through_other_embeddings(slots: str) -> None:
    program = embedded("tanh", PLUS_TIMES, slots)
    after = fuse(program, Context(sizes={"n": 9}), Trace())
    assert len(after.equations) == 1
    assert_same(program, after, 1, FOUR)


def test_r19_not_through_writes_that_meet_or_reads_of_a_part() -> None:
    vector = "input v: f64[n, n]"
    meeting = ir(
        vector,
        "D[i+j]: f64[2*n-1] = v[i, j] over i<n, j<n",
        "y[k]: f64[2*n-1] = abs(D[k]) over k<2*n-1",
    )
    part = ir(
        "input v: f64[n]",
        "D[i, i]: f64[n, n] = v[i] over i<n",
        "y[i]: f64[n] = abs(D[i, 0]) over i<n",
    )
    for program in (meeting, part):
        assert fuse(program, Context(sizes={"n": 9}), Trace()) is program
        assert_same(program, planned(program, sizes={"n": 9}), 2, FOUR)


def test_r19_an_approximation_need_not_keep_zero() -> None:
    program = ir(
        "input v: f64[n]",
        "D[i, i]: f64[n, n] = v[i] over i<n",
        "y[i, j]: f64[n, n] = tanh(D[i, j]) over i<n, j<n",
    )
    reader = program.equations[1]
    assert isinstance(reader.expr, Map)
    polynomial = replace(reader, expr=replace(reader.expr, approx=Approx(3, -1.0, 4.0)))
    assert len(fuse(program, Context(sizes={"n": 9}), Trace()).equations) == 1
    loose = replace(program, equations=(program.equations[0], polynomial))
    assert fuse(loose, Context(sizes={"n": 9}), Trace()) is loose


@every_semiring
@pytest.mark.parametrize("name", ["exp", "abs", "relu", "tanh", "neg", "sqrt", "floor", "sigmoid"])
def test_r19_never_through_a_sum(semiring: Semiring, name: str) -> None:
    dtype = dtype_of(semiring)
    if dtype == BOOL and name in ("neg", "relu", "floor", "abs"):
        pytest.skip("no function of bools")
    known = {s.name: s for s in (*SEMIRINGS, MIN_MAX)}
    result = FUNCTIONS[name].result((dtype,)).name
    program = parse_ir(
        f"input x: {dtype}[n, n]\nt[i]: {dtype}[n] = einsum[{semiring.name}, {dtype}](j; x[i, j]) over i<n, j<n\n"
        f"y[i]: {result}[n] = {name}(t[i]) over i<n\nreturn y",
        known,
    )
    after = planned(program, sizes={"n": 9})
    for equation in after.equations:
        for einsum in (e for e in walk(equation.expr) if isinstance(e, Einsum) and e.bound):
            assert not any(isinstance(e, Map) and e.function == name for f in einsum.factors for e in walk(f))
    with np.errstate(invalid="ignore"):
        assert_same(program, after, 5, FOUR)
