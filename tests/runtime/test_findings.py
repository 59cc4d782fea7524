"""What a compiled program says of itself and does: findings, the chosen candidate, memory, constants, plans by size."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stein
from stein.backends.cpu.calibration import DEFAULTS
from stein.backends.cpu.machine import machine_of
from stein.backends.cpu.target import CpuTarget
from stein.ir.target import Cost
from stein.passes.recognise import Declared, Proved
from stein.runtime.expression import Expression

RNG = np.random.default_rng(0)
FIXED = CpuTarget(machine_of("any", "+avx2,+fma,+f16c"), DEFAULTS, 1)
TOEPLITZ = "y[b,i] = t[i-j+n-1] * x[b,j]"
FLAT = "K[(i k),(j l)] = A[i,j] * B[k,l]\ny[b,m] = K[m,n] * x[b,n]"
N = 64


def normal(*shape: int, dtype: str = "float64") -> Any:
    return RNG.standard_normal(shape).astype(dtype)


class Prefers:
    """A target for which whatever stores most is the cheapest: the structured candidates of these tests."""

    name = "test"

    def price(self, program: Any, sizes: Any) -> Cost:
        return Cost(nanoseconds=1e9 / (1 + len(program.equations)))


def test_findings_of_symbolic_sizes() -> None:
    f = stein.compile(TOEPLITZ, t=("2*n-1",), x=("b", "n"), dtype="f32")
    first = f.findings[0]
    assert isinstance(first, stein.Finding)
    assert (first.value, first.kind, first.argument, first.number) == ("y", "toeplitz", "x", None)
    assert isinstance(first.evidence, Proved) and first.evidence.rule == "toeplitz"
    assert f.program.source.text[first.span.start : first.span.end] == TOEPLITZ
    assert first.options["identity"] == "b" and first.options["band"] == ("n-1", "n-1")
    assert first.term is not None and any("fft" in m.name for m in first.term.methods())


def test_findings_are_the_same_after_a_call() -> None:
    f = stein.compile(TOEPLITZ, t=("2*n-1",), x=("b", "n"), dtype="f64")
    before = f.findings
    f(t=normal(9), x=normal(2, 5))
    assert set(map(repr, f.findings)) == set(map(repr, before))


def test_declared_structure_and_inner_values() -> None:
    f = stein.compile("W: f64[8,8] symmetric\ny[i] = relu(sum[j] t[i-j+7]*x[j]) + W[i,j]*x[j]", t=(15,), x=(8,))
    kinds = {(g.value, g.kind): g for g in f.findings}
    assert isinstance(kinds["W", "symmetric"].evidence, Declared)
    assert kinds["W", "symmetric"].span.start == f.program.source.text.index("symmetric")
    assert ("y.inner", "toeplitz") in kinds


def test_near_misses_say_why() -> None:
    f = stein.compile("y[i] = A[i,j]*A[i,l]*x[j,l]", A=(8, 8), x=(8, 8), dtype="f64")
    assert [n.reason for n in f.near_misses if n.argument == "A"] == ["A occurs 2 times in one term"]


def test_findings_are_lazy() -> None:
    f = stein.compile(TOEPLITZ, t=("2*n-1",), x=("b", "n"), dtype="f32")
    assert f._found is None
    assert f.findings and f._found is not None


def test_a_call_of_an_einsum_string_never_loads_the_recogniser() -> None:
    code = """
    import numpy as np, stein, sys
    for text in ("ij,jk->ik", "ij,ij->", "ii->i", "...i,i->...", "ij,jk,kl->il"):
        for n in (5, 6, 1):
            operands = [np.ones((n,) * len(t.replace("...", ""))) for t in text.split("->")[0].split(",")]
            stein.einsum(text, *operands)
    print([m for m in sys.modules if m in ("stein.passes.recognise", "stein.passes.choice", "stein.ir.structures")])
    """
    assert _python(code).strip() == "[]"


def _python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True, cwd=Path.home()
    )
    return done.stdout


# --- what is chosen is what runs --------------------------------------------------------------------------------------


def test_the_chosen_program_runs_and_is_named() -> None:
    f = stein.compile(FLAT, A=(N, N), B=(N, N), x=(32, N * N), dtype="f32")
    a, b, x = normal(N, N, dtype="f4"), normal(N, N, dtype="f4"), normal(32, N * N, dtype="f4")
    y = f(A=a, B=b, x=x)
    assert f.stats["candidate"].startswith("kronecker")
    assert f.stats["flops"] == 2 * 2 * 32 * N**3
    assert f.stats["peak_memory"] <= 3 * x.nbytes < N**4 * 4
    assert f.findings[0].kind == "kronecker"
    exact = np.einsum("ij,kl,bjl->bik", a.astype(float), b.astype(float), x.reshape(32, N, N).astype(float))
    size = np.einsum(
        "ij,kl,bjl->bik", abs(a).astype(float), abs(b).astype(float), abs(x.reshape(32, N, N)).astype(float)
    )
    assert (abs(y.reshape(exact.shape) - exact) <= 2 * (2 * N + 3) * np.finfo("f4").eps * size).all()


def test_the_matrix_is_never_stored() -> None:
    """The resident size of a process grows by far less than the matrix of 4096 x 4096 (64 MiB)."""
    code = """
    import numpy as np, resource, stein
    n = 64
    text = "K[(i k),(j l)] = A[i,j] * B[k,l]; y[b,m] = K[m,n] * x[b,n]".replace("; ", chr(10))
    def run(n):
        f = stein.compile(text, A=(n, n), B=(n, n), x=("b", n * n), dtype="f32")
        a, x = np.ones((n, n), "f4"), np.ones((16, n * n), "f4")
        f(A=a, B=a, x=x)
        return f
    run(8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    f = run(64)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, f.stats["candidate"])
    """
    grown, name = _python(code).split(maxsplit=1)
    assert name.startswith("kronecker") and int(grown) < 32 << 10


@pytest.mark.parametrize("kind", ["f32", "f64", "c64", "c128"])
def test_a_structured_plan_at_many_sizes(kind: str) -> None:
    """Plans made from a rewritten program hold for their sizes only; each size gets its own, and all are right."""
    f = stein.compile(TOEPLITZ, t=("2*n-1",), x=("b", "n"), dtype=kind)
    f._default.target = Prefers()
    dtype = np.dtype(f.program.tensors["y"].dtype.numpy)
    for n in (5, 6, 7, 6, 1, 5, 12):
        t, x = normal(2 * n - 1).astype(dtype), normal(3, n).astype(dtype)
        y = f(t=t, x=x)
        matrix = np.array([[t[i - j + n - 1] for j in range(n)] for i in range(n)])
        # normwise, through at most 16 sums of at most 2n terms each way of three transforms
        bound = 64 * 6 * n * np.finfo(dtype).eps * np.abs(t).sum() * np.abs(x).sum()
        assert np.abs(y - x @ matrix.T).max() <= bound
        if n > 1:
            assert "toeplitz" in f._default.planned(f._default.sizes_of([t.shape, x.shape])).name


@pytest.mark.parametrize("shapes", [{"x": (0, 4), "t": (7,)}, {"x": ("b", 4), "t": (7,)}])
def test_nothing_to_compute(shapes: Any) -> None:
    f = stein.compile("y[b,i] = t[i-j+4] * x[b,j] for i in 0..3", **shapes, dtype="f64")
    assert f(x=np.zeros((0, 4)), t=np.ones(7)).shape == (0, 3)
    assert "target cpu" in str(f.explain())


def test_exact_plans_are_bounded() -> None:
    f = stein.compile(TOEPLITZ, t=("2*n-1",), x=("b", "n"), dtype="f64")
    expression: Expression = f._default
    expression.target = Prefers()
    for n in range(64, 64 + 70):
        expression.planned(expression.sizes_of([(2 * n - 1,), (2, n)]))
    assert len(expression._exact) <= expression._exact.capacity == 64


def test_sizes_share_a_plan_that_suits_them_all() -> None:
    f = stein.compile(TOEPLITZ, t=("2*n-1",), x=("b", "n"), dtype="f64")
    expression: Expression = f._default
    expression.target = FIXED
    plans = [expression.planned(expression.sizes_of([(2 * n - 1,), (2, n)])) for n in (9, 10, 11)]
    assert plans[0] is plans[1] is plans[2] and not plans[0].exact


def test_strict_and_explicit_orders_are_left_alone() -> None:
    for options in ({"strict": True}, {"optimize": False}):
        f = stein.compile(FLAT, A=(4, 4), B=(4, 4), x=(2, 16), dtype="f64", **options)
        f(A=normal(4, 4), B=normal(4, 4), x=normal(2, 16))
        assert f.stats["candidate"] == "best order"


# --- constants --------------------------------------------------------------------------------------------------------


def test_what_constants_decide_is_computed_once() -> None:
    n = 50
    t, x = normal(2 * n - 1), normal(3, n)
    f = stein.compile(f"y[b,i] = t[i-j+{n - 1}] * x[b,j]", t=stein.constant(t), x=("b", n))
    f._default.target = Prefers()
    y = f(x=x)
    plan = f._default.planned({"b": 3})
    reading_t = [e for e in plan.called.equations if any(r == "t" for r in _reads(e))]
    assert "toeplitz" in plan.name and not reading_t  # the transform of t is a constant of the plan
    matrix = np.array([[t[i - j + n - 1] for j in range(n)] for i in range(n)])
    bound = 64 * 6 * n * np.finfo(float).eps * np.abs(t).sum() * np.abs(x).sum()
    assert np.abs(y - x @ matrix.T).max() <= bound


def _reads(equation: Any) -> set[str]:
    from stein.ir.expr import reads

    return {r.tensor for r in reads(equation.expr)}


def test_formulas_are_constants_of_a_plan() -> None:
    n = 40
    f = stein.compile(f"y[b,i] = t[i-j+{n - 1}] * x[b,j]", t=(2 * n - 1,), x=(2, n), dtype="f64")
    f._default.target = Prefers()
    f(t=normal(2 * n - 1), x=normal(2, n))
    plan = f._default.planned({})
    assert plan.made.outputs and all(_reads(e) for e in plan.called.equations)
    assert f.stats["constants"] > 0


def test_a_formula_that_is_bigger_than_the_arguments_is_not_stored() -> None:
    f = stein.compile(
        "M[i,j] = exp(-i*j/100) for i in 0..300, j in 0..300\ny[i] = M[i,j] * x[j]", x=(300,), dtype="f64"
    )
    x = normal(300)
    y = f(x=x)
    i = np.arange(300)
    matrix = np.exp(-np.multiply.outer(i, i) / 100)
    assert f.stats["constants"] < 300 * 300 * 8
    np.testing.assert_allclose(y, matrix @ x, rtol=0, atol=600 * np.finfo(float).eps * (matrix @ abs(x)).max())
