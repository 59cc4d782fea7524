"""Planned programs bound to sizes: random programs against the interpreter, and corner cases."""

from __future__ import annotations

import random
from collections.abc import Mapping

import numpy as np
import pytest

from stein.backends.cpu.equations import EquationTemplate
from stein.backends.cpu.native import execute
from stein.backends.cpu.native_record import Layout
from stein.backends.cpu.program import Bound, CpuProgram
from stein.ir.expr import Program
from stein.ir.interpret import interpret, solve_sizes
from stein.ir.text import parse_ir
from stein.ir.types import F64, I64
from stein.passes.pipeline import Context
from stein.passes.plan import plan
from stein.tests.strategies import arguments, random_program, sizes_of


def bound(program: Program, arrays: Mapping[str, np.ndarray], sizes: Mapping[str, int]) -> Bound:
    return CpuProgram(program).bind(sizes, {i.name: Layout.of(arrays[i.name]) for i in program.inputs})


def run(
    program: Program, arrays: Mapping[str, np.ndarray], sizes: Mapping[str, int] | None = None
) -> dict[str, np.ndarray]:
    sizes = sizes or solve_sizes(program, {n: a.shape for n, a in arrays.items()})
    planned, _ = plan(program, Context(sizes=sizes))
    made = bound(planned, arrays, sizes)
    results = execute(made.executable, [arrays[i.name] for i in planned.inputs])
    return dict(zip(planned.outputs, results, strict=True))


@pytest.mark.parametrize("seed", range(60))
def test_random_programs_on_integers_are_exact(seed: int) -> None:
    program = random_program(random.Random(seed), dtypes=(I64,), exact=True)
    arrays, sizes = arguments(program, seed), sizes_of(seed)
    wanted = interpret(program, arrays, sizes)
    for name, result in run(program, arrays, sizes).items():
        np.testing.assert_array_equal(result, wanted[name], err_msg=name)


def check(text: str, **arrays: np.ndarray) -> dict[str, np.ndarray]:
    program = parse_ir(text)
    wanted, found = interpret(program, arrays), run(program, arrays)
    for name in program.outputs:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-13, err_msg=name)
    return found


X = np.arange(1.0, 7.0)


def test_outputs_with_gaps_diagonals_and_collisions() -> None:
    check("input x: f64[n]\ny[2*i+1]: f64[2*n+2] = x[i] over i<n\nreturn y", x=X)
    check("input x: f64[n]\ny[i, i]: f64[n, n] = x[i] over i<n\nreturn y", x=X)
    check("input x: f64[n]\ny[i+j]: f64[2*n-1] = einsum[plustimes, f64](; x[i], x[j]) over i<n, j<n\nreturn y", x=X)


def test_temporaries_whose_lives_do_not_overlap_share_memory() -> None:
    text = "input x: f64[n, n]\n" + "\n".join(
        f"t{k + 1}[i, j]: f64[n, n] = einsum[plustimes, f64](k; {t}[i, k], {t}[k, j]) over i<n, j<n, k<n"
        for k, t in enumerate(["x", "t1", "t2", "t3", "t4"])
    )
    program = parse_ir(text + "\nreturn t5")
    x = np.eye(5) + 0.1
    made = bound(program, {"x": x}, {"n": 5})
    assert sum(made.executable.temporaries) == 2 * x.nbytes
    (result,) = execute(made.executable, [x])
    np.testing.assert_allclose(result, np.linalg.matrix_power(x, 32), rtol=1e-12)


def test_a_padded_read_of_shared_indices_goes_through_a_window() -> None:
    text = "input T: f64[n, m]\ny[i, j]: f64[5, 4] = T[i+j-2, j; pad=edge] over i<5, j<4\nreturn y"
    check(text, T=np.arange(12.0).reshape(3, 4))
    assert EquationTemplate(parse_ir(text).equations[0]).copies


def test_index_values_are_tables_and_sizes_are_data() -> None:
    made = bound(
        parse_ir(
            "input x: f64[n]\n"
            "y[i]: f64[n] = mul(cast[f64](at(2*i-1)), div(x[i], cast[f64](size(n)))) over i<n\n"
            "return y"
        ),
        {"x": X},
        {"n": 6},
    )
    assert len(made.executable.constants) == 2
    (result,) = execute(made.executable, [X])
    np.testing.assert_allclose(result, (2 * np.arange(6) - 1) * X / 6)


def test_empty_axes() -> None:
    empty = np.zeros((0, 3))
    text = (
        "input A: f64[n, m]\n"
        "s[j]: f64[m] = einsum[plustimes, f64](i; A[i, j]) over i<n, j<m\n"
        "t[i]: f64[n] = A[i, 0] over i<n\n"
        "return s, t"
    )
    found = check(text, A=empty)
    assert found["s"].tolist() == [0, 0, 0]
    assert found["t"].shape == (0,)


def test_constants_are_not_arguments() -> None:
    program = parse_ir(
        "input A: f64[2]\ninput x: f64[2]\ny[i]: f64[2] = einsum[plustimes, f64](; A[i], x[i]) over i<2\nreturn y"
    )
    made = CpuProgram(program, {"A": np.array([2.0, 3.0])}).bind({}, {"x": Layout.dense(F64, (2,))})
    (result,) = execute(made.executable, [np.ones(2)])
    assert result.tolist() == [2, 3]


def test_an_index_value_modulo_a_size() -> None:
    product = "einsum[plustimes, f64](k; x[k], eq(at(k), at((3*i+2) mod 7)))"
    text = f"input x: f64[7]\ny[i]: f64[7] = {product} over i<7, k<7\nreturn y"
    found = check(text, x=np.arange(1.0, 8.0))
    assert found["y"].tolist() == [(3 * i + 2) % 7 + 1 for i in range(7)]


def test_a_plan_of_several_stages_stays_one_for_fixed_sizes() -> None:
    text = "input x: f64[n]\ns: f64[] = einsum[plustimes, f64](i; x[i]) over i<n\nreturn s"
    program = CpuProgram(parse_ir(text))
    layout = {"x": Layout.dense(F64, (1 << 20,))}
    plans = [program.bind({"n": 1 << 20}, layout, specialise=s).steps[0].plan.family for s in (False, True)]
    assert plans[0] == plans[1]
    assert plans[0].startswith("split")
