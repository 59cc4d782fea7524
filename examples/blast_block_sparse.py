"""BLaST: weights of which whole blocks are zero; the blocks that are left are stored and visited, nothing else.

Block sparse transformers (BLaST) prune the layers of a network to blocks of 16 to 128. The mask is data: block s
stands in block row R[s] and block column C[s], and may be another one in each call.
"""

import numpy as np
from _system import Array, Report, normal, study

EXPECTED = ("block_sparse",)


def main(scale: str = "full") -> Report:
    """Apply a layer with 90 % zero blocks to a batch."""
    blocks, order, batch = (64, 64, 256) if scale == "full" else (4, 3, 5)
    rng = np.random.default_rng(0)
    R, C = np.nonzero(rng.random((blocks, blocks)) < (0.1 if scale == "full" else 0.4))
    operands = {"R": R, "C": C, "W": normal(len(R), order, order), "x": normal(batch, blocks, order)}

    def matrix(R: Array, C: Array, W: Array) -> Array:
        dense = np.zeros((blocks, order, blocks, order), W.dtype)
        dense[R, :, C] = W
        return dense.reshape(blocks * order, blocks * order)

    return study(
        24,
        "BLaST (block sparse)",
        scale,
        f"R, C: i64[S]; y[t,i,a] = (R[s] == i) * W[s,a,c] * (C[s] == j) * x[t,j,c] for i in 0..{blocks}",
        operands,
        EXPECTED,
        matrix=matrix,
        spec="ij,tj->ti",
        spec_operands={"W": matrix(R, C, operands["W"]), "x": operands["x"].reshape(batch, -1)},
        torch=lambda W, x: _by_blocks(W, x, order),
        notes=[f"{len(R) / blocks**2:.0%} of the blocks are stored; as an einsum the layer is a dense product"],
    )


def _by_blocks(W: Array, x: Array, order: int) -> Array:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its block-sparse layout a preview
        stored = W.to_sparse_bsr((order, order))
    return lambda: (stored @ x.T).T


if __name__ == "__main__":
    main()
