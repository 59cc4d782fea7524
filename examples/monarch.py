"""A Monarch matrix: two block-diagonal products with a stride permutation between them.

Dao et al., "Monarch: Expressive Structured Matrices for Efficient and Accurate Training" (2022). n = b*b inputs cost
2*n*b multiplications instead of n*n. The permutation is nothing but the order in which the digits k, j of the middle
vector are read.
"""

import numpy as np
from _system import Report, normal, study

EXPECTED = ("monarch",)
PROGRAM = """
    t[n,k,j] = R[k,j,i] * x[n,k,i]
    y[n,l,j] = L[j,l,k] * t[n,k,j]
"""


def main(scale: str = "full") -> Report:
    """Apply a Monarch matrix of order b*b to a batch."""
    b, batch = (64, 256) if scale == "full" else (4, 3)
    operands = {"R": normal(b, b, b), "L": normal(b, b, b, seed=1), "x": normal(batch, b, b)}
    return study(
        1,
        "Monarch",
        scale,
        PROGRAM,
        operands,
        EXPECTED,
        matrix=lambda R, L: np.einsum("jlk,kji->ljki", L, R).reshape(b * b, b * b),
        spec="kji,jlk,nki->nlj",
    )


if __name__ == "__main__":
    main()
