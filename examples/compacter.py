"""Compacter: an adapter that is a sum of Kronecker products whose second factors have low rank.

Karimi Mahabadi, Henderson and Ruder, "Compacter: Efficient Low-Rank Hypercomplex Adapter Layers" (2021). The right
order is t, A, s: the products s t of the second factors are never built.
"""

import numpy as np
from _system import Report, normal, study

EXPECTED = ("kronecker_sum_of",)
PROGRAM = "y[b,i,p] = A[n,i,j] * s[n,p,r] * t[n,r,q] * x[b,j,q]"


def main(scale: str = "full") -> Report:
    """Apply a layer of order n*q to a batch."""
    n, q, r, batch = (4, 1024, 2, 256) if scale == "full" else (3, 6, 2, 4)
    operands = {"A": normal(n, n, n), "s": normal(n, q, r), "t": normal(n, r, q), "x": normal(batch, n, q)}
    return study(
        11,
        "Compacter",
        scale,
        PROGRAM,
        operands,
        EXPECTED,
        matrix=lambda A, s, t: np.einsum("nij,npr,nrq->ipjq", A, s, t, optimize=True).reshape(n * q, n * q),
        spec="nij,npr,nrq,bjq->bip",
        summands=n * r,
    )


if __name__ == "__main__":
    main()
