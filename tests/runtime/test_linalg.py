"""solve, inv, logdet and powm from text to result: kernels and leaves in turns, against NumPy in double precision.

Bounds are those of tests/passes/test_solve.py: 16 n eps kappa.
"""

import re
import tracemalloc
from typing import Any

import numpy as np
import pytest

import stein
from stein.ir.types import parse_dtype
from stein.runtime.compiled import Compiled
from stein.tests.passes.solve_cases import CASES, value

Array = np.ndarray[Any, Any]
TYPES = ("f32", "f64", "c64", "c128")


def numpy_type(kind: str) -> np.dtype[Any]:
    dtype = parse_dtype(kind)
    assert dtype is not None
    return dtype.numpy


def near(found: Any, wanted: Any, kappa: float = 1.0) -> bool:
    """Within 16 n eps kappa of the wanted value, n its number of rows."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    size = max(1, *wanted.shape[:1]) if wanted.ndim else 1
    limit = 16 * size * np.finfo(found.dtype).eps * kappa * max(float(np.linalg.norm(wanted)), 1.0)
    return found.shape == wanted.shape and bool(np.linalg.norm(found - wanted) <= limit)


def spd(size: int, seed: int = 0, kind: str = "f64") -> Array:
    """A symmetric (Hermitian) positive definite matrix with a condition number of at most about 10."""
    rng = np.random.default_rng(seed)
    a = value(rng, (size, size), numpy_type(kind), "small") if size else np.zeros((0, 0), numpy_type(kind))
    return np.asarray(a @ a.conj().T + np.eye(size), numpy_type(kind))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("target", ["cpu", "reference"])
def test_structured_solvers_run(name: str, target: str) -> None:
    case = CASES[name]
    text = re.sub(r"\bT\b", "f64", case.text)
    size = len(case.matrix({i.name: np.ones([s.evaluate({}) for s in i.shape]) for i in _inputs(text)}))
    f = stein.compile(f"x: f64[{size},2]; {text}\ny = solve(M, 2*x)\nl = logdet(M)\nreturn y, l", target=target)
    rng = np.random.default_rng(3)
    arrays = {
        i.name: value(rng, tuple(s.evaluate({}) for s in i.shape), np.dtype(float), case.kinds.get(i.name, ""))
        for i in f.program.inputs
    }
    arrays["x"] = rng.standard_normal((size, 2))
    matrix = case.matrix(arrays)
    kappa = float(np.prod([np.linalg.cond(p) for p in case.parts(arrays)]))
    for _ in range(2):  # the second call takes what the first one made
        found = f(**arrays)
        assert near(found["y"], np.linalg.solve(matrix, 2 * arrays["x"]), kappa)
        assert near(found["l"], np.linalg.slogdet(matrix)[1], kappa * size)


def _inputs(text: str) -> Any:
    return stein.compile(f"{text}\nreturn M").program.inputs


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("size", [0, 1, 2, 7, 16, 31])
def test_dense_leaves_at_all_sizes_and_types(kind: str, size: int) -> None:
    f = stein.compile(
        f"A: {kind}[n,n]; b: {kind}[n]; B: {kind}[n,m]\n"
        "y = solve(A, b); Y = solve(A', 2*B); X = inv(A); l = logdet(A); P = powm(A, 2)\nreturn y, Y, X, l, P"
    )
    rng = np.random.default_rng(size)
    dtype = numpy_type(kind)
    matrix = value(rng, (size, size), dtype) if size else np.zeros((0, 0), dtype)
    vector, right = value(rng, (size,), dtype), value(rng, (size, 3), dtype)
    kappa = float(np.linalg.cond(matrix.astype(complex))) if size else 1.0
    found = f(A=matrix, b=vector, B=right)
    wide = matrix.astype(np.complex128 if dtype.kind == "c" else float)
    assert {a.dtype for n, a in found.items() if n != "l"} == {dtype}
    assert near(found["y"], np.linalg.solve(wide, vector), kappa)
    assert near(found["Y"], np.linalg.solve(wide.T, 2 * right), kappa)
    assert near(found["X"], np.linalg.inv(wide), kappa)
    assert near(found["P"], wide @ wide, kappa)
    assert near(found["l"], np.linalg.slogdet(wide)[1], kappa * max(size, 1))


@pytest.mark.parametrize("order", ["C", "F", "strided", "negative"])
def test_operands_of_any_layout(order: str) -> None:
    matrix, right = spd(6), np.arange(18.0).reshape(6, 3)
    change = {
        "C": lambda a: a,
        "F": np.asfortranarray,
        "strided": lambda a: np.repeat(np.repeat(a, 2, 0), 3, 1)[::2, ::3],
        "negative": lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
    }[order]
    f = stein.compile("y = solve(kron(A, A), kron(B, B)); z = solve(A, B)\nreturn y, z")
    found = f(A=change(matrix), B=change(right))
    assert near(found["z"], np.linalg.solve(matrix, right), 10)
    assert near(found["y"], np.kron(*[np.linalg.solve(matrix, right)] * 2), 100)


def test_new_sizes_types_and_values_in_one_program() -> None:
    f = stein.compile("A: f64[n,n]; B: f64[m,m]; I: identity f64[n*m,n*m]; y = solve(kron(A, B) + 2*I, x)", x=("n*m",))
    for n, m in [(2, 3), (3, 2), (6, 1), (1, 6), (4, 4), (2, 3)]:
        a, b, x = spd(n, n), spd(m, m + 9), np.arange(1.0, n * m + 1)
        assert near(f(A=a, B=b, x=x), np.linalg.solve(np.kron(a, b) + 2 * np.eye(n * m), x), 100)
    g = stein.compile("y = solve(A, x)", A=("n", "n"), x=("n",))
    for kind in TYPES:
        a = spd(5, 1, kind)
        found = g(A=a, x=np.ones(5, a.dtype))
        assert found.dtype == a.dtype and near(found, np.linalg.solve(a, np.ones(5)), 100)


def test_mixed_types_promote_before() -> None:
    a, x = spd(4, 0, "f32"), np.ones(4)
    found = stein.compile("y = solve(A, x)")(A=a, x=x)
    assert found.dtype == np.float64 and near(found, np.linalg.solve(a.astype(float), x), 10)
    found = stein.compile("y = solve(A, x)")(A=spd(4), x=np.ones(4, np.int32))
    assert near(found, np.linalg.solve(spd(4), x), 10)


def test_statements_before_between_and_after() -> None:
    a, b, x = spd(4), spd(3, 1), np.arange(12.0)
    f = stein.compile(
        "A: f64[n,n]; x: f64[n*m]\n"
        "w[i] = 2*x[i] + 1\n"
        "y = solve(kron(A, B), w)\n"
        "z[i] = relu(y[i]) - x[i]\n"
        "u = inv(kron(A, B)) @ z\n"
        "t = u @ y + logdet(A)\n"
        "y += z\n"
        "return t, u, y",
        B=("m", "m"),
    )
    matrix = np.kron(a, b)
    y = np.linalg.solve(matrix, 2 * x + 1)
    z = np.maximum(y, 0) - x
    u = np.linalg.solve(matrix, z)
    found = f(A=a, x=x, B=b)
    assert near(found["u"], u, 100) and near(found["y"], y + z, 100)
    assert near(found["t"], u @ y + np.linalg.slogdet(a)[1], 100)


def test_the_gaussian_process_of_the_language_page() -> None:
    """`y = solve(kron(K1, K2) + s*I, x)` (structures row 13), and the likelihood that goes with it."""
    text = """
        I: identity f64[n*m, n*m]
        K = kron(K1, K2) + s*I
        y = solve(K, x)
        nll = 0.5*(x @ y + logdet(K))
        return y, nll
    """
    k1, k2, x = spd(8), spd(5, 1), np.sin(np.arange(40.0))
    matrix = np.kron(k1, k2) + 0.3 * np.eye(40)
    wanted = np.linalg.solve(matrix, x)
    for declared in ("symmetric", ""):
        f = stein.compile(f"K1: f64[n,n] {declared}; K2: f64[m,m] {declared}; s: f64; x: f64[n*m]\n{text}")
        found = f(K1=k1, K2=k2, s=0.3, x=x)
        assert near(found["y"], wanted, 100)
        assert near(found["nll"], 0.5 * (x @ wanted + np.linalg.slogdet(matrix)[1]), 4000)
        assert "Kronecker" in f.stats["candidate"]


def test_shampoo() -> None:
    """Structures row 15: the preconditioned gradient, by its own text and as one matrix on vec(G)."""
    rng = np.random.default_rng(0)
    g = rng.standard_normal((6, 4)).astype(np.float32)
    f = stein.compile("""
        G: f32[n,m]; E: identity f32[n,n]; F: identity f32[m,m]
        L = G @ G' + 0.1*E
        R = G' @ G + 0.1*F
        P = powm(L, -0.25) @ G @ powm(R, -0.25)
    """)

    def root(matrix: Array) -> Array:
        values, vectors = np.linalg.eigh(matrix)
        return np.asarray((vectors * values**-0.25) @ vectors.T)

    wide = g.astype(float)
    left, right = wide @ wide.T + 0.1 * np.eye(6), wide.T @ wide + 0.1 * np.eye(4)
    kappa = float(np.linalg.cond(left) ** 0.25 * np.linalg.cond(right) ** 0.25)
    found = f(g)
    # the power -1/4 moves by |E| |S^-1|^(5/4) / 4, so the relative error is eps times the condition number
    assert near(found, root(left) @ wide @ root(right), kappa * float(np.linalg.cond(left)))
    assert "symmetric" in str(f.explain())
    whole = stein.compile("""
        L, R: f32[n,n] symmetric; v: f32[n*n]
        p = powm(kron(L, R), -0.25) @ v
    """)
    v = rng.standard_normal(16).astype(np.float32)
    r = right.astype(np.float32)
    wanted = np.kron(root(right), root(right)) @ v
    assert near(whole(L=r, R=r, v=v), wanted, 4 * float(np.linalg.cond(right)))
    assert "Kronecker" in whole.stats["candidate"]


def test_powers_given_at_the_call() -> None:
    f = stein.compile("p: f64; A: f64[n,n] symmetric; y = powm(A, p/2)")
    a = spd(5)
    assert near(f(A=a, p=-2.0), np.linalg.inv(a), 100)
    assert near(f(A=a, p=1.0) @ f(A=a, p=1.0), a, 100)
    assert near(f(A=a, p=0.0), np.eye(5))
    g = stein.compile("A: f64[n,n]; y = powm(A, 0.5)")  # a matrix that nothing is known of
    b = value(np.random.default_rng(5), (6, 6), np.dtype(float))
    root = g(A=b)
    assert near(root @ root, b, float(np.linalg.cond(b)) ** 2)
    whole = stein.compile("A: f64[n,n]; y = powm(A, -3)")
    assert near(whole(A=b), np.linalg.matrix_power(np.linalg.inv(b), 3), float(np.linalg.cond(b)) ** 3)


def test_nothing_of_rows_times_columns_is_stored() -> None:
    """10 000 rows: the matrix would take 800 MB."""
    n = 100
    a, b, x = spd(n), spd(n, 1), np.ones(n * n)
    f = stein.compile(
        "K1, K2: f64[n,n] symmetric; I: identity f64[n*n,n*n]; s: f64; x: f64[n*n]\n"
        "K = kron(K1, K2) + s*I; y = solve(K, x); l = logdet(K)\nreturn y, l"
    )
    f(K1=a, K2=b, s=0.5, x=x)
    tracemalloc.start()
    found = f(K1=a, K2=b, s=0.5, x=x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    y = found["y"].reshape(n, n)
    assert near(a @ y @ b.T + 0.5 * y, x.reshape(n, n), 100)
    assert peak + f.stats["peak_memory"] < n**4 * 8 / 100
    big = 5000
    g = stein.compile(
        "d, x: f64[n]; U: f64[n,r]; D[i,j] = (i == j)*d[i] for i in 0..n, j in 0..n\n"
        "M = D + U @ U'; y = solve(M, x); l = logdet(M)\nreturn y, l"
    )
    rng = np.random.default_rng(0)
    d, u, x = rng.random(big) + 1, rng.standard_normal((big, 3)) / np.sqrt(big), rng.standard_normal(big)
    y = g(d=d, U=u, x=x)["y"]
    assert near(d * y + u @ (u.T @ y), x, 10)
    assert g.stats["peak_memory"] < big * 200


def test_constants_are_decomposed_once() -> None:
    k1, k2 = spd(8), spd(4, 1)
    f = stein.compile(
        "K1: f64[8,8] const symmetric; K2: f64[4,4] const symmetric; I: identity f64[32,32]; x: f64[32]\n"
        "y = solve(kron(K1, K2) + 0.1*I, x)",
        K1=stein.constant(k1),
        K2=stein.constant(k2),
    )
    x = np.arange(32.0)
    for _ in range(2):
        assert near(f(x), np.linalg.solve(np.kron(k1, k2) + 0.1 * np.eye(32), x), 100)
    assert "computed once, ahead of the calls" in str(f.explain()).replace("\n", " ")
    g = stein.compile("K: f64[8,8] const; y = inv(K)", K=stein.constant(k1))
    first = g()
    first[:] = 0  # results are the caller's own
    assert near(g(), np.linalg.inv(k1), 10)


def test_out_and_other_libraries() -> None:
    torch = pytest.importorskip("torch")
    a, x = spd(5), np.ones(5)
    f = stein.compile("A: f64[n,n]; y = solve(A, x)", x=("n",))
    out = np.empty(5)
    assert f(A=a, x=x, out=out) is out and near(out, np.linalg.solve(a, x), 10)
    found = f(A=torch.from_numpy(a), x=torch.from_numpy(x))
    assert isinstance(found, torch.Tensor) and near(found.numpy(), out)


def test_results_do_not_share_memory_with_arguments() -> None:
    a = spd(3)
    f = stein.compile("A: f64[n,n]; P = powm(A, 1); y = solve(I, x)\nI: identity f64[n,n]\nreturn P, y", x=("n",))
    x = np.ones(3)
    found = f(A=a, x=x)
    assert not np.may_share_memory(found["P"], a) and not np.may_share_memory(found["y"], x)


SINGULAR = [
    ("y = solve(A, x)", {"A": np.ones((3, 3))}),
    ("A: f64[n,n] symmetric; y = solve(A, x)", {"A": np.ones((3, 3))}),
    ("A: f64[n,n] lower; y = solve(A, x)", {"A": np.tril(np.ones((3, 3)), -1)}),
    ("A: f64[n,n] diag; y = solve(A, x)", {"A": np.diag([1.0, 0, 1])}),
    ("A: f64[n,n] circulant; y = solve(A, x)", {"A": np.ones((3, 3))}),
    ("y = inv(A) @ x", {"A": np.diag([1, 1e-20, 1])}),
    ("A: f64[n,n] symmetric; y = powm(A, -0.5) @ x", {"A": np.ones((3, 3))}),
]


@pytest.mark.parametrize(("text", "arrays"), SINGULAR)
def test_a_singular_matrix_names_its_statement(text: str, arrays: dict[str, Array]) -> None:
    f = stein.compile("z[i] = 2*w[i]\nx[i] = z[i] + w[i]\n" + text, w=(3,))
    with pytest.raises(stein.SingularError) as caught:
        f(w=np.ones(3), **arrays)
    error = caught.value
    assert error.code == "singular" and error.line == 3 and "matrix" in str(error) and error.help
    with pytest.raises(ValueError, match="singular"):
        f(w=np.ones(3), **arrays)


def test_a_singular_part_is_said_to_be_one() -> None:
    text = "d, x: f64[n]; u: f64[n]; D[i,j] = (i == j)*d[i] + u[i]*u[j] for i in 0..n, j in 0..n; y = solve(D, x)"
    f = stein.compile(text)
    n = 8
    with pytest.raises(stein.SingularError, match="solved in parts, and one is singular") as caught:
        f(d=np.arange(n) * 1.0, u=np.ones(n), x=np.ones(n))
    assert "as one argument" in caught.value.help


def test_factors_that_are_all_negative() -> None:
    """kron(-A, -B) is positive definite where A and B are, and has the root of kron(A, B)."""
    a, b = spd(4), spd(3, 1)
    f = stein.compile("A: f64[n,n] symmetric; B: f64[m,m] symmetric; R = powm(kron(A, B), 0.5)")
    root = f(A=a, B=b)
    assert "Kronecker" in f.stats["candidate"] and near(root @ root, np.kron(a, b), 100)
    assert near(f(A=-a, B=-b), root, 100)
    with pytest.raises(stein.SingularError, match="no real power"):
        f(A=-a, B=b)
    g = stein.compile(
        "A: f64[n,n] symmetric; d: f64[m]; D[i,j] = (i == j)*d[i] for i in 0..m, j in 0..m; R = powm(kron(A, D), 0.5)"
    )
    root = g(A=-a, d=-np.arange(1.0, 4))
    assert near(root @ root, np.kron(a, np.diag(np.arange(1.0, 4))), 100)


def test_nan_spreads_and_is_no_error() -> None:
    bad = np.full((4, 4), np.nan)
    for declared in ("", "symmetric", "lower", "diag"):
        f = stein.compile(f"A: f64[n,n] {declared}; y = solve(A, x); l = logdet(A)\nreturn y, l", x=("n",))
        found = f(A=bad, x=np.ones(4))
        assert np.isnan(found["y"]).all() and np.isnan(found["l"])


def test_logdet_of_a_singular_matrix_is_minus_infinity() -> None:
    for declared in ("", "symmetric", "diag", "lower"):
        f = stein.compile(f"A: f64[n,n] {declared}; l = logdet(A)")
        assert f(A=np.diag([1.0, 0.0])) == -np.inf


def test_explain_tells_solver_leaf_and_reason() -> None:
    f = stein.compile(
        "A: f64[4,4] symmetric; B: f64[3,3]; x: f64[12]; C: f64[12,12]; y = solve(kron(A, B), solve(C, x))"
    )
    text = re.sub(r"\s+", " ", str(f.explain()))
    assert "solve in y uses the structure of its matrix: Kronecker product of 2 factors" in text
    assert "solve in y is a dense leaf" in text and "no structure was found" in text
    assert "Cholesky (posv)" in text and "LU (gesv)" in text
    assert f.stats["launches"] >= 3 and f.stats["flops"] > 0
    assert "define" in f.source("llvm")
    assert "linalg[solve]" in f.ir("elaborated") and "linalg[solve, symmetric()]" in f.ir("planned")


def test_explain_of_the_reference_target_claims_nothing() -> None:
    f = stein.compile("A: f64[4,4]; B: f64[3,3]; x: f64[12]; y = solve(kron(A, B), x)", target="reference")
    text = str(f.explain())
    assert "no structure is used" in text and "uses the structure" not in text and "solve(y.part1, x)" in text


def test_programs_without_leaves_stay_as_they_were() -> None:
    """The dispatcher still answers known calls; only programs with leaves take the long way."""
    f = stein.compile("y[i] = A[i,j]*x[j]", A=(3, 3), x=(3,), dtype="f64")
    assert type(f.__call__).__name__ == "builtin_function_or_method" or not isinstance(f.__call__, Compiled)
    assert not hasattr(f._default, "stages")
