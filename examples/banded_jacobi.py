"""A banded matrix: each result reads w neighbours. Jacobi operators have w = 3, B-spline collocation a few more.

The band is stored by diagonals, a[d,i] = W[i,i+d], and the argument is zero outside of its range: 2*n*n flops become
2*n*w, and nothing of the rest is stored.
"""

import numpy as np
from _system import Array, Report, normal, study

EXPECTED = ("banded",)


def main(scale: str = "full") -> Report:
    """Apply a band of w diagonals on each side to a batch."""
    n, w, batch = (4096, 32, 256) if scale == "full" else (11, 2, 3)
    program = f"""
        a: f32[-{w}..{w + 1}, n]
        x: f32[t, n] pad=0
        y[t,i] = a[d,i] * x[t,i+d]
    """

    def matrix(a: Array) -> Array:
        W = np.zeros((n, n), a.dtype)
        for d in range(-w, w + 1):
            i = np.arange(max(0, -d), min(n, n - d))
            W[i, i + d] = a[d + w, i]
        return W

    def unfolded(a: Array, x: Array) -> Array:
        from torch import einsum
        from torch.nn.functional import pad

        return lambda: einsum("di,tid->ti", a, pad(x, (w, w)).unfold(1, 2 * w + 1, 1))

    return study(
        20,
        "Banded (Jacobi)",
        scale,
        program,
        {"a": normal(2 * w + 1, n), "x": normal(batch, n)},
        EXPECTED,
        matrix=matrix,
        torch=unfolded,
        notes=["a shifted read is no plain einsum: opt_einsum would be given the dense matrix"],
    )


if __name__ == "__main__":
    main()
