"""The slot simulator: runs a circuit on exact slots in NumPy, with the rules that CKKS imposes.

It is the meaning of a circuit, the oracle of real runs, and where the laws of structures are checked. It refuses what
SEAL refuses (or should): a rotation that was not planned, products of unsettled values, sums of different scales, more
levels than there are, plain vectors that are all zero.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import circuit as c
from .layout import COEFFICIENTS

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Run:
    """The outputs of a run, what was executed, and the largest magnitude that any slot took."""

    outputs: dict[str, Array]
    executed: dict[str, int]
    largest: float


def simulate(
    circuit: c.Circuit,
    encrypted: Mapping[str, Array],
    clear: Mapping[str, Array],
    shapes: Mapping[str, tuple[int, ...]],
) -> Run:
    """The outputs (of these shapes) for the values of the encrypted inputs and of the clear tensors.

    >>> from .layout import Packing
    >>> b = c.Builder(4)
    >>> x = b.input("x", 0)
    >>> circuit = b.circuit({"x": Packing.vector(4)}, {"y": (Packing.vector(4), (b.add(x, b.rotate(x, 1)),))})
    >>> simulate(circuit, {"x": np.arange(4.0)}, {}, {"y": (4,)}).outputs["y"]
    array([1., 3., 5., 3.])
    """
    machine = Slots(circuit, encrypted, clear)
    values = machine.run()
    outputs = {}
    for name, (packing, numbers) in circuit.downloads.items():
        rows = np.array([values[v] for v in numbers])
        outputs[name] = packing.read(rows, shapes[name])
    return Run(outputs, dict(machine.executed), machine.largest)


class Slots:
    """Exact slots (coefficients for spectral packings, whose product is a negacyclic convolution)."""

    def __init__(self, circuit: c.Circuit, encrypted: Mapping[str, Array], clear: Mapping[str, Array]) -> None:
        self.circuit, self.clear = circuit, clear
        self.packed = {n: p.pack(encrypted[n]) for n, p in circuit.uploads.items()}
        self.spectral = any(p.kind == COEFFICIENTS for p in circuit.uploads.values())
        self.executed: Counter[str] = Counter()
        self.largest = 0.0

    def run(self) -> dict[int, Array]:
        """The values of all nodes that are still held at the end."""
        values: dict[int, Array] = {}
        for number, (node, freed) in enumerate(zip(self.circuit.nodes, self.circuit.last_uses(), strict=True)):
            self.check(node)
            value = self.value(node, [values[a] for a in node.args])
            self.largest = max(self.largest, float(np.abs(value).max(initial=0.0)))
            values[number] = value
            self.executed[node.kind] += 1
            for v in freed:
                del values[v]
        return values

    def check(self, node: c.Node) -> None:
        """The rules that hold whatever the values are."""
        args = [self.circuit.nodes[a] for a in node.args]
        assert node.level <= self.circuit.levels, "more levels than the chain has"
        if node.kind == c.ROTATE:
            assert args[0].size == 2 and 0 < node.step < self.circuit.slots and not self.spectral
        if node.kind in (c.MULTIPLY, c.ADD, c.SUBTRACT):
            assert args[0].level == args[1].level and args[0].pending == args[1].pending
        if node.kind == c.MULTIPLY:
            assert args[0].size == args[1].size == 2 and args[0].pending == 0
        if node.kind == c.MULTIPLY_PLAIN:
            assert args[0].pending == 0

    def value(self, node: c.Node, args: list[Array]) -> Array:
        """What a node computes."""
        if node.kind == c.INPUT:
            assert node.upload is not None
            tensor, number = node.upload
            row: Array = self.packed[tensor][number]
            return row
        if node.kind == c.ROTATE:
            return np.roll(args[0], -node.step)
        if node.kind in (c.MULTIPLY_PLAIN, c.ADD_PLAIN):
            plain = self.circuit.plains[node.plain].vector(self.clear)
            if node.kind == c.ADD_PLAIN:
                return args[0] + plain
            return self.product(args[0], plain)
        if node.kind == c.MULTIPLY:
            return self.product(args[0], args[1])
        if node.kind == c.ADD:
            return args[0] + args[1]
        if node.kind == c.SUBTRACT:
            return args[0] - args[1]
        if node.kind == c.NEGATE:
            return -args[0]
        return args[0]  # relinearise, rescale, switch: the value stays

    def product(self, a: Array, b: Array) -> Array:
        """Slot by slot; of coefficients, modulo X^n + 1."""
        if not self.spectral:
            return a * b
        full = np.convolve(a, b)
        result = full[: len(a)].copy()
        result[: len(full) - len(a)] -= full[len(a) :]
        return result
