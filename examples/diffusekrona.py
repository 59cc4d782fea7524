"""DiffuseKronA: fine-tuning by one Kronecker product beside a frozen layer.

Marjit et al., "DiffuseKronA: A Parameter Efficient Fine-tuning Method for Personalized Diffusion Models" (2024). The
update A (x) B of order p*q has p*p + q*q parameters and is never formed.
"""

import numpy as np
from _system import Report, normal, study

EXPECTED = ("kronecker",)
PROGRAM = "y[t,i,p] = W[i,p,j,q] * x[t,j,q] + A[i,j] * B[p,q] * x[t,j,q]"


def main(scale: str = "full") -> Report:
    """Apply a layer of order p*q and its update to a batch."""
    p, q, batch = (32, 32, 256) if scale == "full" else (3, 4, 3)
    operands = {"W": normal(p, q, p, q), "x": normal(batch, p, q), "A": normal(p, p), "B": normal(q, q, seed=1)}
    return study(
        10,
        "DiffuseKronA",
        scale,
        PROGRAM,
        operands,
        EXPECTED,
        matrix=lambda W, A, B: W.reshape(p * q, p * q) + np.kron(A, B),
        summands=1,
        torch=lambda W, x, A, B: lambda: (x.flatten(1) @ W.reshape(p * q, -1).T).view(x.shape) + A @ (x @ B.T),
        notes=["W is dense: the update adds little to W x, and nothing beats the dense product with a merged matrix"],
    )


if __name__ == "__main__":
    main()
