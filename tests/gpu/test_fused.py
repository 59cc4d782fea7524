"""Fused plans: which equations become one, what they move, and that the kernels compute what the equations say."""

from __future__ import annotations

import json
import subprocess
import sys
from math import prod
from pathlib import Path

import pytest

from stein.backends.gpu.kernels import Goal, fused
from stein.backends.gpu.kernels.plan import CACHE, MEMORY, REGISTERS, FusedPlan, requested, touched
from stein.backends.gpu.program import bind
from stein.backends.gpu.roofline import moved_bytes
from stein.ir.expr import Equation, Input, Program
from stein.ir.text import parse_ir
from stein.ir.types import BF16
from stein.tests.gpu.fused_cases import CASES, Case, layouts_of, program_of

ROOT = Path(__file__).resolve().parents[3]


def plan_of(case: Case, dtype: str = "bfloat16", goal: Goal = Goal()) -> FusedPlan:
    program = program_of(case, dtype, case.full)
    (plan,) = fused(program, {}, layouts_of(program), goal)
    return plan


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_one_plan_computes_the_program(case: Case) -> None:
    for dtype in case.dtypes:
        for shapes in (case.small, case.full):
            program = program_of(case, dtype, shapes)
            (plan,) = fused(program, {}, layouts_of(program), Goal())
            assert plan.structure == case.structure
            assert len(plan.equations) == len(program.equations) - case.apart
            assert plan.formed == case.formed
            assert len(plan.kernels) - plan.formed == case.count


@pytest.mark.parametrize("case", [c for c in CASES if c.count == 1], ids=lambda c: c.name)
def test_one_kernel_moves_no_more_than_the_floor(case: Case) -> None:
    """Inputs once and results once: of what is between them, nothing is in memory."""
    program = program_of(case, "bfloat16", case.full)
    (plan,) = fused(program, {}, layouts_of(program), Goal())
    assert all(p.where == REGISTERS for p in plan.placements)
    (main,) = plan.launches[plan.formed :]
    moved = touched(main.kernel, dict(main.numbers))
    tensors = dict(main.tensors)
    ours = {n for n, _ in plan.buffers} | {c.name for c in plan.constants}  # small operands, made ahead or brought
    replaced = [i for i in program.inputs if i.name not in tensors.values()]
    apart = [program.tensors[t] for t in tensors.values() if t in program.tensors and t not in ends(program)]
    found = sum(n for parameter, n in moved.items() if tensors[parameter] not in ours)
    assert found == moved_bytes(program, {}) - sum(map(size, replaced)) + sum(map(size, apart))
    # What is added to the floor is small beside it.
    assert sum(n for parameter, n in moved.items() if tensors[parameter] in ours) < 0.05 * found


def ends(program: Program) -> set[str]:
    return {i.name for i in program.inputs} | {*program.outputs}


def size(tensor: Input | Equation) -> int:
    return prod(n.evaluate({}) for n in tensor.shape) * tensor.dtype.itemsize


def test_x_is_asked_for_once() -> None:
    # Every level of the memory sees each element of x and y once; factors come again for each program.
    named = {c.name: c for c in CASES}
    for name in ("kronecker", "kronecker, int8", "hadamard 64x64", "low rank", "monarch 32", "toeplitz"):
        plan = plan_of(named[name])
        chosen = plan.launches[-1]
        asked = requested(chosen.kernel, dict(chosen.numbers))
        x = 16384 * (1024 if name == "monarch 32" else 4096)
        assert asked["x"] == 2 * x
        assert asked["y"] == (1 if "int8" in name else 2) * x


def test_persistent_programs_load_the_factors_once_each() -> None:
    chosen = plan_of(CASES[0]).launches[0]
    assert chosen.programs == 4 * 132
    assert requested(chosen.kernel, dict(chosen.numbers))["A"] == 4 * 132 * 64 * 64 * 2


def test_the_intermediate_of_two_kernels_stays_in_the_cache() -> None:
    case = next(c for c in CASES if c.name == "monarch 64")
    plan = plan_of(case)
    (place,) = plan.placements
    ((_, layout),) = plan.buffers
    size = 2
    for extent in layout.shape:
        size *= extent
    assert place.where == CACHE and size <= 0.4 * Goal().cache_bytes
    assert len(plan.launches) == 2 * -(-16384 // layout.shape[0])
    small = plan_of(case, goal=Goal(cache_bytes=1 << 10))
    assert small.placements[0].where in (CACHE, MEMORY)
    assert small.moved_bytes >= plan.moved_bytes


def test_chunks_cover_the_batch() -> None:
    plan = plan_of(next(c for c in CASES if c.name == "monarch 64"))
    stage = [dict(c.numbers) for c in plan.launches[::2]]
    assert sum(n["n_b"] for n in stage) == 16384
    at = 0
    for numbers in stage:
        assert numbers["o_x"] == at * 4096
        at += numbers["n_b"]


def test_what_does_not_fit_is_left_alone() -> None:
    huge = {"A": (1024, 1024), "B": (1024, 1024), "x": (8, 1024, 1024)}
    program = program_of(CASES[0], "bfloat16", huge)
    assert fused(program, {}, layouts_of(program), Goal()) == ()


def test_a_value_that_is_returned_is_no_intermediate() -> None:
    text = """
        input A: bf16[64, 64]
        input B: bf16[64, 64]
        input x: bf16[128, 64, 64]
        u[b, r, q]: bf16[128, 64, 64] = einsum[plustimes, f32](p; A[r, p], x[b, p, q]):bf16 over b<128, r<64, q<64, p<64
        y[b, r, s]: bf16[128, 64, 64] = einsum[plustimes, f32](q; B[s, q], u[b, r, q]):bf16 over b<128, r<64, s<64, q<64
        return {}
    """.replace("        ", "")
    program = parse_ir(text.format("y"))
    assert len(fused(program, {}, layouts_of(program))) == 1
    program = parse_ir(text.format("u, y"))
    assert fused(program, {}, layouts_of(program)) == ()


def test_fusion_is_a_step_of_a_bound_program() -> None:
    program = program_of(CASES[0], "bfloat16", CASES[0].full)
    bound = bind(program, {}, layouts_of(program), goal=Goal())
    apart = bind(program, {}, layouts_of(program), library=False)
    assert (len(bound.kernels), len(apart.kernels)) == (1, 2)
    assert bound.peak_memory < apart.peak_memory


def test_intermediates_are_rounded_to_what_matrix_units_take() -> None:
    assert plan_of(CASES[0]).rounded == (BF16,)
    assert plan_of(CASES[0], "float32").rounded == ()


def test_a_plan_says_what_it_saves() -> None:
    text = plan_of(CASES[0]).text()
    assert text == (
        "kronecker: y.1, y in 1 kernel; u in registers, rounded to bf16; 268.5 MB moved in place of 805.3 MB"
    )


@pytest.fixture(scope="module")
def interpreted() -> dict[tuple[str, str], dict[str, float]]:
    """What Triton's interpreter makes of every case, in a process of its own."""
    pytest.importorskip("torch", reason="needs PyTorch")
    pytest.importorskip("triton", reason="needs Triton")
    command = [sys.executable, "-m", "stein.tests.gpu.fused_interpreted"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT.parent, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {(line["name"], line["dtype"]): line for line in lines}


@pytest.mark.parametrize(("case", "dtype"), [(c, d) for c in CASES for d in c.dtypes], ids=str)
def test_kernels_agree_with_double_precision(
    case: Case, dtype: str, interpreted: dict[tuple[str, str], dict[str, float]]
) -> None:
    found = interpreted[case.name, dtype]
    assert found["worst"] <= 1
    assert found["kernels"] == case.count + case.formed + case.apart
