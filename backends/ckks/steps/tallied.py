"""What operations that are written already take: the work of an option that is best counted on its own circuit."""

from __future__ import annotations

from collections.abc import Sequence

from ..core import circuit as c
from .context import Context
from .option import Work

_COUNTED = {
    c.ROTATE: "rotations",
    c.MULTIPLY_PLAIN: "plain_products",
    c.MULTIPLY: "cipher_products",
    c.RELINEARISE: "relinearisations",
    c.RESCALE: "rescales",
    c.ADD: "additions",
    c.SUBTRACT: "additions",
    c.ADD_PLAIN: "additions",
}


def tally(nodes: Sequence[c.Node]) -> dict[str, int]:
    """How many operations of each kind there are, by the names of `Work`."""
    counts: dict[str, int] = {}
    for node in nodes:
        name = _COUNTED.get(node.kind)
        if name is not None:
            counts[name] = counts.get(name, 0) + 1
    return counts


def work_of(nodes: Sequence[c.Node], context: Context) -> Work:
    """Counts and price of operations of a circuit on the levels of a context."""
    time, prices = 0.0, context.prices
    for node in nodes:
        primes = context.primes(node.level)
        if node.kind == c.ROTATE:
            time += prices.rotate(primes)
        elif node.kind == c.RELINEARISE:
            time += prices.relinearise(primes)
        elif node.kind == c.MULTIPLY_PLAIN:
            time += prices.multiply_plain(primes)
        elif node.kind == c.MULTIPLY:
            time += prices.multiply(primes)
        elif node.kind == c.RESCALE:
            time += prices.rescale(primes + 1)
        elif node.kind != c.INPUT:
            time += prices.add(primes)
    return Work(milliseconds=time, **tally(nodes))
