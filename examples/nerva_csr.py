"""Nerva: truly sparse layers, forwards and backwards; the gradient is sampled where a weight is stored.

Wesselink et al., "Nerva: a Truly Sparse Implementation of Neural Networks" (2024). At 99 % zeros a layer costs the
weights that are left: v[s] stands in row R[s] and column C[s]. The lists are data of the call.
"""

import numpy as np
from _system import BOUND, Array, Report, examine, normal, study

EXPECTED = ("sparse",)
GRADIENT = "R, C: i64[S]; dv[s] = (R[s] == i) * g[t,i] * (C[s] == j) * x[t,j]"


def main(scale: str = "full") -> Report:
    """A layer of order n at 1 % density on a batch, and its gradient; report the first."""
    n, batch = (2048, 256) if scale == "full" else (12, 5)
    rng = np.random.default_rng(0)
    R, C = np.nonzero(rng.random((n, n)) < (0.01 if scale == "full" else 0.2))
    v, x, g = normal(len(R)), normal(batch, n), normal(batch, n, seed=1)
    v *= np.float32(np.sqrt(len(R)))
    sampled = {name: a.astype(np.float64) for name, a in (("g", g), ("x", x))}
    examine(
        26,
        "Nerva, gradient",
        scale,
        GRADIENT,
        {"R": R, "C": C, "g": g, "x": x},
        (),
        exact=(sampled["g"].T @ sampled["x"])[R, C],
        bound=(batch + 2) * np.finfo(np.float32).eps * (np.abs(sampled["g"]).T @ np.abs(sampled["x"]))[R, C],
        dense=lambda: (g.T @ x)[R, C],
        flops_dense=2.0 * n * n * batch,
        torch=lambda R, C, g, x: lambda: (g.T @ x)[R, C],
        rule=f"{BOUND}, K = {batch}",
    )

    def matrix(R: Array, C: Array, v: Array) -> Array:
        W = np.zeros((n, n), v.dtype)
        W[R, C] = v
        return W

    return study(
        26,
        "Nerva (sparse)",
        scale,
        f"R, C: i64[S]; y[t,i] = (R[s] == i) * v[s] * (C[s] == j) * x[t,j] for i in 0..{n}",
        {"R": R, "C": C, "v": v, "x": x},
        EXPECTED,
        matrix=matrix,
        spec="ij,tj->ti",
        spec_operands={"W": matrix(R, C, v), "x": x},
        torch=_by_rows,
        notes=[f"{len(R) / n**2:.1%} of the weights are stored; as an einsum the layer is a dense product"],
    )


def _by_rows(W: Array, x: Array) -> Array:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its sparse rows a preview
        stored = W.to_sparse_csr()
    return lambda: (stored @ x.T).T


if __name__ == "__main__":
    main()
