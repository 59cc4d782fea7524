"""Circuits whose errors are measured over many keys, and the study of a thousand of them.

python -m stein.tests.ckks.noise_cases 1000      # takes an hour of one core; prints a line for each case
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np

from stein.backends.ckks.chain.parameters import Parameters, chain
from stein.backends.ckks.core import circuit as c
from stein.tests.ckks.encrypted_runs import MEDIUM, Fixed, Real, one_output, worst

Build = Callable[[c.Builder, int, int], int]
rng = np.random.default_rng(7)


def vector(slots: int) -> Fixed:
    return Fixed(rng.uniform(-1, 1, slots))


def scaled(b: c.Builder, x: int) -> int:
    return b.rescale(b.multiply_plain(x, vector(b.slots)))


def product(b: c.Builder, x: int, y: int) -> int:
    return b.rescale(b.relinearise(b.multiply(x, y)))


def fresh(b: c.Builder, x: int, y: int) -> int:
    return b.add(x, y)


def plain_product(b: c.Builder, x: int, y: int) -> int:
    return scaled(b, x)


def cipher_product(b: c.Builder, x: int, y: int) -> int:
    return product(b, x, y)


def rotations_in_a_row(b: c.Builder, x: int, y: int) -> int:
    for _ in range(24):
        x = b.rotate(x, 1)
    return x


def linear_map(b: c.Builder, x: int, y: int) -> int:
    return b.rescale(b.total([b.multiply_plain(b.rotate(x, k), vector(b.slots)) for k in range(12)]))


def many_babies(b: c.Builder, x: int, y: int) -> int:
    """Key switches that all err most at the same slot, where nothing makes them smaller."""
    signs = [Fixed(rng.choice([-1.0, 1.0], b.slots)) for _ in range(16)]
    return b.rescale(b.total([b.multiply_plain(b.rotate(x, k), v) for k, v in enumerate(signs)]))


def fold(b: c.Builder, x: int, y: int) -> int:
    z = product(b, x, y)
    for k in range(b.slots.bit_length() - 1):
        z = b.add(z, b.rotate(z, 1 << k))
    return z


def plain_chain(b: c.Builder, x: int, y: int) -> int:
    return scaled(b, b.rotate(scaled(b, b.rotate(scaled(b, x), 1)), 2))


def cipher_chain(b: c.Builder, x: int, y: int) -> int:
    for _ in range(3):
        x = product(b, x, y)
    return x


def squares(b: c.Builder, x: int, y: int) -> int:
    for _ in range(3):
        x = product(b, x, x)
    return x


def late_relinearisation(b: c.Builder, x: int, y: int) -> int:
    return b.relinearise(b.rescale(b.multiply(x, y)))


def unlike_scales(b: c.Builder, x: int, y: int) -> int:
    square = product(b, x, x)
    return b.add(b.add(product(b, square, square), square), x)


BUILDS: tuple[Build, ...] = (
    fresh,
    plain_product,
    cipher_product,
    rotations_in_a_row,
    linear_map,
    many_babies,
    fold,
    plain_chain,
    cipher_chain,
    squares,
    late_relinearisation,
    unlike_scales,
)
WIDE, NARROW = chain(8192, 1, 5000.0), chain(4096, 1, 7.0)
assert WIDE is not None and NARROW is not None
CHAINS: dict[str, Parameters] = {"three levels": MEDIUM, "one level": WIDE, "ring 4096": NARROW}
CASES = [
    (name, build)
    for name, parameters in CHAINS.items()
    for build in BUILDS
    if parameters is not NARROW or build is not fold  # whose sums leave the range of so small a chain
]


def case(name: str, build: Build) -> c.Circuit | None:
    """The circuit of a case, if the chain has its levels."""
    rng.bit_generator.state = np.random.default_rng(7).bit_generator.state  # whichever case runs first
    parameters = CHAINS[name]
    b = c.Builder(parameters.slots)
    circuit = one_output(b, build(b, b.input("x", 0), b.input("y", 0)))
    return circuit if circuit.levels <= parameters.levels else None


def bits(name: str, circuit: c.Circuit, seeds: int, runs_of_a_key: int) -> tuple[np.ndarray, float]:
    """By how many bits the prediction exceeds the largest error of each run, and the prediction. Every run has inputs
    and encryptions of its own, and keys of its own after so many runs.
    """
    found = []
    for seed in range(seeds):
        if seed % runs_of_a_key == 0:
            real = Real(circuit, CHAINS[name])
        draw = np.random.default_rng(seed)
        inputs = {n: draw.uniform(-1, 1, circuit.slots) for n in ("x", "y")}
        found.append(worst(real, inputs)["z"])
    predicted = real.prediction({"x": 1.0, "y": 1.0}).errors["z"]
    return np.log2(predicted / np.array(found)), predicted


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    for name, build in CASES:
        circuit = case(name, build)
        if circuit is not None:
            found, predicted = bits(name, circuit, seeds, 20)
            print(
                f"{name:13} {build.__name__:21} predicted {predicted:.2e}, above the measured one by bits: least "
                f"{found.min():.2f}, median {np.median(found):.2f}, most {found.max():.2f} ({seeds} seeds)",
                flush=True,
            )


if __name__ == "__main__":
    main()
