"""A BLAST layer: blocks that share their bases along block rows and block columns, joined by diagonal couplings.

Lee et al., "BLAST: Block-Level Adaptive Structured Matrices for Efficient Deep Neural Network Inference" (2024).
2*m*n flops become 2*r*(m + n) + 2*r*b*b; r is a hyper-index of three operands.
"""

import numpy as np
from _system import Report, normal, study

EXPECTED = ("blast",)
PROGRAM = "y[n,i,a] = U[i,a,r] * S[i,j,r] * V[j,c,r] * x[n,j,c]"


def main(scale: str = "full") -> Report:
    """Apply a matrix of b by b blocks of order p, all of rank r, to a batch."""
    b, p, r, batch = (16, 256, 64, 256) if scale == "full" else (3, 5, 4, 3)
    operands = {
        "U": normal(b, p, r),
        "S": normal(b, b, r, seed=1),
        "V": normal(b, p, r, seed=2),
        "x": normal(batch, b, p),
    }
    return study(
        4,
        "BLAST",
        scale,
        PROGRAM,
        operands,
        EXPECTED,
        matrix=lambda U, S, V: np.einsum("iar,ijr,jcr->iajc", U, S, V, optimize=True).reshape(b * p, b * p),
        spec="iar,ijr,jcr,njc->nia",
        summands=r,
    )


if __name__ == "__main__":
    main()
