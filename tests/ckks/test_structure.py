"""Structure that is recognised lowers what an encrypted product takes: unannotated programs against the full matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import stein
from stein.backends.ckks.lowering.dense import dense
from stein.backends.ckks.lowering.lower import lower
from stein.backends.ckks.lowering.problem_eval import evaluate
from stein.backends.ckks.planning.target import depth, entry_count, lower_bound, sizes_of_steps
from stein.ir.interpret import interpret
from stein.passes.base import Context
from stein.passes.encrypted import variants
from stein.tests.ckks.encrypted_programs import arrays_of, typed

E = stein.encrypted
RING = 8192


@pytest.fixture(autouse=True)
def usual_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans that do not depend on the machine."""
    monkeypatch.setenv("STEIN_CALIBRATION", "off")


# Text, shapes, kind that is found, most rotations, products and levels of the plan: the figures of the design page.
STRUCTURES: dict[str, tuple[str, dict[str, Any], str, tuple[int, int, int]]] = {
    "kronecker": (
        "y[i,k] = A[i,j]*B[k,l]*x[j,l]",
        {"A": (32, 32), "B": (32, 32), "x": E((32, 32))},
        "kronecker",
        (14, 23, 2),
    ),
    "monarch": (
        "y[(i k)] = L[k,i,j]*R[j,k,m]*x[(j m)]",
        {"L": (32, 32, 32), "R": (32, 32, 32), "x": E(1024)},
        "monarch",
        (14, 23, 2),
    ),
    "low rank": ("y[i] = U[i,r]*V[j,r]*x[j]", {"U": (1024, 8), "V": (1024, 8), "x": E(1024)}, "low_rank", (13, 4, 2)),
    "block diagonal": (
        "y[b,i] = W[b,i,j]*x[b,j]",
        {"W": (32, 32, 32), "x": E((32, 32))},
        "block_diagonal",
        (6, 8, 1),
    ),
    "banded": ("a: f64[-8..9,1024]; x: encrypted f64[1024] pad=0; y[i] = a[d,i]*x[i+d]", {}, "banded", (7, 17, 1)),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_structure_beats_every_plan_of_the_full_matrix(name: str) -> None:
    text, declared, kind, (rotations, products, levels) = STRUCTURES[name]
    compiled = stein.compile(text, target="ckks", rings=RING, **declared)
    assert kind in {f.kind for f in compiled.findings if f.argument == "x"}
    stats, work = compiled.stats, compiled.plan.work
    assert (stats["rotations"], stats["plain_products"], stats["levels"]) <= (rotations, products, levels)
    assert stats["plain_products"] <= products and stats["levels"] <= levels
    full = dense(lower(compiled.program))
    assert work.milliseconds < lower_bound(full, (RING,))
    x = np.random.default_rng(0).uniform(-1, 1, [s.evaluate({}) for s in compiled.encrypted[0].shape])
    clear = {n: a for n, a in arrays_of(compiled.program).items() if n != "x"}
    want = interpret(compiled.program, {**clear, "x": x})["y"]
    np.testing.assert_allclose(compiled.simulate(x=x, **clear), want, rtol=0, atol=1e-9)


def test_recognition_can_be_switched_off() -> None:
    shapes = {"A": (4, 4), "B": (4, 4), "x": E((4, 4))}
    text = "y[i,k] = A[i,j]*B[k,l]*x[j,l]"
    plain = stein.compile(text, target="ckks", rings=RING, structure=False, **shapes)
    assert plain.choice.chosen.name == "dense" and plain.findings == ()
    (step,) = plain.problem.steps
    assert [n for _, n in step.terms[0].indices] == [4, 4, 4, 4]  # type: ignore[union-attr]
    arrays = arrays_of(plain.program)
    want = interpret(plain.program, arrays)["y"]
    np.testing.assert_allclose(plain.simulate(**arrays), want, atol=1e-9)


WAYS: dict[str, tuple[str, dict[str, tuple[int, ...]], set[str]]] = {
    "kronecker": (
        "x: encrypted f64[4,4]; y[i,k] = A[i,j]*B[k,l]*x[j,l]",
        {"A": (4, 4), "B": (4, 4)},
        {"kronecker: A, then B", "kronecker: B, then A", "kronecker: A B as one matrix"},
    ),
    "flat kronecker": (
        "x: encrypted f64[16]; y = kron(A, B) @ x",
        {"A": (4, 4), "B": (4, 4)},
        {"kronecker: A, then B", "kronecker: B, then A", "kronecker: A B as one matrix"},
    ),
    "low rank": (
        "x: encrypted f64[30]; y[i] = U[i,r]*V[j,r]*x[j]",
        {"U": (30, 2), "V": (30, 2)},
        {"low rank: V, then U", "low rank: U, then V", "low rank: U V as one matrix"},
    ),
    "diagonal plus low rank": (
        "x: encrypted f64[30]; y[i] = d[i]*x[i] + U[i,r]*V[j,r]*x[j]",
        {"U": (30, 2), "V": (30, 2), "d": (30,)},
        {"dplr: V, then U", "dplr: U, then V", "dplr: U V as one matrix"},
    ),
    "declared blocks": (
        "W: f64[12,12] blockdiag(block=4); x: encrypted f64[12]; y = W @ x",
        {},
        {"as written", "block diagonal"},
    ),
    "two layers": (
        "x: encrypted f64[8]; h[i] = U[i,j]*x[j]; y[i] = V[i,j]*h[j]",
        {"U": (3, 8), "V": (8, 3)},
        {"low rank: U, then V", "low rank: V, then U", "low rank: V U as one matrix"},
    ),
    "products of secrets": (
        "x, z, w: encrypted f64[4,4]; y[i,l] = x[i,j]*z[j,k]*w[k,l]",
        {},
        {"kronecker: in pairs"},
    ),
}


@pytest.mark.parametrize("name", WAYS)
def test_every_variant_is_the_program(name: str) -> None:
    text, shapes, expected = WAYS[name]
    program = typed(text, **shapes)
    found = variants(program, Context()).variants
    names = {v.name for v in found}
    assert names == expected
    arrays = arrays_of(program)
    if name == "declared blocks":
        arrays["W"] = arrays["W"] * np.kron(np.eye(3), np.ones((4, 4)))
    want = interpret(program, arrays)
    for variant in found:
        problem = lower(variant.program)
        got = evaluate(problem, {n: arrays[n] for n in problem.inputs}, arrays)
        for output, value in want.items():
            np.testing.assert_allclose(got[output], value, rtol=0, atol=1e-9)


def test_variants_come_in_the_order_of_what_they_take() -> None:
    """The most promising first: a chain of small factors; then one way of each other kind, the whole matrix last."""
    program = typed(
        "x: encrypted f64[16,16,16]; y[i,j,k] = A[i,a]*B[j,b]*C[k,c]*x[a,b,c]", A=(16, 16), B=(16, 16), C=(16, 16)
    )
    names = [v.name for v in variants(program, Context()).variants]
    assert names[0].count("then") == 2 and names[-1] == "kronecker: A B C as one matrix"
    assert any(n.count("then") == 1 for n in names)


def test_steps_of_the_same_sizes_are_planned_once() -> None:
    compiled = stein.compile(
        "y[i,k] = A[i,j]*B[k,l]*x[j,l]", A=(4, 4), B=(4, 4), x=E((4, 4)), target="ckks", rings=RING
    )
    reasons = [r.reason for r in compiled.choice.rows]
    assert sum("same sizes" in r for r in reasons) == 1
    found = {v.name: lower(v.program) for v in variants(compiled.program, Context()).variants}
    one, other = found["kronecker: A, then B"], found["kronecker: B, then A"]
    assert sizes_of_steps(one) == sizes_of_steps(other) != sizes_of_steps(found["kronecker: A B as one matrix"])


def test_lower_bounds_count_what_a_pattern_has() -> None:
    """Entries outside of an axis are no entries: a band of a matrix is not the matrix."""
    band = lower(typed("a: f64[-2..3,512]; x: encrypted f64[512] pad=0; y[i] = a[d,i]*x[i+d]"))
    full = lower(typed("A: f64[512,512]; x: encrypted f64[512]; y = A @ x"))
    assert entry_count(full.steps[0], full) == 512 * 512  # type: ignore[arg-type]
    assert entry_count(band.steps[0], band) == 5 * 512 - 6  # type: ignore[arg-type]
    assert lower_bound(full, (RING,)) > 10 * lower_bound(band, (RING,))
    assert lower_bound(dense(band), (RING,)) == lower_bound(full, (RING,))


def test_depth_is_that_of_the_longest_path() -> None:
    program = typed("x: encrypted f64[4]; a[i] = x[i]*x[i]; b[i] = a[i]*x[i]; y[i] = b[i] + A[i,j]*x[j]", A=(4, 4))
    levels, path = depth(lower(program))
    assert levels == 2 and [s.name for s in path] == ["a", "b"]
