"""A Monarch matrix, written as what it is: two block-diagonal products with a transposition between them.

Dao et al., "Monarch: Expressive Structured Matrices for Efficient and Accurate Training" (2022). n = b*b inputs cost
2*n*b multiplications instead of n*n.
"""

import numpy as np

import stein

# (j m) is one axis of x, read as block j and place m inside it.
MONARCH = "L, R: f32[b, b, b]; y[t,(i k)] = L[k,i,j] * R[j,k,m] * x[t,(j m)]"


def main(n: int = 16) -> None:
    """Apply a Monarch matrix of order n*n to a batch and compare it with the dense matrix."""
    rng = np.random.default_rng(0)
    L, R = (rng.standard_normal((n, n, n), dtype=np.float32) / np.float32(n) for _ in range(2))
    x = rng.standard_normal((8, n * n), dtype=np.float32)

    layer = stein.compile(MONARCH, x=("t", n * n), L=(n, n, n), R=(n, n, n), dtype="float32")
    y = layer(L=L, R=R, x=x)

    dense = np.einsum("kij,jkm->ikjm", L, R).reshape(n * n, n * n)
    np.testing.assert_allclose(y, x @ dense.T, rtol=1e-3, atol=1e-4)
    print(f"order {n * n}: {L.size + R.size} parameters instead of {dense.size}")


if __name__ == "__main__":
    main()
