"""Rules R1 to R9 and R22 of language.md, over the semirings that each claims, and where they must not fire."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stein.ir.expr import (
    Const,
    Einsum,
    Map,
    Position,
    Read,
    SizeValue,
    substitute,
    walk,
)
from stein.ir.index import Affine, Index
from stein.ir.interpret import interpret
from stein.ir.rewrite import Scope, Trace
from stein.ir.semiring import BOOLEAN, LOGSUMEXP, MAX_PLUS, PLUS_TIMES, Semiring
from stein.ir.size import Size
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
    planned,
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


# --- R8, R9, R22 --------------------------------------------------------------------------------------------


@each_semiring
def test_r8_ones_go(semiring: Semiring) -> None:
    dtype = dtype_of(semiring)
    one = Const(semiring.one_of(dtype), dtype)
    for seed in range(5):
        program = product(semiring, {"A": "ab", "B": "b"}, "a", (one, Const(True, BOOL)))
        after = rewritten(program, rules.drop_ones)
        assert after is not None
        assert len(root(after).factors) == 2
        assert_same(program, after, seed)
    two = product(semiring, {"A": "ab"}, "a", (Const(semiring.zero_of(dtype), dtype),))
    assert rewritten(two, rules.drop_ones) is None


@each_semiring
@pytest.mark.parametrize("extent", [Size.of(3), Size.name("nd")], ids=str)
def test_r8_an_index_that_nothing_uses(semiring: Semiring, extent: Size) -> None:
    program = product(semiring, {"A": "ab"}, "a")
    equation = program.equations[0]
    wide = replace(
        equation,
        expr=replace(root(program), bound=("b", "e")),
        indices=(*equation.indices, Index("e", extent)),
    )
    program = replace(program, equations=(wide,))
    after = rewritten(program, rules.sum_of_nothing)
    counts = semiring == PLUS_TIMES
    idempotent = semiring not in (PLUS_TIMES, LOGSUMEXP) and extent.constant is not None
    assert (after is not None) == (counts or idempotent)
    for sizes in ({"na": 2, "nb": 3, "nd": 4}, {"na": 2, "nb": 3, "nd": 0}):
        if after is not None:
            assert any(isinstance(f, SizeValue) for f in root(after).factors) == counts
            assert_same(program, after, 2, sizes)


@pytest.mark.parametrize("zero", ["0.0:f64", "0:i64"])
def test_r9_zero_only_in_exact_arithmetic(zero: str) -> None:
    exact = ir("input x: i64[n]", "y: i64 = einsum[plustimes, i64](i; x[i], 0:i64) over i<n")
    after = rewritten(exact, rules.zero_factor)
    assert after is not None
    assert after.equations[0].expr == Const(0, I64)
    assert_same(exact, after, 0, {"n": 3})
    inexact = ir("input x: f64[n]", f"y: f64 = einsum[plustimes, f64](i; x[i], {zero}) over i<n")
    assert rewritten(inexact, rules.zero_factor) is None
    value = interpret(planned(inexact), {"x": np.array([np.nan, 1.0])})["y"]
    assert np.isnan(value)  # an observed 0 does not hide NaN


@pytest.mark.parametrize("function", ["maximum", "minimum", "logical_or", "logical_and"])
def test_r22_equal_summands_count_once(function: str) -> None:
    dtype = BOOL if function.startswith("logical") else F64
    left = root(product(BOOLEAN if dtype == BOOL else MAX_PLUS, {"A": "ab", "B": "bd"}, "ad"))
    right = substitute(replace(left, factors=left.factors[::-1]), {"b": Affine.of("e")})
    scope = Scope(product(PLUS_TIMES, {"A": "ab"}, "a"), product(PLUS_TIMES, {"A": "ab"}, "a").equations[0])
    scope.extents.update(extents() | {"e": Size.name("nb")})
    other = Read("C", (Affine.of("a"),), dtype)
    assert rules.drop_duplicates(Map(function, (left, right), dtype), scope) == left
    three = Map(function, (Map(function, (left, other), dtype), right), dtype)
    assert rules.drop_duplicates(three, scope) == Map(function, (left, other), dtype)
    assert rules.drop_duplicates(Map("add", (left, right), F64), scope) is None
    assert rules.drop_duplicates(Map(function, (left, other), dtype), scope) is None
