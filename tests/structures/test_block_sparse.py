"""Sparse constants that the user declared: stored blocks only, found at compile time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import stein
from stein.ir.structures.block_sparse import BlockSparse
from stein.passes.stored import block_list

Array = np.ndarray[Any, Any]


def blocky(rng: np.random.Generator, grid: tuple[int, int], block: tuple[int, int], density: float) -> Array:
    """A matrix with a share of its blocks full, the others 0."""
    kept = rng.random(grid) < density
    return np.kron(kept, np.ones(block)) * rng.standard_normal((grid[0] * block[0], grid[1] * block[1]))


PROGRAMS = [
    "y[b,i] = W[i,j]*x[b,j]",
    "y[i,b] = W[i,j]*x[b,j] + c[i]",
    "y[b,j] = W[i,j]*z[b,i]",
    "y[b] = W[i,j]*z[b,i]*x[b,j]",
    "y[b,i] = relu(sum[j] W[i,j]*x[b,j]*d[j])",
    "t[b,i] = W[i,j]*x[b,j]; y[b,j] = V[j,i]*t[b,i]",
]


@pytest.mark.parametrize("block", [(8, 8), (4, 6), (1, 1), (32, 24)])
@pytest.mark.parametrize("text", PROGRAMS)
def test_products_with_stored_blocks(text: str, block: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    p, q = block
    w = blocky(rng, (32 // p, 24 // q), block, 0.3)
    w[:p, :q] = 0
    shapes = {"x": (5, 24), "z": (5, 32), "c": (32,), "d": (24,), "V": (24, 32)}
    arrays = {n: rng.standard_normal(s) for n, s in shapes.items() if f"{n}[" in text}
    declared = f"W: const f64[32,24] bsr(block=({p},{q}))\n{text}"
    f = stein.compile(declared, W=stein.constant(w))
    plain = stein.compile(f"W: f64[32,24]\n{text}", target="reference")
    assert np.allclose(f(**arrays), plain(W=w, **arrays), rtol=1e-12, atol=1e-12)


def test_skipped_blocks_are_neither_counted_nor_touched() -> None:
    rng = np.random.default_rng(1)
    w = blocky(rng, (8, 8), (16, 16), 0.2)
    stored = len(block_list(w, (16, 16))[0])
    f = stein.compile("W: const f64[128,128] bsr(block=16)\ny[i,b] = W[i,j]*x[j,b]", W=stein.constant(w), x=(128, 30))
    x = rng.standard_normal((128, 30))
    unread = ~(w != 0).any(0)
    f(x=x)
    assert f.stats["flops"] == 2 * stored * 16 * 16 * 30
    x[unread.reshape(8, 16).all(1).repeat(16)] = np.nan
    assert np.isfinite(f(x=x)).all()


def test_a_mask_selects_what_is_computed() -> None:
    """`S[i,j]*Q[i,d]*K[j,d]` at the stored places of S only, and a product with a masked matrix."""
    rng = np.random.default_rng(2)
    s = blocky(rng, (10, 6), (8, 8), 0.15) != 0
    q, k = rng.standard_normal((80, 19)), rng.standard_normal((48, 19))
    f = stein.compile("S: const bool[80,48] mask\nP[i,j] = S[i,j]*Q[i,d]*K[j,d]", S=stein.constant(s))
    assert np.allclose(f(Q=q, K=k), s * (q @ k.T), rtol=1e-12, atol=1e-12)
    w, x = rng.standard_normal((80, 48)), rng.standard_normal((48, 7))
    w[~s] = np.inf
    g = stein.compile("S: const f64[80,48] mask\ny[i,b] = S[i,j]*W[i,j]*x[j,b]", S=stein.constant(s.astype(float)))
    assert np.allclose(g(W=w, x=x), np.where(s, w, 0) @ x, rtol=1e-12, atol=1e-12)
    assert "S.blocks" in g.ir()


def test_a_mask_at_run_time_is_a_factor() -> None:
    rng = np.random.default_rng(3)
    s = rng.random((40, 30)) < 0.2
    w, x = rng.standard_normal((40, 30)), rng.standard_normal((30, 7))
    f = stein.compile("S: bool[m,n] mask\ny[i,b] = S[i,j]*W[i,j]*x[j,b]")
    assert np.allclose(f(S=s, W=w, x=x), (s * w) @ x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("density", [0.0, 0.02, 1.0])
def test_all_densities(density: float) -> None:
    """No block at all gives zeros; a full constant stays dense."""
    rng = np.random.default_rng(4)
    w = blocky(rng, (4, 4), (16, 16), density)
    f = stein.compile("W: const f64[64,64] bsr(block=16)\ny[b,i] = W[i,j]*x[b,j]", W=stein.constant(w), x=(9, 64))
    x = rng.standard_normal((9, 64))
    assert np.allclose(f(x=x), x @ w.T, rtol=1e-12, atol=1e-12)
    assert ("W.blocks" in f.ir()) == (density < 1)


def test_undeclared_zeros_are_zeros_that_multiply() -> None:
    """What is only seen in the values is not skipped: 0*inf is NaN, as in the dense product."""
    w = np.zeros((64, 64))
    f = stein.compile("y[i] = W[i,j]*x[j]", W=stein.constant(w), x=(64,))
    assert np.isnan(f(x=np.full(64, np.inf))).all()


def test_semirings_keep_their_zero() -> None:
    """A 0 of the array is no zero of max-plus: nothing is skipped there."""
    w = np.zeros((64, 64))
    f = stein.compile("W: const f64[64,64] bsr(block=16)\ny[i] = W[i,j]*x[j] over maxplus", W=stein.constant(w))
    assert np.array_equal(f(x=np.arange(64.0)), np.full(64, 63.0))


def test_the_operator_is_the_matrix_that_its_lists_say() -> None:
    rng = np.random.default_rng(5)
    structure = BlockSparse((4, 6), (3, 2), 5)
    operator = structure.operator()
    assert operator.size == (12, 12)
    w = blocky(rng, (4, 6), (3, 2), 0.4)
    rows, columns, blocks = block_list(w, (3, 2))
    again = np.zeros_like(w)
    for i, j, b in zip(rows, columns, blocks, strict=True):
        again[3 * i : 3 * i + 3, 2 * j : 2 * j + 2] = b
    assert np.array_equal(again, w)
