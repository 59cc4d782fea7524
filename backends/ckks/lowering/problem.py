"""What the planner of encrypted programs is asked: steps on encrypted values, with all clear work set apart.

`lower` makes an `EncryptedProgram` of a `Program`. What depends on clear tensors alone is a `clear` program that the
server evaluates in the ordinary way; what is left are a few kinds of steps. The planner gives every value a layout and
every step a method.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, TypeAlias

import numpy as np

from ....ir.errors import NOWHERE, Span
from ....ir.expr import Program

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Slot:
    """A position on an axis: sum of coefficient x index + offset, modulo `modulus` where that is not 0."""

    terms: tuple[tuple[str, int], ...]
    offset: int = 0
    modulus: int = 0

    @property
    def bare(self) -> str | None:
        """The index, where the slot is one index alone."""
        if len(self.terms) == 1 and self.terms[0][1] == 1 and not self.offset and not self.modulus:
            return self.terms[0][0]
        return None


@dataclass(frozen=True)
class Term:
    """One term of a linear map: for all values of `indices`,
    out[rows] += factor * coefficients[at] * argument[columns].

    Points where a slot leaves its axis contribute nothing. `coefficients` names a clear tensor; None is the number 1.
    """

    indices: tuple[tuple[str, int], ...]
    rows: tuple[Slot, ...]
    columns: tuple[Slot, ...]
    coefficients: str | None = None
    at: tuple[Slot, ...] = ()
    factor: float = 1.0


@dataclass(frozen=True)
class Linear:
    """A clear matrix times an encrypted value: the sum of terms, plus a clear tensor `bias` of the result's shape."""

    name: str
    argument: str
    terms: tuple[Term, ...]
    bias: str | None = None
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Product:
    """An einsum of encrypted operands (two or more, perhaps the same one twice) and at most one clear tensor.

    name[output] = factor * sum of operands[k] at inputs[k] x clear at clear_indices; indices are bare, an operand may
    repeat one (a diagonal). `extents` gives the size of each index.
    """

    name: str
    operands: tuple[str, ...]
    inputs: tuple[tuple[str, ...], ...]
    output: tuple[str, ...]
    extents: Mapping[str, int]
    clear: str | None = None
    clear_indices: tuple[str, ...] = ()
    factor: float = 1.0
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Sum:
    """The sum of encrypted values of one shape, each times a number, plus a clear tensor `bias` of that shape."""

    name: str
    operands: tuple[tuple[str, float], ...]
    bias: str | None = None
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Polynomial:
    """sum of coefficients[k] x^k (or of Chebyshev polynomials on low..high), slot by slot.

    `error` is the largest distance from the function that it stands for, `function` that function's name.
    """

    name: str
    argument: str
    coefficients: tuple[float, ...]
    low: float = -1.0
    high: float = 1.0
    chebyshev: bool = False
    function: str = ""
    error: float = 0.0
    span: Span = field(default=NOWHERE, compare=False, repr=False)


Step: TypeAlias = Linear | Product | Sum | Polynomial


def arguments(step: Step) -> tuple[str, ...]:
    """The encrypted operands of a step, in order; one that occurs twice stands twice."""
    match step:
        case Linear() | Polynomial():
            return (step.argument,)
        case Product():
            return step.operands
        case Sum():
            return tuple(n for n, _ in step.operands)


def clear_names(step: Step) -> tuple[str, ...]:
    """The clear tensors that a step names, each once."""
    match step:
        case Linear():
            found = [*(t.coefficients for t in step.terms), step.bias]
        case Product():
            found = [step.clear]
        case Sum():
            found = [step.bias]
        case Polynomial():
            found = []
    return tuple(dict.fromkeys(n for n in found if n is not None))


@dataclass(frozen=True)
class EncryptedProgram:
    """Steps in order of evaluation. `inputs` are the encrypted inputs, `shapes` the shapes of all encrypted values.

    `clear` computes the tensors that steps name (its outputs) from the clear inputs. `ranges` bounds the magnitude of
    encrypted inputs, where something is known of it. `results` are outputs of the user's program that are clear: the
    clear program computes them too.
    """

    inputs: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]]
    steps: tuple[Step, ...]
    outputs: tuple[str, ...]
    clear: Program
    ranges: Mapping[str, float] = field(default_factory=dict)
    results: tuple[str, ...] = ()


def entries(term: Term, rows: tuple[int, ...], columns: tuple[int, ...], shape: tuple[int, ...]) -> tuple[Array, ...]:
    """(row, element, position of the coefficient) of every entry, as flat numbers in tensors of these shapes.

    >>> i = Slot((("i", 1),))
    >>> [a.tolist() for a in entries(Term((("i", 2),), (i,), (i,), "d", (i,)), (2,), (2,), (2,))]
    [[0, 1], [0, 1], [0, 1]]
    """
    points = prod(n for _, n in term.indices)
    grid = np.indices([n for _, n in term.indices], dtype=np.int64).reshape(len(term.indices), points)
    value = {name: row for (name, _), row in zip(term.indices, grid, strict=True)}
    inside = np.ones(points, dtype=bool)
    found = []
    for slots, extents in ((term.rows, rows), (term.columns, columns), (term.at, shape)):
        flat = np.zeros(len(inside), dtype=np.int64)
        for slot, extent in zip(slots, extents, strict=True):
            at = np.full(len(inside), slot.offset, dtype=np.int64)
            for index, c in slot.terms:
                at += c * value[index]
            if slot.modulus:
                at %= slot.modulus
            inside &= (at >= 0) & (at < extent)
            flat = flat * extent + at
        found.append(flat)
    return tuple(f[inside] for f in found)
