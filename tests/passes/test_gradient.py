"""Gradient programs against differences of the programs that they come from, both by the interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stein
from stein.ir.check import check_program
from stein.ir.expr import Program
from stein.ir.interpret import interpret
from stein.ir.text import parse_ir, print_program
from stein.passes.batch import batched
from stein.passes.flatten import flatten
from stein.passes.gradient import Gradient, gradient, with_residuals

STEP = 1e-4


def real(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


def program_of(text: str, **declared: Any) -> Program:
    return stein.compile(text, target="reference", **declared).program


def arguments(found: Gradient, source: Program, arrays: dict[str, Any], seeds: dict[str, Any]) -> dict[str, Any]:
    """An array for each input of a gradient program."""
    outputs = interpret(source, arrays)
    by_seed = {name: seeds[output] for output, name in found.seeds.items()}
    return {i.name: next(d[i.name] for d in (by_seed, arrays, outputs) if i.name in d) for i in found.program.inputs}


def check(source: Program, arrays: dict[str, Any], order: int = 2) -> None:
    """The gradient program is legal, reads back, and its product with a direction is the derivative in it.

    Central differences with steps h and 2h differ from the derivative by about d and 4d, so their difference tells d
    three times over; rounding adds machine epsilon times the terms over h.
    """
    wanted = [i.name for i in source.inputs if i.dtype.kind in "fc"]
    found = gradient(source, wanted)
    check_program(found.program)
    assert parse_ir(print_program(found.program)) == found.program
    outputs = interpret(source, arrays)
    seeds = {n: _like(outputs[n], 10 + k) for k, n in enumerate(source.outputs) if outputs[n].dtype.kind in "fc"}
    given = arguments(found, source, arrays, seeds)
    results = interpret(found.program, given)
    for number, (name, result) in enumerate(zip(wanted, found.results, strict=True)):
        direction = _like(arrays[name], 20 + number)

        def total(h: float, name: str = name, direction: Any = direction) -> tuple[float, float]:
            values = interpret(source, {**arrays, name: arrays[name] + h * direction})
            terms = [np.real(np.conj(seeds[n]) * np.nan_to_num(values[n], neginf=0)) for n in seeds]  # -inf: unreached
            return sum(float(t.sum()) for t in terms), sum(float(np.abs(t).sum()) for t in terms)

        slopes = [(total(h)[0] - total(-h)[0]) / (2 * h) for h in (STEP, 2 * STEP)]
        noise = 2.0**-46 * (1 + total(0.0)[1]) / STEP
        exact = 0.0 if result is None else float(np.real(np.sum(np.conj(results[result]) * direction)))
        assert abs(slopes[0] - exact) <= abs(slopes[1] - slopes[0]) + noise, name
    if order > 1:
        check(found.program, given, order - 1)


def _like(array: Any, seed: int) -> Any:
    found = real(*array.shape, seed=seed)
    return found + 1j * real(*array.shape, seed=seed + 1) if array.dtype.kind == "c" else found


CASES: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (
    ("y[i] = A[i,j] * x[j]", {"A": real(3, 4), "x": real(4)}, {}),
    ("y[i,j] = softmax[j](tanh(sum[k] A[i,k] * x[k,j]) + b[j])", {"A": real(3, 4), "x": real(4, 5), "b": real(5)}, {}),
    ("y[i] = t[i-j+n-1] * x[j]", {"t": real(9), "x": real(5)}, {"t": ("2*n-1",), "x": ("n",)}),
    ("y[i+j] += a[i] * b[j]", {"y": real(6), "a": real(3), "b": real(4)}, {}),
    ("y[i+j] = a[i] * b[j] over maxplus", {"a": real(3), "b": real(4)}, {}),
    ("x: f64[n,m] pad=edge\ny[p,q] = x[p-1,q+1] * x[p,q-1] for p in 0..n, q in 0..m", {"x": real(4, 3)}, {}),
    ("x: f64[n,m] pad=wrap\ny[p,q] = x[p-1,q+1] * x[p,q-1] for p in 0..n, q in 0..m", {"x": real(4, 3)}, {}),
    ("x: f64[n] pad=2.5\ny[p] = x[p-2] * x[p+1] for p in 0..n", {"x": real(4)}, {}),
    ("y[s,b] = x[J[s],b] * w[s]", {"x": real(4, 2), "w": real(3), "J": np.array([1, 0, 1])},
     {"J": stein.tensor(("s",), "i64")}),
    ("y[i] = prod[k](A[i,k]) + logsumexp[k](A[i,k]) + max[k](A[i,k])", {"A": real(3, 4)}, {}),
    ("y[i] = z[i] * conj(z[i]) * exp(z[i]) + abs(z[i])", {"z": _like(np.zeros(3, complex), 1)},
     {"z": stein.tensor(3, "c128")}),
    ("y = solve(A, b)", {"A": np.tril(real(3, 3)) + 3 * np.eye(3), "b": real(3)},
     {"A": stein.tensor(("n", "n"), structure="lower"), "b": ("n",)}),
    ("y = powm(A, 3) + inv(A)", {"A": real(3, 3) + 4 * np.eye(3)}, {"A": ("n", "n")}),
)  # fmt: skip


@pytest.mark.parametrize(("text", "arrays", "declared"), CASES, ids=[c[0].replace("\n", "; ") for c in CASES])
def test_derivatives(text: str, arrays: dict[str, Any], declared: dict[str, Any]) -> None:
    check(program_of(text, **declared), arrays)


LETTERS = "ijk"


@st.composite
def products(draw: st.DrawFn) -> tuple[str, list[Any]]:
    """A random einsum of up to three operands, labels repeated or summed at will."""
    terms = draw(st.lists(st.text(LETTERS, max_size=3), min_size=1, max_size=3))
    present = sorted({*"".join(terms)})
    output = "".join(draw(st.lists(st.sampled_from(present), unique=True))) if present else ""
    sizes = {"i": 2, "j": 3, "k": 2}
    return ",".join(terms) + "->" + output, [real(*(sizes[n] for n in t), seed=k) for k, t in enumerate(terms)]


@settings(max_examples=40, deadline=None)
@given(products())
def test_random_products(case: tuple[str, list[Any]]) -> None:
    expression, operands = case
    source = stein.compile(expression, *(a.shape for a in operands), target="reference").program
    check(source, {f"op{k}": a for k, a in enumerate(operands)}, order=1)


def test_the_adjoint_of_a_product_is_a_product() -> None:
    found = gradient(program_of("y[i] = A[i,j] * x[j]"), ["x"]).program
    assert [i.name for i in found.inputs] == ["A", "seed.y"]
    assert "einsum[plustimes, f64](i; seed.y[i], A[i, j])" in print_program(found)


def test_a_gather_becomes_a_scatter() -> None:
    found = gradient(program_of("y[i] = t[i-j+n-1] * x[j]", t=("2*n-1",), x=("n",)), ["t"]).program
    assert "grad.t.1[i-j+{n-1}]" in print_program(found)


def test_a_size_that_no_value_tells_comes_from_an_unread_input() -> None:
    found = gradient(program_of("y[i] = sum[j] x[i,j]"), ["x"])
    assert found.unread == {"x"} and "x[" not in print_program(found.program).split("\n", 2)[2]
    assert gradient(program_of("y[i] = x[i] * x[i]"), ["x"]).unread == frozenset()


def test_only_what_leads_to_a_wanted_input_is_formed() -> None:
    source = program_of("h[i] = exp(sum[k] W[i,k] * x[k])\ny[j] = V[j,i] * h[i]\nz = sum[i] h[i]")
    names = {i.name for i in gradient(source, ["V"], ["y"]).program.inputs}
    assert names == {"W", "x", "seed.y"}  # h is recomputed
    assert gradient(source, ["V"], ["z"]).results == (None,)


def test_values_that_are_dear_become_outputs() -> None:
    source = program_of("y[j] = sum[i] V[j,i] * gelu(sum[k] W[i,k] * x[k])")
    kept = with_residuals(source, ["W", "V", "x"])
    assert len(kept.outputs) == 2 and "W" in print_program(flatten(source))
    (extra,) = kept.outputs[1:]
    assert "einsum" in next(line for line in print_program(kept).splitlines() if line.startswith(extra + "["))
    found = gradient(kept, ["W", "V", "x"], ["y"])
    assert extra in {i.name for i in found.program.inputs}
    arrays = {"V": real(2, 3), "W": real(3, 4), "x": real(4)}
    check(kept, arrays, order=1)


@pytest.mark.parametrize(
    ("text", "declared"),
    [
        ("y = powm(A, 0.5)", {"A": ("n", "n")}),
        ("y = powm(A, -1)", {"A": ("n", "n")}),
        ("y[i+j] = a[i] * b[j] over logsumexp", {}),
    ],
)
def test_what_has_no_derivative_is_named(text: str, declared: dict[str, Any]) -> None:
    source = program_of(text, **declared)
    with pytest.raises(stein.DTypeError, match="no gradient passes") as caught:
        gradient(source, [i.name for i in source.inputs])
    assert caught.value.code == "no-gradient" and caught.value.line == 1 and caught.value.help


def test_flat_programs_mean_the_same() -> None:
    source = program_of("y[i] = relu(sum[k] A[i,k] * exp(x[k])) + (i < 2) * b[i]")
    arrays = {"A": real(3, 4), "x": real(4), "b": real(3)}
    flat = flatten(source)
    check_program(flat)
    assert len(flat.equations) > len(source.equations) and flatten(flat) is flat
    np.testing.assert_array_equal(interpret(flat, arrays)["y"], interpret(source, arrays)["y"])


@pytest.mark.parametrize(
    ("text", "declared", "arrays", "chosen"),
    [
        ("y[i] = A[i,j] * x[j]", {}, {"A": real(3, 4), "x": real(5, 4)}, "x"),
        ("y[i] = softmax[i](sum[j] A[i,j] * x[j])", {}, {"A": real(5, 3, 4), "x": real(5, 4)}, "A x"),
        ("y[i+j] += a[i] * b[j]", {}, {"y": real(6), "a": real(5, 3), "b": real(4)}, "a"),
        ("y[i] = t[i-j+n-1] * x[j]", {"t": ("2*n-1",), "x": ("n",)}, {"t": real(7), "x": real(5, 4)}, "x"),
        ("y = solve(A, b)", {"A": ("n", "n"), "b": ("n",)}, {"A": real(5, 3, 3), "b": real(3)}, "A"),
        ("y = solve(A, b)", {"A": ("n", "n"), "b": ("n",)}, {"A": real(3, 3), "b": real(5, 3)}, "b"),
    ],
)
def test_a_batch_is_the_program_many_times(
    text: str, declared: dict[str, Any], arrays: dict[str, Any], chosen: str
) -> None:
    source, names = program_of(text, **declared), chosen.split()
    made, outputs = batched(source, names)
    check_program(made)
    (name,) = made.outputs
    assert outputs == {name}
    each = [interpret(source, {n: a[k] if n in names else a for n, a in arrays.items()})[name] for k in range(5)]
    np.testing.assert_allclose(interpret(made, arrays)[name], np.stack(each), rtol=1e-13, atol=1e-13)


def test_what_does_not_depend_on_the_batch_stays() -> None:
    made, outputs = batched(program_of("s[i] = exp(a[i])\ny[i] = s[i] * x[i]"), ["x"])
    assert outputs == {"y"} and len(made.tensors["s"].shape) == 1 and len(made.tensors["y"].shape) == 2
