"""Single steps on encrypted values, planned by hand: what tests of the kinds of steps have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stein.backends.ckks.core.circuit import Builder, Circuit
from stein.backends.ckks.core.simulator import Run, simulate
from stein.backends.ckks.lowering.problem import Product, Step, Sum
from stein.backends.ckks.planning.cost import Prices
from stein.backends.ckks.steps.context import Argument, Context, Free
from stein.backends.ckks.steps.option import Option

Array = np.ndarray[Any, Any]


def product_of(spec: str, shapes: Sequence[tuple[int, ...]], names: Sequence[str] = (), **fields: Any) -> Product:
    """The einsum of encrypted operands x0, x1, ... of these shapes."""
    inputs, output = spec.split("->")
    terms = inputs.split(",")
    extents: dict[str, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        extents.update(zip(term, shape, strict=True))
    operands = tuple(names) or tuple(f"x{k}" for k in range(len(terms)))
    return Product("y", operands, tuple(tuple(t) for t in terms), tuple(output), extents, **fields)


def operands_of(step: Step) -> tuple[str, ...]:
    """The names of the encrypted operands."""
    if isinstance(step, Product):
        return step.operands
    return tuple(n for n, _ in step.operands) if isinstance(step, Sum) else (step.argument,)


def context_for(
    step: Step, shapes: Mapping[str, tuple[int, ...]], ring: int, levels: int, final: bool = True
) -> Context:
    """A context in which the step's result goes to the client (or not)."""
    return Context(ring, levels, Prices(ring), dict(shapes), final=frozenset({step.name} if final else ()))


def shapes_of(step: Product) -> dict[str, tuple[int, ...]]:
    """The shapes of the operands and of the result."""
    found = {
        name: tuple(step.extents[i] for i in indices) for name, indices in zip(step.operands, step.inputs, strict=True)
    }
    return {**found, step.name: tuple(step.extents[i] for i in step.output)}


def free(step: Product) -> tuple[Argument, ...]:
    """All operands packed by the client."""
    shapes = shapes_of(step)
    return tuple(Free(name, shapes[name]) for name in step.operands)


def written(step: Step, option: Option, slots: int) -> Circuit:
    """The circuit of a step alone: each packing of an operand is an upload; placed ones come at their level."""
    builder, uploads, operands = Builder(slots), {}, []
    for upload, taken in zip(uploads_named(step, option), option.takes, strict=True):
        uploads[upload] = taken.packing
        nodes = (builder.input(upload, c) for c in range(taken.packing.ciphertexts))
        operands.append(tuple(builder.switch(n, taken.level) for n in nodes))
    results = option.emit(builder, tuple(operands))
    assert all(builder.nodes[n].level == option.gives.level and builder.nodes[n].size == 2 for n in results)
    assert not any(builder.nodes[n].pending for n in results)
    return builder.circuit(uploads, {step.name: (option.gives.packing, results)})


def uploads_named(step: Step, option: Option) -> list[str]:
    """A name for the packing of each operand: "x", and "x again" for a second packing of the same one."""
    known: dict[tuple[str, bytes], str] = {}
    names: list[str] = []
    for name, taken in zip(operands_of(step), option.takes, strict=True):
        key = (name, taken.packing.key)
        if key not in known:
            known[key] = name + " again" * sum(n == name for n, _ in known)
        names.append(known[key])
    return names


def run(
    step: Step, option: Option, slots: int, arrays: Mapping[str, Array], shape: tuple[int, ...],
    clear: Mapping[str, Array] | None = None,
) -> tuple[Circuit, Run]:  # fmt: skip
    """The step on exact slots; the predicted work and keys must be what is executed."""
    circuit = written(step, option, slots)
    given = {upload: arrays[upload.split()[0]] for upload in circuit.uploads}
    result = simulate(circuit, given, clear or {}, {step.name: shape})
    counts, work = circuit.counts(), option.work
    assert work.rotations == counts.get("rotate", 0)
    assert work.cipher_products == counts.get("multiply", 0)
    assert work.plain_products == counts.get("multiply plain", 0)
    assert work.relinearisations == counts.get("relinearise", 0)
    assert work.rescales == counts.get("rescale", 0)
    assert set(circuit.steps) == set(option.steps)
    return circuit, result


def uploads_of(option: Option) -> int:
    """Ciphertexts of all operands."""
    return sum(t.packing.ciphertexts for t in option.takes)
