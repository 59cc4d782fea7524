"""Runs circuits on real ciphertexts and on exact slots, and draws random circuits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from hypothesis import strategies as st

from stein.backends.ckks.chain.noise import Prediction, predict
from stein.backends.ckks.chain.parameters import Parameters
from stein.backends.ckks.chain.ranges import exact
from stein.backends.ckks.chain.scales import Scales, bind
from stein.backends.ckks.core import circuit as c
from stein.backends.ckks.core.layout import COEFFICIENTS, Packing
from stein.backends.ckks.core.simulator import simulate
from stein.backends.ckks.execution.encodings import Encodings
from stein.backends.ckks.execution.execute import Execution, run
from stein.backends.ckks.execution.seal import EvaluationKeys, Scheme, Secret

Array = np.ndarray[Any, Any]

SMALL = Parameters(4096, (37, 33, 39))
MEDIUM = Parameters(8192, (45, 38, 38, 38, 59))


@dataclass(frozen=True, eq=False)
class Fixed:
    """A plain vector that is known when the circuit is built."""

    values: Array
    reads: tuple[str, ...] = ()

    def vector(self, tensors: Mapping[str, Array]) -> Array:
        return self.values


@dataclass
class Real:
    """A circuit with its scheme and keys. Every instance has a secret of its own unless it is given one."""

    circuit: c.Circuit
    parameters: Parameters
    secret: Secret | None = None
    tensors: Mapping[str, Array] = field(default_factory=dict)

    @cached_property
    def scheme(self) -> Scheme:
        return self.secret.scheme if self.secret is not None else Scheme(self.parameters)

    @cached_property
    def owner(self) -> Secret:
        return self.secret if self.secret is not None else Secret(self.scheme)

    @cached_property
    def scales(self) -> Scales:
        return bind(self.circuit, self.parameters)

    @cached_property
    def keys(self) -> EvaluationKeys:
        relinearises = any(n.kind == c.RELINEARISE for n in self.circuit.nodes)
        return self.owner.evaluation_keys(self.circuit.steps, relinearises)

    @cached_property
    def encodings(self) -> Encodings:
        return Encodings(self.scheme, self.circuit, self.scales, self.tensors)

    def uploads(self, inputs: Mapping[str, Array]) -> dict[str, list[Any]]:
        """The ciphertexts of each input that the circuit reads."""
        scales = {n.upload[0]: s for n, s in zip(self.circuit.nodes, self.scales.values, strict=True) if n.upload}
        packed = {name: self.circuit.uploads[name].pack(inputs[name]) for name in scales}
        return {name: [self.owner.encrypt(row, scales[name]) for row in rows] for name, rows in packed.items()}

    def execute(self, inputs: Mapping[str, Array]) -> Execution:
        """The circuit on fresh encryptions."""
        return run(self.circuit, self.scales, self.scheme, self.keys, self.uploads(inputs), self.encodings)

    def outputs(self, inputs: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
        """The decrypted results of a run."""
        found = {}
        for name, ciphertexts in self.execute(inputs).outputs.items():
            packing = self.circuit.downloads[name][0]
            rows = [self.owner.decrypt(each, packing.kind == COEFFICIENTS) for each in ciphertexts]
            found[name] = packing.read(np.array(rows), shapes[name])
        return found

    def prediction(self, ranges: Mapping[str, float]) -> Prediction:
        """The predicted errors for these clear tensors."""
        return predict(self.circuit, self.scales, ranges, exact(self.circuit, self.tensors), wide=True)


def worst(real: Real, inputs: Mapping[str, Array]) -> dict[str, float]:
    """The largest error of each output, of one run, against exact slots."""
    shapes = {name: (packing.at.size,) for name, (packing, _) in real.circuit.downloads.items()}
    got = real.outputs(inputs, shapes)
    want = simulate(real.circuit, inputs, real.tensors, shapes).outputs
    return {name: float(np.abs(got[name] - want[name]).max()) for name in want}


def one_output(builder: c.Builder, value: int, inputs: Sequence[str] = ("x", "y")) -> c.Circuit:
    """The circuit of one value, inputs and result being vectors of one ciphertext."""
    packing = Packing.vector(builder.slots)
    return builder.circuit(dict.fromkeys(inputs, packing), {"z": (packing, (value,))})


@st.composite
def circuits(draw: st.DrawFn, slots: int, levels: int, operations: int = 8) -> c.Circuit:
    """Random legal circuits of two inputs in [-1, 1] whose values stay in [-1, 1] or so: sums are halved by a product.

    Every kind of operation occurs.
    """
    builder = c.Builder(slots)
    values = [builder.input("x", 0), builder.input("y", 0)]
    seeds = st.integers(0, 2**32 - 1)

    def vector() -> Fixed:
        values = np.random.default_rng(draw(seeds)).uniform(-1, 1, slots)
        if draw(st.booleans()):  # ragged and periodic vectors have zeros, and share their encodings
            values[np.arange(slots) % 4 > 1] = 0
        return Fixed(values)

    def room(value: int) -> bool:
        return builder.nodes[value].level < levels

    for _ in range(draw(st.integers(1, operations))):
        a, b = draw(st.sampled_from(values)), draw(st.sampled_from(values))
        kind = draw(st.sampled_from(["rotate", "scale", "shift", "multiply", "add", "subtract", "negate", "sum"]))
        if kind == "rotate":
            result = builder.rotate(a, draw(st.sampled_from([1, 3, slots // 2, slots - 1])))
        elif kind == "scale" and room(a):
            result = builder.rescale(builder.multiply_plain(a, vector()))
        elif kind == "shift":
            result = builder.add_plain(a, vector())
        elif kind == "multiply" and room(a) and room(b):
            result = builder.rescale(builder.relinearise(builder.multiply(a, b)))
        elif kind == "sum" and room(a) and room(b):  # products summed before one relinearisation
            products = builder.add(builder.multiply(a, b), builder.multiply(b, values[0]))
            result = builder.rescale(builder.relinearise(products))
        elif kind == "add":
            result = builder.add(a, b)
        elif kind == "subtract" and a != b:
            result = builder.subtract(a, b)
        else:
            result = builder.negate(a)
        values.append(result)
    chosen = draw(st.sampled_from(values[2:]))
    return one_output(builder, chosen)
