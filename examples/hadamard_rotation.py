"""A random rotation from two blocks of signs and Hadamard matrices: y = H D2 H D1 x.

H of order n = m*m is the Kronecker product of two Hadamard matrices of order m, and these are Kronecker powers of the
matrix of order 2: 2*n*n flops become about 2*n*log2(n).
"""

import numpy as np
from _system import Array, Report, normal, study

EXPECTED = ("product",)
PROGRAM = """
    h: f32[m, m] hadamard
    y[t,a,b] = h[a,c]*h[b,d]*s2[c,d] * h[c,e]*h[d,f]*s1[e,f] * x[t,e,f]
"""


def main(scale: str = "full") -> Report:
    """Rotate a batch of vectors of length m*m."""
    m, batch = (64, 256) if scale == "full" else (4, 3)
    h = hadamard(m)
    s1, s2 = (np.sign(normal(m, m, seed=k)) for k in range(2))
    x = normal(batch, m, m)

    def matrix(h: Array, s2: Array, s1: Array) -> Array:
        H = np.kron(h, h)
        return (H * s2.reshape(-1)) @ (H * s1.reshape(-1))

    return study(
        27,
        "Hadamard rotation",
        scale,
        PROGRAM,
        {"h": h, "s2": s2, "s1": s1, "x": x},
        EXPECTED,
        matrix=matrix,
        spec="ac,bd,cd,ce,df,ef,tef->tab",
        spec_operands={"h1": h, "h2": h, "s2": s2, "h3": h, "h4": h, "s1": s1, "x": x},
        torch=lambda h1, h2, s2, h3, h4, s1, x: lambda: h1 @ (s2 * (h3 @ (s1 * x) @ h4.T)) @ h2.T,
        summands=m * m,
    )


def hadamard(m: int) -> Array:
    """Sylvester's matrix of order m, a power of 2, with entries 1 and -1."""
    h = np.ones((1, 1), np.float32)
    while len(h) < m:
        h = np.block([[h, h], [h, -h]])
    return h


if __name__ == "__main__":
    main()
