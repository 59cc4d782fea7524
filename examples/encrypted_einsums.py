"""Einsums of encrypted operands, from EinHops's list: rotations here and there.

Roy et al., "EinHops: Einsum Notation for Expressive Homomorphic Operations on RNS-CKKS Tensors" (2025), put all indices
of an einsum into one ciphertext and rotate. Here the client packs each operand for its einsum, so that hardly any
rotation is left.
"""

import numpy as np

import stein

# classic spelling, program, shapes, rotations in EinHops
CASES = (
    ("ij->ji", "y[j,i] = A[i,j]", {"A": (128, 128)}, 254),
    ("ik,k->i", "y[i] = A[i,k] * b[k]", {"A": (128, 128), "b": (128,)}, 522),
    ("ij,ij->", "y = sum[i,j] A[i,j] * B[i,j]", {"A": (128, 128), "B": (128, 128)}, 14),
    ("ik,kj->ij", "y[i,j] = A[i,k] * B[k,j]", {"A": (16, 32), "B": (32, 32)}, 110),
    ("bthd,bThd->bhtT", "y[b,h,t,T] = Q[b,t,h,d] * K[b,T,h,d]", {"Q": (2, 5, 8, 16), "K": (2, 5, 8, 16)}, 518),
)


def main(cases: int = len(CASES)) -> None:
    """Run the first cases for real."""
    rng = np.random.default_rng(0)
    for classic, text, shapes, theirs in CASES[:cases]:
        arrays = {name: rng.uniform(-1, 1, shape) for name, shape in shapes.items()}
        encrypted = {name: stein.encrypted(shape) for name, shape in shapes.items()}
        program = stein.compile(text, dtype="float64", target="ckks", **encrypted)
        client, server = program.keygen()
        y = client.decrypt(server.run(client.encrypt(**arrays)))
        exact = np.einsum(classic, *arrays.values())
        error = np.abs(y - exact).max() / np.abs(exact).max()
        assert error <= 1e-5
        ran = server.executed
        print(
            f"{classic:16} {ran['rotations']:3} rotations (EinHops {theirs}), "
            f"{ran['cipher_products']:2} products of ciphertexts, relative error {error:.0e}"
        )


if __name__ == "__main__":
    main()
