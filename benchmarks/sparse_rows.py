"""Sparse products beside their peers, in one run: block lists, coordinate lists, sampled products, permutations.

Outside the compiler. Every contestant gets what it wants ahead of time (SciPy and torch their own matrices, sorted);
stein gets the plain lists at each call. Run as `python benchmarks/sparse_rows.py [--quick]`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

for variable in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):  # they would halve NumPy
    os.environ.pop(variable, None)

import numpy as np  # noqa: E402
from bench_rows import Array  # noqa: E402
from bench_timing import Thunk, race  # noqa: E402

import stein  # noqa: E402

Row = tuple[str, dict[str, Thunk]]


def block_list(n: int, block: int, batch: int, density: float) -> Iterator[Row]:
    """A square matrix with a share of full blocks times a dense one, and the transposed layouts."""
    import scipy.sparse as sp
    import torch

    rng, grid = np.random.default_rng(0), n // block
    rows, columns = np.nonzero(rng.random((grid, grid)) < density)
    blocks = rng.standard_normal((len(rows), block, block)).astype(np.float32)
    x = rng.standard_normal((n, batch)).astype(np.float32)
    dense = np.zeros((grid, block, grid, block), np.float32)
    dense[rows, :, columns] = blocks
    w = dense.reshape(n, n)
    starts = np.searchsorted(rows, np.arange(grid + 1))
    bsr = sp.bsr_array((blocks, columns, starts), shape=(n, n))
    csr = bsr.tocsr()
    tensor = torch.sparse_bsr_tensor(torch.tensor(starts), torch.tensor(columns), torch.tensor(blocks), (n, n))
    right = torch.tensor(x)
    lists = f"I, J: i64[s]; y: f32[{grid},p,n]\n"
    f = stein.compile(lists + "y[I[s],a,c] = B[s,a,b]*x[J[s],b,c]", dtype="f32")
    t = stein.compile(f"I, J: i64[s]; y: f32[n,{grid},p]\ny[c,I[s],a] = B[s,a,b]*x[c,J[s],b]", dtype="f32")
    g = stein.compile("y[i,c] = W[i,j]*x[j,c]", dtype="f32")
    x3, xt = x.reshape(grid, block, batch), np.ascontiguousarray(x.T).reshape(batch, grid, block)
    mixed = rng.permutation(len(rows))
    i, j, b = rows[mixed], columns[mixed], blocks[mixed]
    wanted = w @ x
    for found in (f(I=rows, J=columns, B=blocks, x=x3), f(I=i, J=j, B=b, x=x3)):
        check(found.reshape(n, batch), wanted)
    check(t(I=rows, J=columns, B=blocks, x=xt).reshape(batch, n).T, wanted)
    thunks: dict[str, Thunk] = {
        "stein": lambda: f(I=rows, J=columns, B=blocks, x=x3),
        "stein, mixed list": lambda: f(I=i, J=j, B=b, x=x3),
        "stein, batch first": lambda: t(I=rows, J=columns, B=blocks, x=xt),
        "stein dense": lambda: g(W=w, x=x),
        "numpy dense": lambda: w @ x,
        "scipy bsr": lambda: bsr @ x,
        "scipy csr": lambda: csr @ x,
        "torch bsr": lambda: tensor @ right,
    }
    yield f"blocks of {block}, {density:.0%} of {n}, batch {batch}", thunks


def coordinates(n: int, density: float, batch: int) -> Iterator[Row]:
    """An unstructured matrix as a coordinate list, and its transpose, times vectors."""
    import scipy.sparse as sp

    rng = np.random.default_rng(1)
    csr = sp.random_array((n, n), density=density, rng=rng, dtype=np.float64).astype(np.float32).tocsr()
    coo = csr.tocoo()
    rows, columns, values = coo.coords[0].astype(np.int64), coo.coords[1].astype(np.int64), coo.data
    x = rng.standard_normal((n, batch) if batch > 1 else n).astype(np.float32)
    more = ",b" if batch > 1 else ""
    y = f"R, C: i64[s]; y: f32[{n}{',k' if batch > 1 else ''}]; x: f32[n{',k' if batch > 1 else ''}]\n"
    f = stein.compile(y + f"y[R[s]{more}] = v[s]*x[C[s]{more}]", dtype="f32")
    turned = csr.T
    check(f(R=rows, C=columns, v=values, x=x), csr @ x)
    check(f(R=columns, C=rows, v=values, x=x), turned @ x)
    thunks: dict[str, Thunk] = {
        "stein": lambda: f(R=rows, C=columns, v=values, x=x),
        "scipy csr": lambda: csr @ x,
        "scipy coo": lambda: coo @ x,
        "stein, transposed": lambda: f(R=columns, C=rows, v=values, x=x),
        "scipy csr, transposed": lambda: turned @ x,
    }
    yield f"coordinates, {density:.0%} of {n}, batch {batch}", thunks


def others(count: int, n: int, depth: int) -> Iterator[Row]:
    """Sampled products of two dense factors, and permutations."""
    rng = np.random.default_rng(2)
    i, j = rng.integers(0, n, count), rng.integers(0, n, count)
    u, w = (rng.standard_normal((n, depth)).astype(np.float32) for _ in "uw")
    f = stein.compile(
        "v[s] = u[I[s],k]*w[J[s],k]", dtype="f32", I=stein.tensor(("s",), "i64"), J=stein.tensor(("s",), "i64")
    )
    check(f(I=i, J=j, u=u, w=w), np.einsum("sk,sk->s", u[i], w[j]))
    yield (
        f"sampled, {count} of {n} x {n}, depth {depth}",
        {
            "stein": lambda: f(I=i, J=j, u=u, w=w),
            "numpy": lambda: np.einsum("sk,sk->s", u[i], w[j]),
        },
    )
    p, x = rng.permutation(1 << 20), rng.standard_normal(1 << 20).astype(np.float32)
    take = stein.compile("P: i64[n]; x: f32[n]; y[i] = x[P[i]]")
    put = stein.compile("P: i64[n]; y, x: f32[n]; y[P[i]] = x[i]")
    out = np.empty_like(x)

    def place() -> None:
        out[p] = x

    yield (
        "permutation of 2^20",
        {
            "stein": lambda: take(P=p, x=x),
            "numpy": lambda: x[p],
            "stein, scattered": lambda: put(P=p, x=x),
            "numpy, scattered": place,
        },
    )


def check(found: Array, wanted: Array) -> None:
    """Sums of up to a few hundred terms in single precision."""
    assert np.allclose(found, wanted, rtol=1e-3, atol=1e-3 * float(np.abs(wanted).max()))


def main(arguments: list[str]) -> None:
    """Print milliseconds of every contestant, and how many times slower than the first it is."""
    quick = "--quick" in arguments
    rounds, seconds = (3, 0.02) if quick else (7, 0.2)
    n = 1024 if quick else 4096
    made: list[Callable[[], Any]] = [
        lambda: block_list(n, 64, 256, 0.1), lambda: block_list(n, 16, 256, 0.1), lambda: block_list(n, 64, 1, 0.1),
        lambda: coordinates(n, 0.01, 1), lambda: coordinates(n, 0.1, 1), lambda: coordinates(n, 0.01, 16),
        lambda: coordinates(n, 0.01, 256), lambda: others(100_000, 4096, 64),
    ]  # fmt: skip
    for rows in made:
        for title, thunks in rows():
            print(title)
            times = {name: t.median for name, t in race(thunks, rounds, seconds).items()}
            first = next(iter(times.values()))
            for name, time in times.items():
                print(f"  {name:24}{time * 1e3:10.3f} ms{time / first:9.2f}x")


if __name__ == "__main__":
    main(sys.argv[1:])
