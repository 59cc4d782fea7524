"""How long canonical labels take: chains and stars of ten operands, and networks of high symmetry.

    python benchmarks/labels.py [--repeats 7]

Each time is the least of several calls; nothing is remembered between them. The targets are 1 ms up to ten operands and
20 ms for networks of high symmetry, where many orders of the operands are equal.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from stein.ir.expr import Program
from stein.ir.text import parse_ir
from stein.passes.canonical import canonical_label

ORDINARY, SYMMETRIC = 1e-3, 20e-3


def network(operands: Iterable[Sequence[str]], out: Sequence[str] = (), same: bool = False) -> Program:
    """One product of operands with these indices of extent 5; `same` makes all of them one operand."""
    reads = [tuple(o) for o in operands]
    names = ["A"] * len(reads) if same else [f"A{k}" for k in range(len(reads))]
    inputs = dict.fromkeys(f"input {n}: f64[{', '.join('5' for _ in r)}]" for n, r in zip(names, reads, strict=True))
    indices = list(dict.fromkeys(i for r in reads for i in r))
    bound = ", ".join(i for i in indices if i not in out)
    factors = ", ".join(f"{n}[{', '.join(r)}]" for n, r in zip(names, reads, strict=True))
    shape = f": f64[{', '.join('5' for _ in out)}]" if out else ": f64[]"
    left = f"y[{', '.join(out)}]" if out else "y[]"
    over = ", ".join(f"{i}<5" for i in indices)
    return parse_ir("\n".join([*inputs, f"{left}{shape} = einsum[plustimes, f64]({bound}; {factors}) over {over}",
                               "return y"]))  # fmt: skip


def graph(edges: Iterable[tuple[int, int]]) -> list[list[str]]:
    """One operand for each node of a graph, one index for each edge."""
    found: dict[int, list[str]] = {}
    for k, ends in enumerate(edges):
        for v in ends:
            found.setdefault(v, []).append(f"e{k}")
    return list(found.values())


def petersen() -> list[tuple[int, int]]:
    """Petersen's graph: ten nodes, fifteen edges, 120 automorphisms."""
    ring = [(k, (k + 1) % 5) for k in range(5)]
    return ring + [(k, k + 5) for k in range(5)] + [(5 + k, 5 + (k + 2) % 5) for k in range(5)]


def hypercube(dimension: int) -> list[tuple[int, int]]:
    """The graph of 0/1 words that differ in one place."""
    return [(v, v | 1 << k) for v in range(1 << dimension) for k in range(dimension) if not v >> k & 1]


def cases() -> dict[str, tuple[Program, float]]:
    """Programs by name, with the time that each may take."""
    chain = [(f"i{k}", f"i{k + 1}") for k in range(10)]
    star = [("r", f"i{k}") for k in range(10)]
    train = [(f"r{k}", f"i{k}", f"r{k + 1}") for k in range(10)]
    ring = [(f"i{k}", f"i{(k + 1) % 10}") for k in range(10)]
    vectors = [(f"i{k}",) for k in range(10)]
    complete = graph(itertools.combinations(range(6), 2))
    prism = graph([(k, (k + 1) % 5) for k in range(5)] + [(5 + k, 5 + (k + 1) % 5) for k in range(5)]
                  + [(k, k + 5) for k in range(5)])  # fmt: skip
    return {
        "chain of 10": (network(chain, ("i0", "i10")), ORDINARY),
        "tensor train of 10": (network(train, tuple(f"i{k}" for k in range(10))), ORDINARY),
        "CP of 10 digits": (network(star, tuple(f"i{k}" for k in range(10))), ORDINARY),
        "10 vectors": (network(vectors), SYMMETRIC),
        "10 equal vectors": (network(vectors, same=True), SYMMETRIC),
        "star of 10, summed": (network(star), SYMMETRIC),
        "ring of 10": (network(ring), SYMMETRIC),
        "ring of 10, one operand": (network(ring, same=True), SYMMETRIC),
        "complete graph of 6": (network(complete), SYMMETRIC),
        "prism of 10": (network(prism), SYMMETRIC),
        "Petersen's graph": (network(graph(petersen())), SYMMETRIC),
        "cube": (network(graph(hypercube(3))), SYMMETRIC),
        "hypercube of 16": (network(graph(hypercube(4))), SYMMETRIC),
    }


def seconds(program: Program, repeats: int) -> float:
    """The least processor time of some calls; nothing is remembered between them."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        canonical_label(program)
        best = min(best, time.process_time() - start)
    return best


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="times of canonical labels")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    table = Table("network", "time", "target", "")
    late = 0
    for name, (program, limit) in cases().items():
        took = seconds(program, options.repeats)
        late += took > limit
        table.add_row(name, f"{took * 1e3:.2f} ms", f"{limit * 1e3:.0f} ms", "late" if took > limit else "")
    Console().print(table)
    return 1 if late else 0


if __name__ == "__main__":
    raise SystemExit(main())
