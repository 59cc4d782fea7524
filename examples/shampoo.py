"""Shampoo: a gradient, preconditioned on both sides by inverse fourth roots of its own second moments.

Gupta, Koren and Singer, "Shampoo: Preconditioned Stochastic Tensor Optimization" (2018). The preconditioner is a
Kronecker product of order m*n, never formed: two symmetric products, two small matrix functions, two products.
"""

import numpy as np
from _system import Array, Report, examine, normal

EXPECTED = ("symmetric",)
PROGRAM = """
    L[i,k] = G[i,j] * G[k,j] + e*(i == k)
    R[j,l] = G[i,j] * G[i,l] + e*(j == l)
    P = powm(L, -0.25) @ G @ powm(R, -0.25)
    return L, R, P
"""


def main(scale: str = "full") -> Report:
    """Precondition one gradient of shape m by n."""
    m, n = (256, 192) if scale == "full" else (5, 4)
    G, e = normal(m, n, dtype="float64"), np.asarray(0.1)

    def step() -> Array:
        L, R = G @ G.T + e * np.eye(m), G.T @ G + e * np.eye(n)
        return root(L) @ G @ root(R)

    L, R = G @ G.T + e * np.eye(m), G.T @ G + e * np.eye(n)
    P = np.einsum("ik,kl,lj->ij", root(L), G, root(R), optimize=True)
    # Each root is off by at most cond(L)^(5/4) * m * eps of itself, to first order: the derivative of x^(-1/4) at the
    # smallest eigenvalue, times the backward error m * eps * |L| of the eigenvectors.
    relative = sum(np.linalg.cond(A) ** 1.25 * len(A) for A in (L, R)) * np.finfo(np.float64).eps
    return examine(
        15,
        "Shampoo",
        scale,
        PROGRAM,
        {"G": G, "e": e},
        EXPECTED,
        exact=P,
        bound=2 * relative * np.linalg.norm(root(L), 2) * np.linalg.norm(G) * np.linalg.norm(root(R), 2),
        dense=step,
        flops_dense=2.0 * (m * n) ** 2,
        torch=lambda G, e: lambda: _step(G, e),
        argument="G",
        value="P",
        rule="2 * (cond(L)^(5/4) m + cond(R)^(5/4) n) * eps * |L^-1/4| |G| |R^-1/4|",
        notes=["dense flops: one product with the preconditioner of order m*n; dense time: the same steps in NumPy"],
    )


def root(A: Array) -> Array:
    """The inverse fourth root of a symmetric positive definite matrix."""
    values, vectors = np.linalg.eigh(A)
    return (vectors * values**-0.25) @ vectors.T


def _step(G: Array, e: Array) -> Array:
    import torch

    def inverse(A: Array) -> Array:
        values, vectors = torch.linalg.eigh(A + e * torch.eye(len(A), dtype=A.dtype))
        return (vectors * values**-0.25) @ vectors.T

    return inverse(G @ G.T) @ G @ inverse(G.T @ G)


if __name__ == "__main__":
    main()
