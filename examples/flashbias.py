"""FlashBias: attention whose additive bias has low rank, folded into longer queries and keys.

Wu et al., "FlashBias: Fast Computation of Attention with Bias" (2025). The bias f g' of rank r costs r more channels
instead of n*n numbers that are stored and read.
"""

import numpy as np
from _system import Array, Report, examine, normal, softmax_error

EXPECTED: tuple[str, ...] = ()
PROGRAM = """
    s[h,i,j] = q[h,i,c] * k[h,j,c] + f[h,i,r] * g[h,j,r]
    p[h,i,j] = softmax[j](s[h,i,j])
    y[h,i,d] = p[h,i,j] * v[h,j,d]
"""


def main(scale: str = "full") -> Report:
    """Attention of n positions in `heads` heads, with a bias of rank r."""
    heads, n, c, r = (4, 1024, 64, 4) if scale == "full" else (2, 7, 3, 2)
    q, k, v = (normal(heads, n, c, seed=s) * (c**0.25 if s < 2 else 1) for s in range(3))
    f, g = (normal(heads, n, r, seed=s) for s in (3, 4))
    bias = f @ g.swapaxes(1, 2)

    def scores(q: Array, k: Array, f: Array, g: Array) -> Array:
        return q @ k.swapaxes(1, 2) + f @ g.swapaxes(1, 2)

    q8, k8, v8, f8, g8 = (a.astype(np.float64) for a in (q, k, v, f, g))
    weights = softmax(scores(q8, k8, f8, g8))
    terms = scores(np.abs(q8), np.abs(k8), np.abs(f8), np.abs(g8)).max()
    return examine(
        22,
        "FlashBias",
        scale,
        PROGRAM,
        {"q": q.astype(np.float32), "k": k.astype(np.float32), "f": f, "g": g, "v": v},
        EXPECTED,
        exact=weights @ v8,
        bound=softmax_error((c + r + 4) * terms, n, np.float32) * (weights @ np.abs(v8)),
        dense=lambda: softmax(q @ k.swapaxes(1, 2) + bias) @ v,
        flops_dense=heads * n * n * (4.0 * c + 1),
        torch=lambda q, k, f, g, v: lambda: _attention(q, k, v, f @ g.mT),
        argument="v",
        value="y",
        rule="of a softmax whose scores are off by (K + operands) * eps * sum|terms|",
        notes=["dense: the bias is formed ahead, once; torch forms it in each call"],
    )


def softmax(s: Array) -> Array:
    """Along the last axis."""
    e = np.exp(s - s.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _attention(q: Array, k: Array, v: Array, bias: Array) -> Array:
    from torch.nn.functional import scaled_dot_product_attention

    return scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)


if __name__ == "__main__":
    main()
