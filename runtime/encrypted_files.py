"""What client and server share: the agreement that both bundles hold, and the messages between the two.

A `Ciphertexts` is the message itself, in bytes, in memory as in a file: a call within one process takes the same road
as one between two machines. It is opened, and checked, by the client or the server that it is for.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..backends.ckks.core.circuit import Circuit
from ..backends.ckks.execution import envelope
from ..backends.ckks.execution.bundle import canonical
from ..backends.ckks.execution.exchange import Exchange
from ..ir.errors import DTypeError, EncryptionError, ShapeError
from ..ir.expr import Program
from .expression import Expression, Options
from .operands import as_array
from .version import VERSION

if TYPE_CHECKING:
    from ..backends.ckks.planning.plan import Plan

Array = np.ndarray[Any, Any]
Path: TypeAlias = "str | os.PathLike[str]"

CLEAR = "clear: "  # before the names of results that depend on clear inputs alone, and travel as they are


@dataclass(frozen=True)
class Ciphertexts:
    """A message of ciphertexts: an upload, or a result.

    `data` are its bytes. Nothing of it is believed before `Client.decrypt` or `Server.run` has checked its tag.
    """

    data: bytes = field(repr=False)
    kind: str
    count: int  # ciphertexts in it

    @property
    def nbytes(self) -> int:
        """Its size."""
        return len(self.data)

    def to_bytes(self) -> bytes:
        """The message, to be sent."""
        return self.data

    @staticmethod
    def from_bytes(data: bytes) -> Ciphertexts:
        """A message that arrived. Raises `EnvelopeError` for what is no message of ciphertexts."""
        header = envelope.peek(data)
        if header.kind not in envelope.MESSAGES:
            raise envelope.rejected(f"this is a file of {header.kind}, not of ciphertexts", "wrong-kind")
        return Ciphertexts(data, header.kind, header.count)

    def save(self, path: Path) -> None:
        """Write the message to a file, whole or not at all."""
        envelope.write(path, self.data, secret=False)

    @staticmethod
    def load(path: Path) -> Ciphertexts:
        """The message in a file. Raises `EnvelopeError` for a file that holds none."""
        return Ciphertexts.from_bytes(envelope.read(path))

    def __repr__(self) -> str:
        return f"<{self.kind}: {self.count} ciphertexts, {self.nbytes:,} bytes>"


@dataclass(frozen=True)
class Agreement:
    """What client and server both know, and both bundles hold: the plan, and under which names and types (of NumPy) its
    results are given to the user.
    """

    plan: Plan
    results: tuple[tuple[str, str, str], ...]  # name in the plan, name for the user, type
    text: str = field(repr=False)  # the one spelling of it all, whose hash stands in every message

    @staticmethod
    def of(plan: Plan, results: Iterable[tuple[str, str, str]]) -> Agreement:
        """The agreement on a plan that was just made."""
        named = tuple(results)
        text = canonical(
            {
                "plan": plan.to_json(),
                "circuit": fingerprint(plan.circuit),
                "results": [list(each) for each in named],
                "stein": VERSION,
            }
        )
        return Agreement(plan, named, text)

    @cached_property
    def hash(self) -> bytes:
        """The hash in the messages."""
        return envelope.plan_hash(self.text)

    @staticmethod
    def from_text(text: str) -> Agreement:
        """The agreement of a bundle; its circuit is made again, without a search.

        Raises `EnvelopeError` where this version of stein makes another circuit of the plan than the one the keys are
        for.
        """
        from ..backends.ckks.planning.plan import Plan

        found = json.loads(text)
        plan = Plan.from_json(found["plan"])
        if fingerprint(plan.circuit) != found["circuit"]:
            raise envelope.rejected(
                f"the plan was made by stein {found['stein']}, and stein {VERSION} runs it in another way",
                "wrong-version",
                "compile and make keys again, or use the version that made them",
            )
        return Agreement(plan, tuple((a, b, c) for a, b, c in found["results"]), text)

    def exchange(self) -> Exchange:
        """What of it travels."""
        return Exchange(self.plan.circuit, self.plan.parameters, self.plan.program.shapes)

    def given(self, found: Mapping[str, Array]) -> Any:
        """What the user gets: an array, or a dict of arrays by name, in the declared types (integers are rounded)."""
        return in_declared_types(found, self.results)


def in_declared_types(found: Mapping[str, Array], results: Iterable[tuple[str, str, str]]) -> Any:
    """Results (internal name, public name, type) in their types: one array, or a dict; integers are rounded."""
    made = {}
    for name, public, dtype in results:
        kind = np.dtype(dtype)
        made[public] = (np.rint(found[name]) if kind.kind in "iu" else np.asarray(found[name])).astype(kind)
    return made if len(made) > 1 else next(iter(made.values()))


def fingerprint(circuit: Circuit) -> str:
    """A hash of all that client and server have to agree on in a circuit: operations, and where elements lie."""
    hashed = hashlib.blake2b(circuit.text().encode(), digest_size=16)
    for name, packing in sorted(circuit.uploads.items()):
        hashed.update(name.encode() + packing.key)
    for name, (packing, _) in sorted(circuit.downloads.items()):
        hashed.update(name.encode() + packing.key)
    return hashed.hexdigest()


def check_names(given: Mapping[str, Any], wanted: Sequence[str], what: str) -> None:
    """Raises `EncryptionError` unless exactly the wanted tensors are given."""
    missing = [name for name in wanted if name not in given]
    if missing:
        raise EncryptionError(f"the {what} '{missing[0]}' is missing", code="missing-tensor", help=f"{missing[0]}=...")
    unknown = [name for name in given if name not in wanted]
    if unknown:
        names = ", ".join(wanted) or "none"
        raise EncryptionError(f"'{unknown[0]}' is no {what} of this plan (it has {names})", code="unknown-tensor")


def checked(name: str, value: Any, shape: tuple[int, ...]) -> Array:
    """A real array of this shape. Raises `ShapeError` or `DTypeError` for anything else."""
    array = as_array(value, name)
    if array.dtype.kind == "c":
        raise DTypeError(f"'{name}' is complex", code="complex", help="encrypt real and imaginary parts on their own")
    if array.shape != shape:
        raise ShapeError(f"'{name}' has shape {array.shape}; the plan is for {shape}", code="wrong-shape")
    return array


def clear_tensors(program: Program, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """What the steps of a plan read of the clear inputs: the clear program, evaluated in the ordinary way."""
    if not program.outputs:
        return {}
    given = {i.name: np.ascontiguousarray(arrays[i.name], i.dtype.numpy) for i in program.inputs}
    if not program.equations:
        return {name: given[name] for name in program.outputs}
    from ..backends.cpu.native import execute

    expression = Expression(program, Options(), {})
    operands = [given[i.name] for i in expression.arguments]
    found = execute(expression.bind(operands, None, {}).executable, operands)
    return dict(zip(program.outputs, found, strict=True))
