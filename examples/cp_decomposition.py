"""MTTKRP, the kernel inside the CP decomposition, and the alternating least squares around it.

Kolda and Bader, "Tensor Decompositions and Applications" (2009), section 3.4.
"""

import numpy as np

import stein


def main(n: int = 20, rank: int = 3, sweeps: int = 80) -> None:
    """Decompose a tensor of known rank and print how well it is found again."""
    rng = np.random.default_rng(0)
    truth = [rng.random((n, rank)) for _ in range(3)]
    X = stein.einsum("ir,jr,kr->ijk", *truth)

    # The same kernel for each mode, with the axes of X read in another order: nothing is transposed or unfolded.
    mttkrp = [stein.compile(f"M[{m},r] = X[i,j,k] * P[{p},r] * Q[{q},r]") for m, p, q in ("ijk", "jik", "kij")]
    factors = [rng.random((n, rank)) for _ in range(3)]
    for _ in range(sweeps):
        for mode, kernel in enumerate(mttkrp):
            P, Q = (factors[other] for other in range(3) if other != mode)
            gram = (P.T @ P) * (Q.T @ Q)
            factors[mode] = np.linalg.solve(gram, kernel(X=X, P=P, Q=Q).T).T
    error = np.linalg.norm(X - stein.einsum("ir,jr,kr->ijk", *factors)) / np.linalg.norm(X)
    assert error < 0.05
    print(f"{n}^3 tensor of rank {rank}: relative error {error:.1e} after {sweeps} sweeps")


if __name__ == "__main__":
    main()
