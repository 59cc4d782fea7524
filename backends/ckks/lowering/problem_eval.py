"""The meaning of an `EncryptedProgram` in plain NumPy: the oracle of lowering, of the planner and of every option.

Linear maps are added up entry by entry, products are `numpy.einsum`; there are no layouts here, no levels, no slots.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from ....ir.interpret import interpret
from .problem import EncryptedProgram, Linear, Polynomial, Product, Step, Sum, entries

Array = np.ndarray[Any, Any]


def evaluate(
    program: EncryptedProgram, encrypted: Mapping[str, Array], clear: Mapping[str, Array] | None = None
) -> dict[str, Array]:
    """The outputs by name (encrypted ones and clear results) for the values of the inputs.

    >>> from .problem import Slot, Term
    >>> from ....ir.expr import Program
    >>> i, j = Slot((("i", 1),)), Slot((("j", 1),))
    >>> total = Linear("y", "x", (Term((("j", 3),), (), (j,), factor=2.0),))
    >>> shapes = {"x": (3,), "y": ()}
    >>> problem = EncryptedProgram(("x",), shapes, (total,), ("y",), Program((), (), ()))
    >>> float(evaluate(problem, {"x": np.arange(3.0)})["y"])
    6.0
    """
    given = {i.name: np.asarray((clear or {})[i.name], i.dtype.numpy) for i in program.clear.inputs}
    tensors = {n: np.asarray(a) for n, a in interpret(program.clear, given).items()}
    values = {n: np.asarray(encrypted[n], float) for n in program.inputs}
    for step in program.steps:
        values[step.name] = evaluate_step(step, values, tensors, program.shapes)
    found = {n: values[n] for n in program.outputs}
    return found | {n: tensors[n] for n in program.results}


def evaluate_step(
    step: Step, values: Mapping[str, Array], tensors: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]]
) -> Array:
    """The value of one step, given those of its operands and of the clear tensors that it names."""
    match step:
        case Linear():
            result = _linear(step, values[step.argument], tensors, shapes[step.name])
            return result if step.bias is None else result + _real(tensors[step.bias])
        case Product():
            return _product(step, values, tensors)
        case Sum():
            total = np.zeros(shapes[step.name])
            for name, factor in step.operands:
                total = total + factor * values[name]
            return total if step.bias is None else total + _real(tensors[step.bias])
        case Polynomial():
            return _polynomial(step, values[step.argument])
    raise AssertionError(f"no step: {step!r}")


def _linear(step: Linear, argument: Array, tensors: Mapping[str, Array], shape: tuple[int, ...]) -> Array:
    flat = np.zeros(prod(shape))
    for term in step.terms:
        table = np.ones(()) if term.coefficients is None else _real(tensors[term.coefficients])
        rows, columns, at = entries(term, shape, argument.shape, table.shape)
        np.add.at(flat, rows, term.factor * table.ravel()[at] * argument.ravel()[columns])
    return flat.reshape(shape)


def _product(step: Product, values: Mapping[str, Array], tensors: Mapping[str, Array]) -> Array:
    operands = [(values[n], names) for n, names in zip(step.operands, step.inputs, strict=True)]
    if step.clear is not None:
        operands.append((_real(tensors[step.clear]), step.clear_indices))
    letters = {n: k for k, n in enumerate(step.extents)}
    arguments: list[Any] = []
    for array, names in operands:
        arguments += [array, [letters[n] for n in names]]
    result: Array = np.einsum(*arguments, [letters[n] for n in step.output])
    return step.factor * result


def _polynomial(step: Polynomial, x: Array) -> Array:
    if not step.chebyshev:
        result: Array = np.polynomial.polynomial.polyval(x, step.coefficients)
        return result
    scaled = (2 * x - (step.high + step.low)) / (step.high - step.low)
    fitted: Array = np.polynomial.chebyshev.chebval(scaled, step.coefficients)
    return fitted


def _real(array: Array) -> Array:
    """A clear tensor as f64 (a condition counts 1 or 0)."""
    return np.asarray(array, float)
