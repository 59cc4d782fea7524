"""A named program: attention for several heads, with and without a causal mask, compiled for every batch and length."""

import numpy as np

import stein

ATTENTION = """
    Q, K, V: f32[B, N, H, D]
    s[b,h,q,k] = Q[b,q,h,d] * K[b,k,h,d] / sqrt(D)
    a[b,h,q,k] = softmax[k](s[b,h,q,k])
    o[b,q,h,d] = a[b,h,q,k] * V[b,k,h,d]
"""
# Comparisons are values too: `where` puts -inf above the diagonal.
CAUSAL = ATTENTION.replace("softmax[k](s[b,h,q,k])", "softmax[k](where(q >= k, s[b,h,q,k], -inf))")


def reference(Q: np.ndarray, K: np.ndarray, V: np.ndarray, causal: bool) -> np.ndarray:
    """The same in NumPy."""
    s = np.einsum("bqhd,bkhd->bhqk", Q, K) / np.sqrt(Q.shape[-1])
    if causal:
        s = np.where(np.tril(np.ones(s.shape[-2:], bool)), s, -np.inf)
    e = np.exp(s - s.max(axis=-1, keepdims=True))
    out: np.ndarray = np.einsum("bhqk,bkhd->bqhd", e / e.sum(axis=-1, keepdims=True), V)
    return out


def main(n: int = 128) -> None:
    """Run both programs on two lengths and compare with NumPy."""
    rng = np.random.default_rng(0)
    for name, text, causal in (("full", ATTENTION, False), ("causal", CAUSAL, True)):
        attend = stein.compile(text)  # B, N, H and D come with the call
        for length in (n, n // 2):
            Q, K, V = (rng.standard_normal((2, length, 4, 16), dtype=np.float32) for _ in range(3))
            o = attend(Q=Q, K=K, V=V)
            error = np.abs(o - reference(Q, K, V, causal)).max()
            assert error < 1e-4
            print(f"{name:7} {length} tokens: largest difference to NumPy {error:.1e}")


if __name__ == "__main__":
    main()
