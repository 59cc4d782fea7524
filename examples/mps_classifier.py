"""A matrix product state as a classifier: the weights of 2^N products of features, as a chain of N small cores.

Stoudenmire and Schwab, "Supervised Learning with Quantum-Inspired Tensor Networks" (2016). 2^N becomes N*D^2: the
chain is contracted site by site with the two features of each pixel.
"""

import numpy as np
from _system import BOUND, Array, Report, examine, normal

EXPECTED: tuple[str, ...] = ()


def main(scale: str = "full") -> Report:
    """Score a batch of pictures of N pixels for L classes with bonds of size D."""
    sites, bond, classes, batch = (12, 16, 10, 256) if scale == "full" else (4, 3, 3, 5)
    label = sites // 2
    cores, features, reads, spec = {}, {}, [], []
    for k in range(sites):
        ends = [f"a{k}"] * (k > 0), [f"a{k + 1}"] * (k < sites - 1)
        slots = [*ends[0], f"s{k}", *ends[1], *(["l"] if k == label else [])]
        shape = [2 if s[0] == "s" else classes if s == "l" else bond for s in slots]
        # Shifted from 0, or the scores of a long chain would vanish.
        cores[f"A{k}"] = np.moveaxis(normal(*shape, seed=k), 0, 0) + np.float32(0.5)
        angle = np.pi / 2 * np.random.default_rng(k).random(batch)
        features[f"f{k}"] = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
        reads.append(f"A{k}[{','.join(slots)}]")
        spec.append("".join(letter(s) for s in slots))
    program = "y[t,l] = " + " * ".join([*reads, *(f"f{k}[t,s{k}]" for k in range(sites))])
    plain = ",".join([*spec, *("t" + letter(f"s{k}") for k in range(sites))]) + "->tl"
    weights = ",".join(spec) + "->l" + "".join(letter(f"s{k}") for k in range(sites))

    def tensor(values: dict[str, Array]) -> Array:
        return np.einsum(weights, *values.values(), optimize=True).reshape(classes, -1)

    wide = [{n: v.astype(np.float64) for n, v in part.items()} for part in (cores, features)]
    W, X = tensor(cores), outer(features)
    chain = 2**sites + sites * bond
    return examine(
        31,
        "MPS classifier",
        scale,
        program,
        cores | features,
        EXPECTED,
        exact=outer(wide[1]) @ tensor(wide[0]).T,
        bound=(chain + 2 * sites)
        * np.finfo(np.float32).eps
        * (outer(wide[1]) @ tensor({n: np.abs(v) for n, v in wide[0].items()}).T),
        dense=lambda: X @ W.T,
        flops_dense=2.0 * classes * 2**sites * batch,
        spec=plain,
        argument="A0",
        rule=f"{BOUND}, K = {chain}",
        notes=["dense: the 2^N weights and the products of features are formed ahead"],
    )


def letter(slot: str) -> str:
    """One letter for a slot: a for bonds, A for sites, l for the class."""
    return "l" if slot == "l" else chr((ord("A") if slot[0] == "s" else ord("a") - 1) + int(slot[1:]))


def outer(features: dict[str, Array]) -> Array:
    """All products of one feature for each pixel: (batch, 2^N)."""
    products = np.ones((len(next(iter(features.values()))), 1), next(iter(features.values())).dtype)
    for f in features.values():
        products = (products[:, :, None] * f[:, None, :]).reshape(len(f), -1)
    return products


if __name__ == "__main__":
    main()
