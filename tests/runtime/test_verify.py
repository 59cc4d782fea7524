"""`check=True` verifies each declared structure: values that have it pass, values that break it are shown."""

from __future__ import annotations

import re
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stein
from stein.frontend.declare import SPECIAL, STRUCTURES, parse_structure
from stein.runtime.verify import complaint_of, sylvester

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
    "monarch(b=2)": np.kron(DENSE[:2, :2], DENSE[2:, 2:]),
    "psd": DENSE @ DENSE.T,
    "doubly_stochastic": (np.eye(N) + np.eye(N)[::-1]) / 2,
}


def _complaint(text: str, array: Any) -> str:
    (structure,) = parse_structure(text)
    return complaint_of("W", structure, np.asarray(array), {})


def test_every_structure_is_tested() -> None:
    named = {s.partition("(")[0] for s in GOOD}
    assert named | {"unit", "bsr", *SPECIAL} == set(STRUCTURES)


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
    assert "largest deviation" in str(error.value)


def test_nothing_is_verified_without_check() -> None:
    """And nothing crashes: the result is that of some matrix with the structure."""
    for structure in GOOD:
        f = stein.compile(f"W: f64[n,n] {structure}\ny[i] = W[i,j] * x[j]", dtype="f64")
        assert f(W=DENSE, x=np.ones(N)).shape == (N,)


@pytest.mark.parametrize("structure", GOOD)
def test_nan_is_no_structure_unless_it_must_be_equal(structure: str) -> None:
    alone = GOOD[structure].copy()
    alone[0, 1] = np.nan
    free = structure in ("upper", "blockdiag(block=2)")  # values that only have a place
    assert bool(_complaint(structure, alone)) == (not free), structure
    everywhere = np.full((N, N), np.nan)
    equal = structure in ("toeplitz", "hankel", "circulant", "symmetric")
    assert bool(_complaint(structure, everywhere)) == (not equal), structure


@pytest.mark.parametrize("structure", GOOD)
@pytest.mark.parametrize("shape", [(0, 0), (0, 3, 3), (2, 0, 0)])
def test_empty_arrays_have_every_structure(structure: str, shape: tuple[int, ...]) -> None:
    assert not _complaint(structure, np.zeros(shape))


@pytest.mark.parametrize("structure", [s for s in GOOD if s not in ("blockdiag(block=2)", "monarch(b=2)")])
def test_one_by_one(structure: str) -> None:
    assert not _complaint(structure, [[1.0]])


@pytest.mark.parametrize("structure", GOOD)
def test_leading_axes_are_a_batch_and_the_place_has_them(structure: str) -> None:
    both = np.stack([GOOD[structure]] * 3)
    assert not _complaint(structure, both)
    both[2, [0, 2], 1] += 0.5
    complaint = _complaint(structure, both)
    assert complaint and "W[2," in complaint


SHAPES = [(1, 1), (1, 4), (4, 1), (3, 5), (5, 3), (6, 6)]


def _conforming(name: str, n: int, m: int, rng: np.random.Generator) -> Any:
    """A rectangular matrix of integers with the structure."""
    i, j = np.indices((n, m))
    t = rng.integers(1, 9, n + m)
    dense = rng.integers(1, 9, (n, m))
    return {
        "diag": dense * (i == j),
        "lower": dense * (i >= j),
        "upper": dense * (i <= j),
        "toeplitz": t[i - j + m],
        "hankel": t[i + j],
        "banded(lo=1, hi=2)": dense * ((i - j <= 1) & (j - i <= 2)),
        "vandermonde": rng.integers(1, 4, n)[:, None] ** np.arange(m),
        "lowrank(r=1)": np.outer(t[:n], t[n:]),
        "mask": dense % 2,
    }[name]


RECTANGULAR = (
    "diag",
    "lower",
    "upper",
    "toeplitz",
    "hankel",
    "banded(lo=1, hi=2)",
    "vandermonde",
    "lowrank(r=1)",
    "mask",
)
DTYPES = ["f4", "f8", "c8", "c16", "i1", "i8", "u1", "u8", "f2", ml_dtypes.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", RECTANGULAR)
def test_types_and_shapes(name: str, dtype: Any) -> None:
    rng = np.random.default_rng(3)
    for n, m in SHAPES:
        if name == "vandermonde" and (m > 5 or dtype in ("f2", ml_dtypes.bfloat16)):
            continue  # powers that the type does not hold
        array = _conforming(name, n, m, rng).astype(dtype)
        assert not _complaint(name, array), (n, m)
        if n > 2 and m > 2:
            array[0, 2], array[2, 0], array[1, 1] = 100, 101, 102
            if not (name == "mask" and array.dtype.kind == "b"):
                assert _complaint(name, array), (n, m)


@pytest.mark.parametrize("name", ["permutation", "mask", "diag", "symmetric", "orthogonal"])
def test_bool(name: str) -> None:
    swap = np.array([[False, True], [True, False]])
    assert bool(_complaint(name, swap)) == (name == "diag")
    twice = np.array([[True, True], [True, False]])
    assert bool(_complaint(name, twice)) == (name in ("permutation", "diag", "orthogonal"))


@pytest.mark.parametrize("dtype", ["f4", "f8", "c8", "c16", ml_dtypes.bfloat16, "f2"], ids=str)
@pytest.mark.parametrize("n", [1, 2, 5, 16, 48])
def test_rounded_values_pass_in_every_type(n: int, dtype: Any) -> None:
    """What is made in float64 and rounded to the type once has the structure in that type."""
    rng = np.random.default_rng(n)
    a = rng.standard_normal((n, n))
    if np.dtype(dtype).kind == "c":
        a = a + 1j * rng.standard_normal((n, n))
    q = np.linalg.qr(a)[0]
    assert not _complaint("orthogonal", q.astype(dtype))
    assert not _complaint("orthogonal", q[: n // 2 + 1].astype(dtype))
    assert not _complaint("orthogonal", q[:, : n // 2 + 1].astype(dtype))
    low = a[:, :2] @ a[:2]
    assert not _complaint("lowrank(r=2)", low.astype(dtype))
    assert not _complaint("psd", (a @ a.conj().T).astype(dtype))
    assert not _complaint("unit", (a[0] / np.linalg.norm(a[0])).astype(dtype))
    if np.dtype(dtype).kind != "c":
        assert not _complaint("doubly_stochastic", (np.abs(q) ** 2).astype(dtype))


def test_the_wrong_place_and_the_largest_deviation() -> None:
    w = np.diag([1.0, 2, 3])
    w[1, 0], w[2, 1] = 0.25, -7
    assert _complaint("diag", w) == "W[1,0] = 0.25 is not 0 (largest deviation 7)"
    t = np.array([[1, 2], [3, 250]], np.uint8)
    assert _complaint("toeplitz", t) == "W[1,1] = 250 differs from W[0,0] = 1 (largest deviation 249)"
    big = np.array([[2**63 - 1, 0], [0, -(2**63)]])
    assert "largest deviation 1.84e+19" in _complaint("toeplitz", big)
    assert _complaint("permutation", np.eye(3)[[0, 0, 1]]).startswith("column 0 of W has 2 entries")
    assert "rows 0 and 1 of W are not orthogonal" in _complaint("orthogonal", [[1.0, 0], [0.5, 0.75**0.5]])
    assert "row 0 of W has not length 1" in _complaint("orthogonal", [[2.0, 0], [0, 1]])
    assert "eigenvalue -1" in _complaint("psd", np.diag([1.0, -1]))
    assert "W[0,1] = 2.0 differs from W[1,0] = 0.0" in _complaint("psd", [[1.0, 2], [0, 1]])
    assert "row 1 of W adds up to 1.5" in _complaint("doubly_stochastic", [[0.5, 0.5], [0.5, 1.0]])
    assert "W[0,1] = -1.0 is negative" in _complaint("doubly_stochastic", [[2.0, -1], [-1, 2]])
    assert "the rank of W is 2, more than 1" in _complaint("lowrank(r=1)", np.eye(2))
    assert "block (0,0) of W" in _complaint("monarch(b=1)", np.eye(4))
    assert "W has length 2" in _complaint("unit", [2.0, 0])
    assert "W[1,:] has length 2" in _complaint("unit", [[1.0, 0], [2, 0]])
    assert "2 x 3, not square" in _complaint("symmetric", np.zeros((2, 3)))


def test_blocks_of_two_extents() -> None:
    w = np.kron(np.eye(2), np.ones((2, 3)))
    assert not _complaint("blockdiag(block=(2,3))", w)
    assert _complaint("blockdiag(block=(3,2))", np.ones((6, 4)))
    w[0, 3] = 1
    assert "W[0,3] = 1.0" in _complaint("blockdiag(block=(2,3))", w)


def test_hadamard_of_a_power_of_two_is_sylvesters() -> None:
    h = sylvester(8)
    assert np.array_equal(h, np.kron(np.kron([[1, 1], [1, -1]], [[1, 1], [1, -1]]), [[1, 1], [1, -1]]))
    assert not _complaint("hadamard", h)
    assert "in Sylvester's matrix" in _complaint("hadamard", h[::-1])
    residues = {1, 3, 4, 5, 9}  # Paley's matrix of order 12
    q = np.array([[1 if (i - j) % 11 in residues else -1 for j in range(11)] for i in range(11)]) - np.eye(11)
    paley = np.eye(12) + np.block([[np.zeros((1, 1)), np.ones((1, 11))], [-np.ones((11, 1)), q + np.eye(11)]])
    np.fill_diagonal(paley[1:, 1:], 1)
    if np.array_equal(paley @ paley.T, 12 * np.eye(12)):
        assert not _complaint("hadamard", paley)
    paley[3, 4] *= -1
    assert "are not orthogonal" in _complaint("hadamard", paley)


@given(st.sampled_from(["toeplitz", "hankel", "circulant", "symmetric"]), st.integers(2, 6), st.data())
def test_any_single_change_is_seen(name: str, n: int, data: st.DataObject) -> None:
    """Where an entry has a partner, a change of either is a complaint that names both."""
    i, j = np.indices((n, n))
    t = np.arange(1.0, 2 * n + 1)
    w = {"toeplitz": t[i - j + n], "hankel": t[i + j], "circulant": t[(i - j) % n], "symmetric": t[i] * t[j]}[name]
    p, q = (data.draw(st.integers(0, n - 1)) for _ in range(2))
    alone = {"toeplitz": abs(p - q) == n - 1, "hankel": p + q in (0, 2 * n - 2), "symmetric": p == q}.get(name, False)
    w[p, q] += 0.5
    complaint = _complaint(name, w)
    assert bool(complaint) == (not alone)
    assert alone or len(re.findall(r"W\[\d+,\d+\]", complaint)) == 2


def test_sizes_must_be_square_at_the_call() -> None:
    f = stein.compile("W: f64[n,m] circulant; y[i] = W[i,j]*x[j]", dtype="f64")
    with pytest.raises(stein.ShapeError, match="circulant"):
        f(W=np.ones((2, 3)), x=np.ones(3))
