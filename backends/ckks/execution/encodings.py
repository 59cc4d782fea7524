"""Encodings of plain vectors, made once for a set of clear tensors and kept within a budget of memory.

A dense matrix of 4096 rows has 4096 plain vectors of half a gigabyte; a circuit whose encodings exceed the budget keeps
those that came first and encodes the others in every run (to forget the oldest instead would keep none, as every run
asks for all of them in the same order). Equal vectors at one level and scale share an encoding.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from threading import Lock
from typing import Any

import numpy as np

from ..chain.scales import Scales
from ..core import circuit as c
from .seal import Plaintext, Scheme

Array = np.ndarray[Any, Any]

BUDGET = 1 << 30  # bytes


class Encodings:
    """The encodings that a circuit reads, for one set of clear tensors. Safe under threads."""

    def __init__(
        self,
        scheme: Scheme,
        circuit: c.Circuit,
        scales: Scales,
        tensors: Mapping[str, Array],
        budget: int = BUDGET,
    ) -> None:
        self.scheme, self.circuit, self.scales, self.tensors, self.budget = scheme, circuit, scales, tensors, budget
        self.bytes = 0  # that are kept
        self.made = 0  # encodings so far
        self._by_node: dict[int, Plaintext] = {}
        self._by_content: dict[tuple[bytes, int, float, bool], Plaintext] = {}
        self.lock = Lock()  # of what is kept; a process is forked while nobody else has it

    def of(self, number: int) -> Plaintext:
        """The encoding that a node multiplies by or adds."""
        known = self._by_node.get(number)
        return known if known is not None else self._encoded(number, self._vector(number))

    def magnitude(self, number: int) -> Array:
        """The magnitude of a node's vector, slot by slot. It is encoded on the way, while there is room: the entries of
        a vector take as long to collect as to encode.
        """
        vector = self._vector(number)
        if self.bytes < self.budget and number not in self._by_node:
            self._encoded(number, vector)
        found: Array = np.abs(vector)
        return found

    def prepare(self) -> None:
        """Make all encodings that will be kept, so that the first run is as quick as the others."""
        for number, node in enumerate(self.circuit.nodes):
            if node.plain >= 0 and self.bytes < self.budget:
                self.of(number)

    def _vector(self, number: int) -> Array:
        plain = self.circuit.plains[self.circuit.nodes[number].plain]
        return np.ascontiguousarray(plain.vector(self.tensors), dtype=float)

    def _encoded(self, number: int, vector: Array) -> Plaintext:
        node, scale = self.circuit.nodes[number], self.scales.factors[number]
        factor = node.kind == c.MULTIPLY_PLAIN
        key = (blake2b(vector.tobytes(), digest_size=16).digest(), node.level, scale, factor)
        plain = self._by_content.get(key)
        fresh = plain is None
        if plain is None:
            plain = self.scheme.encode(vector, node.level, scale, factor)
        parameters = self.scheme.parameters
        size = (parameters.levels - node.level + 1) * parameters.ring * 8
        with self.lock:
            self.made += fresh
            if key not in self._by_content and self.bytes + size <= self.budget:
                self._by_content[key] = plain
                self.bytes += size
            if key in self._by_content:
                self._by_node[number] = plain
        return plain
