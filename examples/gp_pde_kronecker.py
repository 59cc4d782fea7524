"""A Gaussian process on a grid: a system with the matrix K1 (x) K2 + s I, solved through its small factors.

The covariance of a stationary process on a grid is a Kronecker product of Toeplitz matrices, so a solver for partial
differential equations needs no low-rank approximation: N^3 becomes N*(n1 + n2) and n1^3 + n2^3.
"""

import numpy as np
from _system import Array, Report, examine, normal

EXPECTED = ("toeplitz", "symmetric")
PROGRAM = """
    K1: f64[n1, n1] toeplitz symmetric
    K2: f64[n2, n2] toeplitz symmetric
    I: identity f64[n1*n2, n1*n2]
    y = solve(kron(K1, K2) + s*I, x)
"""


def main(scale: str = "full") -> Report:
    """Solve for one right-hand side on a grid of n1 by n2 points."""
    n1, n2 = (48, 40) if scale == "full" else (4, 3)
    K1, K2 = (covariance(n) for n in (n1, n2))
    s, x = np.asarray(0.1), normal(n1 * n2, dtype="float64")
    M = np.kron(K1, K2) + s * np.eye(n1 * n2)
    y = np.linalg.solve(M, x)
    return examine(
        13,
        "GP on a grid",
        scale,
        PROGRAM,
        {"K1": K1, "K2": K2, "s": s, "x": x},
        EXPECTED,
        exact=y,
        # Both solvers are backward stable: each error is at most cond * N * eps of the solution (Higham, chapter 10).
        bound=2 * len(M) * np.linalg.cond(M) * np.finfo(np.float64).eps * np.linalg.norm(y),
        dense=lambda: np.linalg.solve(M, x),
        flops_dense=2 / 3 * len(M) ** 3,
        torch=lambda K1, K2, s, x: lambda: _solved(K1, K2, s, x),
        runs="Kronecker",
        rule="2 * N * cond * eps * |y|",
        notes=["dense: M is formed ahead and solved in each call; torch: by the eigenvectors of K1 and K2"],
    )


def covariance(n: int) -> Array:
    """The exponential kernel between n points of a line."""
    i = np.arange(n)
    return np.exp(-np.abs(i[:, None] - i) / 3.0)


def _solved(K1: Array, K2: Array, s: Array, x: Array) -> Array:
    from torch.linalg import eigh

    (l1, Q1), (l2, Q2) = eigh(K1), eigh(K2)
    X = x.view(len(K1), len(K2))
    return (Q1 @ ((Q1.T @ X @ Q2) / (l1[:, None] * l2 + s)) @ Q2.T).flatten()


if __name__ == "__main__":
    main()
