"""Attention of order three: every query meets pairs of keys, and the weight of a pair multiplies pairs of values.

Alman and Song, "How to Capture Higher-order Correlations? Generalizing Matrix Softmax Attention to Kronecker
Computation" (2023). The exact form: the scores of all pairs stream past and are never stored.
"""

import numpy as np
from _system import Array, Report, examine, normal

EXPECTED: tuple[str, ...] = ()
PROGRAM = "o[i,d] = sum[j,m] exp(sum[c] q[i,c]*k[j,c]*h[m,c]) * v[j,d] * w[m,d]"


def main(scale: str = "full") -> Report:
    """The numerator of attention of order three over n positions."""
    n, c, d = (96, 16, 16) if scale == "full" else (5, 3, 2)
    operands = {name: normal(n, c, seed=s) for s, name in enumerate("qkh")}
    operands |= {name: normal(n, d, seed=s) for s, name in enumerate("vw", 3)}
    wide = {name: value.astype(np.float64) for name, value in operands.items()}
    size = {name: np.abs(value) for name, value in wide.items()}
    scores = np.einsum("ic,jc,mc->ijm", *(size[name] for name in "qkh"), optimize=True).max()
    eps = np.finfo(np.float32).eps
    # exp turns an absolute error of its argument into a relative one; 4 for exp itself.
    relative = np.expm1((c + 3) * eps * scores) + (n * n + c + 4 + 3) * eps
    return examine(
        41,
        "Tensor attention",
        scale,
        PROGRAM,
        operands,
        EXPECTED,
        exact=attention(**wide),
        bound=relative * attention(wide["q"], wide["k"], wide["h"], size["v"], size["w"]),
        dense=lambda: attention(**operands),
        flops_dense=n**3 * (2.0 * c + 2 * d + 1),
        torch=lambda q, k, h, v, w: lambda: _attention(q, k, h, v, w),
        argument="v",
        rule="of sums whose weights are off by the error of their scores",
    )


def attention(q: Array, k: Array, h: Array, v: Array, w: Array) -> Array:
    """All scores at once, as a tensor of order three."""
    pairs = (k[:, None] * h).reshape(-1, k.shape[1])
    values = (v[:, None] * w).reshape(-1, v.shape[1])
    return np.exp(q @ pairs.T) @ values


def _attention(q: Array, k: Array, h: Array, v: Array, w: Array) -> Array:
    return (q @ (k[:, None] * h).flatten(0, 1).T).exp() @ (v[:, None] * w).flatten(0, 1)


if __name__ == "__main__":
    main()
