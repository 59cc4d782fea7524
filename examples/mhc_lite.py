"""mHC-lite: streams mixed by a convex combination of permutations, doubly stochastic by construction.

The weights of the combination are a softmax over all n! permutations of the n streams, one for each token. No
Sinkhorn iteration is needed (Birkhoff's theorem); each permutation is a constant.
"""

from itertools import permutations

import numpy as np
from _system import Report, normal, study

EXPECTED = ("permutation_sum_of",)
PROGRAM = """
    P: f32[p, n, n] permutation
    y[t,i,c] = w[t,p] * P[p,i,j] * x[t,j,c]
"""


def main(scale: str = "full") -> Report:
    """Mix n streams of `width` channels with weights of their own for each token."""
    streams, tokens, width = (4, 512, 512) if scale == "full" else (3, 4, 5)
    P = np.array([np.eye(streams)[list(p)] for p in permutations(range(streams))], np.float32)
    w = np.exp(normal(tokens, len(P)))
    return study(
        6,
        "mHC-lite",
        scale,
        PROGRAM,
        {"w": w / w.sum(axis=1, keepdims=True), "P": P, "x": normal(tokens, streams, width)},
        EXPECTED,
        matrix=lambda w, P: np.einsum("tp,pij->tij", w, P),
        apply=np.matmul,
        spec="tp,pij,tjc->tic",
        summands=len(P),
        constants=("P",),
    )


if __name__ == "__main__":
    main()
