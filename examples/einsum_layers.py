"""The space of linear layers with two factors: one einsum, whose sizes decide what the layer is.

Potapczynski et al., "Searching for Efficient Linear Layers over a Continuous Space of Structured Matrices" (2024).
Low rank, Kronecker, Monarch, Block Tensor-Train and everything between are one expression; stein names each member.
"""

from dataclasses import replace

import numpy as np
from _system import Report, normal, study

PROGRAM = "y[t,d,e,f] = A[a,g,d,f,r] * B[b,g,e,f,r] * x[t,a,b,g]"
MEMBERS = {
    # kind: the extents of a, b, g, d, e, f, r at full size, and small
    "low_rank": ((1, 1024, 1, 1024, 1, 1, 32), (1, 9, 1, 8, 1, 1, 2)),
    "kronecker": ((32, 32, 1, 32, 32, 1, 1), (3, 4, 1, 2, 5, 1, 1)),
    "kronecker_sum_of": ((32, 32, 1, 32, 32, 1, 4), (3, 4, 1, 4, 3, 1, 2)),
    "block_low_rank": ((1, 32, 32, 32, 1, 32, 2), (1, 4, 4, 4, 1, 4, 2)),
}
EXPECTED = tuple(MEMBERS)


def main(scale: str = "full") -> Report:
    """Name and apply four members of the class; report all names with the figures of the last."""
    for kind, sizes in MEMBERS.items():
        a, b, g, d, e, f, r = sizes[scale != "full"]
        rows, cols = d * e * f, a * b * g
        report = study(
            42,
            f"Einsum layers ({kind})",
            scale,
            PROGRAM,
            {
                "A": normal(a, g, d, f, r),
                "B": normal(b, g, e, f, r),
                "x": normal(256 if scale == "full" else 3, a, b, g),
            },
            (kind,),
            matrix=lambda A, B, shape=(rows, cols): np.einsum("agdfr,bgefr->defabg", A, B, optimize=True).reshape(
                shape
            ),
            spec="agdfr,bgefr,tabg->tdef",
            summands=r,
        )
    return replace(report, system="Einsum layers", found=EXPECTED)


if __name__ == "__main__":
    main()
