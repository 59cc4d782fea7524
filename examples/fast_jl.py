"""The fast Johnson-Lindenstrauss transform: a sparse projection of a Hadamard transform of random signs.

Ailon and Chazelle, "The Fast Johnson-Lindenstrauss Transform and Approximate Nearest Neighbors" (2009). Lengths are
kept up to a few per cent; 2*k*n flops become about n*log2(n) and one product for each entry of P.
"""

import numpy as np
from _system import Array, Report, normal, study
from hadamard_rotation import hadamard

EXPECTED = ("product",)


def main(scale: str = "full") -> Report:
    """Project a batch of vectors of length m*m to k numbers."""
    m, k, density, batch = (64, 512, 0.05, 256) if scale == "full" else (4, 6, 0.5, 3)
    rng = np.random.default_rng(0)
    R, C = np.nonzero(rng.random((k, m * m)) < density)
    v = normal(len(R)) * np.float32(np.sqrt(len(R)) / m)
    h, e, x = hadamard(m), np.sign(normal(m, m)), normal(batch, m, m)

    def projection(R: Array, C: Array, v: Array) -> Array:
        P = np.zeros((k, m * m), v.dtype)
        P[R, C] = v
        return P

    return study(
        28,
        "Fast Johnson-Lindenstrauss",
        scale,
        f"""
            h: f32[m, m] hadamard
            R, C: i64[S]
            z[t,(a b)] = h[a,c] * h[b,d] * e[c,d] * x[t,c,d]
            y[t,k] = (R[s] == k) * v[s] * (C[s] == j) * z[t,j] for k in 0..{k}
        """,
        {"h": h, "e": e, "x": x, "R": R, "v": v, "C": C},
        EXPECTED,
        matrix=lambda h, e, R, v, C: projection(R, C, v) @ (np.kron(h, h) * e.reshape(-1)),
        spec="kab,ac,bd,cd,tcd->tk",
        spec_operands={"P": projection(R, C, v).reshape(k, m, m), "h1": h, "h2": h, "e": e, "x": x},
        torch=lambda P, h1, h2, e, x: lambda: (h1 @ (e * x) @ h2.T).flatten(1) @ P.flatten(1).T,
        summands=m * m,
        notes=["opt_einsum and torch are given P as a dense matrix"],
    )


if __name__ == "__main__":
    main()
