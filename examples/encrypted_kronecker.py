"""A product with a Kronecker matrix on encrypted data: the server sees neither the vector nor the result.

The einsum says nothing of encryption or structure. Read as one matrix of order m*m it would take 2*m rotations; the
Kronecker product is found in the expression, and its two small products take far fewer.
"""

import numpy as np

import stein


def main(m: int = 64) -> None:
    """Compile, make keys, encrypt, evaluate, decrypt, check."""
    rng = np.random.default_rng(0)
    A, B = (rng.standard_normal((m, m)) / np.sqrt(m) for _ in range(2))
    x = rng.uniform(-1, 1, (m, m))

    program = stein.compile(
        "y[a,b] = A[a,i] * B[b,j] * x[i,j]",
        A=stein.constant(A),
        B=stein.constant(B),
        x=stein.encrypted((m, m)),
        target="ckks",
    )
    print(program.explain())  # depth, rotations, keys and precision are known before any key exists

    client, server = program.keygen()  # the server's bundle can compute, and cannot decrypt
    request = client.encrypt(x=x)
    answer = server.run(request)
    y = client.decrypt(answer, answers=request)

    exact = A @ x @ B.T
    error, expected = np.abs(y - exact).max(), server.predict()["y"]
    assert error <= expected and error <= 1e-5 * np.abs(exact).max()
    print(f"{request.nbytes:,} bytes up, {answer.nbytes:,} bytes down; ran {server.executed}")
    print(f"largest error {error:.1e}, expected {expected:.1e}")


if __name__ == "__main__":
    main()
