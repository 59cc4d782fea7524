"""Pads, moduli and outputs that collide: copies, folds and gathers."""

from __future__ import annotations

import numpy as np
import pytest

from stein.ir.expr import Program, Read, reads
from stein.ir.interpret import interpret
from stein.ir.semiring import SEMIRINGS
from stein.ir.size import Size
from stein.passes.tools import has_special_slots, is_injective
from stein.tests.passes.products import assert_same, ir, planned


def copies(program: Program) -> dict[str, tuple[Size, ...]]:
    """The shape of every copy."""
    return {e.name: e.shape for e in program.equations if isinstance(e.expr, Read)}


@pytest.mark.parametrize("pad", ["0.0", "1.5", "edge", "wrap"])
def test_a_pad_becomes_a_copy_over_the_span_of_the_slot(pad: str) -> None:
    program = ir(
        "input w: f64[3]",
        "input x: f64[n]",
        f"y[i]: f64[n] = einsum[plustimes, f64](d; w[d], x[i+d-1; pad={pad}]) over i<n, d<3",
    )
    after = planned(program)
    n = Size.name("n")
    assert copies(after) == {"x.copy": (n + 2,)}
    for size in (1, 2, 7):
        assert_same(program, after, 1, {"n": size})


def test_two_dimensions_steps_and_batches() -> None:
    program = ir(
        "input w: f64[o, c, 3, 3]",
        "input x: f64[b, c, h, v]",
        "y[b, o, p, q]: f64[b, o, h, v] = einsum[plustimes, f64](c, i, j;"
        " x[b, c, p+2*i-2, 2*q-j; pad=0.0], w[o, c, i, j]) over b<b, o<o, p<h, q<v, c<c, i<3, j<3",
    )
    after = planned(program)
    h, v = Size.name("h"), Size.name("v")
    assert copies(after)["x.copy"][2:] == (h + 4, 2 * v + 1)
    assert_same(program, after, 2, {"b": 2, "c": 2, "o": 3, "h": 4, "v": 3})


def test_a_slot_of_one_index_is_copied_by_that_index() -> None:
    program = ir(
        "input x: f64[n, m]",
        "input z: f64[m]",
        "y[i, j]: f64[m, m] = mul(x[1000*i, j; pad=0.0], z[i]) over i<m, j<m",
    )
    after = planned(program)
    assert copies(after) == {"x.copy": (Size.name("m"), Size.name("m"))}
    assert_same(program, after, 3, {"n": 5, "m": 3})


def test_circulants() -> None:
    program = ir(
        "input c: f64[n]",
        "input x: f64[n]",
        "y[i]: f64[n] = einsum[plustimes, f64](j; c[(i-j) mod {n}], x[j]) over i<n, j<n",
    )
    after = planned(program)
    assert copies(after) == {"c.copy": (2 * Size.name("n") - 1,)}
    for size in (1, 2, 5):
        assert_same(program, after, 4, {"n": size})


def test_a_span_longer_than_its_points_is_copied_by_the_points() -> None:
    program = ir(
        "input T: f64[n, n, n, n]",
        "input u: f64[n, n]",
        "y[k, l]: f64[n, n] = einsum[plustimes, f64](i, j;"
        " eq(add(at(i), at(j)), add(at(k), at(l))), T[i, j, k, l], u[i, j]) over k<n, l<n, i<n, j<n",
    )
    after = planned(program, sizes={"n": 20})
    n = Size.name("n")
    assert copies(after)["T.copy"] == (n, n, n)
    assert max(len(e.indices) for e in after.equations) == 3  # n^3, not n^4
    assert_same(program, after, 5, {"n": 4})


def test_pads_and_moduli_that_do_nothing_go() -> None:
    program = ir(
        "input x: f64[n]",
        "y[i]: f64[n] = add(x[i; pad=0.0], add(x[(i) mod {n}], x[2*i; pad=1.0])) over i<n",
    )
    after = planned(program)
    assert list(copies(after)) == ["x.copy"]
    assert len([r for r in reads(after.equations[-1].expr) if r.tensor == "x"]) == 2
    assert_same(program, after, 6, {"n": 4})


def test_equal_reads_share_a_copy() -> None:
    program = ir(
        "input x: f64[n]",
        "input w: f64[3]",
        "a[i]: f64[n] = einsum[plustimes, f64](d; w[d], x[i+d-1; pad=0.0]) over i<n, d<3",
        "y[i]: f64[n] = einsum[maxplus, f64](d; a[i], x[i+d-1; pad=0.0]) over i<n, d<3",
    )
    assert list(copies(planned(program))) == ["x.copy"]


# --- outputs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slot", ["(i+1) mod {n}", "(i+j) mod {n}", "(i-2*j-5) mod {n}", "(3*i) mod {n}"])
@pytest.mark.parametrize("semiring", ["plustimes", "maxplus", "minplus"])
def test_a_modulus_on_the_left_is_folded(slot: str, semiring: str) -> None:
    program = ir(
        "input a: f64[n]",
        "input b: f64[3]",
        f"y[{slot}, j]: f64[n, 3] = {SEMIRINGS[semiring].mul}(a[i], b[j]) over i<n, j<3 in {semiring}",
        f"z[{slot}]: f64[n] = {SEMIRINGS[semiring].mul}(a[i], b[{'j' if 'j' in slot else '0'}]) over i<n"
        f"{', j<3' if 'j' in slot else ''} in {semiring}",
    )
    program = type(program)(program.inputs, program.equations, ("y", "z"))
    after = planned(program)
    for size in (1, 2, 6):
        assert_same(program, after, 7, {"n": size})


def test_colliding_integers_are_gathered_and_floats_scattered() -> None:
    lines = (
        "input a: i64[n]",
        "input b: i64[m]",
        "y[i+j]: i64[n+m-1] = einsum[plustimes, i64](; a[i], b[j]) over i<n, j<m",
    )
    exact, inexact = planned(ir(*lines)), planned(ir(*(s.replace("i64", "f64") for s in lines)))
    assert all(is_injective(e) for e in exact.equations)
    assert len(exact.equations) == 2
    assert not is_injective(inexact.equations[-1])
    for sizes in ({"n": 1, "m": 1}, {"n": 4, "m": 2}, {"n": 2, "m": 5}):
        assert_same(ir(*lines), exact, 8, sizes)
        assert_same(ir(*(s.replace("i64", "f64") for s in lines)), inexact, 8, sizes)
    given = {"a": np.array([1.0, 2.0]), "b": np.array([np.nan, 0.0, 3.0])}
    assert not np.isnan(interpret(inexact, given)["y"][-1])  # a NaN does not reach positions that it never met


def test_a_semiring_whose_zero_wraps_is_scattered() -> None:
    lines = ("input a: i64[n]", "input b: i64[m]")
    total = "y[i+j]: i64[n+m-1] = einsum[maxplus, i64](; a[i], b[j]) over i<n, j<m in maxplus"
    program = ir(*lines, total)
    assert not is_injective(planned(program).equations[-1])
    given = {"a": np.array([-5, -1]), "b": np.array([-3, -2, -9])}
    np.testing.assert_array_equal(interpret(planned(program), given)["y"], interpret(program, given)["y"])


def test_gaps_and_collisions_with_functions_around_them() -> None:
    program = ir(
        "input a: f64[n, n]",
        "y[i+j]: f64[2*n-1] = exp(einsum[plustimes, f64](k; a[i, k], a[k, j])) over i<n, j<n, k<n",
        "z[2*i+1]: f64[2*n] = einsum[plustimes, f64](k; a[i, k]) over i<n, k<n",
    )
    program = type(program)(program.inputs, program.equations, ("y", "z"))
    after = planned(program)
    assert not any(has_special_slots(r) for e in after.equations for r in reads(e.expr))
    given = {"a": np.arange(9.0).reshape(3, 3) / 9}
    want, got = interpret(program, given), interpret(after, given)
    for name in want:  # the same sums in another order: at most 5 terms below e^4
        np.testing.assert_allclose(got[name], want[name], rtol=10 * 2**-52)
