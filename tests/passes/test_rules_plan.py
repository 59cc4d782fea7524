"""Rules R10 to R16 and R20 of language.md, over the semirings that each claims, and where they must not fire."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stein.ir.expr import (
    Einsum,
    Map,
    Program,
    walk,
)
from stein.ir.functions import FUNCTIONS
from stein.ir.index import Index
from stein.ir.rewrite import Scope, Trace
from stein.ir.semiring import MAX_PLUS, PLUS_TIMES, Semiring
from stein.ir.size import ONE, Size
from stein.ir.text import parse_ir, print_program
from stein.ir.types import F64
from stein.passes import rules
from stein.passes.base import Context
from stein.passes.common import equation_key
from stein.passes.factor import factored
from stein.passes.normalise import merge_composite, normalise, squeeze_ones
from stein.tests.passes.products import (
    SEMIRINGS,
    assert_same,
    check_rule,
    dtype_of,
    each_semiring,
    ir,
    planned,
    product,
    products,
    read,
    rewritten,
    root,
    scope_of,
)

# --- R10, R11 -----------------------------------------------------------------------------------------------


@each_semiring
def test_r10_scalars_leave_the_sum(semiring: Semiring) -> None:
    program = product(semiring, {"s": "", "A": "ab", "B": "bd"}, "ad")
    after = planned(program)
    expr = after.equations[0].expr
    assert_same(program, after, 4)
    assert isinstance(expr, Map) and expr.function == semiring.mul
    assert isinstance(expr.args[0], Einsum) and len(expr.args[0].factors) == 2
    assert isinstance(planned(program, strict=True).equations[-1].expr, Einsum)


@each_semiring
def test_r10_factors_of_the_sum_stay_in_it(semiring: Semiring) -> None:
    program = product(semiring, {"v": "b", "A": "ab"}, "a")
    after = planned(program)
    (einsum,) = (e for e in walk(after.equations[-1].expr) if isinstance(e, Einsum))
    assert einsum.bound and len(einsum.factors) == 2
    assert_same(program, after, 4)


@each_semiring
def test_r11_only_the_addition_of_the_semiring_distributes(semiring: Semiring) -> None:
    dtype = dtype_of(semiring)
    program = product(semiring, {"A": "ab", "B": "ab", "C": "bd"}, "ad")
    for function in {s.add for s in SEMIRINGS} - {semiring.add}:
        if FUNCTIONS[function].result((dtype, dtype)) == dtype:
            total = Map(function, (read("A", "ab", dtype), read("B", "ab", dtype)), dtype)
            einsum = replace(root(program), factors=(total, root(program).factors[2]))
            assert rules.distribute(einsum, 0, scope_of(program)) is None


@each_semiring
def test_r11_sums_distribute(semiring: Semiring) -> None:
    dtype = dtype_of(semiring)
    total = Map(semiring.add, (read("A", "ab", dtype), read("B", "ab", dtype)), dtype)
    program = product(semiring, {"A": "ab", "B": "ab", "C": "bd"}, "ad")
    program = replace(
        program,
        equations=(
            replace(program.equations[0], expr=replace(root(program), factors=(total, root(program).factors[2]))),
        ),
    )
    after = rewritten(program, lambda e, s: rules.distribute(e, 0, s))
    assert after is not None
    assert isinstance(after.equations[0].expr, Map)
    assert_same(program, after, 6)


def test_r11_and_r21_differences_only_in_a_ring() -> None:
    minus = Map("sub", (read("A", "ab", F64), read("B", "ab", F64)), F64)
    einsum = Einsum(("b",), (minus, read("C", "bd", F64)), F64, F64)
    scope = scope_of(product(PLUS_TIMES, {"A": "ab"}, "a"))
    assert rules.distribute(einsum, 0, scope) is not None
    assert rules.distribute(replace(einsum, semiring=MAX_PLUS), 0, scope) is None


def shared(function: str, semiring: str, slots: str) -> Program:
    left, right = "einsum[plustimes, f64](k; A[i, k], x[k, j])", f"einsum[{semiring}, f64](l; x[l, j], B[{slots}])"
    return ir(
        "input A: f64[n, n]",
        "input B: f64[n, n]",
        "input x: f64[n, m]",
        f"y[i, j]: f64[n, m] = {function}({left}, {right}) over i<n, j<m, k<n, l<n",
    )


@pytest.mark.parametrize("function", ["add", "sub"])
def test_r11_backwards_takes_a_common_factor_out(function: str) -> None:
    program = shared(function, "plustimes", "i, l")
    equation = program.equations[0]
    assert isinstance(factored(equation.expr, Scope(program, equation)), Einsum)
    assert_same(program, planned(program, sizes={"n": 300, "m": 300}), 7, {"n": 3, "m": 4})
    for program in (shared(function, "maxplus", "i, l"), shared(function, "plustimes", "l, l")):
        assert factored(program.equations[0].expr, Scope(program, program.equations[0])) is None


# --- R12 to R14 ---------------------------------------------------------------------------------------------


@each_semiring
def test_r12_sums_of_one_operand_first(semiring: Semiring) -> None:
    assert check_rule(semiring, rules.split_single) > 3
    program = product(semiring, {"A": "ab", "B": "ad"}, "d")
    inner = rules.split_single(root(program), scope_of(program)).factors[0]
    assert isinstance(inner, Einsum)
    assert inner.bound == ("b",)
    kept = product(semiring, {"A": "ab", "B": "ab"}, "a")
    assert rules.split_single(root(kept), scope_of(kept)) is root(kept)


@each_semiring
def test_r13_equal_index_sets_merge(semiring: Semiring) -> None:
    assert check_rule(semiring, rules.merge_equal) > 1
    program = product(semiring, {"A": "ab", "B": "ba", "C": "bd"}, "ad")
    inner = rules.merge_equal(root(program), scope_of(program)).factors[0]
    assert isinstance(inner, Einsum)
    assert inner.bound == () and len(inner.factors) == 2
    other = product(semiring, {"A": "ab", "B": "b", "C": "bd"}, "ad")
    assert rules.merge_equal(root(other), scope_of(other)) is root(other)


@each_semiring
def test_r14_components_separate(semiring: Semiring) -> None:
    assert check_rule(semiring, rules.split_components) > 1
    program = product(semiring, {"A": "ab", "B": "de"}, "ad")
    parts = rules.split_components(root(program), scope_of(program)).factors
    assert [p.bound for p in parts if isinstance(p, Einsum)] == [("b",), ("e",)]
    joined = product(semiring, {"A": "ab", "B": "bd"}, "a")
    assert rules.split_components(root(joined), scope_of(joined)) is root(joined)


# --- R15, R16 -----------------------------------------------------------------------------------------------


@each_semiring
def test_r15_length_one_goes(semiring: Semiring) -> None:
    for seed, _, program in products(semiring):
        if all(i.extent != Size.name("nc") for i in program.equations[0].indices):
            assert squeeze_ones(program.equations[0]) is program.equations[0]  # a size that may be 1 is not 1
        one = {"nc": ONE}
        fixed = replace(
            program,
            inputs=tuple(replace(i, shape=tuple(s.substitute(one) for s in i.shape)) for i in program.inputs),
            equations=tuple(
                replace(
                    e,
                    shape=tuple(s.substitute(one) for s in e.shape),
                    indices=tuple(Index(i.name, i.extent.substitute(one)) for i in e.indices),
                )
                for e in program.equations
            ),
        )
        squeezed = squeeze_ones(fixed.equations[0])
        assert all(i.extent != ONE for i in squeezed.indices)
        assert_same(fixed, replace(fixed, equations=(squeezed,)), seed)
        assert squeeze_ones(squeezed) is squeezed


@each_semiring
def test_r16_indices_that_go_together_merge(semiring: Semiring) -> None:
    kind = dtype_of(semiring).name
    ring = f"einsum[{semiring.name}, {kind}]"
    total = f"{ring}(j, l; A[{{n}}*i+k, {{q}}*j+l], x[{{q}}*j+l])"
    program = ir(
        f"input A: {kind}[m*n, p*q]",
        f"input x: {kind}[p*q]",
        f"y[{{n}}*i+k]: {kind}[m*n] = {total} over i<m, k<n, j<p, l<q",
    )
    merged = merge_composite(program.equations[0])
    assert len(merged.indices) == 2
    assert_same(program, replace(program, equations=(merged,)), 8, {"m": 2, "n": 3, "p": 2, "q": 4})


@pytest.mark.parametrize(
    "line",
    [
        "y[i, k]: f64[m, n] = x[{n}*i+k] over i<m, k<n",  # i stands alone on the left
        "y[{n}*i+k]: f64[m*n] = x[2*i+k] over i<m, k<n",  # another step on the right
        "y[i]: f64[m] = einsum[plustimes, f64](k; x[{n}*i+k]) over i<m, k<n",  # only k is summed
        "y: f64 = einsum[plustimes, f64](i; relu(einsum[plustimes, f64](k; x[{n}*i+k]))) over i<m, k<n",  # in two sums
    ],
)
def test_r16_leaves_other_pairs(line: str) -> None:
    equation = ir("input x: f64[m*n]", line).equations[0]
    assert merge_composite(equation) is equation


# --- R20 ---------------------------------------------------------------------------------------------------


@each_semiring
def test_r20_an_affine_access_is_a_structure_tensor(semiring: Semiring) -> None:
    kind = dtype_of(semiring).name
    text = (
        f"input t: {kind}[2*n-1]\ninput x: {kind}[n]\n"
        f"y[i]: {kind}[n] = einsum[{semiring.name}, {kind}](j; t[i-j+{{n-1}}], x[j]) over i<n, j<n\nreturn y"
    )
    program = parse_ir(text)
    opened = rewritten(program, lambda e, s: rules.structure_tensor(e, 0, s))
    assert opened is not None
    assert len(root(opened).factors) == 3
    assert_same(program, opened, 5, {"n": 4})
    closed = rewritten(opened, rules.substitute_delta)
    assert closed is not None
    assert equation_key(closed.equations[0]) == equation_key(program.equations[0])


def test_r20_only_affine_accesses_open() -> None:
    program = product(PLUS_TIMES, {"A": "ab", "B": "b"}, "a")
    assert rules.structure_tensor(root(program), 0, scope_of(program)) == root(program)


@each_semiring
def test_r20_a_circulant_access_opens_and_stays_open(semiring: Semiring) -> None:
    kind = dtype_of(semiring).name
    line = f"y[i]: {kind}[n] = einsum[{semiring.name}, {kind}](j; c[(i-j) mod {{n}}], x[j]) over i<n, j<n"
    program = ir(f"input c: {kind}[n]", f"input x: {kind}[n]", line)
    opened = rewritten(program, lambda e, s: rules.structure_tensor(e, 0, s))
    assert opened is not None
    assert_same(program, opened, 5, {"n": 4})
    assert rewritten(opened, rules.substitute_delta) is None  # d == (i-j) mod n gives no index without a modulus


# --- all of them together -----------------------------------------------------------------------------------


@each_semiring
def test_normal_form_and_plan_keep_the_value(semiring: Semiring) -> None:
    for seed, _, program in products(semiring):
        assert_same(program, normalise(program, Context(), Trace()), seed)
        assert_same(program, planned(program), seed)
        assert_same(program, planned(program, sizes={}, optimize=False), seed)


def test_index_values_fold() -> None:
    condition = "eq(add(at(i), 1:i64), sub(mul(2:i64, at(j)), size(n)))"
    program = ir("input x: f64[n]", f"y[i, j]: f64[n, n] = where({condition}, x[i], x[j]) over i<n, j<n")
    after = normalise(program, Context(), Trace())
    assert "eq(at(i+1), at(2*j-n))" in print_program(after).replace("+{-n}", "-n")
    assert_same(program, after, 1, {"n": 4})
