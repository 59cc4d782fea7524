"""A Block Tensor-Train layer: Monarch with a rank, the structured layer that scaled best in this comparison.

Qiu et al., "Compute Better Spent: Replacing Dense Layers with Structured Matrices" (2024). 2*n*n flops become
4*r*n^1.5; the sum runs over k and r at once.
"""

import numpy as np
from _system import Report, normal, study

EXPECTED = ("btt",)
PROGRAM = "y[n,l,j] = L[j,l,k,r] * R[k,j,i,r] * x[n,k,i]"


def main(scale: str = "full") -> Report:
    """Apply a Block Tensor-Train matrix of order b*b and rank r to a batch."""
    b, r, batch = (64, 4, 256) if scale == "full" else (5, 2, 3)
    operands = {"L": normal(b, b, b, r), "R": normal(b, b, r, b).swapaxes(2, 3), "x": normal(batch, b, b)}
    return study(
        3,
        "Block Tensor-Train",
        scale,
        PROGRAM,
        operands,
        EXPECTED,
        matrix=lambda L, R: np.einsum("jlkr,kjir->ljki", L, R, optimize=True).reshape(b * b, b * b),
        spec="jlkr,kjir,nki->nlj",
        summands=r,
    )


if __name__ == "__main__":
    main()
