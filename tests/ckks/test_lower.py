"""Lowering: the steps of a program, evaluated in plain NumPy, are the program."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from stein.backends.ckks.lowering.dense import dense
from stein.backends.ckks.lowering.lower import lower
from stein.backends.ckks.lowering.problem import EncryptedProgram, Linear, Polynomial, Product, Sum
from stein.backends.ckks.lowering.problem_eval import evaluate
from stein.ir.errors import EncryptionError
from stein.ir.expr import Program
from stein.ir.interpret import interpret
from stein.passes.base import Context, run_passes
from stein.passes.pipeline import NORMAL_PASSES
from stein.tests.ckks.encrypted_programs import arrays_of, programs, typed

ROUNDINGS = 200.0  # more than the longest chain of additions and products in these programs


def check(program: Program, problem: EncryptedProgram, magnitude: float = 1e3) -> None:
    """The steps give what the program means, within so many roundings of values of this magnitude."""
    arrays = arrays_of(program)
    want = interpret(program, arrays)
    got = evaluate(problem, {n: arrays[n] for n in problem.inputs}, arrays)
    assert set(got) == set(want)
    for name, value in want.items():
        assert got[name].shape == value.shape
        eps = np.finfo(value.dtype if value.dtype.kind == "f" else float).eps
        np.testing.assert_allclose(got[name], value, rtol=0, atol=ROUNDINGS * eps * magnitude)


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(programs())
def test_random_programs_are_their_steps(program: Program) -> None:
    check(program, lower(program))
    check(program, lower(run_passes(program, NORMAL_PASSES, Context())[0]))


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(programs())
def test_the_dense_form_is_the_same_program(program: Program) -> None:
    check(program, dense(lower(program)))


CASES: dict[str, tuple[str, dict[str, tuple[int, ...]], list[type]]] = {
    "map": ("x: encrypted f64[3]; y[i] = A[i,j]*x[j] + b[i]", {"A": (4, 3), "b": (4,)}, [Linear]),
    "one map of two terms": (
        "x: encrypted f64[4]; y[i] = A[i,j]*x[j] + d[i]*x[i] - x[i]/2",
        {"A": (4, 4), "d": (4,)}, [Linear],
    ),
    "two operands": (
        "x, z: encrypted f64[3]; y[i] = A[i,j]*x[j] - B[i,j]*z[j]",
        {"A": (4, 3), "B": (4, 3)}, [Linear, Linear, Sum],
    ),
    "clear factors are one tensor": (
        "x: encrypted f64[2,3]; y[i,k] = A[i,j]*B[k,l]*x[j,l]",
        {"A": (4, 2), "B": (2, 3)}, [Linear],
    ),
    "matrix product": ("x: encrypted f64[4,3]; z: encrypted f64[3,2]; y = x @ z", {}, [Product]),
    "product with a clear factor": ("x, z: encrypted f64[3]; y[i,j] = A[i,j]*x[i]*z[j]", {"A": (3, 3)}, [Product]),
    "sums before products": (
        "x: encrypted f64[3]; z: encrypted f64[4]; y[i] = x[i]*A[i,j]*z[j]",
        {"A": (3, 4)}, [Linear, Product],
    ),
    "square of a sum": (
        "x: encrypted f64[3]; y[i] = (sum[j] A[i,j]*x[j] + b[i])^2",
        {"A": (4, 3), "b": (4,)}, [Linear, Product],
    ),
    "polynomial": ("x: encrypted f64[3]; y[i] = x[i]^3/3 - 2*x[i]*x[i] + x[i] - 1", {}, [Polynomial]),
    "distances": ("x: encrypted f64[4]; c: f64[3]; d[i,j] = (x[i] - c[j])^2", {}, [Linear, Product]),
    "sum of squares": ("x: encrypted f64[4]; s = sum[i] x[i]^2", {}, [Product]),
    "mean and spread": (
        "x: encrypted f64[4]; m = sum[i] x[i]/4; v[i] = x[i] - m; return m, v",
        {}, [Linear, Linear, Sum],
    ),
    "diagonal": ("x: encrypted f64[3,3]; d[i] = x[i,i]", {}, [Linear]),
    "embedding": ("x: encrypted f64[3]; D[i,i] = x[i]*x[i]", {}, [Product, Linear]),
    "update": ("x: encrypted f64[3]; z: encrypted f64[4]; z[i] += A[i,j]*x[j]", {"A": (4, 3)}, [Linear, Sum]),
    "shifted product": ("x: encrypted f64[4]; y[i] = x[i+1]*x[i] for i in 0..3", {}, [Linear, Linear, Product]),
    "padded": ("x: encrypted f64[5] pad=0; w: f64[-1..2]; y[i] = w[d]*x[i+d] for i in 0..5", {}, [Linear]),
    "wrapped": ("x: encrypted f64[5]; y[i] = c[(i-j) mod 5]*x[j]", {"c": (5,)}, [Linear]),
    "clear quotient": ("x: encrypted f64[3]; y[i] = x[i]/s[i]", {"s": (3,)}, [Linear]),
    "mask": ("x: encrypted f64[3]; y[i] = (i >= j)*A[i,j]*x[j]", {"A": (3, 3)}, [Linear]),
    "lookup": ("x: encrypted f64[3]; J: i64[5]; y[s] = x[J[s]]", {}, [Linear]),
    "casts": ("x: encrypted f32[3]; k: i32[3]; y[i] = f64(x[i])*k[i]", {}, [Linear]),
    "integers": ("x: encrypted i64[3]; A: i64[2,3]; y[i] = A[i,j]*x[j]", {}, [Linear]),
    "scalar": ("x: encrypted f64[3]; a: f64; y[i] = a*x[i]", {}, [Linear]),
    "broadcast": ("x: encrypted f64[3]; y[i,j] = x[i] for j in 0..2", {}, [Linear]),
    "clear statements": (
        "x: encrypted f64[3]; g[i] = exp(b[i])/sum[j] exp(b[j]); y[i] = g[i]*x[i]",
        {"b": (3,)}, [Linear],
    ),
    "transposition before the product": (
        "x: encrypted f64[2,3]; h[j,i] = x[i,j]; y[k] = A[k,j,i]*h[j,i]",
        {"A": (4, 3, 2)}, [Linear],
    ),
    "transposition after the product": ("x: encrypted f64[2,3]; h = x @ B; y[j,i] = 2*h[i,j]", {"B": (3, 4)}, [Linear]),
    "transposed product": ("x, z: encrypted f64[3,3]; h = x @ z; y[j,i] = h[i,j]", {}, [Product]),
    "composite": ("x: encrypted f64[6]; y[(i k)] = A[i,j]*B[k,l]*x[(j l)]", {"A": (2, 2), "B": (3, 3)}, [Linear]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_steps(name: str) -> None:
    text, shapes, kinds = CASES[name]
    program = typed(text, **shapes)
    problem = lower(program)
    assert [type(s) for s in problem.steps] == kinds
    check(program, problem)


def test_clear_results_and_inputs_that_are_returned() -> None:
    program = typed("x: encrypted f64[3]; s: f64[3]\nc[i] = 2*s[i]\ny[i] = x[i]*c[i]\nreturn y, c, x")
    problem = lower(program)
    assert problem.outputs == ("y", "x") and problem.results == ("c",)
    check(program, problem)


def test_clear_work_is_done_once() -> None:
    """Terms that have the same clear factors share their tensor of coefficients."""
    program = typed("x, z: encrypted f64[2]; y[i] = A[i,k]*B[k,j]*x[j]; w[i] = A[i,k]*B[k,j]*z[j]", A=(2, 3), B=(3, 2))
    problem = lower(program)
    assert len(problem.clear.equations) == len(problem.clear.outputs) == 1 or len(problem.clear.equations) == 2
    check(program, problem)


@pytest.mark.parametrize("ends", [(-2, 2), (-1, 3)])
@pytest.mark.parametrize("bias", ["", " + b[i]"])
def test_an_approximated_function_is_its_fit(ends: tuple[int, int], bias: str) -> None:
    """The map before it brings its values to -1..1 already: that costs no product of its own."""
    low, high = ends
    text = f"x: encrypted f64[4]; y[i] = approx(tanh, degree=9, range={low}..{high})(sum[j] A[i,j]*x[j]{bias})"
    problem = lower(typed(text, A=(4, 4), **({"b": (4,)} if bias else {})))
    (fitted,) = (s for s in problem.steps if isinstance(s, Polynomial))
    assert [type(s) for s in problem.steps] == [Linear, Polynomial]
    assert fitted.function == "tanh" and fitted.chebyshev and 0 < fitted.error < 1e-2
    assert (fitted.low, fitted.high) == (-1, 1)
    arrays = {"x": np.array([0.3, -0.2, 0.5, 0.1]), "A": np.eye(4) * 1.5, "b": np.full(4, 0.25)}
    got = evaluate(problem, arrays, arrays)["y"]
    assert np.abs(got - np.tanh(1.5 * arrays["x"] + (0.25 if bias else 0))).max() <= fitted.error


REFUSED = {
    "x: encrypted f64[3]; y[i] = A[i,k] * x[k] over maxplus": "maxplus",
    "x: encrypted c128[3]; y[i] = 2*x[i]": "complex",
    "x: encrypted f64[3]; y[i] = i32(x[i])": "rounding",
    "x: encrypted f64[3] pad=edge; y[i] = x[i+1] for i in 0..3": "pad=edge",
    "x: encrypted f64[3]; y[i] = x[i]*2j": "complex",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_cannot_be_evaluated_is_refused_at_its_place(text: str) -> None:
    program = typed(text, **({"A": (2, 3)} if "A[" in text else {}))
    with pytest.raises(EncryptionError, match=REFUSED[text]) as caught:
        lower(program)
    assert caught.value.line == 1 and caught.value.help


def test_a_gram_matrix_reads_two_maps() -> None:
    """Each may lay its result out as the product wants it; a square needs one."""
    gram = typed("W: f64[4,4]\nx: encrypted f64[4,4]\nH[i,k] = W[i,j] * x[j,k]\nG[i,j] = H[i,k] * H[j,k]")
    first, second, product = lower(gram).steps
    assert isinstance(first, Linear) and isinstance(second, Linear) and first.terms == second.terms
    assert isinstance(product, Product) and product.operands == (first.name, second.name)
    check(gram, lower(gram))
    square = typed("W: f64[4,4]\nx: encrypted f64[4,4]\nH[i,k] = W[i,j] * x[j,k]\nG[i] = H[i,k] * H[i,k]")
    assert len(lower(square).steps) == 2
    check(square, lower(square))
