"""Rules R1 to R7 of language.md, over the semirings that each claims, and where they must not fire."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stein.ir.expr import (
    Einsum,
    Map,
    Position,
    Read,
    substitute,
    walk,
)
from stein.ir.index import Affine, Index
from stein.ir.interpret import interpret
from stein.ir.rewrite import Trace
from stein.ir.semiring import BOOLEAN, MAX_PLUS, PLUS_TIMES, Semiring
from stein.ir.types import BOOL, F64, I64
from stein.passes import rules
from stein.passes.base import Context
from stein.passes.common import equation_key, key
from stein.passes.normalise import normalise
from stein.tests.passes.products import (
    arguments,
    assert_same,
    dtype_of,
    each_semiring,
    extents,
    ir,
    product,
    products,
    read,
    rewritten,
    root,
    scope_of,
)

# --- R1 to R3: names and order ------------------------------------------------------------------------------


@each_semiring
def test_r1_renaming_keeps_value_and_key(semiring: Semiring) -> None:
    for seed, choose, program in products(semiring):
        equation = program.equations[0]
        names = [i.name for i in equation.indices]
        new = dict(zip(names, choose.sample([f"z{k}" for k in range(9)], len(names)), strict=True))
        values = {a: Affine.of(b) for a, b in new.items()}
        renamed = replace(
            equation,
            slots=tuple(s.substitute(values) for s in equation.slots),
            indices=tuple(Index(new[i.name], i.extent) for i in equation.indices),
            expr=substitute(equation.expr, values),
        )
        assert equation_key(renamed) == equation_key(equation)
        assert_same(program, replace(program, equations=(renamed,)), seed)


@each_semiring
def test_r1_merging_two_names_is_another_product(semiring: Semiring) -> None:
    dtype = dtype_of(semiring).name
    one, other = (
        ir(
            f"input A: {dtype}[n, n]",
            f"input B: {dtype}[n, n]",
            f"y[a]: {dtype}[n] = einsum[{semiring.name}, {dtype}]({bound}; A[a, b], B[b, {last}]) over {ranges}",
        )
        for bound, last, ranges in (("b, e", "e", "a<n, b<n, e<n"), ("b", "b", "a<n, b<n"))
    )
    assert equation_key(one.equations[0]) != equation_key(other.equations[0])
    values = [[interpret(p, arguments(one, seed, {"n": 3}))["y"] for p in (one, other)] for seed in range(5)]
    assert not all(np.array_equal(a, b) for a, b in values)


@each_semiring
def test_r2_factors_commute(semiring: Semiring) -> None:
    for seed, choose, program in products(semiring):
        einsum = root(program)
        factors = choose.sample(einsum.factors, len(einsum.factors))
        after = rewritten(program, lambda e, s, f=tuple(factors): replace(e, factors=f))  # type: ignore[misc]
        assert after is not None
        assert equation_key(after.equations[0]) == equation_key(program.equations[0])
        assert_same(program, after, seed)


def test_r2_key_tells_other_products_apart() -> None:
    sizes = extents()
    same = [
        root(product(PLUS_TIMES, {"A": "ab", "B": "bc"}, "ac")),
        root(product(PLUS_TIMES, {"B": "bc", "A": "ab"}, "ac")),
    ]
    other = root(product(PLUS_TIMES, {"A": "ba", "B": "bc"}, "ac"))
    assert key(same[0], sizes) == key(same[1], sizes) != key(other, sizes)
    assert key(same[0], sizes) != key(replace(same[0], semiring=MAX_PLUS), sizes)


@each_semiring
def test_r3_another_output_order_is_the_transpose(semiring: Semiring) -> None:
    one = product(semiring, {"A": "ab", "B": "bd"}, "ad")
    other = product(semiring, {"A": "ab", "B": "bd"}, "da")
    arrays = arguments(one, 3)
    np.testing.assert_array_equal(interpret(one, arrays)["y"].T, interpret(other, arrays)["y"])
    kind = dtype_of(semiring)
    body = f"einsum[{semiring.name}, {kind}](k; A[i, k], B[k, j]) over i<n, j<n, k<n"
    square = [
        ir(f"input A: {kind}[n, n]", f"input B: {kind}[n, n]", f"y[{s}]: {kind}[n, n] = {body}")
        for s in ("i, j", "j, i")
    ]
    assert equation_key(square[0].equations[0]) != equation_key(square[1].equations[0])  # no common subexpression


# --- R4, R5: nesting ----------------------------------------------------------------------------------------


@each_semiring
def test_r4_any_subset_nests_and_r5_undoes_it(semiring: Semiring) -> None:
    for seed, choose, program in products(semiring):
        einsum = root(program)
        chosen = [k for k in range(len(einsum.factors)) if choose.random() < 0.5]
        if not chosen:
            continue
        free = program.equations[0].free
        nested = rewritten(program, lambda e, s, c=chosen, f=free: rules.nest(e, c, f))  # type: ignore[misc]
        assert nested is not None
        assert_same(program, nested, seed)
        flat = rewritten(nested, rules.denest)
        assert flat is not None
        assert not any(isinstance(f, Einsum) for f in root(flat).factors)
        assert equation_key(flat.equations[0]) == equation_key(program.equations[0])


def test_r4_keeps_an_index_that_is_used_outside() -> None:
    inner = rules.nest(root(product(PLUS_TIMES, {"A": "ab", "B": "bd", "C": "be"}, "ade")), [0, 1], "ade").factors[0]
    assert isinstance(inner, Einsum)
    assert inner.bound == ()  # b is a hyperedge


def test_r5_does_not_mix_semirings_or_types() -> None:
    inner = root(product(MAX_PLUS, {"A": "ab"}, "a"))
    scope = scope_of(product(PLUS_TIMES, {"A": "ab"}, "a"))
    assert rules.denest(Einsum(("a",), (inner,), F64, F64, PLUS_TIMES), scope) is None
    counted = root(product(BOOLEAN, {"A": "ab"}, "a"))  # or of bools, then counted: no sum of products
    assert rules.denest(Einsum(("a",), (replace(counted, semiring=PLUS_TIMES),), F64, F64, PLUS_TIMES), scope) is None
    small = replace(inner, semiring=PLUS_TIMES, dtype=I64, accumulate=I64)
    assert rules.denest(Einsum(("a",), (small,), F64, F64, PLUS_TIMES), scope) is None


# --- R6, R7: deltas -----------------------------------------------------------------------------------------


def delta(a: str, b: str) -> Map:
    return Map("eq", (Position(Affine.of(a)), Position(Affine.of(b))), BOOL)


@each_semiring
def test_r7_repeats_become_deltas_and_r6_takes_them_back(semiring: Semiring) -> None:
    fired = 0
    for seed, _, program in products(semiring):
        spread = rewritten(program, rules.spread_repeats)
        assert spread is not None
        if spread == program:
            continue
        fired += 1
        assert_same(program, spread, seed)
        back = normalise(spread, Context(), Trace())
        assert not any(rules.delta_of(e) is not None for e in walk(back.equations[0].expr))
        assert_same(program, back, seed)
    assert fired > 3


@each_semiring
def test_r7_leaves_a_product_without_repeats(semiring: Semiring) -> None:
    for _, _, program in products(semiring, repeats=False):
        after = rewritten(program, rules.spread_repeats)
        assert after is not None and root(after) == root(program)


@each_semiring
def test_r6_identity_matrix_disappears(semiring: Semiring) -> None:
    dtype = dtype_of(semiring)
    program = ir(
        f"input B: {dtype}[n, m]",
        f"y[a, c]: {dtype}[n, m] = einsum[{semiring.name}, {dtype}](b; eq(at(a), at(b)), B[b, c]) over a<n, b<n, c<m",
    )
    after = rewritten(program, rules.substitute_delta)
    assert after is not None
    assert root(after) == Einsum((), (read("B", "ac", dtype),), dtype, dtype, semiring)
    assert_same(program, after, 1, {"n": 3, "m": 2})


def test_r6_pads_where_the_index_may_leave_its_range() -> None:
    program = ir(
        "input T: f64[n, n]",
        "y[k]: f64[2*n-1] = einsum[plustimes, f64](i, j; eq(at(i+j), at(k)), T[i, j]) over k<2*n-1, i<n, j<n",
    )
    after = rewritten(program, rules.substitute_delta)
    assert after is not None
    assert [r.pad for r in root(after).factors if isinstance(r, Read)] == [0]
    assert_same(program, after, 5, {"n": 4})


@pytest.mark.parametrize(
    "line",
    [
        "y[i]: f64[m] = einsum[plustimes, f64](j; eq(at(i), at(j)), exp(x[j])) over i<m, j<n",  # exp of a pad is no 0
        "y[i, j]: f64[n, n] = einsum[plustimes, f64](; eq(at(i), at(j)), x[j]) over i<n, j<n",  # nothing is summed
        "y: f64 = einsum[plustimes, f64](j; eq(at(j), at(0)), exp(x[j])) over j<n",  # n may be 0
        "y[i]: f64[n] = einsum[plustimes, f64](j; eq(at(i), at(2*j)), x[j]) over i<n, j<n",  # 2j is not every i
    ],
)
def test_r6_leaves_what_it_cannot_prove(line: str) -> None:
    assert rewritten(ir("input x: f64[n]", line), rules.substitute_delta) is None


def test_r6_pads_only_where_zero_annihilates() -> None:
    lines = (
        "input T: {t}[n, n]",
        "y[k]: {t}[2*n-1] = einsum[maxplus, {t}](i, j; eq(at(i+j), at(k)), T[i, j]) over k<2*n-1, i<n, j<n",
    )
    floats, integers = (ir(*(line.format(t=t) for line in lines)) for t in ("f64", "i64"))
    after = rewritten(floats, rules.substitute_delta)
    assert after is not None
    assert_same(floats, after, 5, {"n": 4})
    assert rewritten(integers, rules.substitute_delta) is None  # the least integer plus -1 wraps
