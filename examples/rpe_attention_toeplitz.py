"""Kernelised attention with relative positions: a Toeplitz matrix between the feature maps of queries and keys.

Luo et al., "Stable, Fast and Accurate: Kernelized Attention with Relative Positional Encoding" (2021). The scores
f[i,m] c[i-j] g[j,m] are never formed: for each m the sum over j is a product with a Toeplitz matrix.
"""

import numpy as np
from _system import Array, Report, normal, study

EXPECTED = ("toeplitz_scaled_sum_of",)
PROGRAM = """
    c: f32[-(n-1)..n]
    f, g: f32[n, M]
    v: f32[n, D]
    z[i,d] = f[i,m] * c[i-j] * g[j,m] * v[j,d]
"""


def main(scale: str = "full") -> Report:
    """The numerator of kernelised attention over n positions with M features."""
    n, features, width = (4096, 4, 32) if scale == "full" else (7, 2, 3)
    f, g = (np.exp(normal(n, features, seed=k)) for k in range(2))
    operands = {"f": f, "c": np.exp(normal(2 * n - 1)), "g": g, "v": normal(n, width)}
    T = toeplitz(operands["c"])
    return study(
        17,
        "Kernelised attention, relative positions",
        scale,
        PROGRAM,
        operands,
        EXPECTED,
        matrix=lambda f, c, g: (f @ g.T) * toeplitz(c),
        apply=np.matmul,
        spec="im,ij,jm,jd->id",
        spec_operands={"f": f, "T": T, "g": g, "v": operands["v"]},
        argument="v",
        summands=features,
        notes=["opt_einsum and torch are given the Toeplitz matrix, formed ahead of time"],
    )


def toeplitz(c: Array) -> Array:
    """T[i,j] = c[i-j], for c stored from its lowest index."""
    n = (len(c) + 1) // 2
    i = np.arange(n)
    return c[i[:, None] - i + n - 1]


if __name__ == "__main__":
    main()
