"""The drop-in: what works with `numpy.einsum` and `opt_einsum.contract` works unchanged with `stein.einsum`."""

from typing import Any

import numpy as np

import stein


def main(n: int = 64) -> None:
    """Run a few classic expressions beside NumPy and print what they are."""
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((n, n)), rng.standard_normal((n, n))
    stack = rng.standard_normal((3, 1, n, n))

    calls: list[tuple[str, tuple[Any, ...]]] = [
        ("matrix product", ("ij,jk->ik", A, B)),
        ("implicit output, transposed", ("ba", A)),
        ("trace", ("ii", A)),
        ("diagonal", ("ii->i", A)),
        ("batches that broadcast", ("...ij,...jk->...ik", stack, B)),
        ("three operands, one hyperedge", ("ij,kj,lj->ikl", A[:8], B[:8], A[:4])),
        ("Frobenius inner product", ("ij,ij->", A, B)),
        ("lists instead of letters", (A, [0, 1], B, [1, 2], [0, 2])),
    ]
    for name, arguments in calls:
        ours, theirs = stein.einsum(*arguments), np.einsum(*arguments, optimize=True)
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)
        print(f"{name:32} {np.shape(ours)}")

    # Mixed types are promoted before the first product; NumPy with optimize=True and opt_einsum give 2.0 here.
    ones = np.ones((3, 4), bool), np.ones(3, bool), np.ones(2)
    print("bool, bool, float:", stein.einsum("ab,a,c->", *ones))

    # The result goes where you want it.
    out = np.empty((n, n))
    stein.einsum("ij,jk->ik", A, B, out=out)
    np.testing.assert_allclose(out, A @ B, rtol=1e-9, atol=1e-9)


if __name__ == "__main__":
    main()
