"""Attention whose scores stream past: a softmax between two products that is never stored.

Dao, "FlashAttention-2: Faster Attention with Better Parallelism and Work Partitioning" (2023). The n*n weights are
made, used and dropped block by block; what remains is reading q, k, v and writing the result.
"""

import numpy as np
from _system import Array, Report, examine, normal, softmax_error
from flashbias import softmax

EXPECTED: tuple[str, ...] = ()
PROGRAM = """
    s[h,i,j] = q[h,i,c] * k[h,j,c]
    p[h,i,j] = softmax[j](s[h,i,j])
    o[h,i,d] = p[h,i,j] * v[h,j,d]
"""


def main(scale: str = "full") -> Report:
    """Attention of n positions in `heads` heads."""
    heads, n, c = (4, 1024, 64) if scale == "full" else (2, 7, 3)
    q, k, v = (normal(heads, n, c, seed=s) * np.float32(c**0.25 if s < 2 else 1) for s in range(3))
    q8, k8, v8 = (a.astype(np.float64) for a in (q, k, v))
    weights = softmax(q8 @ k8.swapaxes(1, 2))
    terms = (np.abs(q8) @ np.abs(k8).swapaxes(1, 2)).max()
    return examine(
        38,
        "FlashAttention-2",
        scale,
        PROGRAM,
        {"q": q, "k": k, "v": v},
        EXPECTED,
        exact=weights @ v8,
        bound=softmax_error((c + 2) * terms, n, np.float32) * (weights @ np.abs(v8)),
        dense=lambda: softmax(q @ k.swapaxes(1, 2)) @ v,
        flops_dense=heads * n * n * 4.0 * c,
        torch=lambda q, k, v: lambda: _attention(q, k, v),
        argument="v",
        rule="of a softmax whose scores are off by (K + operands) * eps * sum|terms|",
        notes=["no flop is saved, only the n*n numbers between the two products"],
    )


def _attention(q: Array, k: Array, v: Array) -> Array:
    from torch.nn.functional import scaled_dot_product_attention

    return scaled_dot_product_attention(q, k, v, scale=1.0)


if __name__ == "__main__":
    main()
