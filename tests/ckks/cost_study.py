"""Predicted against measured time of circuits, in rings and at levels as programs have them.

    python -m stein.tests.ckks.cost_study            # some minutes; prints a line for each circuit

The machine is calibrated anew before and after each run, and the median of several ratios is told, so that changes of
its load do not count.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from stein.backends.ckks.calibration import measure
from stein.backends.ckks.chain.parameters import Parameters, chain
from stein.backends.ckks.core import circuit as c
from stein.backends.ckks.execution.execute import run
from stein.backends.ckks.planning.cost import Prices, work
from stein.tests.ckks.encrypted_runs import Fixed, Real, one_output

RUNS = 7
rng = np.random.default_rng(0)


def linear(b: c.Builder, x: int, babies: int, giants: int) -> int:
    """A matrix by babies and giants: products of rotated inputs, rescaled sums rotated."""
    rotated = [b.rotate(x, k) for k in range(babies)]
    sums = []
    for g in range(giants):
        terms = [b.multiply_plain(v, Fixed(rng.uniform(-1, 1, b.slots))) for v in rotated]
        sums.append(b.rotate(b.rescale(b.total(terms)), g * babies))
    return b.total(sums)


def product(b: c.Builder, x: int, y: int, terms: int) -> int:
    """A sum of products, relinearised once."""
    return b.rescale(b.relinearise(b.total([b.multiply(b.rotate(x, k), b.rotate(y, k)) for k in range(terms)])))


def fold(b: c.Builder, x: int) -> int:
    """The sum of all slots."""
    for k in range(b.slots.bit_length() - 1):
        x = b.add(x, b.rotate(x, 1 << k))
    return x


def cases() -> Iterator[tuple[str, Parameters, c.Circuit]]:
    """Circuits with their chains."""
    for ring, levels in ((8192, 1), (8192, 2), (8192, 3), (16384, 2), (16384, 5)):
        parameters = chain(ring, levels, 100.0)
        assert parameters is not None
        for name in ("linear map 8 by 8", "linear map 4 by 16", "products", "fold", "chain of products"):
            b = c.Builder(parameters.slots)
            x, y = b.input("x", 0), b.input("y", 0)
            if name.startswith("linear"):
                z = linear(b, x, *((8, 8) if name.endswith("8 by 8") else (4, 16)))
            elif name == "products":
                z = product(b, x, y, 6)
            elif name == "fold":
                z = fold(b, x)
            else:
                z = x
                for level in range(levels):
                    z, y = product(b, z, y, 1), b.switch(y, level + 1)
            yield f"ring {ring}, {levels} levels, {name}", parameters, one_output(b, z)


def predicted(parameters: Parameters, circuit: c.Circuit) -> float:
    """Milliseconds, at the rates of this moment."""
    return work(circuit, Prices(parameters.ring, measure()), parameters.levels).milliseconds


def main() -> None:
    ratios = []
    for name, parameters, circuit in cases():
        real = Real(circuit, parameters)
        uploads = real.uploads({n: rng.uniform(-1, 1, circuit.slots) for n in ("x", "y")})
        run(circuit, real.scales, real.scheme, real.keys, uploads, real.encodings)
        found, times = [], []
        before = predicted(parameters, circuit)
        for _ in range(RUNS):
            began = time.thread_time()
            run(circuit, real.scales, real.scheme, real.keys, uploads, real.encodings)
            times.append((time.thread_time() - began) * 1e3)
            after = predicted(parameters, circuit)
            found.append((before + after) / 2 / times[-1])
            before = after
        ratios.append(float(np.median(found)))
        print(f"{name:42} measured {np.median(times):8.1f} ms; predicted / measured {ratios[-1]:.2f}", flush=True)
    within = np.mean(np.abs(np.array(ratios) - 1) <= 0.2)
    print(f"within 20 %: {within:.0%}; worst {min(ratios):.2f} and {max(ratios):.2f}")


if __name__ == "__main__":
    main()
