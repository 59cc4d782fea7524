"""Functions of matrices in the IR: text, legality, meaning, counts."""

import numpy as np
import pytest

from stein.ir.check import IRError, check_program
from stein.ir.count import count_program
from stein.ir.errors import SingularError, SteinError
from stein.ir.expr import Linalg, Structure, free_indices, substitute
from stein.ir.index import Affine
from stein.ir.interpret import interpret
from stein.ir.linalg import FUNCTIONS, checked_powers, circulant, evaluate, from_diagonals
from stein.ir.size import Size
from stein.ir.text import parse_ir, print_program

HEAD = "input M: f64[n, n] symmetric()\ninput B: f64[n, m]\ninput p: f64\n"
SOLVE = "y[i, k]: f64[n, m] = linalg[solve, lower()](i, k; r, c, j, l; M[r, c], B[j, l]) "
OVER = "over i<n, k<m, r<n, c<n, j<n, l<m\n"
TEXTS = [
    f"{HEAD}{SOLVE}{OVER}return y\n",
    f"{HEAD}l: f64 = linalg[logdet](; r, c; M[r, c]) over r<n, c<n\nreturn l\n",
    f"{HEAD}P[i, j]: f64[n, n] = linalg[powm, symmetric()](i, j; r, c; M[r, c], p[]) over i<n, j<n, r<n, c<n\n"
    "return P\n",
    f"{HEAD}P[i, j]: f64[n, n] = linalg[powm](i, j; r, c; M[r, c], -0.5:f64) over i<n, j<n, r<n, c<n\nreturn P\n",
    "input a: c64[3, n]\ninput b: c64[n]\n"
    "y[i]: c64[n] = linalg[solve_banded, banded(lo=1, hi=1)](i; d, c, j; a[d, c], b[j]) over i<n, d<3, c<n, j<n\n"
    "l: f32 = linalg[logdet_banded, banded(lo=1, hi=1)](; d, c; a[d, c]) over d<3, c<n\nreturn y, l\n",
    "input A: f32[g, n, n]\nX[b, i, j]: f32[g, n, n] = linalg[inv](b, i, j; h, r, c; A[h, r, c])"
    " over b<g, i<n, j<n, h<g, r<n, c<n\nreturn X\n",
]


@pytest.mark.parametrize("text", TEXTS)
def test_text_reads_back(text: str) -> None:
    program = parse_ir(text)
    check_program(program)
    check_program(program, "planned")
    assert print_program(program) == text
    assert count_program(program, {"n": 4, "m": 2, "g": 3}).flops > 0


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (
            f"{HEAD}X[i, j]: f64[n, n] = linalg[imv](i, j; r, c; M[r, c]):f64 over i<n, j<n, r<n, c<n\nreturn X",
            "unknown-func",
        ),
        (f"{HEAD}y[i]: f64[n] = linalg[solve](i; r, c; M[r, c]) over i<n, r<n, c<n\nreturn y", "arity"),
        (f"{HEAD}y[i]: f64[n] = linalg[inv](i; r, c; M[r, c]) over i<n, r<n, c<n\nreturn y", "linalg-result"),
        ("input B: f64[3, 4]\nl: f64 = linalg[logdet](; r, c; B[r, c]) over r<3, c<3\nreturn l", "linalg-argument"),
        ("input B: f64[3, 4]\nl: f64 = linalg[logdet](; r, c; B[r, c]) over r<3, c<4\nreturn l", "linalg-square"),
        (f"{HEAD}l: f64 = linalg[logdet](; r; M[r, r]) over r<n\nreturn l", "linalg-argument"),
        (f"{HEAD}l: f64 = add(linalg[logdet](; r, c; M[r, c]), p[]) over r<n, c<n\nreturn l", "linalg-alone"),
        (f"{HEAD}l: f64 = linalg[logdet](; r, c; M[r, c]) over r<n, c<n updating p\nreturn l", "linalg-alone"),
        ("input M: i64[n, n]\nl: i64 = linalg[logdet](; r, c; M[r, c]) over r<n, c<n\nreturn l", "linalg-type"),
        (f"{HEAD}l: f32 = linalg[logdet](; r, c; M[r, c]):f32 over r<n, c<n\nreturn l", "linalg-type"),
        (
            f"{HEAD}X[j, i]: f64[n, n] = linalg[inv](i, j; r, c; M[r, c]) over i<n, j<n, r<n, c<n\nreturn X",
            "linalg-res",
        ),
    ],
)
def test_what_is_illegal(text: str, rule: str) -> None:
    with pytest.raises(IRError) as caught:
        check_program(parse_ir(text))
    assert caught.value.rule.startswith(rule)


def test_broken_text_is_refused() -> None:
    for text in ("y: f64 = linalg[solve", "y: f64 = linalg[solve,](;;)", "y: f64 = linalg(i; j; x[])"):
        with pytest.raises(SteinError):
            parse_ir(f"input x: f64\n{text}\nreturn y")


def test_indices_of_a_node() -> None:
    node = parse_ir(TEXTS[0]).equations[0].expr
    assert isinstance(node, Linalg) and free_indices(node) == ("i", "k")
    new = substitute(node, {"i": Affine.of("u"), "r": Affine.of("v")})
    assert isinstance(new, Linalg) and new.result == ("u", "k") and new.bound == ("v", "c", "j", "l")


def test_the_interpreter_uses_what_is_assumed() -> None:
    matrix, right = np.array([[2.0, 7.0], [1.0, 4.0]]), np.array([[2.0], [5.0]])
    found = interpret(parse_ir(TEXTS[0]), {"M": matrix, "B": right, "p": 0.0})["y"]
    assert np.array_equal(found, [[1.0], [1.0]])  # the 7 above the diagonal is not looked at


def test_a_batch_is_as_many_matrices() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 3, 4, 4)) + 4 * np.eye(4), rng.standard_normal((2, 3, 4, 2))
    for k in np.ndindex(2, 3):
        assert np.allclose(evaluate("solve", [a, b])[k], np.linalg.solve(a[k], b[k]), rtol=1e-13)
        assert np.allclose(evaluate("inv", [a])[k], np.linalg.inv(a[k]), rtol=1e-13)
        assert np.allclose(evaluate("logdet", [a])[k], np.linalg.slogdet(a[k])[1], rtol=1e-13)
        assert np.allclose(evaluate("powm", [a, np.array(3.0)])[k], a[k] @ a[k] @ a[k], rtol=1e-12)


def test_parts_of_solvers_mean_what_they_say() -> None:
    rng = np.random.default_rng(1)
    column, bands = rng.standard_normal(5) + 3 * np.eye(5)[0], rng.standard_normal((3, 5)) + 4 * np.eye(3)[1][:, None]
    right = rng.standard_normal((5, 2))
    assert np.allclose(circulant(column) @ evaluate("solve_circulant", [column, right]), right)
    two = np.array(2.0)
    assert np.allclose(circulant(evaluate("power_circulant", [column, two])), circulant(column) @ circulant(column))
    assume = (Structure("banded", (("lo", Size.of(1)), ("hi", Size.of(1)))),)
    matrix = from_diagonals(bands, 1, 1)
    assert matrix[2, 1] == bands[2, 1] and matrix[1, 2] == bands[0, 2] and matrix[0, 2] == 0
    assert np.allclose(matrix @ evaluate("solve_banded", [bands, right], assume), right)
    form, vectors = (evaluate(f"schur_{k}", [matrix]) for k in ("form", "vectors"))
    assert np.allclose(vectors @ form @ vectors.conj().T, matrix) and np.allclose(np.tril(form, -1), 0)
    s = matrix + matrix.T
    values, basis = evaluate("eigenvalues", [s]), evaluate("eigenvectors", [s])
    assert np.allclose((basis * values) @ basis.T, s)


def test_every_function_has_a_shape_and_a_type() -> None:
    program = parse_ir(TEXTS[0])
    assert set(FUNCTIONS) >= {"solve", "inv", "logdet", "powm"}
    assert FUNCTIONS["logdet"].result(program.inputs[0].dtype).name == "f64"
    assert FUNCTIONS["schur_form"].result(program.inputs[0].dtype).name == "c128"


def test_powers_of_eigenvalues() -> None:
    assert np.array_equal(checked_powers(np.array([4.0, 0.0, -1e-17]), 0.5), [2.0, 0.0, 0.0])
    assert np.array_equal(checked_powers(np.array([-2.0, 3.0]), 2), [4.0, 9.0])
    for values, power in (([1.0, 0.0], -1), ([1.0, -1.0], 0.5), ([1.0, 1e-20], -0.5)):
        with pytest.raises(SingularError):
            checked_powers(np.array(values), power)


def test_singular_matrices_tell_their_place() -> None:
    with pytest.raises(SingularError) as caught:
        interpret(parse_ir(TEXTS[0]), {"M": np.zeros((2, 2)), "B": np.ones((2, 1)), "p": 0.0})
    assert caught.value.line == 4 and caught.value.code == "singular"
