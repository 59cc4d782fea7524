"""A tour of the error messages: place, sentence, carets under everything involved, and a concrete hint."""

from collections.abc import Callable

import numpy as np

import stein

A, B, x = np.ones((2, 3)), np.ones((4, 5)), np.ones(3)

MISTAKES: list[tuple[str, Callable[[], object]]] = [
    ("sizes that do not fit", lambda: stein.einsum("ij,jk->ik", A, B)),
    ("an output label from nowhere", lambda: stein.einsum("ij,jk->il", A, A.T)),
    ("too few operands", lambda: stein.einsum("ij,jk->ik", A)),
    ("a wrong number of axes", lambda: stein.einsum("ijk->i", A)),
    ("an open bracket", lambda: stein.compile("y[i] = A[i,k * x[k]")),
    ("a lonely index", lambda: stein.compile("y[i] = A[i,k]*x[k] + b[k]")),
    ("a sum inside a function", lambda: stein.compile("y[i] = relu(A[i,k]*x[k])")),
    ("a range that is left", lambda: stein.compile("t, x: f32[n]; y[i] = t[i-j]*x[j]")),
    ("not affine", lambda: stein.compile("y[i] = x[i*j]")),
    ("assigned twice", lambda: stein.compile("y[i] = A[i,j]*x[j]\ny[i] = x[i]")),
    ("a misspelt option", lambda: stein.compile("W: bsr(blok=32); y[i] = W[i,j]*x[j]")),
]


def main() -> None:
    """Make each mistake and print what the user reads."""
    for name, mistake in MISTAKES:
        try:
            mistake()
        except stein.SteinError as error:
            print(f"--- {name}: {type(error).__name__} at line {error.line}, column {error.col}\n{error}\n")
        else:
            raise AssertionError(f"{name}: nothing was raised")


if __name__ == "__main__":
    main()
