"""Other meanings of + and *: shortest paths (min, +), the likeliest path (max, +), stable likelihoods, reachability."""

import itertools

import numpy as np

import stein


def shortest_paths(n: int) -> None:
    """All-pairs shortest paths by repeated squaring of the matrix of distances."""
    rng = np.random.default_rng(0)
    d = np.where(rng.random((n, n)) < 0.3, rng.random((n, n)), np.inf)
    np.fill_diagonal(d, 0)
    square = stein.compile("e[i,j] = d[i,k] * d[k,j] over minplus", d=(n, n), dtype="float64")
    paths = d
    for _ in range(max(1, int(np.ceil(np.log2(n))))):
        paths = square(paths)
    check = d.copy()
    for k in range(n):  # Floyd and Warshall
        check = np.minimum(check, check[:, k, None] + check[None, k])
    np.testing.assert_allclose(paths, check)
    print(f"shortest paths between {n} places; the mean is {paths[np.isfinite(paths)].mean():.3f}")


def hidden_markov_model(steps: int = 6, states: int = 3) -> None:
    """One recurrence in two semirings: the best path's score and the logarithm of all paths' sum."""
    rng = np.random.default_rng(1)
    start, move, emit = (
        np.log(rng.random(states)),
        np.log(rng.random((states, states))),
        np.log(rng.random((steps, states))),
    )
    totals = {}
    for semiring in ("maxplus", "logsumexp"):
        step = stein.compile(
            f"q[j] = p[i] * T[i,j] * e[j] over {semiring}", p=("s",), T=("s", "s"), e=("s",), dtype="float64"
        )
        p = start + emit[0]
        for t in range(1, steps):
            p = step(p=p, T=move, e=emit[t])
        totals[semiring] = p.max() if semiring == "maxplus" else np.logaddexp.reduce(p)

    scores = [
        start[path[0]]
        + emit[0, path[0]]
        + sum(move[a, b] + emit[t + 1, b] for t, (a, b) in enumerate(itertools.pairwise(path)))
        for path in itertools.product(range(states), repeat=steps)
    ]
    np.testing.assert_allclose(totals["maxplus"], max(scores))
    np.testing.assert_allclose(totals["logsumexp"], np.logaddexp.reduce(scores))
    print(f"Viterbi score {totals['maxplus']:.4f}, log-likelihood {totals['logsumexp']:.4f}, over {len(scores)} paths")


def reachability(n: int) -> None:
    """Who is a friend of a friend: bool operands compute with or and and."""
    knows = np.random.default_rng(2).random((n, n)) < 2 / n
    twice = stein.einsum("ij,jk->ik", knows, knows)
    assert twice.dtype == bool
    np.testing.assert_array_equal(twice, (knows.astype(int) @ knows.astype(int)) > 0)
    print(f"{knows.sum()} acquaintances give {twice.sum()} at second hand")


def main(n: int = 50) -> None:
    """Run the three."""
    shortest_paths(n)
    hidden_markov_model()
    reachability(n)


if __name__ == "__main__":
    main()
