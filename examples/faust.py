"""FAuST: a matrix as a product of sparse factors, applied one after the other.

Le Magoarou and Gribonval, "Flexible Multi-layer Sparse Approximations of Matrices and Applications" (2016). Here the
factors are given; how they are found from a dense matrix is a numeric pass and no expression.
"""

import numpy as np
from _system import Array, Report, normal, study

EXPECTED = ("sparse",)


def main(scale: str = "full") -> Report:
    """Apply three factors with `entries` numbers in each row to a batch."""
    n, entries, batch = (2048, 8, 256) if scale == "full" else (12, 2, 5)
    rng = np.random.default_rng(0)
    operands: dict[str, Array] = {"x": normal(batch, n)}
    for k in (1, 2, 3):  # the factor S_k has v[s] in row R[s] and column C[s]
        R, C = np.divmod(np.unique(rng.integers(0, n * n, n * entries)), n)
        operands |= {f"R{k}": R, f"C{k}": C, f"v{k}": normal(len(R), seed=k) * np.float32(np.sqrt(n))}

    def factor(R: Array, C: Array, v: Array) -> Array:
        S = np.zeros((n, n), v.dtype)
        S[R, C] = v
        return S

    def matrix(**lists: Array) -> Array:
        S1, S2, S3 = (factor(lists[f"R{k}"], lists[f"C{k}"], lists[f"v{k}"]) for k in (1, 2, 3))
        return S3 @ S2 @ S1

    dense = {f"S{k}": factor(operands[f"R{k}"], operands[f"C{k}"], operands[f"v{k}"]) for k in (3, 2, 1)}
    return study(
        29,
        "FAuST",
        scale,
        program(n),
        operands,
        EXPECTED,
        matrix=matrix,
        spec="ij,jk,kl,tl->ti",
        spec_operands=dense | {"x": operands["x"]},
        summands=2 * n,
        torch=_by_rows,
        notes=["as an einsum the factors are dense matrices"],
    )


def program(n: int) -> str:
    """Three sparse products, one after the other."""
    line = "z{k}[t,i] = (R{k}[s] == i) * v{k}[s] * (C{k}[s] == j) * {last}[t,j] for i in 0..{n}"
    lists = "; ".join(f"R{k}, C{k}: i64[S{k}]" for k in (1, 2, 3))
    return "\n".join([lists, *(line.format(k=k, last=f"z{k - 1}" if k > 1 else "x", n=n) for k in (1, 2, 3))])


def _by_rows(S3: Array, S2: Array, S1: Array, x: Array) -> Array:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its sparse rows a preview
        a, b, c = (S.to_sparse_csr() for S in (S1, S2, S3))
    return lambda: (c @ (b @ (a @ x.T))).T


if __name__ == "__main__":
    main()
