"""How large values can become: a bound for every slot of every value of a circuit.

A value that exceeds half of the modulus at its level comes out as something else, without any sign of it; so it is
shown before a run that none can. Bounds are those of interval arithmetic from the declared ranges of the encrypted
inputs, exact for linear programs, and either from the values of the clear tensors (on the server) or from what is
assumed of them (when compiling).

Numbers stand for all slots alike, arrays for each slot by itself; all functions here take both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from ....ir.errors import EMPTY, EncryptionError, Source
from ..core import circuit as c
from ..core.layout import COEFFICIENTS
from ..lowering.problem import EncryptedProgram, Linear, Polynomial, Product, Step, Sum
from .parameters import Parameters
from .scales import Scales

Array = np.ndarray[Any, Any]
Slots: TypeAlias = "float | Array"
Vectors: TypeAlias = Callable[[int], "Slots"]  # the magnitude of a node's plain vector, by the node's number

RANGE = 8.0  # of the numbers of an encrypted input of which nothing is declared (checked when they are encrypted)
CLEAR_RANGE = 1.0  # of a clear tensor of which nothing is declared (what results from it is checked on the server)
SLACK = 2.0**-10  # relative: room for noise and for scales that are not quite nominal


def assumed(circuit: c.Circuit, ranges: Mapping[str, float]) -> Vectors:
    """The magnitude of the plain vector of each node as far as it is known without clear tensors: their declared
    range.
    """
    found: dict[int, float] = {}

    def magnitude(node: int) -> float:
        number = circuit.nodes[node].plain
        if number not in found:
            plain = circuit.plains[number]
            if plain.reads:
                found[number] = max(ranges.get(name, CLEAR_RANGE) for name in plain.reads)
            else:
                found[number] = float(np.abs(plain.vector({})).max())
        return found[number]

    return magnitude


def exact(circuit: c.Circuit, tensors: Mapping[str, Array]) -> Vectors:
    """The magnitude of the plain vector of each node, slot by slot, for these values of the clear tensors."""

    def magnitude(node: int) -> Array:
        found: Array = np.abs(circuit.plains[circuit.nodes[node].plain].vector(tensors))
        return found

    return magnitude


def spectral(circuit: c.Circuit) -> bool:
    """Whether the values of a circuit are coefficients and its products convolutions."""
    return any(p.kind == COEFFICIENTS for p in circuit.uploads.values())


def packed(circuit: c.Circuit, node: c.Node, ranges: Mapping[str, float], wide: bool) -> Slots:
    """The bound of an input; where `wide`, slots that hold nothing are zero."""
    assert node.upload is not None
    tensor, number = node.upload
    largest = ranges.get(tensor, RANGE)
    return np.where(circuit.uploads[tensor].at[number] >= 0, largest, 0.0) if wide else largest


def moved(value: Slots, step: int) -> Slots:
    """Slots rotated to the left."""
    return np.roll(value, -step) if isinstance(value, np.ndarray) else value


def lesser(value: Slots, limit: float) -> Slots:
    """No more than `limit`."""
    return np.minimum(value, limit) if isinstance(value, np.ndarray) else min(value, limit)


def largest(value: Slots) -> float:
    """The greatest of all slots."""
    return float(value.max()) if isinstance(value, np.ndarray) else float(value)


def spread(value: Slots, count: int) -> Array:
    """One number for each of `count` coefficients."""
    return np.broadcast_to(np.asarray(value, dtype=float), (count,))


def bound(node: c.Node, args: Sequence[Slots], plain: Slots, coefficients: int) -> Slots:
    """The bound of a result from those of its operands and the magnitude of its plain vector (0 without one).

    `coefficients` is their number where products are convolutions, else 0.
    """
    if node.kind == c.ROTATE:
        return moved(args[0], node.step)
    if node.kind == c.MULTIPLY_PLAIN:
        return largest(args[0]) * float(spread(plain, coefficients).sum()) if coefficients else args[0] * plain
    if node.kind == c.MULTIPLY:
        return largest(args[0]) * float(spread(args[1], coefficients).sum()) if coefficients else args[0] * args[1]
    if node.kind == c.ADD_PLAIN:
        return args[0] + plain
    if node.kind in (c.ADD, c.SUBTRACT):
        return args[0] + args[1]
    return args[0]


def magnitudes(circuit: c.Circuit, ranges: Mapping[str, float], vectors: Vectors, wide: bool = False) -> list[float]:
    """The largest magnitude of each value.

    >>> from ..core.layout import Packing
    >>> b = c.Builder(8)
    >>> x = b.input("x", 0)
    >>> packing = Packing.vector(8)
    >>> circuit = b.circuit({"x": packing}, {"y": (packing, (b.add(x, b.rotate(x, 1)),))})
    >>> magnitudes(circuit, {"x": 3.0}, assumed(circuit, {}))
    [3.0, 3.0, 6.0]
    """
    convolving = spectral(circuit)
    values: dict[int, Slots] = {}
    found: list[float] = []
    for number, (node, freed) in enumerate(zip(circuit.nodes, circuit.last_uses(), strict=True)):
        if node.kind == c.INPUT:
            value = packed(circuit, node, ranges, wide or convolving)
        else:
            plain = vectors(number) if node.plain >= 0 else 0.0
            value = bound(node, [values[a] for a in node.args], plain, 2 * circuit.slots if convolving else 0)
        if number in circuit.claims:
            value = lesser(value, circuit.claims[number])
        values[number] = value
        found.append(largest(value))
        for v in freed:
            del values[v]
    return found


def check_ranges(
    circuit: c.Circuit, scales: Scales, magnitudes: Sequence[float], source: Source = EMPTY, help: str = ""
) -> None:
    """Refuse a circuit in which a value can exceed the modulus at its level, at the place of its expression.

    Raises `EncryptionError`.
    """
    unit = [headroom(scales.parameters, level, 1.0) for level in range(scales.parameters.levels + 1)]
    rooms = [unit[n.level] / s for n, s in zip(circuit.nodes, scales.values, strict=True)]
    worst = max(range(len(rooms)), key=lambda k: magnitudes[k] / rooms[k], default=-1)
    if worst >= 0 and magnitudes[worst] > rooms[worst]:
        reached, room = f"{magnitudes[worst]:.3g}", f"{rooms[worst]:.3g}"
        raise EncryptionError(
            f"a value here can reach {reached}, and these parameters hold values up to {room}",
            code="overflow",
            source=source,
            spans=circuit.spans(worst),
            help=help
            or "declare a smaller range of the inputs, scale the constants down, or compile for a larger "
            "range of values",
        )


def headroom(parameters: Parameters, level: int, scale: float) -> float:
    """The largest magnitude that a value of this level and scale may have."""
    return parameters.modulus(level) / 2 / scale / (1 + SLACK)


def largest_value(program: EncryptedProgram) -> float:
    """A bound of the results of a program whose clear tensors stay within their ranges: what a plan's first prime must
    have room for, before there is any circuit.
    """
    bounds: dict[str, float] = {name: program.ranges.get(name, RANGE) for name in program.inputs}
    for step in program.steps:
        bounds[step.name] = _step(step, bounds, program.ranges)
    return max([1.0, *(bounds[name] for name in program.outputs)])


def _step(step: Step, bounds: Mapping[str, float], ranges: Mapping[str, float]) -> float:
    if isinstance(step, Linear):
        total = ranges.get(step.bias, CLEAR_RANGE) if step.bias is not None else 0.0
        for term in step.terms:
            bare = {slot.bare for slot in term.rows}
            summed = float(np.prod([n for name, n in term.indices if name not in bare]))
            weight = ranges.get(term.coefficients, CLEAR_RANGE) if term.coefficients is not None else 1.0
            total += abs(term.factor) * weight * summed * bounds[step.argument]
        return total
    if isinstance(step, Product):
        summed = float(np.prod([n for name, n in step.extents.items() if name not in step.output]))
        weight = ranges.get(step.clear, CLEAR_RANGE) if step.clear is not None else 1.0
        return abs(step.factor) * weight * summed * float(np.prod([bounds[name] for name in step.operands]))
    if isinstance(step, Sum):
        bias = ranges.get(step.bias, CLEAR_RANGE) if step.bias is not None else 0.0
        return bias + sum(abs(factor) * bounds[name] for name, factor in step.operands)
    assert isinstance(step, Polynomial)
    if step.chebyshev:
        return sum(map(abs, step.coefficients))
    return sum(abs(k) * bounds[step.argument] ** power for power, k in enumerate(step.coefficients))
