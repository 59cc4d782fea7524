"""FlatQuant: an online Kronecker transform that flattens activations, and the quantisation that follows it.

Sun et al., "FlatQuant: Flatness Matters for LLM Quantization" (2024). The transform of width n costs 4*n^1.5 instead
of 2*n*n; scale, clip, round and the cast to eight bits belong to the same pass over the result.
"""

import numpy as np
from _system import BOUND, Array, Report, by_rows, examine, normal

EXPECTED = ("kronecker",)
PROGRAM = """
    z[t,u,v] = x[t,i,j] * P[i,u] * Q[j,v]
    y[t,u,v] = i8(round(clip(z[t,u,v] / s, -127, 127)))
"""


def main(scale: str = "full") -> Report:
    """Transform and quantise a batch of activations."""
    p, q, tokens = (64, 64, 256) if scale == "full" else (5, 7, 4)
    P, Q, x = normal(p, p), normal(q, q, seed=1), normal(tokens, p, q)
    s = np.asarray(np.abs(x).max() / 60, np.float32)
    W = np.kron(P, Q).T  # z[u,v] = W[(u v), (i j)] x[i,j]

    def quantised(z: Array) -> Array:
        return np.clip(np.round(z / s), -127, 127)

    z = by_rows(W.astype(np.float64), x.astype(np.float64))
    terms = by_rows(np.abs(W).astype(np.float64), np.abs(x).astype(np.float64))
    error = ((p * q + 5) * np.finfo(np.float32).eps * terms) / s
    # A quotient may only be rounded to another integer where it lies within the error of a half.
    bound = np.abs(quantised(z + error * s) - quantised(z - error * s))
    return examine(
        7,
        "FlatQuant",
        scale,
        PROGRAM,
        {"x": x, "P": P, "Q": Q, "s": s},
        EXPECTED,
        exact=quantised(z),
        bound=bound,
        dense=lambda: quantised(by_rows(W, x)).astype(np.int8),
        flops_dense=2.0 * W.size * tokens,
        torch=lambda x, P, Q, s: lambda: (P.T @ (x @ Q) / s).round().clamp(-127, 127).char(),
        rule=f"0, or 1 where the quotient lies within {BOUND} of a half",
    )


if __name__ == "__main__":
    main()
