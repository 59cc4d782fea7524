"""MoKA: a frozen layer and a gated sum of Kronecker products beside it, which is never formed.

A mixture of Kronecker adapters trains the small factors A, B and the gates g; the frozen matrix W stays as it is.
"""

import numpy as np
from _system import Array, Report, normal, study

EXPECTED = ("kronecker_sum_of",)
PROGRAM = "y[t,i,p] = W[i,p,j,q] * x[t,j,q] + g[k] * A[k,i,j] * B[k,p,q] * x[t,j,q]"


def main(scale: str = "full") -> Report:
    """Apply a layer of order p*q with k adapters to a batch."""
    p, q, k, batch = (32, 32, 4, 256) if scale == "full" else (3, 4, 2, 3)
    operands = {
        "W": normal(p, q, p, q),
        "x": normal(batch, p, q),
        "g": normal(k),
        "A": normal(k, p, p),
        "B": normal(k, q, q, seed=1),
    }

    def matrix(W: Array, g: Array, A: Array, B: Array) -> Array:
        merged: Array = W + np.einsum("k,kij,kpq->ipjq", g, A, B, optimize=True)
        return merged.reshape(p * q, p * q)

    return study(
        8,
        "MoKA",
        scale,
        PROGRAM,
        operands,
        EXPECTED,
        matrix=matrix,
        summands=k + 1,
        torch=lambda W, x, g, A, B: (
            lambda: (
                (x.flatten(1) @ W.reshape(p * q, -1).T).view(x.shape)
                + ((g[:, None, None] * A)[:, None] @ x @ B.mT[:, None]).sum(0)
            )
        ),
        notes=["W is dense: the update adds little to W x, and nothing beats the dense product with a merged matrix"],
    )


if __name__ == "__main__":
    main()
