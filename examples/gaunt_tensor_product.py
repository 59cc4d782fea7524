"""The Gaunt tensor product: features on the sphere are multiplied on a grid instead of through a coupling tensor.

Luo, Chen and Krishnapriyan, "Enabling Efficient Equivariant Operations in the Fourier Basis via Gaunt Tensor Products"
(2024); Xie et al., "The Price of Freedom" (2025), for the form on a grid. The tensor of order three is diagonal
between two transforms, and the quadrature is exact: products of three harmonics of degree up to L have degree 3*L.
"""

import numpy as np
from _system import BOUND, Array, Report, examine, normal

EXPECTED = ("symmetric_operator",)
PROGRAM = """
    U[t,g] = F[g,i] * u[t,i]
    V[t,g] = F[g,j] * v[t,j]
    y[t,k] = w[g] * F[g,k] * U[t,g] * V[t,g]
"""


def main(scale: str = "full") -> Report:
    """Multiply two batches of functions of degree up to L on the sphere."""
    L, batch = (6, 2048) if scale == "full" else (2, 5)
    F, w = harmonics(L, 3 * L)
    fine, weights = harmonics(L, 3 * L + 5)  # a finer grid: the coupling tensor, independently
    T = np.einsum("g,gk,gi,gj->kij", weights, fine, fine, fine, optimize=True)
    np.testing.assert_allclose(np.einsum("g,gk,gi,gj->kij", w, F, F, F, optimize=True), T, atol=1e-12)

    n = F.shape[1]
    u, v = normal(batch, n), normal(batch, n, seed=1)
    T2 = T.reshape(n, n * n)
    X, dense = pairs(u.astype(np.float64), v.astype(np.float64)), T2.astype(np.float32)
    f32 = {"F": F.astype(np.float32), "u": u, "v": v, "w": w.astype(np.float32)}
    # Rounding the grid's numbers to 32 bits counts as four more operations on each term.
    grid = np.einsum("g,gk,gi,gj->kij", w, *(np.abs(F),) * 3, optimize=True).reshape(n, n * n)
    chain = 2 * n + len(w)
    return examine(
        33,
        "Gaunt tensor product",
        scale,
        PROGRAM,
        f32,
        EXPECTED,
        exact=X @ T2.T,
        bound=(chain + 6 + 4) * np.finfo(np.float32).eps * (np.abs(X) @ grid.T)
        + n * n * np.finfo(np.float32).eps * (np.abs(X) @ np.abs(T2).T),
        dense=lambda: pairs(u, v) @ dense.T,
        flops_dense=(2.0 * n + 1) * n * n * batch,
        spec="g,gk,gi,gj,ti,tj->tk",
        spec_operands={"w": f32["w"], "F1": f32["F"], "F2": f32["F"], "F3": f32["F"], "u": u, "v": v},
        torch=lambda w, F1, F2, F3, u, v: lambda: ((u @ F2.T) * (v @ F3.T)) @ (w[:, None] * F1),
        argument="u",
        rule=f"{BOUND}, K = {chain}, of the grid, and of the dense product",
    )


def harmonics(L: int, degree: int) -> tuple[Array, Array]:
    """Real spherical harmonics up to degree L on a grid that integrates up to `degree` exactly, and its weights."""
    from scipy.special import factorial, lpmv

    cosine, weights = np.polynomial.legendre.leggauss(degree // 2 + 1)
    angle = 2 * np.pi * np.arange(degree + 1) / (degree + 1)
    columns = []
    for d in range(L + 1):
        for m in range(-d, d + 1):
            scale = np.sqrt((2 * d + 1) / (4 * np.pi) * factorial(d - abs(m)) / factorial(d + abs(m)))
            around = np.sqrt(2) * np.sin(-m * angle) if m < 0 else np.sqrt(2) * np.cos(m * angle) if m else angle**0
            columns.append(scale * np.outer(lpmv(abs(m), d, cosine), around).reshape(-1))
    return np.stack(columns, axis=1), np.repeat(weights * 2 * np.pi / len(angle), len(angle))


def pairs(u: Array, v: Array) -> Array:
    """All products u[t,i] v[t,j]: (batch, pairs)."""
    return (u[:, :, None] * v[:, None, :]).reshape(len(u), -1)


if __name__ == "__main__":
    main()
