"""A private Gram matrix: the inner products of encrypted vectors, which kernels, distances and least squares need.

Both operands of the product are the same encrypted matrix, so the client packs it as each side needs it, and the server
multiplies ciphertexts.
"""

import numpy as np

import stein


def main(vectors: int = 16, features: int = 32) -> None:
    """Compute X X^T and the squared distances between all pairs of encrypted vectors."""
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (vectors, features)) / np.sqrt(features)
    program = stein.compile("G[i,j] = X[i,k] * X[j,k]", X=stein.encrypted(X.shape), dtype="float64", target="ckks")
    client, server = program.keygen()
    G = client.decrypt(server.run(client.encrypt(X=X)))

    error = np.abs(G - X @ X.T).max()
    assert error <= 1e-5 * np.abs(G).max()
    norms = np.diag(G)
    distances = norms[:, None] + norms - 2 * G  # what the client makes of it
    exact = ((X[:, None] - X) ** 2).sum(axis=-1)
    print(f"{server.executed}")
    print(f"Gram matrix off by {error:.1e}, squared distances by {np.abs(distances - exact).max():.1e}")


if __name__ == "__main__":
    main()
