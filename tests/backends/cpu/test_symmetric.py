"""Symmetric results: half of the work, the other half mirrored, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

import stein
from stein.backends.cpu import schedule as schedule_module
from stein.backends.cpu.equations import EquationTemplate
from stein.backends.cpu.machine import host
from stein.backends.cpu.native_record import Layout
from stein.backends.cpu.problem import problem_of
from stein.backends.cpu.symmetric import symmetric_axes, symmetric_plan
from stein.ir.expr import Program
from stein.ir.text import parse_ir

EPSILON = {"f32": 2.0**-23, "f64": 2.0**-52, "c64": 2.0**-23, "c128": 2.0**-52}


def random(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    kind = {"f32": np.float32, "f64": np.float64, "c64": np.complex64, "c128": np.complex128, "i32": np.int32}[dtype]
    if dtype == "i32":
        return rng.integers(-50, 50, shape).astype(kind)
    real = rng.standard_normal(shape)
    return (real + 1j * rng.standard_normal(shape)).astype(kind) if dtype[0] == "c" else real.astype(kind)


def uses_half(f: object) -> bool:
    return "lower" in str(f.explain())  # type: ignore[attr-defined]


def close(found: np.ndarray, wanted: np.ndarray, terms: int, size: float, dtype: str) -> None:
    """Every sum of `terms` products, each at most `size`: (terms + 2) roundings of each term, 4 for complex."""
    each = 4 if dtype[0] == "c" else 1
    bound = each * (terms + 2) * EPSILON[dtype] * terms * size
    assert np.abs(found - wanted).max() <= bound


@pytest.mark.parametrize("n", [97, 128, 300])
@pytest.mark.parametrize("dtype", ["f32", "f64", "c64", "c128", "i32"])
def test_gram_matrix(n: int, dtype: str) -> None:
    x = random(np.random.default_rng(n), (120, n), dtype)
    f = stein.compile("G[i,j] = X[k,i]*X[k,j]", X=x.shape, dtype=dtype)
    g = f(X=x)
    wide = x.astype(np.complex128 if dtype[0] == "c" else np.int64 if dtype[0] == "i" else np.float64)
    assert uses_half(f)
    assert np.array_equal(g, g.T)
    if dtype == "i32":
        assert np.array_equal(g, wide.T @ wide)
    else:
        close(g, wide.T @ wide, 120, np.abs(wide).max() ** 2, dtype)


@pytest.mark.parametrize("text", ["H[i,j] = conj(X[k,i])*X[k,j]", "H[i,j] = X[k,i]*conj(X[k,j])"])
@pytest.mark.parametrize("dtype", ["c64", "c128"])
def test_hermitian(text: str, dtype: str) -> None:
    x = random(np.random.default_rng(1), (100, 150), dtype)
    f = stein.compile(text, X=x.shape, dtype=dtype)
    h = f(X=x)
    wide = x.astype(np.complex128)
    wanted = wide.conj().T @ wide if text.index("conj") < 12 else wide.T @ wide.conj()
    assert uses_half(f)
    lower = np.tril_indices(150, -1)
    assert np.array_equal(h[lower], h.T.conj()[lower])
    close(h, wanted, 100, np.abs(wide).max() ** 2, dtype)


@pytest.mark.parametrize(
    "text, equal",
    [
        ("G[b,i,j] = X[b,k,i]*X[b,k,j]", True),
        ("G[i,j,b] = X[b,k,i]*X[b,k,j]", True),
        ("G[b,i,j] = w[k]*X[b,k,i]*X[b,k,j]", True),
        ("G[b,i,j] = a*X[b,k,i]*X[b,k,j]", True),
        ("G[b,i,j] = exp(sum[k] X[b,k,i]*X[b,k,j]/100)", True),
        ("G[b,i,j] = X[b,k,i]*X[b,k,j] over maxplus", True),
        ("G[b,i,j] = X[b,k,i]*X[b,k,j] + C[i,j]", False),
        ("G[b,i,j] = X[b,k,i]*Y[b,k,j]", False),
    ],
)
def test_batches_scales_epilogues_semirings(text: str, equal: bool) -> None:
    rng = np.random.default_rng(2)
    given = {"X": (3, 80, 144), "Y": (3, 80, 144), "w": (80,), "a": (), "C": (144, 144)}
    arrays = {n: rng.standard_normal(s) for n, s in given.items() if f"{n}[" in text or f"{n}*" in text}
    f = stein.compile(text, dtype="f64", **{n: a.shape for n, a in arrays.items()})
    g = f(**arrays)
    reference = stein.compile(text, dtype="f64", target="reference", **{n: a.shape for n, a in arrays.items()})
    np.testing.assert_allclose(g, reference(**arrays), rtol=1e-9, atol=1e-9)
    assert uses_half(f) == equal
    if equal:
        i, j = (0, 1) if "G[i" in text else (1, 2)
        assert np.array_equal(g, np.swapaxes(g, i, j))


def test_grouped_axes_and_transposed_operands() -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((12, 90, 11))
    f = stein.compile("G[i,a,j,b] = X[i,k,a]*X[j,k,b]", dtype="f64", X=x.shape)
    assert np.allclose(f(X=x), np.einsum("ika,jkb->iajb", x, x), rtol=1e-12, atol=1e-10)
    y = np.asfortranarray(rng.standard_normal((200, 160)))[:, ::-1]
    g = stein.compile("G[i,j] = X[i,k]*X[j,k]", dtype="f64")
    found = g(X=y)
    assert np.allclose(found, y @ y.T, rtol=1e-12, atol=1e-10) and np.array_equal(found, found.T)


def test_results_do_not_depend_on_threads() -> None:
    x = np.random.default_rng(4).standard_normal((400, 500)).astype(np.float32)
    before = stein.get_threads()
    results = []
    try:
        for threads in (1, 2):
            stein.set_threads(threads)
            results.append(stein.compile("G[i,j] = X[k,i]*X[k,j]", dtype="f32")(X=x))
    finally:
        stein.set_threads(before)
    assert np.array_equal(*results)


def problem(text: str, sizes: dict[str, int]):  # type: ignore[no-untyped-def]
    program: Program = parse_ir(text)
    layouts = {n: Layout.dense(t.dtype, tuple(s.evaluate(sizes) for s in t.shape)) for n, t in program.tensors.items()}
    step = EquationTemplate(program.equations[0]).contractions(sizes, layouts)[-1]
    return problem_of(step.problem)


GRAM = "G[i, j]: f64[n, n] = einsum[plustimes, f64](k; X[k, i], {}[k, j]) over i<n, j<n, k<m"


def test_only_one_and_the_same_tensor_is_symmetric() -> None:
    sizes = {"n": 256, "m": 128}
    same = problem(f"input X: f64[m, n]\n{GRAM.format('X')}\nreturn G", sizes)
    other = problem(f"input X: f64[m, n]\ninput Y: f64[m, n]\n{GRAM.format('Y')}\nreturn G", sizes)
    assert symmetric_axes(same) is not None and symmetric_axes(other) is None
    plan = symmetric_plan(same, host())
    assert plan is not None and 0.5 < plan.flops < 0.7


def test_small_results_are_computed_whole() -> None:
    """Blocks must pay: a small matrix takes one kernel."""
    small = problem(f"input X: f64[m, n]\n{GRAM.format('X')}\nreturn G", {"n": 24, "m": 128})
    assert symmetric_plan(small, host()) is None


def test_without_the_plan_the_whole_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.ones((300, 320), np.float32)
    text = "G[i,j] = X[k,i]*X[k,j]"
    half = stein.compile(text, X=x.shape, dtype="f32")
    found = half(X=x)
    assert uses_half(half)
    monkeypatch.setattr(schedule_module, "symmetric_plan", lambda *_: None)
    whole = stein.compile(text, X=x.shape, dtype="f32")
    assert np.array_equal(found, whole(X=x)) and not uses_half(whole)
