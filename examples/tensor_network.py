"""A tensor network: the order of the products decides between seconds and centuries, and is found for you."""

import numpy as np

import stein


def grid(rows: int, cols: int, bond: int) -> tuple[str, list[np.ndarray]]:
    """The einsum and the tensors of a rows-by-cols grid whose neighbours share an index of length `bond`."""
    rng = np.random.default_rng(0)
    labels: dict[tuple[str, int, int], str] = {}

    def label(kind: str, i: int, j: int) -> str:
        # Any alphabet will do: there is no limit of 52 labels.
        return labels.setdefault(
            (kind, i, j), chr(0x3B1 + len(labels)) if len(labels) < 17 else chr(0x4E00 + len(labels))
        )

    terms, tensors = [], []
    for i in range(rows):
        for j in range(cols):
            term = "".join(
                label(kind, a, b)
                for kind, a, b, exists in (
                    ("down", i - 1, j, i > 0),
                    ("down", i, j, i < rows - 1),
                    ("right", i, j - 1, j > 0),
                    ("right", i, j, j < cols - 1),
                )
                if exists
            )
            terms.append(term)
            tensors.append(rng.standard_normal((bond,) * len(term)) / bond)
    return ",".join(terms) + "->", tensors


def main(n: int = 4) -> None:
    """Contract an n-by-n grid of bond 3 and say what it would have cost without an order."""
    spec, tensors = grid(n, n, 3)
    value = stein.einsum(spec, *tensors)
    np.testing.assert_allclose(value, np.einsum(_ascii(spec), *tensors, optimize=True), rtol=1e-8)
    points = 3.0 ** len(set(spec) - set(",->"))
    print(spec)
    print(f"{len(tensors)} tensors; one loop nest would visit {points:.3g} points; the value is {value:.6g}")


def _ascii(spec: str) -> str:
    """The same with letters, for NumPy."""
    names = {c: chr(65 + k) if k < 26 else chr(71 + k) for k, c in enumerate(sorted(set(spec) - set(",->")))}
    return "".join(names.get(c, c) for c in spec)


if __name__ == "__main__":
    main()
