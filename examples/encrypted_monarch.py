"""An encrypted two-layer network with Monarch layers: four block-diagonal products and a polynomial between them.

Whether a layer runs as two block diagonals or as the one matrix that they are is decided by what its rotations and
levels cost; the table of candidates shows both.
"""

import numpy as np

import stein

PROGRAM = """
    s[k,j] = R1[k,j,i] * x[k,i]
    t[l,j] = L1[j,l,k] * s[k,j]
    h[l,j] = approx(silu, degree=4, range=-2..2)(t[l,j] + b[l,j])
    u[l,i] = R2[l,i,j] * h[l,j]
    y[k,i] = L2[i,k,l] * u[l,i]
"""


def main(m: int = 16) -> None:
    """Evaluate the network on an encrypted vector of m*m features, and compare with the same network in clear."""
    rng = np.random.default_rng(0)
    weights = {name: rng.standard_normal((m, m, m)) / np.sqrt(2 * m) for name in ("R1", "L1", "R2", "L2")}
    weights["b"] = rng.standard_normal((m, m)) / 4
    x = rng.uniform(-1, 1, (m, m))

    constants = {name: stein.constant(value) for name, value in weights.items()}
    program = stein.compile(PROGRAM, x=stein.encrypted((m, m)), dtype="float64", target="ckks", **constants)
    client, server = program.keygen()
    y = client.decrypt(server.run(client.encrypt(x=x)))

    t = np.einsum("jlk,kji,ki->lj", weights["L1"], weights["R1"], x) + weights["b"]
    assert np.abs(t).max() <= 2, "outside of the polynomial's range"
    h = t / (1 + np.exp(-t))
    clear = np.einsum("ikl,lij,lj->ki", weights["L2"], weights["R2"], h)
    print(program.explain())
    print(server.executed)

    # The polynomial is off by so much at most, and the second layer multiplies that by its rows' sums at most.
    rows = np.einsum("ikl,lij->ki", np.abs(weights["L2"]), np.abs(weights["R2"])).max()
    error, bound = np.abs(y - clear).max(), program.stats["approximation_error"] * rows
    print(f"{error:.4f} from the network with the true activation; the polynomial explains up to {bound:.4f}")
    assert error <= bound + 1e-5 * np.abs(clear).max()


if __name__ == "__main__":
    main()
