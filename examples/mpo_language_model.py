"""A matrix product operator in place of a layer: a chain of cores, each with a digit of the input and of the output.

Gao et al., "Parameter-Efficient Mixture-of-Experts Architecture for Pre-trained Language Models" (2022), keep the
central core common to all experts. With d cores of bond r, n*n becomes about d*n^(1+1/d)*r^2.
"""

import numpy as np
from _system import Report, normal, study

EXPECTED = ("tensor_train",)
PROGRAM = "y[t,i,j,k] = C1[i,p,a] * C2[a,j,q,b] * C3[b,k,s] * x[t,p,q,s]"


def main(scale: str = "full") -> Report:
    """Apply three cores of order n and bond r to a batch."""
    n, r, batch = (16, 4, 256) if scale == "full" else (3, 2, 4)
    operands = {
        "C1": normal(n, n, r),
        "C2": normal(r, n, n, r),
        "C3": normal(r, n, n),
        "x": normal(batch, n, n, n),
    }
    return study(
        30,
        "MPO layer",
        scale,
        PROGRAM,
        operands,
        EXPECTED,
        matrix=lambda C1, C2, C3: np.einsum("ipa,ajqb,bks->ijkpqs", C1, C2, C3, optimize=True).reshape(n**3, n**3),
        spec="ipa,ajqb,bks,tpqs->tijk",
        summands=r * r,
    )


if __name__ == "__main__":
    main()
