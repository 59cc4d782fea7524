"""Lookups in the plan: index values in tensors, one lookup for each factor, the order of contraction, one kernel."""

from __future__ import annotations

import numpy as np
import pytest

import stein
from stein.ir.check import check_program
from stein.ir.count import count_program
from stein.ir.expr import Einsum, Program, Read, walk
from stein.ir.lookup import lookup_of, split_lookups
from stein.ir.text import parse_ir
from stein.passes.lookups import has_lookups
from stein.passes.pipeline import NORMAL_PASSES, PLAN_PASSES, Context, run_passes

SIZES = {"S": 50, "g": 8, "m": 8, "p": 4, "q": 4, "n": 32, "k": 3}
LISTS = "input I: i64[S]\ninput J: i64[S]\ninput B: f64[S, p, q]\ninput x: f64[m, q, n]\ninput C: f64[n, k]\n"


def planned(text: str) -> Program:
    program = parse_ir(text)
    check_program(program)
    context = Context(sizes=SIZES)
    program, _ = run_passes(program, NORMAL_PASSES, context)
    program, _ = run_passes(program, PLAN_PASSES, context)
    check_program(program, "planned")
    return program


def kernels(program: Program) -> list[Einsum]:
    return [e for equation in program.equations for e in walk(equation.expr) if isinstance(e, Einsum)]


def test_a_block_product_is_one_kernel() -> None:
    text = "y[i, a, c]: f64[g, p, n] = einsum[plustimes, f64](s, b, j; eq(at(i), I[s]), B[s, a, b], eq(J[s], at(j)), "
    program = planned(LISTS + text + "x[j, b, c]) over i<g, a<p, c<n, s<S, b<q, j<m\nreturn y")
    assert len(program.equations) == 1
    (kernel,) = kernels(program)
    lookups, rest = split_lookups(kernel.factors)
    assert {found.index for found in lookups} == {"i", "j"} and len(rest) == 2
    assert count_program(program, SIZES).flops == 2 * 50 * 4 * 4 * 32


def test_the_order_of_contraction_counts_stored_blocks() -> None:
    """x times C is cheaper after the lookup only where there are fewer blocks than rows of x: here it comes in any
    order that never makes a matrix over s and j.
    """
    text = (
        "y[i, a, d]: f64[g, p, k] = einsum[plustimes, f64](s, b, j, c; eq(at(i), I[s]), B[s, a, b], eq(at(j), J[s]), "
    )
    program = planned(LISTS + text + "x[j, b, c], C[c, d]) over i<g, a<p, d<k, s<S, b<q, j<m, c<n\nreturn y")
    assert not any(equation.dtype.kind == "b" for equation in program.equations)
    for kernel in kernels(program):
        touched = [f for f in kernel.factors if isinstance(f, Read)]
        assert has_lookups(kernel) and touched
    assert count_program(program, SIZES).flops < 2 * 50 * 4 * 4 * 32 * 3


@pytest.mark.parametrize("value", ["add(I[s], 1:i64)", "mul(I[s], J[s])"])
def test_computed_positions_are_stored(value: str) -> None:
    text = (
        f"y[s, b, c]: f64[S, q, n] = einsum[plustimes, f64](j; eq(at(j), {value}), x[j, b, c]) over s<S, b<q, c<n, j<m"
    )
    program = planned(LISTS + text + "\nreturn y")
    assert len(program.equations) == 2 and program.equations[0].dtype.kind == "i"
    (kernel,) = kernels(program)
    found = next(lookup_of(f) for f in kernel.factors if lookup_of(f) is not None)
    assert found is not None and isinstance(found.value, Read) and found.value.tensor == program.equations[0].name


def test_every_factor_gets_a_lookup_of_its_own() -> None:
    text = "y[b, c]: f64[q, n] = einsum[plustimes, f64](s, j; eq(at(j), J[s]), x[j, b, c], x[j, b, 0]) "
    program = planned(LISTS + text + "over b<q, c<n, s<S, j<m\nreturn y")
    found = [split_lookups(kernel.factors)[0] for kernel in kernels(program)]
    assert sum(map(len, found)) == 2
    for kernel in kernels(program):
        for lookup in split_lookups(kernel.factors)[0]:
            users = [
                f for f in kernel.factors if isinstance(f, Read) and any(lookup.index in s.indices for s in f.slots)
            ]
            assert len(users) == 1


def test_a_value_that_is_moved_by_a_lookup_beside_a_sum_is_an_equation() -> None:
    """The function of a gathered value is no factor of a sum of another one (a gated block-sparse layer)."""
    text = "g[s, b]: f64[S, q] = einsum[plustimes, f64](a; B[s, a, b]) over s<S, b<q, a<p\n"
    text += (
        "y[b, c]: f64[q, n] = einsum[plustimes, f64](t, j, s, a, d; eq(at(j), J[t]), exp(g[j, b]), eq(at(j), I[s]), "
    )
    program = planned(LISTS + text + "B[s, a, d], x[a, d, c]) over b<q, c<n, t<S, j<S, s<S, a<p, d<q\nreturn y")
    for equation in program.equations:
        assert sum(isinstance(e, Einsum) for e in walk(equation.expr)) <= 1


@pytest.mark.parametrize("blocks", [1, 2, 6])
def test_gated_block_sparse_programs_compute_what_they_say(blocks: int) -> None:
    text = """
        rows, columns: i64[S]
        rows_2, columns_2: i64[T]
        g[b,i,a] = (rows[s] == i) * W[s,a,c] * (columns[s] == j) * x[b,j,c] for i in 0..4
        h[b,i,a] = (rows[s] == i) * V[s,a,c] * (columns[s] == j) * x[b,j,c] for i in 0..4
        u[b,i,a] = tanh(g[b,i,a]) * h[b,i,a]
        y[b,i,a] = (rows_2[t] == i) * Z[t,a,c] * (columns_2[t] == j) * u[b,j,c] for i in 0..4
    """
    values = np.random.default_rng(blocks)
    places = {n: values.integers(0, 4, blocks) for n in ("rows", "columns", "rows_2", "columns_2")}
    arrays = {n: values.standard_normal((blocks, 8, 8)) for n in "WVZ"} | {"x": values.standard_normal((6, 4, 8))}
    f = stein.compile(text, dtype="float64", target="cpu")

    def dense(name: str, rows: str, columns: str) -> np.ndarray:
        found = np.zeros((4, 4, 8, 8))
        np.add.at(found, (places[rows], places[columns]), arrays[name])
        return found

    def applied(w: np.ndarray, x: np.ndarray) -> np.ndarray:
        return np.einsum("ijac,bjc->bia", w, x)

    w, v, z = dense("W", "rows", "columns"), dense("V", "rows", "columns"), dense("Z", "rows_2", "columns_2")
    u = np.tanh(applied(w, arrays["x"])) * applied(v, arrays["x"])
    np.testing.assert_allclose(f(**places, **arrays), applied(z, u), rtol=1e-12, atol=1e-12)


def test_circles_stay_comparisons() -> None:
    """`(i == J[j])*(j == I[i])` names no position: one of the two is followed at most."""
    text = (
        "y[c]: f64[n] = einsum[plustimes, f64](i, j; eq(at(i), J[j]), eq(at(j), I[i]), x[i, 0, c]) over c<n, i<m, j<S"
    )
    kernel = kernels(parse_ir(LISTS + text + "\nreturn y"))[0]
    lookups, rest = split_lookups(kernel.factors)
    assert not lookups and len(rest) == 3
