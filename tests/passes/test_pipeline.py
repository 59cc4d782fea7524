"""The pipeline as a whole: every pass keeps the meaning and reaches the stage that it promises; golden plans; speed."""

from __future__ import annotations

import random
from collections.abc import Callable
from time import perf_counter

import numpy as np
import pytest

from stein.ir.check import check_program
from stein.ir.expr import Einsum, Expr, Program, reads, walk
from stein.ir.interpret import interpret
from stein.ir.semiring import Semiring
from stein.ir.text import parse_ir, print_program
from stein.ir.types import BOOL, F64, I64
from stein.passes.base import Pass, PassRecord
from stein.passes.pipeline import NORMAL_PASSES, PLAN_PASSES, Context, check_order, run_passes
from stein.passes.plan import contraction_steps, plan, rewrite_steps
from stein.tests import strategies
from stein.tests.passes.products import SEMIRINGS, assert_same, each_semiring, ir, planned, random_network

STAGE_AFTER = {"softmax": "normal", "order": "ordered", "fuse": "planned"}  # what `ir.check` can test from there on


def check_each_pass(program: Program, context: Context) -> list[Program]:
    """Run the passes one by one with the check of the stage that each reaches; the programs that differ."""
    stage, different = "elaborated", []
    for step in NORMAL_PASSES + PLAN_PASSES:
        stage = STAGE_AFTER.get(step.name, stage)
        after, (record,) = run_passes(program, (step,), context)
        check_program(after, stage)
        assert record.changed == (after is not program)
        assert after.inputs == program.inputs and after.outputs == program.outputs
        if record.changed:
            assert after != program
            different.append(after)
        program = after
    return different


def random_context(choose: random.Random, program: Program, names: tuple[str, ...]) -> Context:
    return Context(
        sizes={n: choose.choice((1, 3, 60)) for n in names if choose.random() < 0.9},
        optimize=choose.choice(("auto", True, False, "greedy", "optimal")),
        memory_limit=choose.choice((None, None, 10, "max_input")),
        constants=frozenset(i.name for i in program.inputs if choose.random() < 0.3),
        strict=choose.random() < 0.15,
    )


@pytest.mark.parametrize("seed", range(150))
def test_random_programs_keep_their_meaning_after_every_pass(seed: int) -> None:
    choose = random.Random(seed)
    types = (I64, BOOL) if seed % 2 else (F64, I64, BOOL)
    program = strategies.random_program(choose, dtypes=types, equations=4, exact=True)
    arrays, sizes = strategies.arguments(program, seed), strategies.sizes_of(seed)
    want = interpret(program, arrays, sizes)
    outside = any(s.name == "maxtimes" for e in program.equations for s in semirings_in(e.expr))
    if outside or any(v.dtype.kind == "f" and not np.isfinite(v).all() for v in want.values()):
        pytest.skip("max-times of negative numbers is no semiring, and rules hold for finite numbers")
    for after in check_each_pass(program, random_context(choose, program, strategies.SIZE_NAMES)):
        got = interpret(after, arrays, sizes)
        for name, value in want.items():
            assert got[name].dtype == value.dtype
            np.testing.assert_array_equal(got[name], value)


def semirings_in(expr: Expr) -> list[Semiring]:
    return [e.semiring for e in walk(expr) if isinstance(e, Einsum)]


@each_semiring
def test_random_networks_keep_their_meaning_after_every_pass(semiring: Semiring) -> None:
    for seed in range(30):
        choose = random.Random(seed)
        program = random_network(choose, semiring)
        for after in check_each_pass(program, random_context(choose, program, ("na", "nb", "nc", "nd", "ne"))):
            assert_same(program, after, seed)


def test_empty_extents_keep_their_meaning() -> None:
    for seed in range(40):
        choose = random.Random(seed)
        program = random_network(choose, choose.choice(SEMIRINGS[:-1]))
        sizes = {n: choose.choice((0, 1, 2)) for n in ("na", "nb", "nc", "nd", "ne")}
        assert_same(program, planned(program), seed, sizes)


def test_the_passes_find_what_they_need() -> None:
    check_order(NORMAL_PASSES + PLAN_PASSES)
    with pytest.raises(AssertionError, match="order"):
        check_order(NORMAL_PASSES + tuple(p for p in PLAN_PASSES if p.name != "gather"))
    assert all(p.summary for p in NORMAL_PASSES + PLAN_PASSES)
    assert len({p.name for p in NORMAL_PASSES + PLAN_PASSES}) == len(NORMAL_PASSES + PLAN_PASSES)


def test_records_tell_what_happened() -> None:
    program = ir(
        "input A: f64[n, n]",
        "t[i, k]: f64[n, n] = einsum[plustimes, f64](j; A[i, j], A[j, k]) over i<n, j<n, k<n",
        "y[i]: f64[n] = einsum[plustimes, f64](k; t[i, k], A[k, i]) over i<n, k<n",
    )
    seen: list[PassRecord] = []
    after, records = run_passes(program, NORMAL_PASSES, Context(), seen.append)
    assert tuple(seen) == records
    assert [r.name for r in records if r.changed] == ["normalise"]
    assert records[2].before is program and records[-1].after is after
    assert [s.rule for s in records[2].steps] == ["inline t"]
    assert all(r.seconds >= 0 for r in records)
    _, everything = plan(program, Context())
    assert rewrite_steps(everything)[0].rule == "inline t"


def test_a_pass_is_a_value() -> None:
    nothing = Pass("nothing", lambda program, context, trace: program)
    program = ir("input x: f64[n]", "y[i]: f64[n] = x[i] over i<n")
    after, records = run_passes(program, (nothing,), Context())
    assert after is program and not records[0].changed


GOLDEN = {
    "attention": (
        "input q: f32[n, d]",
        "input k: f32[m, d]",
        "input v: f32[m, e]",
        "a[i, j]: f32[n, m] = softmax[j](einsum[plustimes, f32](c; q[i, c], k[j, c])) over i<n, j<m, c<d",
        "y[i, l]: f32[n, e] = einsum[plustimes, f32](j; a[i, j], v[j, l]) over i<n, j<m, l<e",
    ),
    "sylvester": (
        "input A: f32[n, n]",
        "input B: f32[m, m]",
        "input x: f32[n, m]",
        "y[i, j]: f32[n, m] = add(einsum[plustimes, f32](k; A[i, k], x[k, j]),"
        " einsum[plustimes, f32](l; x[i, l], B[j, l])) over i<n, j<m, k<n, l<m",
    ),
    "monarch": (
        "input L: f32[k, i, j]",
        "input R: f32[j, k, m]",
        "input x: f32[b, j*m]",
        "t[b, j, k]: f32[b, j, k] = einsum[plustimes, f32](m; R[j, k, m], x[b, {m}*j+m]) over b<b, j<j, k<k, m<m",
        "y[b, {k}*i+k]: f32[b, i*k] = einsum[plustimes, f32](j; L[k, i, j], t[b, j, k]) over b<b, i<i, k<k, j<j",
    ),
    "stencil": (
        "input w: f64[5]",
        "input x: f64[n]",
        "y[i]: f64[n] = relu(einsum[plustimes, f64](d; w[d], x[i+d-2; pad=0.0])) over i<n, d<5",
    ),
    "transform": (  # seven operands, where opt_einsum's "auto" finds n^4
        "input h: f64[n, n]",
        "input r: f64[n, n]",
        "input s: f64[n, n]",
        "input x: f64[n, n]",
        "y[a, b]: f64[n, n] = einsum[plustimes, f64](c, d, e, f; h[a, c], h[b, d], s[c, d], h[c, e], h[d, f], r[e, f],"
        " x[e, f]) over a<n, b<n, c<n, d<n, e<n, f<n",
    ),
}
HINTS = dict.fromkeys("nmdebijk", 64)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_plans(name: str, golden: Callable[[str, str], None]) -> None:
    program = ir(*GOLDEN[name])
    after = planned(program, sizes=HINTS)
    text = print_program(after)
    golden(f"{name}.txt", text)
    assert after.outputs == ("y",) and after.inputs == program.inputs
    assert parse_ir(text) == after  # the file says all there is


def test_steps_of_a_plan() -> None:
    program = planned(ir(*GOLDEN["monarch"]), sizes=HINTS)
    steps = contraction_steps(program, {"b": 2, "i": 3, "j": 4, "k": 5, "m": 6})
    assert [(s.inputs, s.output, s.flops) for s in steps] == [
        (("R", "x"), "y.1", 2 * 2 * 4 * 5 * 6),
        (("L", "y.1"), "y", 2 * 2 * 3 * 4 * 5),
    ]
    assert dict(steps[0].extents) == {"b": 2, "j": 4, "k": 5, "m": 6}
    names = {i.name for i in program.inputs}
    for equation in program.equations:  # every step reads what is there by then
        assert {r.tensor for r in reads(equation.expr)} <= names
        names.add(equation.name)


def test_planning_a_product_of_two_is_fast() -> None:
    program = ir(
        "input A: f32[n, m]",
        "input B: f32[m, p]",
        "y[i, k]: f32[n, p] = einsum[plustimes, f32](j; A[i, j], B[j, k]) over i<n, j<m, k<p",
    )

    def run() -> float:
        start = perf_counter()
        plan(program, Context(sizes={"n": 100, "m": 100, "p": 100}))
        return perf_counter() - start

    run()
    assert min(run() for _ in range(20)) < 5e-3  # 0.2 ms where the machine is idle
