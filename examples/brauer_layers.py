"""A layer that commutes with the orthogonal group: sums of Brauer diagrams, which are deltas, transposes and traces.

Pearce-Crump, "Brauer's Group Equivariant Neural Networks" (2023). On matrices there are three diagrams from two upper
to two lower points. The dense layer has n^4 entries; the diagrams touch n^2.
"""

import numpy as np
from _system import Array, Report, normal, study

EXPECTED = ("sum", "scaled_identity", "scaled_permutation", "selection")
PROGRAM = "y[t,i,j] = a*x[t,i,j] + b*x[t,j,i] + c*(i == j)*x[t,k,k]"


def main(scale: str = "full") -> Report:
    """Apply the layer to a batch of matrices of order n."""
    n, batch = (64, 256) if scale == "full" else (5, 3)

    def matrix(a: Array, b: Array, c: Array) -> Array:
        eye = np.eye(n, dtype=a.dtype)
        layer = a * np.einsum("ik,jl->ijkl", eye, eye) + b * np.einsum("il,jk->ijkl", eye, eye)
        layer += c * np.einsum("ij,kl->ijkl", eye, eye)
        return layer.reshape(n * n, n * n)

    return study(
        14,
        "Brauer layer",
        scale,
        PROGRAM,
        {"a": normal(seed=1), "x": normal(batch, n, n), "b": normal(seed=2), "c": normal(seed=3)},
        EXPECTED,
        matrix=matrix,
        torch=lambda a, x, b, c: (
            # The trace is added to the diagonals of one result.
            lambda: (a * x + b * x.mT).diagonal_scatter(
                (a + b) * x.diagonal(dim1=1, dim2=2) + c * x.diagonal(dim1=1, dim2=2).sum(1, keepdim=True), 0, 1, 2
            )
        ),
    )


if __name__ == "__main__":
    main()
