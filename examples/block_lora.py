"""Block-LoRA: all blocks of the input share one factor A, so the blocks are added before anything is multiplied.

g blocks of n/g inputs cost one small product instead of g: an index that only one operand has is summed there first.
"""

import numpy as np
from _system import Report, normal, study

EXPECTED = ("low_rank",)
PROGRAM = "y[t,o] = B[o,r] * A[r,i] * (sum[g] x[t,g,i])"


def main(scale: str = "full") -> Report:
    """Apply the update of a layer with g*n inputs to a batch."""
    g, n, r, batch = (8, 512, 16, 256) if scale == "full" else (3, 5, 2, 4)
    return study(
        23,
        "Block-LoRA",
        scale,
        PROGRAM,
        {"B": normal(g * n, r), "A": normal(r, n), "x": normal(batch, g, n)},
        EXPECTED,
        matrix=lambda B, A: np.tile(B @ A, (1, g)),
        spec="or,ri,tgi->to",
        summands=r,
    )


if __name__ == "__main__":
    main()
