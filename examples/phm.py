"""PHM: a layer over hypercomplex numbers, the sum of n Kronecker products; here quaternions, n = 4.

Zhang et al., "Beyond Fully-Connected Layers with Quaternions: Parameterization of Hypercomplex Multiplications with
1/n Parameters" (2021). The rule of multiplication A is fixed for the quaternions (Hamilton's product).
"""

import numpy as np
from _system import Array, Report, normal, study

EXPECTED = ("kronecker_sum_of",)
PROGRAM = "y[t,u,p] = A[n,u,v] * F[n,p,q] * x[t,v,q]"


def main(scale: str = "full") -> Report:
    """Apply a quaternion layer of order 4*q to a batch."""
    q, batch = (256, 256) if scale == "full" else (5, 3)
    return study(
        12,
        "PHM (quaternions)",
        scale,
        PROGRAM,
        {"A": hamilton(), "F": normal(4, q, q), "x": normal(batch, 4, q)},
        EXPECTED,
        matrix=lambda A, F: np.einsum("nuv,npq->upvq", A, F).reshape(4 * q, 4 * q),
        spec="nuv,npq,tvq->tup",
        summands=4,
        constants=("A",),
        notes=["n terms of n-fold smaller factors: a quarter of the parameters, not of the flops"],
    )


def hamilton() -> Array:
    """A[n] is the matrix of left multiplication by the n-th of 1, i, j, k."""
    A = np.zeros((4, 4, 4), np.float32)
    A[0] = np.eye(4)
    A[1][[0, 1, 2, 3], [1, 0, 3, 2]] = [-1, 1, -1, 1]
    A[2][[0, 1, 2, 3], [2, 3, 0, 1]] = [-1, 1, 1, -1]
    A[3] = A[1] @ A[2]
    return A


if __name__ == "__main__":
    main()
