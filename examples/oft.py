"""OFTv2: a frozen layer behind a block-diagonal rotation, applied to the input and never to the weights.

Qiu et al., "Orthogonal Finetuning Made Scalable" (2025). R = (I + Q)(I - Q)^-1 with skew Q is approximated by
(I + Q)(I + Q + ... + Q^k): only products with the blocks of Q are needed.
"""

import numpy as np
from _system import Array, Report, normal, study

EXPECTED = ("block_diagonal",)
TERMS = 4  # k
PROGRAM = """
    q1[t,g,i] = Q[g,i,j] * x[t,g,j]
    q2[t,g,i] = Q[g,i,j] * q1[t,g,j]
    q3[t,g,i] = Q[g,i,j] * q2[t,g,j]
    q4[t,g,i] = Q[g,i,j] * q3[t,g,j]
    q5[t,g,i] = Q[g,i,j] * q4[t,g,j]
    z[t,g,i] = x[t,g,i] + 2*(q1[t,g,i] + q2[t,g,i] + q3[t,g,i] + q4[t,g,i]) + q5[t,g,i]
    y[t,o] = W[o,g,i] * z[t,g,i]
"""


def main(scale: str = "full") -> Report:
    """Rotate the inputs of a layer in blocks of order n."""
    blocks, n, batch = (32, 32, 256) if scale == "full" else (3, 4, 5)
    S = normal(blocks, n, n)
    Q = np.asarray((S - S.swapaxes(1, 2)) / 16, np.float32)
    exact = np.eye(n) + Q.astype(np.float64)
    exact = exact @ np.linalg.inv(2 * np.eye(n) - exact)
    norm = np.linalg.norm(Q, 2, axis=(1, 2)).max()
    off = np.linalg.norm(rotation(Q.astype(np.float64)) - exact, 2, axis=(1, 2)).max()
    # The terms left out are 2 Q^(k+2) + ..., and Q^(k+1) once: a geometric series in |Q|.
    assert off <= norm ** (TERMS + 1) * (1 + norm) / (1 - norm)

    def matrix(Q: Array, W: Array) -> Array:
        return np.einsum("ogi,gij->ogj", W, rotation(Q)).reshape(-1, blocks * n)

    return study(
        35,
        "OFTv2",
        scale,
        PROGRAM,
        {"Q": Q, "x": normal(batch, blocks, n), "W": normal(blocks * n, blocks, n)},
        EXPECTED,
        matrix=matrix,
        summands=(TERMS + 1) * n + TERMS + 1,
        torch=lambda Q, x, W: lambda: _rotated(Q, x) @ W.flatten(1).T,
        notes=[f"the truncated rotation is within {off:.1e} of the exact one (|Q| = {norm:.2f})"],
    )


def rotation(Q: Array) -> Array:
    """(I + Q)(I + Q + ... + Q^k), block by block."""
    eye = np.broadcast_to(np.eye(Q.shape[-1], dtype=Q.dtype), Q.shape)
    series = eye
    for _ in range(TERMS):
        series = eye + Q @ series
    return series + Q @ series


def _rotated(Q: Array, x: Array) -> Array:
    x = x.transpose(0, 1)
    q, z = x, x
    for power in range(TERMS + 1):
        q = q @ Q.mT
        z = z + (2 if power < TERMS else 1) * q
    return z.transpose(0, 1).flatten(1)


if __name__ == "__main__":
    main()
