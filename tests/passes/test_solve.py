"""Solvers by structure: each against its law, each with what it must not be used for, and nothing large is stored.

Errors are bounded by 16 n eps kappa: a solver here is at most a dozen stable steps (rotations, leaves, products), each
of which perturbs its matrix by no more than about n eps of its norm, and kappa, the product of the condition numbers of
all matrices that the solver works with, is what turns a perturbation into an error of the solution.
"""

import re
from collections.abc import Sequence
from math import prod

import numpy as np
import pytest

from stein.frontend.elaborate import elaborate
from stein.frontend.parser import parse_program
from stein.ir.check import check_program
from stein.ir.expr import Linalg, Program
from stein.ir.interpret import interpret
from stein.ir.text import parse_ir, print_program
from stein.ir.types import parse_dtype
from stein.passes.solve import Solver, solve_structured
from stein.tests.passes.solve_cases import CASES, Array, Arrays, Case, value

GRID = [(name, kind) for name, case in CASES.items() for kind in case.types]


def program(text: str, kind: str) -> Program:
    return elaborate(parse_program(re.sub(r"\bT\b", kind, text)), {})


def rewritten(text: str, kind: str = "f64") -> tuple[Program, tuple[Solver, ...]]:
    """The program after the solver pass, checked: legal, and its text reads back."""
    old = program(text, kind)
    check_program(old)
    new, notes = solve_structured(old)
    check_program(new)
    assert parse_ir(print_program(new)).equations == new.equations
    return new, notes


def operands(old: Program, case: Case, seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    return {
        i.name: value(rng, tuple(s.evaluate({}) for s in i.shape), i.dtype.numpy, case.kinds.get(i.name, ""))
        for i in old.inputs
        if i.name != "x"
    }


def wide(arrays: Arrays) -> Arrays:
    """The same values in double precision."""
    return {n: a.astype(np.complex128 if a.dtype.kind == "c" else np.float64) for n, a in arrays.items()}


def bound(case: Case, arrays: Arrays, kind: str, size: int) -> float:
    dtype = parse_dtype(kind)
    assert dtype is not None
    kappa = prod(float(np.linalg.cond(p)) for p in case.parts(wide(arrays)))
    assert kappa < 1e4, "the case is badly conditioned: its bound would say nothing"
    return float(16 * size * np.finfo(dtype.numpy).eps * kappa)


def assert_near(found: Array, wanted: Array, limit: float) -> None:
    assert found.shape == wanted.shape
    assert np.linalg.norm(found - wanted) <= limit * max(float(np.linalg.norm(wanted)), 1e-30)


def assert_small(new: Program, size: int) -> None:
    """No tensor is as large as the matrix, and none of the equations reads one that is."""
    for equation in new.equations:
        assert prod(s.evaluate({}) for s in equation.shape) < size * size, print_program(new)


@pytest.mark.parametrize(("name", "kind"), GRID)
@pytest.mark.parametrize("columns", [(), (3,)])
def test_solve_undoes_the_product(name: str, kind: str, columns: tuple[int, ...]) -> None:
    case = CASES[name]
    plain = operands(program(case.text + "\nreturn M", kind), case)
    matrix = case.matrix(wide(plain))
    size = len(matrix)
    shape = ", ".join(map(str, (size, *columns)))
    new, notes = rewritten(f"x: T[{shape}]; {case.text}\ny = solve(M, x)\nreturn y", kind)
    assert notes[0].structured and case.method in notes[0].method
    wanted = value(np.random.default_rng(1), (size, *columns), np.dtype(np.float64))
    right = (matrix @ wanted).astype(next(i for i in new.inputs if i.name == "x").dtype.numpy)
    found = interpret(new, plain | {"x": right})["y"]
    assert_near(found, wanted, bound(case, plain, kind, size))
    if name not in ("orthogonal", "permutation", "product", "product_of_structures"):
        own = sum(prod(s.evaluate({}) for s in i.shape) for i in new.inputs)
        if own < size * size:
            assert_small(new, size)


@pytest.mark.parametrize(("name", "kind"), GRID)
def test_logdet_is_that_of_numpy(name: str, kind: str) -> None:
    case = CASES[name]
    new, notes = rewritten(f"{case.text}\nl = logdet(M)\nreturn l", kind)
    assert notes[0].structured and case.method in notes[0].method
    arrays = operands(new, case)
    matrix = case.matrix(wide(arrays))
    found = interpret(new, arrays)["l"]
    wanted = np.linalg.slogdet(matrix)[1]
    assert found.dtype.kind == "f" and found.shape == ()
    # a perturbation E changes log |det| by trace(M^-1 E) <= n |M^-1| |E|
    assert abs(float(found) - wanted) <= len(matrix) * bound(case, arrays, kind, len(matrix)) * max(1.0, abs(wanted))


@pytest.mark.parametrize(("name", "kind"), GRID)
def test_inverse_is_that_of_numpy(name: str, kind: str) -> None:
    case = CASES[name]
    new, notes = rewritten(f"{case.text}\nX = inv(M)\nreturn X", kind)
    assert notes[0].structured
    arrays = operands(new, case)
    matrix = case.matrix(wide(arrays))
    assert_near(interpret(new, arrays)["X"], np.linalg.inv(matrix), bound(case, arrays, kind, len(matrix)))


@pytest.mark.parametrize(("name", "kind"), GRID)
def test_powers(name: str, kind: str) -> None:
    """M^2 is a product; M^-0.5 squared and multiplied by M is the identity, and so on."""
    case = CASES[name]
    for power in (2.0, -0.5, 0.5, -0.25):
        new, notes = rewritten(f"{case.text}\nX = powm(M, {power})\nreturn X", kind)
        if power not in case.powers:
            continue
        assert notes[0].structured, notes
        arrays = operands(new, case)
        matrix = case.matrix(wide(arrays))
        found = interpret(new, arrays)["X"]
        limit = bound(case, arrays, kind, len(matrix)) * float(np.linalg.cond(matrix))
        if power == 2:
            assert_near(found, matrix @ matrix, limit)
        else:
            whole = np.linalg.matrix_power(found.astype(matrix.dtype), round(1 / abs(power)))
            assert_near(whole if power > 0 else whole @ matrix, matrix if power > 0 else np.eye(len(matrix)), limit)


def test_powers_distribute_over_a_product_of_symmetric_factors_only() -> None:
    for declared, expected in (("symmetric", True), ("", False)):
        text = f"A: f64[3,3] {declared}; B: f64[4,4] {declared}; P = powm(kron(A, B), -0.25)"
        new, notes = rewritten(text)
        assert notes[0].structured is expected
        stored = [e.name for e in new.equations if isinstance(e.expr, Linalg)]
        assert len(stored) == (2 if expected else 1)
    assert rewritten("A: f64[3,3]; B: f64[4,4]; P = powm(kron(A, B), 3)")[1][0].structured
    assert not rewritten("A: f64[3,3]; B: f64[4,4]; p: f64; P = powm(kron(A, B), p)")[1][0].structured
    assert rewritten("A: f64[3,3] symmetric; p: f64; I: identity f64[2,2]; P = powm(kron(A, I), p)")[1][0].structured


COUNTER = {
    "nothing known": ("A: T[5,5]; M = 2*A'", "no structure"),
    "other matrices on the same digits": (
        "A, B: T[3,3]; C, D: T[4,4]; M = kron(A, C) + kron(B, D)",
        "different matrices on the same digits",
    ),
    "digits that do not nest": ("A, D: T[3,3]; B, C: T[4,4]; M = kron(A, B) + kron(C, D)", ""),
    "a matrix and its transpose": (
        "A: T[3,3]; B: T[4,4]; I: identity T[4,4]; M = kron(A, B) + kron(A', I)",
        "different matrices on the same digits",
    ),
    "factors that are not square": ("A: T[2,3]; B: T[6,4]; M = kron(A, B)", "not square"),
    "rank too high": (
        "d: T[6]; U, V: T[6,4]; D[i,j] = (i == j)*d[i] for i in 0..6, j in 0..6; M = D + U @ V'",
        "",
    ),
    "low rank beside a dense matrix": ("A: T[8,8]; u: T[8]; M[i,j] = A[i,j] + u[i]*u[j]", "no structure"),
    "periodic, not circulant": ("c: T[4]; M[i,j] = c[(i-j) mod 4] for i in 0..6, j in 0..6", ""),
    "Toeplitz": ("t: T[9]; M[i,j] = t[i-j+4] for i in 0..5, j in 0..5", ""),
    "a wide band": ("a: T[-2..3,7] pad=0; M[i,j] = a[j-i,i] for i in 0..7, j in 0..7", "not narrow"),
    "a function of the entries": ("A: T[4,4]; B: T[3,3]; K = kron(A, B); M = exp(K)", ""),
    "elementwise product": ("A: T[4,4]; B: T[4,4]; M = A*B", ""),
    "a block row": ("A: T[3,4,4]; M[(g i),(h j)] = A[g,i,j] for h in 0..3", ""),
}


@pytest.mark.parametrize("name", COUNTER)
@pytest.mark.parametrize("call", ["solve(M, x)", "logdet(M)", "inv(M)"])
def test_solvers_keep_away(name: str, call: str) -> None:
    text, reason = COUNTER[name]
    size = prod(program(f"{text}\nreturn M", "f64").tensors["M"].shape[0].evaluate({}) for _ in "1")
    new, notes = rewritten(f"x: T[{size}]; {text}\ny = {call}\nreturn y")
    assert not notes[0].structured
    assert reason in notes[0].reason
    assert [e.expr.function for e in new.equations if isinstance(e.expr, Linalg)] == [call.split("(")[0]]


@pytest.mark.parametrize(
    ("declared", "value", "known"),
    [
        ("A: f64[5,5] lower", "A", {"lower"}),
        ("A: f64[5,5] lower", "A'", {"upper"}),
        ("A: f64[5,5] upper", "A", {"upper"}),
        ("A: f64[5,5] symmetric", "A", {"symmetric"}),
        ("A: c128[5,5] symmetric", "A", set()),  # a complex symmetric matrix has no unitary eigenvectors
        ("A: f64[5,9]; I: identity f64[5,5]", "A @ A' + I", {"symmetric"}),
        ("A: f64[5,5]", "A + A'", {"symmetric"}),
        ("A: f64[5,5]", "A", set()),
    ],
)
def test_what_is_known_of_a_dense_matrix(declared: str, value: str, known: set[str]) -> None:
    kind = "c128" if "c128" in declared else "f64"
    new, _ = rewritten(f"{declared}; x: {kind}[5]\ny = solve({value}, x)")
    leaf = next(e.expr for e in new.equations if isinstance(e.expr, Linalg))
    assert isinstance(leaf, Linalg) and {s.name for s in leaf.assume} == known


def test_equal_leaves_are_computed_once() -> None:
    text = "A: f64[4,4] symmetric; B: f64[3,3] symmetric; s: f64; x: f64[12]; I: identity f64[12,12]\n"
    new, notes = rewritten(text + "K = kron(A, B) + s*I; y = solve(K, x); l = logdet(K)\nreturn y, l")
    assert all(n.structured for n in notes)
    leaves = [e.expr.function for e in new.equations if isinstance(e.expr, Linalg)]
    assert sorted(leaves) == ["divisors", "eigenvalues", "eigenvalues", "eigenvectors", "eigenvectors"]


def test_a_matrix_that_is_also_read_stays() -> None:
    new, notes = rewritten(
        "A: f64[3,3]; B: f64[2,2]; x: f64[6]\nK = kron(A, B); y = solve(K, x); z = K @ y\nreturn z, K"
    )
    assert notes[0].structured and "K" in new.tensors


def test_the_same_answer_for_every_spelling() -> None:
    """Names, order and nesting do not matter to what is found."""
    spellings: Sequence[str] = (
        "M = kron(A, B) + s*I",
        "K = kron(A, B); J = s*I; M = J + K",
        "M[(p q),(r t)] = B[q,t]*A[p,r] + s*(p == r)*(q == t)",
        "C = A'; D = B'; N = kron(C, D); M = N' + s*I",
    )
    head = "A: f64[3,3] symmetric; B: f64[4,4] symmetric; s: f64; I: identity f64[12,12]; x: f64[12]\n"
    methods = {rewritten(f"{head}{text}\ny = solve(M, x)\nreturn y")[1][0].method for text in spellings}
    assert len(methods) == 1 and "eigenvectors" in methods.pop()
