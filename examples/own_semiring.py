"""A semiring of your own: minimax paths, whose length is the longest leg.

(min, max) is a commutative semiring: which route over a mountain range has the lowest highest pass?
"""

import numpy as np

import stein

MINIMAX = stein.Semiring("minimax", add="minimum", mul="maximum", zero="inf", one="-inf", idempotent=True)


def main(n: int = 40) -> None:
    """Find the lowest highest pass between all pairs of valleys."""
    rng = np.random.default_rng(0)
    height = np.where(rng.random((n, n)) < 0.2, rng.integers(800, 3000, (n, n)), np.inf)
    height = np.minimum(height, height.T)
    np.fill_diagonal(height, -np.inf)

    square = stein.compile(
        "b[i,j] = a[i,k] * a[k,j] over minimax", a=(n, n), dtype="float64", semirings={"minimax": MINIMAX}
    )
    best = height
    for _ in range(max(1, int(np.ceil(np.log2(n))))):
        best = square(best)

    check = height.copy()
    for k in range(n):
        check = np.minimum(check, np.maximum(check[:, k, None], check[None, k]))
    np.testing.assert_array_equal(best, check)
    print(f"from valley 0 to valley {n - 1}: {best[0, -1]:.0f} m (directly: {height[0, -1]:.0f})")


if __name__ == "__main__":
    main()
