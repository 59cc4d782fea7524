"""Hydragen: many sequences attend to one common prefix, whose keys and values carry no index of the batch.

Juravsky et al., "Hydragen: High-Throughput LLM Inference with Shared Prefixes" (2024). Because the prefix lacks the
index b, the products of all queries with it are one matrix product each instead of one product for each sequence; both
parts share one softmax.
"""

import numpy as np
from _system import Array, Report, examine, normal, softmax_error

EXPECTED: tuple[str, ...] = ()
PROGRAM = """
    p[b,h,j] = q[b,h,c] * k[h,j,c]
    s[b,h,l] = q[b,h,c] * K[b,h,l,c]
    m[b,h] = max(max[j](p[b,h,j]), max[l](s[b,h,l]))
    e[b,h,j] = exp(p[b,h,j] - m[b,h])
    g[b,h,l] = exp(s[b,h,l] - m[b,h])
    n[b,h] = sum[j] e[b,h,j] + sum[l] g[b,h,l]
    o[b,h,d] = e[b,h,j] * v[h,j,d] + g[b,h,l] * V[b,h,l,d]
    y[b,h,d] = o[b,h,d] / n[b,h]
"""


def main(scale: str = "full") -> Report:
    """One step of decoding for a batch of sequences with a common prefix."""
    batch, heads, prefix, suffix, c = (64, 4, 1024, 32, 64) if scale == "full" else (3, 2, 7, 4, 5)
    q = normal(batch, heads, c) * np.float32(c**0.25)
    k, v = (normal(heads, prefix, c, seed=s) for s in (1, 2))
    K, V = (normal(batch, heads, suffix, c, seed=s) for s in (3, 4))

    def joined(common: Array, own: Array) -> Array:
        return np.concatenate([np.broadcast_to(common, (batch, *common.shape)), own], axis=2)

    keys, values = joined(k, K), joined(v, V)
    q8, keys8, values8 = (a.astype(np.float64) for a in (q, keys, values))
    exact = attention(q8, keys8, values8)
    terms = np.einsum("bhc,bhjc->bhj", np.abs(q8), np.abs(keys8)).max()
    return examine(
        39,
        "Hydragen",
        scale,
        PROGRAM,
        {"q": q, "k": k, "K": K, "v": v, "V": V},
        EXPECTED,
        exact=exact,
        bound=softmax_error((c + 2) * terms, prefix + suffix, np.float32) * attention(q8, keys8, np.abs(values8)),
        dense=lambda: attention(q, keys, values),
        flops_dense=4.0 * batch * heads * (prefix + suffix) * c,
        torch=lambda q, k, K, v, V: _attention(q, keys, values),
        argument="v",
        rule="of a softmax whose scores are off by (K + operands) * eps * sum|terms|",
        notes=["no flop is saved: the prefix is read once instead of once for each sequence (dense and torch: copied)"],
    )


def attention(q: Array, k: Array, v: Array) -> Array:
    """softmax(q k') v for each sequence and head."""
    s = (k @ q[..., None])[..., 0]
    e = np.exp(s - s.max(axis=-1, keepdims=True))
    return (e[..., None, :] @ v)[..., 0, :] / e.sum(axis=-1, keepdims=True)


def _attention(q: Array, keys: Array, values: Array) -> Array:
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    k, v = torch.from_numpy(keys), torch.from_numpy(values)
    return lambda: scaled_dot_product_attention(q[:, :, None], k, v, scale=1.0)[:, :, 0]


if __name__ == "__main__":
    main()
