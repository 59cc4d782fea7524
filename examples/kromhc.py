"""KromHC: the streams of a residual network mixed by a Kronecker product of small doubly stochastic matrices.

The product of doubly stochastic matrices, and their Kronecker product, is doubly stochastic: signals keep their size
through any depth. Three factors of order 2 need 6 free numbers where a mixing matrix of 8 streams has 64.
"""

import numpy as np
from _system import Array, Report, normal, study

EXPECTED = ("kronecker",)
PROGRAM = "Y[n,a,b,c,d] = P[a,e] * Q[b,f] * R[c,g] * X[n,e,f,g,d]"


def main(scale: str = "full") -> Report:
    """Mix eight streams of `width` channels for a batch of tokens."""
    tokens, width = (512, 512) if scale == "full" else (3, 5)
    factors = {name: mixing(share) for name, share in (("P", 0.9), ("Q", 0.7), ("R", 0.6))}
    return study(
        5,
        "KromHC",
        scale,
        PROGRAM,
        factors | {"X": normal(tokens, 2, 2, 2, width)},
        EXPECTED,
        matrix=lambda P, Q, R: np.kron(P, np.kron(Q, R)),
        apply=lambda W, X: np.matmul(W, X.reshape(tokens, 8, width)),
        spec="ae,bf,cg,nefgd->nabcd",
        argument="X",
        notes=["eight streams are few: every form is bound by reading and writing X"],
    )


def mixing(share: float) -> Array:
    """The doubly stochastic matrix of order 2 that keeps `share` of each stream."""
    return np.array([[share, 1 - share], [1 - share, share]], np.float32)


if __name__ == "__main__":
    main()
