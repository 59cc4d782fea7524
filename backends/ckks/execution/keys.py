"""Key generation: a pair of bundles for one plan.

Every key of the server is one that its plan uses: a Galois key for each step that is rotated by, a relinearisation key
only where a product is brought back to two polynomials. More keys would be more to send, and more that the server
could do with the client's data.
"""

from __future__ import annotations

import secrets

from ..core import circuit as c
from .bundle import ClientKeys, ServerKeys
from .seal import EvaluationKeys, Scheme, Secret

INTEGRITY_BYTES = 32


def generate(plan: str, circuit: c.Circuit, scheme: Scheme) -> tuple[ClientKeys, ServerKeys]:
    """Fresh keys for a plan (its canonical JSON) and its circuit, from the operating system's randomness."""
    secret = Secret(scheme)
    galois, relinearisation = secret.save_evaluation_keys(circuit.steps, relinearises(circuit))
    server = ServerKeys(plan, galois, relinearisation, secrets.token_bytes(INTEGRITY_BYTES))
    return ClientKeys(plan, secret.save(), server.integrity, server.id), server


def load(keys: ServerKeys, circuit: c.Circuit, scheme: Scheme) -> EvaluationKeys:
    """The keys that a server computes with. Raises `EnvelopeError` where they are not exactly those of the circuit."""
    return scheme.load_keys(keys.galois, keys.relinearisation, circuit.steps)


def relinearises(circuit: c.Circuit) -> bool:
    """Whether any product is brought back to two polynomials."""
    return any(node.kind == c.RELINEARISE for node in circuit.nodes)
