"""Low rank factors in place of a layer (LoRD, FWSVD, WeLore, Maestro), and beside a frozen layer (LoRA).

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021), and the factorisations that followed. A matrix
m by n of rank r costs 2*r*(m + n) flops instead of 2*m*n.
"""

from _system import Report, normal, study

EXPECTED = ("low_rank",)
LAYER = "y[t,i] = U[i,r] * V[r,j] * x[t,j]"
BESIDE = "y[t,i] = (W[i,j] + U[i,r] * V[r,j]) * x[t,j]"


def main(scale: str = "full") -> Report:
    """Apply a layer of rank r, alone and beside a dense layer, to a batch; report the first."""
    n, r, batch = (4096, 64, 256) if scale == "full" else (9, 2, 3)
    U, V, x = normal(n, r), normal(r, n), normal(batch, n)
    W = normal(n, n)[: n // 2]
    study(
        21,
        "LoRA",
        scale,
        BESIDE,
        {"W": W, "U": U[: n // 2], "V": V, "x": x},
        EXPECTED,
        matrix=lambda W, U, V: W + U @ V,
        summands=r + 1,
        torch=lambda W, U, V, x: lambda: x @ W.T + (x @ V.T) @ U.T,
        notes=["W is dense: the update adds little to W x, and nothing beats the dense product with a merged matrix"],
    )
    return study(
        21,
        "Low rank (LoRA family)",
        scale,
        LAYER,
        {"U": U, "V": V, "x": x},
        EXPECTED,
        matrix=lambda U, V: U @ V,
        spec="ir,rj,tj->ti",
        summands=r,
    )


if __name__ == "__main__":
    main()
