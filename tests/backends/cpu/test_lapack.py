"""Leaves of LAPACK against the definition in `ir.linalg`, over types, batches and what is assumed."""

from typing import Any

import numpy as np
import pytest

from stein.backends.cpu.lapack import decompose, leaf, method
from stein.ir.errors import SingularError
from stein.ir.expr import Structure
from stein.ir.linalg import FUNCTIONS, evaluate
from stein.ir.size import Size

Array = np.ndarray[Any, Any]
TYPES = ("float32", "float64", "complex64", "complex128")


def made(kind: str, *shape: int, shift: float = 0.0, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    a = rng.standard_normal(shape)
    if kind.startswith("c"):
        a = a + 1j * rng.standard_normal(shape)
    if len(shape) > 1 and shape[-1] == shape[-2]:
        a = a / (2 * np.sqrt(shape[-1])) + shift * np.eye(shape[-1])
    return np.asarray(a, kind)


def near(found: Array, wanted: Array, kappa: float = 10.0) -> bool:
    """Within 16 n eps kappa; the matrices here have condition numbers below 10."""
    limit = 16 * max(1, *found.shape[-1:], 4) * np.finfo(found.dtype).eps * kappa
    return found.shape == wanted.shape and bool(
        np.linalg.norm(found - wanted) <= limit * max(1.0, float(np.linalg.norm(wanted)))
    )


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("known", [(), ("lower",), ("upper",), ("symmetric",)])
@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 2)])
def test_square_matrices(kind: str, known: tuple[str, ...], shape: tuple[int, ...]) -> None:
    matrix, assume = made(kind, *shape, 6, 6, shift=2), tuple(map(Structure, known))
    if "symmetric" in known:
        matrix = (matrix + matrix.swapaxes(-1, -2)) / 2
    for right in (made(kind, *shape, 6), made(kind, *shape, 6, 4)):
        found = leaf("solve", [matrix, right], assume)
        assert found.dtype == matrix.dtype and near(found, evaluate("solve", [matrix, right], assume))
    assert near(leaf("inv", [matrix], assume), evaluate("inv", [matrix], assume))
    assert near(leaf("logdet", [matrix], assume), evaluate("logdet", [matrix], assume))
    for power in (0.0, 1.0, 3.0, -2.0):
        args = [matrix if not known or "symmetric" in known else np.tril(matrix), np.array(power)]
        assert near(leaf("powm", args), evaluate("powm", args), 1e3)


@pytest.mark.parametrize("kind", TYPES)
def test_an_indefinite_symmetric_matrix(kind: str) -> None:
    matrix = np.asarray(np.diag([1, -2, 3, 0.5]) + 0.25, kind)
    right = made(kind, 4, 2)
    assert near(leaf("solve", [matrix, right], (Structure("symmetric"),)), evaluate("solve", [matrix, right]))
    assert near(leaf("logdet", [matrix], (Structure("symmetric"),)), evaluate("logdet", [matrix]))


@pytest.mark.parametrize("kind", TYPES)
def test_parts_of_solvers(kind: str) -> None:
    bands, right = made(kind, 4, 9) + 6 * np.eye(4)[1][:, None].astype(kind), made(kind, 9, 3)
    assume = (Structure("banded", (("lo", Size.of(2)), ("hi", Size.of(1)))),)
    for b in (right, right[:, 0]):
        assert near(leaf("solve_banded", [bands, b], assume), evaluate("solve_banded", [bands, b], assume))
    assert near(leaf("logdet_banded", [bands], assume), evaluate("logdet_banded", [bands], assume))
    column = np.asarray(made(kind, 7) / 6 + 3 * np.eye(7)[0], kind)
    b = made(kind, 7, 2)
    assert near(leaf("solve_circulant", [column, b]), evaluate("solve_circulant", [column, b]))
    assert near(leaf("logdet_circulant", [column]), evaluate("logdet_circulant", [column]))
    matrix = made(kind, 6, 6, shift=2)
    both = decompose(("schur_form", "schur_vectors"), matrix)
    form, vectors = both["schur_form"], both["schur_vectors"]
    assert near(vectors @ form @ vectors.conj().T, matrix.astype(form.dtype))
    hermitian = matrix + matrix.conj().T
    both = decompose(("eigenvectors", "eigenvalues"), hermitian)
    q, v = both["eigenvectors"], both["eigenvalues"]
    assert near((q * v) @ q.conj().T, hermitian) and v.dtype == matrix.real.dtype
    exact = decompose(("schur_form",), hermitian)["schur_form"]
    assert np.count_nonzero(exact) == 6  # exactly diagonal: one division is enough then


@pytest.mark.parametrize("sizes", [(4, 3), (2, 3, 2), (1, 5), (3,)])
@pytest.mark.parametrize("diagonal", [False, True])
def test_kronecker_sums_of_triangles(sizes: tuple[int, ...], diagonal: bool) -> None:
    factors = [np.triu(made("complex128", n, n, shift=2, seed=n)) for n in sizes]
    if diagonal:
        factors = [np.diag(np.diag(f)) for f in factors]
    every = tuple(range(len(sizes)))
    terms = [every, (), every[:1], every[1:]]
    assume = tuple(Structure("term", tuple(("factor", Size.of(k)) for k in t)) for t in terms)
    coefficients = [np.array(c, complex) for c in (1.0, 3.0, 0.5, 2.0j)]
    for columns in ((), (2,)):
        right = made("complex128", *sizes, *columns)
        if right.ndim > 1 and right.shape[-1] == right.shape[-2]:
            right = right + 1
        args = [right, *coefficients, *factors]
        assert near(leaf("solve_kronecker", args, assume), evaluate("solve_kronecker", args, assume), 1e3)


def test_singular_leaves() -> None:
    ones, zero = np.ones((3, 3)), np.zeros((3, 3))
    hilbert = 1 / (1 + np.arange(20)[:, None] + np.arange(20.0))
    cases: list[tuple[str, list[Array], tuple[Structure, ...]]] = [
        ("solve", [ones, np.ones(3)], ()),
        ("solve", [hilbert, np.ones(20)], ()),  # not exactly singular, but no digit would be right
        ("solve", [hilbert, np.ones(20)], (Structure("symmetric"),)),
        ("solve", [np.tril(ones, -1), np.ones(3)], (Structure("lower"),)),
        ("inv", [zero], ()),
        ("powm", [ones, np.array(-0.5)], ()),
        ("powm", [zero, np.array(-1.0)], ()),
        ("divisors", [np.array([1.0, 0.0])], ()),
        ("powers", [np.array([1.0, 0.0]), np.array(-1.0)], ()),
        ("solve_circulant", [np.ones(4), np.ones(4)], ()),
        ("power_circulant", [np.ones(4), np.array(-1.0)], ()),
    ]
    for function, args, assume in cases:
        with pytest.raises(SingularError, match="singular"):
            leaf(function, args, assume)


def test_every_function_has_a_leaf_and_a_name() -> None:
    for function in FUNCTIONS:
        assert method(function)
