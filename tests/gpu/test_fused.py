"""Fused plans: which equations become one, what they move, and that the kernels compute what the equations say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stein.backends.gpu.kernels import Goal, fused
from stein.backends.gpu.kernels.plan import CACHE, MEMORY, REGISTERS, FusedPlan
from stein.backends.gpu.nodes import Loop, walk
from stein.backends.gpu.program import bind
from stein.backends.gpu.steps import ORDERING
from stein.backends.gpu.target import GpuTarget
from stein.ir.text import parse_ir
from stein.ir.types import BF16
from stein.tests.gpu.fused_cases import ARCHITECTURES, CASES, Case, goal_of, layouts_of, planned, program_of
from stein.tests.gpu.fused_kernels import DIRECT, TYPES
from stein.tests.gpu.fused_promises import broken
from stein.tests.gpu.requested import requested

ROOT = Path(__file__).resolve().parents[3]


def plan_of(case: Case, dtype: str = "bfloat16", goal: Goal = Goal()) -> FusedPlan:
    program = program_of(case, dtype, case.full)
    (plan,) = fused(program, {}, layouts_of(program), goal)
    return plan


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_one_plan_computes_the_program_at_the_bytes_of_the_floor(case: Case, architecture: str) -> None:
    """Inputs once and results once: of what is between them, nothing is in memory."""
    for dtype in case.dtypes:
        program = program_of(case, dtype, case.full)
        plans = fused(program, {}, layouts_of(program), goal_of(architecture))
        assert broken(case, program, plans) == ()
        if case.count == 1:
            assert all(p.where == REGISTERS for p in plans[0].placements)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_one_plan_computes_the_small_program(case: Case) -> None:
    """What the interpreter runs is what is assembled."""
    for dtype in case.dtypes:
        program = program_of(case, dtype, case.small)
        (plan,) = fused(program, {}, layouts_of(program), Goal())
        assert (plan.structure, plan.formed) == (case.structure, case.formed)
        assert len(plan.kernels) - plan.formed == case.count


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
    assert set(plan.resident) == {"L", "R"}
    assert 2 * size + 2 * 2 * 64**3 <= Goal().cache_bytes


def test_the_intermediate_of_two_kernels_goes_through_memory_where_no_chunk_of_it_fits_the_cache() -> None:
    case = next(c for c in CASES if c.name == "monarch 64")
    plan = plan_of(case)
    small = plan_of(case, goal=Goal(cache_bytes=1 << 20))
    assert small.placements[0].where == MEMORY and small.resident == ()
    assert len(small.launches) == 2
    assert small.moved_bytes == plan.moved_bytes + 2 * 16384 * 4096 * 2


def test_a_monarch_product_takes_the_widest_slab_of_which_two_programs_fit() -> None:
    named = {c.name: c for c in CASES}

    def slab(name: str, architecture: str) -> int:
        plan = plan_of(named[name], goal=goal_of(architecture))
        loops = [n for n in walk(plan.kernels[0].nest) if isinstance(n, Loop)]
        return loops[0].block if loops else 0

    assert (slab("monarch 32", "sm_90"), slab("monarch 32", "sm_80"), slab("monarch 32", "gfx942")) == (0, 16, 16)
    assert slab("monarch 32, 40 columns", "sm_90") == 16
    assert slab("block tensor-train", "gfx942") == 0


def test_chunks_cover_the_batch() -> None:
    plan = plan_of(next(c for c in CASES if c.name == "monarch 64"))
    stage = [dict(c.numbers) for c in plan.launches[::2]]
    assert sum(n["n_b"] for n in stage) == 16384
    at = 0
    for numbers in stage:
        assert numbers["o_x"] == at * 4096
        at += numbers["n_b"]


def test_a_low_rank_product_takes_as_many_rows_as_leave_every_processor_a_program() -> None:
    text, factors = "y[b,i] = U[i,r] * V[r,j] * x[b,j]", {"U": (4096, 64), "V": (64, 4096)}

    def rows(batch: int) -> int:
        program = planned(text, "bfloat16", factors | {"x": (batch, 4096)})
        plans = fused(program, {}, layouts_of(program), Goal())
        return dict(plans[0].launches[0].blocks)["b"] if plans else 0

    assert [rows(n) for n in (16, 2048, 4096, 16384)] == [0, 16, 32, 128]  # 0: two kernels, cut as need be


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


BLOCKS = """input R: i64[{0}]
input C: i64[{0}]
input W: f32[7, 32, 32]
input x: f32[9, 4, 32]
y[b, i, a]: f32[9, {1}, 32] = einsum[plustimes, f32](s, c, j; {2}) over b<9, i<5, a<32, s<7, c<32, j<4
return y"""
FACTORS = "eq(at(i), R[s]), W[s, a, c], eq(at(j), C[s]), x[b, j, c]"


@pytest.mark.parametrize(("length", "rows", "plans"), [(7, 5, 1), (9, 5, 0), (7, 6, 0)])
def test_lists_and_results_are_taken_as_a_whole(length: int, rows: int, plans: int) -> None:
    """A list that goes on, or rows that nobody writes, are no block list."""
    program = parse_ir(BLOCKS.format(length, rows, FACTORS))
    assert len(fused(program, {}, layouts_of(program))) == plans


def test_lists_that_are_the_same_are_gone_over_once() -> None:
    named = {c.name: c for c in CASES}
    one, two = (plan_of(named[n]) for n in ("gated block sparse", "gated block sparse, two lists"))
    assert (len(one.lists), len(two.lists)) == (1, 2)
    pairs = requested(one.launches[0].kernel, dict(one.launches[0].numbers), pairs=410)
    assert pairs["x"] == 410 * 64 * 16384 * 2


def test_a_scatter_is_priced_as_one() -> None:
    """Alone, each block is read and written where it is added; brought in order, a list costs kernels of its own."""
    case = next(c for c in CASES if c.name == "block sparse")
    program = program_of(case, "bfloat16", case.full)
    fused_cost = GpuTarget().price(program, {})
    huge = {"W": (102, 1024, 1024), "x": (16384, 32, 1024)}  # too large for one tile
    alone = GpuTarget().price(program_of(case, "bfloat16", case.full | huge), {})
    assert fused_cost.launches == 1 + ORDERING
    assert alone.launches == 3 and alone.bytes > 8 * 102 * 16384 * 1024


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
def interpreted() -> dict[tuple[str, str], list[dict[str, Any]]]:
    """What Triton's interpreter makes of every case, in a process of its own."""
    pytest.importorskip("torch", reason="needs PyTorch")
    pytest.importorskip("triton", reason="needs Triton")
    command = [sys.executable, "-m", "stein.tests.gpu.fused_interpreted"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT.parent, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for line in map(json.loads, done.stdout.splitlines()):
        found.setdefault((line["name"], line["dtype"]), []).append(line)
    return found


@pytest.mark.parametrize(("case", "dtype"), [(c, d) for c in CASES for d in c.dtypes], ids=str)
def test_kernels_agree_with_double_precision(
    case: Case, dtype: str, interpreted: dict[tuple[str, str], list[dict[str, Any]]]
) -> None:
    lines = interpreted[case.name, dtype]
    assert lines[0]["architecture"] == ARCHITECTURES[0]
    for found in lines:  # one for each architecture with kernels of its own
        assert found["worst"] <= 1
        assert found["kernels"] == case.count + case.formed + case.apart


def test_kernels_that_no_program_is_matched_to_agree_with_double_precision(
    interpreted: dict[tuple[str, str], list[dict[str, Any]]],
) -> None:
    for kernel in DIRECT:
        assert all(line["worst"] <= 1 for dtype in TYPES for line in interpreted[kernel.name, dtype])


def test_calls_in_the_interpreter() -> None:
    pytest.importorskip("torch", reason="needs PyTorch")
    pytest.importorskip("triton", reason="needs Triton")
    file = Path(__file__).parent / "fused_called.py"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(file)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"TRITON_INTERPRET": "1"}
    )
    assert done.returncode == 0, done.stdout[-4000:]
