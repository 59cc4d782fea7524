"""TDN: the tensor product of equivariant features through a CP decomposition of the coupling tensor.

Tensor decomposition networks replace the Clebsch-Gordan tensor of order three, L^6 entries, by R products of three
vectors: two small matrix products, one product of entries, and one more matrix product. R is a hyper-index.
"""

import numpy as np
from _system import BOUND, Array, Report, examine, normal

EXPECTED: tuple[str, ...] = ()
PROGRAM = "y[t,k] = a[k,r] * b[i,r] * c[j,r] * u[t,i] * v[t,j]"


def main(scale: str = "full") -> Report:
    """Couple two batches of features of degree below L with R terms."""
    L, R, batch = (8, 96, 2048) if scale == "full" else (2, 3, 5)
    n = L * L
    operands = {name: normal(n, R, seed=k) for k, name in enumerate("abc")}
    operands |= {"u": normal(batch, n), "v": normal(batch, n, seed=1)}
    spec = "kr,ir,jr,ti,tj->tk"

    def coupled(a: Array, b: Array, c: Array, u: Array, v: Array) -> Array:
        return pairs(u, v) @ tensor(a, b, c).T

    T = tensor(*(operands[name] for name in "abc"))
    wide = {name: value.astype(np.float64) for name, value in operands.items()}
    chain = n * n + R
    return examine(
        32,
        "TDN (CP)",
        scale,
        PROGRAM,
        operands,
        EXPECTED,
        exact=coupled(**wide),
        bound=(chain + 5) * np.finfo(np.float32).eps * coupled(**{name: np.abs(value) for name, value in wide.items()}),
        dense=lambda: pairs(operands["u"], operands["v"]) @ T.T,
        flops_dense=(2.0 * n + 1) * n * n * batch,
        spec=spec,
        argument="u",
        rule=f"{BOUND}, K = {chain}",
    )


def tensor(a: Array, b: Array, c: Array) -> Array:
    """The coupling tensor as a matrix from pairs (i, j) to k."""
    return np.einsum("kr,ir,jr->kij", a, b, c, optimize=True).reshape(len(a), -1)


def pairs(u: Array, v: Array) -> Array:
    """All products u[t,i] v[t,j]: (batch, pairs)."""
    return (u[:, :, None] * v[:, None, :]).reshape(len(u), -1)


if __name__ == "__main__":
    main()
