"""`check=True` verifies each declared structure: values that have it pass, values that break it are shown."""

from __future__ import annotations

import numpy as np
import pytest

import stein

RNG = np.random.default_rng(5)
N = 4
ROW, COL = np.indices((N, N))
DENSE = RNG.integers(1, 9, (N, N)).astype(float)
VECTOR = RNG.integers(1, 9, 2 * N).astype(float)
GOOD = {
    "diag": np.diag(VECTOR[:N]),
    "lower": np.tril(DENSE),
    "upper": np.triu(DENSE),
    "symmetric": DENSE + DENSE.T,
    "toeplitz": VECTOR[ROW - COL + N - 1],
    "hankel": VECTOR[ROW + COL],
    "circulant": VECTOR[(ROW - COL) % N],
    "permutation": np.eye(N)[[2, 0, 3, 1]],
    "orthogonal": np.linalg.qr(DENSE)[0],
    "hadamard": np.kron([[1.0, 1], [1, -1]], [[1.0, 1], [1, -1]]),
    "vandermonde": VECTOR[:N, None] ** np.arange(N),
    "mask": (DENSE > 4).astype(float),
    "blockdiag(block=2)": np.kron(np.eye(2), DENSE[:2, :2]),
    "banded(lo=1, hi=0)": DENSE * ((ROW - COL <= 1) & (COL <= ROW)),
    "lowrank(r=1)": np.outer(VECTOR[:N], VECTOR[N:]),
}


@pytest.mark.parametrize("structure", GOOD)
def test_a_true_declaration_passes_and_a_false_one_is_shown(structure: str) -> None:
    f = stein.compile(f"W: f64[n,n] {structure}\ny[i] = W[i,j] * x[j]", dtype="f64", check=True)
    x = np.ones(N)
    np.testing.assert_allclose(f(W=GOOD[structure], x=x), GOOD[structure] @ x)
    broken = GOOD[structure].copy()
    broken[0, 1] += 0.5
    broken[2, 1] += 0.25
    with pytest.raises(stein.StructureError) as error:
        f(W=broken, x=x)
    name = structure.partition("(")[0]
    assert f"W is declared {name} but" in str(error.value)
    assert "^" in str(error.value)


def test_nothing_is_verified_without_check() -> None:
    f = stein.compile("W: f64[n,n] toeplitz\ny[i] = W[i,j] * x[j]", dtype="f64")
    np.testing.assert_allclose(f(W=DENSE, x=np.ones(N)), DENSE.sum(axis=1))
