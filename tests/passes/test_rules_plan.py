"""Rules R10 to R21 of language.md, over the semirings that each claims, and where they must not fire."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from stein.ir.errors import DTypeError
from stein.ir.expr import (
    Einsum,
    Map,
    Program,
)
from stein.ir.index import Index
from stein.ir.interpret import interpret
from stein.ir.rewrite import Scope, Trace
from stein.ir.semiring import MAX_PLUS, PLUS_TIMES, Semiring
from stein.ir.size import ONE
from stein.ir.text import parse_ir, print_program
from stein.ir.types import F64
from stein.passes import rules
from stein.passes.adjoint import adjoint
from stein.passes.base import Context
from stein.passes.common import equation_key
from stein.passes.factor import factored
from stein.passes.fuse import fuse
from stein.passes.normalise import merge_composite, normalise, squeeze_ones
from stein.passes.symmetry import symmetric_axes
from stein.tests.passes.products import (
    SEMIRINGS,
    arguments,
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
    assert [s.name for s in SEMIRINGS if rules.may_subtract(s)] == ["plustimes"]
    assert [s.name for s in SEMIRINGS if rules.may_divide(s)] == ["plustimes"]


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


# --- R17 to R20 ---------------------------------------------------------------------------------------------


@each_semiring
def test_r17_gram_matrices_are_symmetric(semiring: Semiring) -> None:
    kind = dtype_of(semiring).name
    text = (
        f"input X: {kind}[m, n]\ninput Z: {kind}[m, n]\n"
        f"G[i, j]: {kind}[n, n] = einsum[{semiring.name}, {kind}](k; X[k, i], {{}}[k, j]) over i<n, j<n, k<m\nreturn G"
    )
    program = parse_ir(text.format("X"))
    assert symmetric_axes(program.equations[0]) == ((0, 1),)
    value = interpret(program, arguments(program, 1, {"m": 3, "n": 4}))["G"]
    np.testing.assert_array_equal(value, value.T)
    assert symmetric_axes(parse_ir(text.format("Z")).equations[0]) == ()


def test_r17_symmetry_of_three_axes() -> None:
    text = "y[i, j, k]: f64[n, n, n] = einsum[plustimes, f64](; v[i], v[j], v[k]) over i<n, j<n, k<n"
    assert symmetric_axes(ir("input v: f64[n]", text).equations[0]) == ((0, 1), (0, 2), (1, 2))
    rectangular = text.replace("f64[n, n, n]", "f64[n, m, n]").replace("j<n", "j<m")
    assert (0, 1) not in symmetric_axes(ir("input v: f64[n]", rectangular).equations[0])


def test_r18_adjoint_is_the_transposed_linear_map() -> None:
    for seed, choose, program in products(PLUS_TIMES):
        operand = choose.choice(program.inputs).name
        try:
            gradient = adjoint(program, "y", operand)
        except DTypeError:
            continue
        assert_transposed(program, gradient, operand, seed, lambda a: a)


def test_r18_conjugates_and_adds_the_places_of_an_operand() -> None:
    program = ir(
        "input A: c128[n, n]",
        "input x: c128[n]",
        "y[i]: c128[n] = einsum[plustimes, c128](j; A[i, j], x[j]) over i<n, j<n",
    )
    assert_transposed(program, adjoint(program, "y", "A"), "A", 1, lambda a: a * (2 + 1j) - 1j)
    assert_transposed(program, adjoint(program, "y", "x"), "x", 2, lambda a: a * (1 - 3j))
    twice = parse_ir("input x: f64[n]\ny: f64 = einsum[plustimes, f64](i; x[i], x[i]) over i<n\nreturn y")
    given = {"x": np.arange(3.0), "g": np.array(2.0)}
    np.testing.assert_array_equal(interpret(adjoint(twice, "y", "x"), given)["grad"], 4 * np.arange(3.0))


def test_r18_and_r21_no_gradient_without_a_ring() -> None:
    with pytest.raises(DTypeError, match="ring"):
        adjoint(product(MAX_PLUS, {"A": "ab"}, "a"), "y", "A")


def assert_transposed(
    program: Program, gradient: Program, operand: str, seed: int, shake: Callable[[np.ndarray], np.ndarray]
) -> None:
    """<g, y(A + D) - y(A)> = <grad, D>, exactly, where the equation is linear in the operand."""
    sizes = {"na": 2, "nb": 3, "nc": 1, "nd": 4, "ne": 2, "n": 3}
    arrays = {n: shake(a) for n, a in arguments(program, seed, sizes).items()}
    moved = dict(arrays) | {operand: arrays[operand] + shake(arguments(program, seed + 99, sizes)[operand])}
    change = interpret(program, moved, sizes)["y"] - interpret(program, arrays, sizes)["y"]
    weights = shake(np.random.default_rng(seed).integers(0, 5, change.shape).astype(change.dtype))
    given = {i.name: weights if i.name == "g" else arrays[i.name] for i in gradient.inputs}
    grad = interpret(gradient, given, sizes)["grad"]
    assert np.sum(np.conj(weights) * change) == np.sum(np.conj(grad) * (moved[operand] - arrays[operand]))


def test_r19_functions_pass_through_views() -> None:
    text = (
        "input x: f64[n, m]\nt[j, i]: f64[m, n] = x[i, j] over i<n, j<m\n"
        'y[j]: f64[m] = exp(t[j, j]) over j<m\nreturn y\nrequire m == n, code="c", sentence="s"'
    )
    program = parse_ir(text)
    after = planned(program, sizes={"n": 3, "m": 3})
    assert [e.name for e in after.equations] == ["y"]
    assert_same(program, after, 3, {"n": 3, "m": 3})


@pytest.mark.parametrize(("function", "fuses"), [("tanh", True), ("exp", False)])
def test_r19_through_a_diagonal_only_if_zero_stays_zero(function: str, fuses: bool) -> None:
    diagonal, mapped = "D[i, i]: f64[n, n] = v[i] over i<n", f"y[i, j]: f64[n, n] = {function}(D[i, j]) over i<n, j<n"
    program = ir("input v: f64[n]", diagonal, mapped)
    after = fuse(program, Context(sizes={"n": 9}), Trace())
    assert (len(after.equations) == 1) == fuses
    assert_same(program, after, 3, {"n": 3})


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
