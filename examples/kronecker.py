"""A Kronecker product times a vector, in the four ways to write it: all compile to two small products."""

import numpy as np

import stein


def main(n: int = 32) -> None:
    """Apply kron(A, B), of order n*n, without ever storing it."""
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((n, n)), rng.standard_normal((n, n))
    x = rng.standard_normal(n * n)
    expected = (A @ x.reshape(n, n) @ B.T).reshape(-1)

    einsum = stein.einsum("ac,bd,cd->ab", A, B, x.reshape(n, n)).reshape(-1)
    shaped = stein.compile("y[i,j] = A[i,k] * B[j,l] * x[k,l]")(A=A, B=B, x=x.reshape(n, n)).reshape(-1)
    flat_f = stein.compile("A, B: f64[n, n]; y[(a b)] = A[a,c] * B[b,d] * x[(c d)]", x=(n * n,), dtype="float64")
    matrix_f = stein.compile("A, B: f64[n, n]; K = kron(A, B); y = K @ x", x=(n * n,), dtype="float64")
    for name, y in (
        ("einsum", einsum),
        ("named", shaped),
        ("flat axes", flat_f(A=A, B=B, x=x)),
        ("whole matrices", matrix_f(A=A, B=B, x=x)),
    ):
        np.testing.assert_allclose(y, expected, rtol=1e-8, atol=1e-8)
        print(f"{name:15} agrees")
    print(f"a stored matrix would hold {n**4} numbers")


if __name__ == "__main__":
    main()
