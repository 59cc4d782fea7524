"""DeltaProduct: one step of a linear recurrence whose state is turned by a product of Householder-like matrices.

Siems et al., "DeltaProduct: Improving State-Tracking in Linear RNNs via Householder Products" (2025). Each factor is
I - b k k', so a step costs a few products with vectors instead of one with a matrix of order d.
"""

import numpy as np
from _system import Array, Report, normal, study

EXPECTED = ("dplr",)


def main(scale: str = "full") -> Report:
    """Turn the states of all heads by three factors."""
    heads, d, steps = (64, 128, 3) if scale == "full" else (2, 5, 2)
    k = normal(heads, steps, d)
    k /= np.linalg.norm(k, axis=-1, keepdims=True)
    b = (1 + normal(heads, steps)).astype(np.float32)

    def matrix(b: Array, k: Array, sign: int = -1) -> Array:
        W = np.broadcast_to(np.eye(d, dtype=k.dtype), (heads, d, d))
        for h in range(steps):
            factor = np.eye(d, dtype=k.dtype) + sign * np.einsum("n,nd,ne->nde", b[:, h], k[:, h], k[:, h])
            W = factor @ W
        return W

    return study(
        34,
        "DeltaProduct",
        scale,
        program(steps),
        {"S": normal(heads, d, d), "b": b, "k": k},
        EXPECTED,
        matrix=matrix,
        magnitude=lambda b, k: matrix(b, k, +1),
        apply=np.matmul,
        argument="S",
        summands=(steps - 1) * (d + 2),  # each further factor adds a sum over d and a difference
        torch=lambda S, b, k: lambda: _stepped(S, b, k, steps),
    )


def program(steps: int) -> str:
    """S0 = S, and for each factor S[h+1] = (I - b k k') S[h]."""
    line = "S{1}[n,d,v] = S{0}[n,d,v] - b[n,{h}]*k[n,{h},d]*k[n,{h},e]*S{0}[n,e,v]"
    return "; ".join(line.format(h or "", h + 1, h=h) for h in range(steps))


def _stepped(S: Array, b: Array, k: Array, steps: int) -> Array:
    for h in range(steps):
        S = S - (b[:, h, None] * k[:, h])[:, :, None] * (k[:, h, None, :] @ S)
    return S


if __name__ == "__main__":
    main()
