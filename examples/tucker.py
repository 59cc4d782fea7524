"""A Tucker layer: a small core between one factor for each axis.

Tucker's decomposition (Kolda and Bader, "Tensor Decompositions and Applications", 2009, section 4). Which core sizes
to take is a matter of the singular values; this is what runs once they are chosen.
"""

import numpy as np
from _system import Report, normal, study

EXPECTED = ("tucker",)
PROGRAM = "y[t,i] = G[a,b,c] * U[i,a] * V[j,b] * W[k,c] * x[t,j,k]"


def main(scale: str = "full") -> Report:
    """Contract a tensor of order three, given by its core and factors, with a batch of matrices."""
    n, rank, batch = (64, 16, 256) if scale == "full" else (5, 2, 3)
    operands = {
        "G": normal(rank, rank, rank),
        "U": normal(n, rank),
        "V": normal(n, rank, seed=1),
        "W": normal(n, rank, seed=2),
        "x": normal(batch, n, n),
    }
    return study(
        36,
        "Tucker",
        scale,
        PROGRAM,
        operands,
        EXPECTED,
        matrix=lambda G, U, V, W: np.einsum("abc,ia,jb,kc->ijk", G, U, V, W, optimize=True).reshape(n, n * n),
        spec="abc,ia,jb,kc,tjk->ti",
        summands=3 * rank,
    )


if __name__ == "__main__":
    main()
