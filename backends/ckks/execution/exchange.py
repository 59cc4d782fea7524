"""What client and server exchange, part by part: packed inputs as ciphertexts one way, results the other.

Both sides derive everything from the plan: which ciphertexts there are, at which scale and level each of them is, and
where the elements of a tensor lie. What is not so is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..chain.parameters import Parameters
from ..chain.scales import bind
from ..core import circuit as c
from ..core.layout import COEFFICIENTS
from .envelope import rejected
from .seal import Ciphertext, Scheme, Secret, dump

Array = np.ndarray[Any, Any]


class Exchange:
    """One circuit on one chain of primes. `shapes` are the shapes of its outputs."""

    def __init__(self, circuit: c.Circuit, parameters: Parameters, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.circuit, self.shapes = circuit, shapes
        self.scales = bind(circuit, parameters)
        self.scheme = Scheme(parameters)
        self.inputs = {n.upload: k for k, n in enumerate(circuit.nodes) if n.upload is not None}

    def encrypted(self, secret: Secret, tensors: Mapping[str, Array]) -> dict[str, bytes]:
        """The ciphertexts that the circuit reads, by name of tensor and number; half of each is a seed."""
        packed = {name: self.circuit.uploads[name].pack(tensors[name]) for name, _ in self.inputs}
        return {
            _part(name, number): secret.upload(packed[name][number], self.scales.values[node])
            for (name, number), node in self.inputs.items()
        }

    def ciphertexts(self, parts: Mapping[str, bytes]) -> dict[str, list[Ciphertext]]:
        """The uploads as the server's objects. `parts` must have been authenticated.

        Raises `EnvelopeError` where they are not exactly what the circuit reads.
        """
        read = self.reader(parts)
        found: dict[str, list[Ciphertext]] = {
            name: [None] * packing.ciphertexts for name, packing in self.circuit.uploads.items()
        }
        for (name, number), node in self.inputs.items():
            found[name][number] = read(node)
        return found

    def reader(self, parts: Mapping[str, bytes]) -> Callable[[int], Ciphertext]:
        """What reads the upload of an input node, when it is wanted. `parts` must have been authenticated.

        Raises `EnvelopeError`, at once or later, where they are not exactly what the circuit reads.
        """
        _exactly(parts, (_part(*key) for key in self.inputs))
        names = {node: _part(*key) for key, node in self.inputs.items()}

        def read(node: int) -> Ciphertext:
            return self.scheme.load_ciphertext(parts[names[node]], 0, self.scales.values[node])

        return read

    def answer(self, outputs: Mapping[str, Sequence[Ciphertext]]) -> dict[str, bytes]:
        """The ciphertexts of the results, by name and number."""
        return {_part(name, k): dump(each) for name, row in outputs.items() for k, each in enumerate(row)}

    def named(self, answers: Mapping[int, bytes]) -> dict[str, bytes]:
        """The same for bytes of ciphertexts by their nodes."""
        downloads = self.circuit.downloads.items()
        return {_part(name, k): answers[node] for name, (_, nodes) in downloads for k, node in enumerate(nodes)}

    def decrypted(self, secret: Secret, parts: Mapping[str, bytes]) -> dict[str, Array]:
        """The results in clear. Raises `EnvelopeError` where the parts are not exactly the circuit's results."""
        downloads = self.circuit.downloads
        _exactly(parts, (_part(name, k) for name, (_, nodes) in downloads.items() for k in range(len(nodes))))
        results = {}
        for name, (packing, nodes) in downloads.items():
            rows = []
            for k, node in enumerate(nodes):
                level, scale = self.circuit.nodes[node].level, self.scales.values[node]
                ciphertext = self.scheme.load_ciphertext(parts[_part(name, k)], level, scale)
                rows.append(secret.decrypt(ciphertext, packing.kind == COEFFICIENTS))
            results[name] = packing.read(np.array(rows), self.shapes[name])
        return results


def executed(counts: Mapping[str, int], levels: int) -> dict[str, int]:
    """Counts of operations under the names that `stats` gives them.

    >>> executed({c.ROTATE: 3, c.INPUT: 1}, 1)["rotations"]
    3
    """
    return {
        "rotations": counts.get(c.ROTATE, 0),
        "plain_products": counts.get(c.MULTIPLY_PLAIN, 0),
        "cipher_products": counts.get(c.MULTIPLY, 0),
        "relinearisations": counts.get(c.RELINEARISE, 0),
        "rescales": counts.get(c.RESCALE, 0),
        "additions": sum(counts.get(kind, 0) for kind in (c.ADD, c.SUBTRACT, c.ADD_PLAIN)),
        "uploads": counts.get(c.INPUT, 0),
        "levels": levels,
    }


def _part(tensor: str, number: int) -> str:
    return f"{tensor} {number}"


def _exactly(parts: Mapping[str, bytes], wanted: Iterable[str]) -> None:
    if set(parts) != set(wanted):
        raise rejected("these are not the ciphertexts of the plan", "damaged", "client and server need one plan")
