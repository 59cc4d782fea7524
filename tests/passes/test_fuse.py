"""Fusion, common subexpressions, softmax and normal form: what is joined, what is stored, and what must stay apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stein.ir.expr import Einsum, Map, Program, walk
from stein.ir.interpret import interpret
from stein.ir.rewrite import Trace
from stein.passes.base import Context
from stein.passes.common import drop_dead, key, share_common
from stein.passes.fuse import fuse, materialise, repeated_work
from stein.passes.normalise import normalise
from stein.passes.plan import plan
from stein.tests.passes.products import assert_same, ir, planned

PRODUCT = "einsum[plustimes, f64](j; A[i, j], B[j, k]) over i<n, j<m, k<p"
MATRICES = ("input A: f64[n, m]", "input B: f64[m, p]")
BIG = {"n": 200, "m": 200, "p": 200}


def names(program: Program) -> list[str]:
    return [e.name for e in program.equations]


# --- fuse ---------------------------------------------------------------------------------------------------------


def test_elementwise_work_becomes_the_epilogue_of_a_product() -> None:
    program = ir(
        *MATRICES,
        "input b: f64[p]",
        f"t[i, k]: f64[n, p] = {PRODUCT}",
        "u[i, k]: f64[n, p] = add(t[i, k], b[k]) over i<n, k<p",
        "y[k, i]: f32[p, n] = cast[f32](relu(u[i, k])) over i<n, k<p",
    )
    after = planned(program, sizes=BIG)
    assert names(after) == ["y"]
    assert_same(program, after, 1, {"n": 2, "m": 3, "p": 4})


def test_elementwise_work_becomes_the_prologue_of_a_sum_that_reads_it_once() -> None:
    program = ir(
        "input A: f64[n, m]",
        "e[i, j]: f64[n, m] = exp(A[i, j]) over i<n, j<m",
        "y[i]: f64[n] = einsum[plustimes, f64](j; e[i, j]) over i<n, j<m",
    )
    assert names(planned(program, sizes=BIG)) == ["y"]


@pytest.mark.parametrize(("function", "stored"), [("exp", True), ("cast[f64]", False), ("neg", False)])
def test_dear_functions_are_not_repeated(function: str, stored: bool) -> None:
    """exp of a factor of a matrix product would be taken once per column; a cast or a sign costs less than a pass."""
    separate = ir(
        *MATRICES,
        f"e[i, j]: f64[n, m] = {function}(A[i, j]) over i<n, j<m",
        f"y[i, k]: f64[n, p] = {PRODUCT.replace('A[', 'e[')}",
    )
    inside = ir(*MATRICES, f"y[i, k]: f64[n, p] = {PRODUCT.replace('A[i, j]', f'{function}(A[i, j])')}")
    small = {"n": 200, "m": 200, "p": 6}
    assert len(planned(separate, sizes=BIG if stored else small).equations) == (2 if stored else 1)
    assert len(planned(inside, sizes=BIG if stored else small).equations) == (2 if stored else 1)
    assert len(planned(inside, sizes={"n": 200, "m": 200, "p": 1}).equations) == 1  # a vector: nothing is repeated
    assert names(planned(inside, sizes=BIG))[-1] == "y"


def test_materialise_and_fuse_do_not_undo_each_other() -> None:
    for weight_of in ("exp(A[i, j])", "neg(A[i, j])", "div(A[i, j], exp(A[i, j]))"):
        for p in (1, 3, 5, 9, 50, 500):
            program = ir(*MATRICES, f"y[i, k]: f64[n, p] = {PRODUCT.replace('A[i, j]', weight_of)}")
            context = Context(sizes={"n": 60, "m": 60, "p": p})
            stored = materialise(program, context, Trace())
            assert fuse(stored, context, Trace()) == stored
    assert not repeated_work(program.equations[0].expr, 100, 100)


def test_what_is_used_twice_or_asked_for_is_stored() -> None:
    program = ir(
        *MATRICES,
        f"t[i, k]: f64[n, p] = {PRODUCT}",
        "u[i, k]: f64[n, p] = relu(t[i, k]) over i<n, k<p",
        "y[i, k]: f64[n, p] = mul(u[i, k], t[i, k]) over i<n, k<p",
    )
    assert names(planned(program, sizes=BIG)) == ["t", "y"]
    asked = Program(program.inputs, program.equations, ("t", "u", "y"))
    assert names(planned(asked, sizes=BIG)) == ["t", "u", "y"]


def test_a_product_does_not_move_into_a_broadcast() -> None:
    program = ir(
        "input A: f64[n, m]",
        "input b: f64[p]",
        "s[i]: f64[n] = einsum[plustimes, f64](j; A[i, j]) over i<n, j<m",
        "y[i, k]: f64[n, p] = mul(s[i], b[k]) over i<n, k<p",
    )
    assert names(planned(program, sizes=BIG)) == ["s", "y"]


def test_constants_do_not_dissolve_in_what_is_run_at_every_call() -> None:
    program = ir(
        "input const W: f64[n]",
        "input x: f64[n]",
        "t[i]: f64[n] = exp(W[i]) over i<n",
        "y[i]: f64[n] = mul(t[i], x[i]) over i<n",
    )
    assert names(planned(program)) == ["t", "y"]


def test_copies_stay_copies() -> None:
    program = ir(
        "input x: f64[n]",
        "t[i]: f64[n] = x[i-1; pad=0.0] over i<n",
        "y[i]: f64[n] = neg(t[i]) over i<n",
    )
    after = planned(program)
    assert names(after) == ["x.copy", "y"]
    assert_same(program, after, 1, {"n": 4})


def test_updates_stay_updates() -> None:
    product = ir(*MATRICES, "input c: f64[n, p]", f"y[i, k]: f64[n, p] = {PRODUCT}")
    updated = replace(product, equations=(replace(product.equations[0], update="c"),))
    after = planned(updated, sizes=BIG)
    assert after.equations[0].update == "c"
    assert_same(updated, after, 1, {"n": 2, "m": 3, "p": 2})


def test_the_sum_of_quotients_is_a_quotient_of_the_sum() -> None:
    program = ir(
        "input e: f64[n, m]",
        "input s: f64[n]",
        "input v: f64[m, p]",
        "a[i, j]: f64[n, m] = div(e[i, j], s[i]) over i<n, j<m",
        "y[i, k]: f64[n, p] = einsum[plustimes, f64](j; a[i, j], v[j, k]) over i<n, j<m, k<p",
    )
    after = planned(program, sizes=BIG)
    (equation,) = after.equations
    assert isinstance(equation.expr, Map) and equation.expr.function == "div"
    assert isinstance(equation.expr.args[0], Einsum)
    assert names(planned(program, sizes=BIG, strict=True)) == ["a", "y"]
    given = {"e": np.ones((2, 3)), "s": np.array([2.0, 4.0]), "v": np.ones((3, 1))}
    np.testing.assert_array_equal(interpret(after, given)["y"], interpret(program, given)["y"])
    by_column = ir(
        "input e: f64[n, m]",
        "input s: f64[m]",
        "input v: f64[m, p]",
        "a[i, j]: f64[n, m] = div(e[i, j], s[j]) over i<n, j<m",
        "y[i, k]: f64[n, p] = einsum[plustimes, f64](j; a[i, j], v[j, k]) over i<n, j<m, k<p",
    )
    assert names(planned(by_column, sizes=BIG)) == ["a", "y"]  # s is summed over


# --- softmax ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f64", "f32", "f16"])
def test_softmax_keeps_its_value(dtype: str) -> None:
    program = ir(
        f"input x: {dtype}[n, m, p]",
        f"y[i, j, k]: {dtype}[n, m, p] = softmax[k, j](x[i, j, k]) over i<n, j<m, k<p",
    )
    after = planned(program)
    assert not any(type(e).__name__ == "Softmax" for q in after.equations for e in walk(q.expr))
    assert names(after) == ["y.softmax.max", "y.softmax.exp", "y.softmax.sum", "y"]
    numpy_type = program.inputs[0].dtype.numpy
    x = (np.random.default_rng(0).standard_normal((2, 3, 4)) * 30).astype(numpy_type)
    x[0, 0, 0] = -np.inf
    want, got = interpret(program, {"x": x})["y"], interpret(after, {"x": x})["y"]
    work = np.finfo(np.float32 if dtype == "f16" else numpy_type).eps
    np.testing.assert_allclose(  # the same operations, sums of 12 terms in another order, one rounding
        got.astype(float), want.astype(float), rtol=14 * work + np.finfo(numpy_type).eps
    )


def test_softmax_of_one_body_is_computed_once() -> None:
    program = ir(
        "input x: f64[n]",
        "u[i]: f64[n] = softmax[i](neg(x[i])) over i<n",
        "y[i]: f64[n] = exp(softmax[i](neg(x[i]))) over i<n",
    )
    program = Program(program.inputs, program.equations, ("u", "y"))
    assert len([n for n in names(planned(program)) if n.endswith(".exp")]) == 1


# --- common subexpressions, dead equations ------------------------------------------------------------------------


def test_equal_products_are_computed_once_whatever_their_names() -> None:
    program = ir(
        *MATRICES,
        f"t[i, k]: f64[n, p] = {PRODUCT}",
        "u[a, b]: f64[n, p] = einsum[plustimes, f64](c; B[c, b], A[a, c]) over a<n, b<p, c<m",
        "y[i, k]: f64[n, p] = mul(exp(t[i, k]), u[i, k]) over i<n, k<p",
    )
    shared = share_common(program, Context(), Trace())
    assert names(shared) == ["t", "y"]
    both = share_common(Program(program.inputs, program.equations, ("t", "u", "y")), Context(), Trace())
    assert names(both) == ["t", "u", "y"]
    assert key(both.equations[1].expr, both.equations[1].extents) == "t[1*i0+0,1*i1+0]"
    before = Program(program.inputs, program.equations, ("t", "u"))
    assert_same(before, Program(both.inputs, both.equations[:2], ("t", "u")), 2, {"n": 2, "m": 3, "p": 2})


@pytest.mark.parametrize(
    "line",
    [
        "u[b, a]: f64[n, p] = einsum[plustimes, f64](c; B[c, a], A[b, c]) over a<p, b<n, c<m",  # the same in fact
        "u[a, b]: f64[n, p] = einsum[maxplus, f64](c; B[c, b], A[a, c]) over a<n, b<p, c<m",
        "u[a, b]: f32[n, p] = cast[f32](einsum[plustimes, f64](c; B[c, b], A[a, c])) over a<n, b<p, c<m",
        "u[a, b]: f64[n, p] = einsum[plustimes, f64](c; B[c, b], A[a, c], A[a, c]) over a<n, b<p, c<m",
    ],
)
def test_other_products_are_not_shared(line: str) -> None:
    program = ir(*MATRICES, f"t[i, k]: f64[n, p] = {PRODUCT}", line, "y[i]: f64[n] = mul(t[i, 0], u[i, 0]) over i<n")
    assert len(share_common(program, Context(), Trace()).equations) == (2 if "u[b, a]" in line else 3)


def test_marginals_share_nothing_that_differs_and_dead_equations_go() -> None:
    program = ir(
        "input F: f64[a, b]",
        "input G: f64[b, c]",
        "dead[i]: f64[a] = F[i, 0] over i<a",
        "deader[i]: f64[a] = dead[i] over i<a",
        "y[i]: f64[a] = einsum[plustimes, f64](j, k; F[i, j], G[j, k]) over i<a, j<b, k<c",
    )
    assert names(drop_dead(program, Context(), Trace())) == ["y"]


def test_intermediates_of_two_outputs_are_shared() -> None:
    program = ir(
        "input A: f64[n, n]",
        "input B: f64[n, n]",
        "input C: f64[n, n]",
        "u[i, l]: f64[n, n] = einsum[plustimes, f64](j, k; A[i, j], B[j, k], C[k, l]) over i<n, j<n, k<n, l<n",
        "y[l]: f64[n] = einsum[plustimes, f64](i, j, k; A[i, j], B[j, k], C[k, l]) over i<n, j<n, k<n, l<n",
    )
    program = Program(program.inputs, program.equations, ("u", "y"))
    assert_same(program, planned(program, sizes={"n": 99}), 3, {"n": 3})


# --- normal form --------------------------------------------------------------------------------------------------


def test_a_chain_of_products_is_one_network_again() -> None:
    program = ir(
        "input A: f64[n, n]",
        "input x: f64[n]",
        "t[i]: f64[n] = einsum[plustimes, f64](j; A[i, j], x[j]) over i<n, j<n",
        "u[i]: f64[n] = einsum[plustimes, f64](j; A[i, j], t[j]) over i<n, j<n",
        "y: f64 = einsum[plustimes, f64](i; x[i], u[i]) over i<n",
    )
    one = normalise(program, Context(), Trace())
    assert names(one) == ["y"]
    assert isinstance(one.equations[0].expr, Einsum) and len(one.equations[0].expr.factors) == 4
    for context in (Context(strict=True), Context(optimize=False), Context(optimize=((0, 1),))):
        assert names(normalise(program, context, Trace())) == ["t", "u", "y"]  # the order is the user's
    assert_same(program, one, 2, {"n": 3})


def test_a_diagonal_in_a_product_is_never_stored() -> None:
    program = ir(
        "input v: f64[n]",
        "input B: f64[n, m]",
        "D[i, i]: f64[n, n] = v[i] over i<n",
        "y[i, k]: f64[n, m] = einsum[plustimes, f64](j; D[i, j], B[j, k]) over i<n, j<n, k<m",
    )
    after = planned(program)
    assert names(after) == ["y"] and len(after.equations[0].indices) == 2
    assert_same(program, after, 3, {"n": 3, "m": 2})
    shortest = ir(
        "input v: f64[n]",
        "input B: f64[n, m]",
        "D[i, i]: f64[n, n] = v[i] over i<n",
        "y[i, k]: f64[n, m] = einsum[minplus, f64](j; D[i, j], B[j, k]) over i<n, j<n, k<m",
    )
    assert names(planned(shortest)) == ["D", "y"]  # the zeros of D are 0, not min-plus's
    assert_same(shortest, planned(shortest), 3, {"n": 3, "m": 2})


def test_a_rounded_intermediate_of_another_type_stays() -> None:
    program = ir(
        "input A: i8[n, n]",
        "input x: i64[n]",
        "t[i]: i8[n] = einsum[plustimes, i8](j; A[i, j], A[j, i]) over i<n, j<n",
        "y: i64 = einsum[plustimes, i64](i; t[i], x[i]) over i<n",
    )
    after = planned(program)
    assert names(after) == ["t", "y"]
    given = {"A": np.full((3, 3), 100, np.int8), "x": np.arange(3)}
    np.testing.assert_array_equal(interpret(after, given)["y"], interpret(program, given)["y"])


def test_a_narrowed_intermediate_stays() -> None:
    program = ir(
        "input A: i64[n, n]",
        "input x: i64[n]",
        "t[i]: i8[n] = einsum[plustimes, i64](j; A[i, j], A[j, i]):i8 over i<n, j<n",
        "y: i8 = einsum[plustimes, i64](i; t[i], x[i]):i8 over i<n",
        "z: i64 = einsum[plustimes, i64](i; t[i], x[i]) over i<n",
    )
    for output in ("y", "z"):
        asked = Program(program.inputs, program.equations, (output,))
        after = planned(asked)
        assert names(after) == ["t", output]
        given = {"A": np.full((3, 3), 100), "x": np.arange(3)}
        np.testing.assert_array_equal(interpret(after, given)[output], interpret(asked, given)[output])


def test_keys_tell_types_apart() -> None:
    program = ir(
        "input x: f16[n]",
        "u: f16 = einsum[plustimes, f32](i; x[i]):f16 over i<n",
        "v: f16 = einsum[plustimes, f16](i; x[i]) over i<n",
        "y: f16 = add(u[], v[])",
    )
    assert names(share_common(program, Context(), Trace())) == ["u", "v", "y"]


def test_a_plan_of_nothing() -> None:
    program = ir("y: f64 = 2.0:f64")
    after, records = plan(program, Context())
    assert after is program and not any(r.changed for r in records)
