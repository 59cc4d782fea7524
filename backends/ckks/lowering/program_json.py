"""Encrypted programs as JSON, for saved plans: steps by their fields, the clear program as IR text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ....ir.text import parse_ir, print_program
from .problem import EncryptedProgram, Linear, Polynomial, Product, Slot, Step, Sum, Term

FORMAT = 1


def program_to_json(program: EncryptedProgram) -> dict[str, Any]:
    """The program as JSON."""
    return {
        "format": FORMAT,
        "inputs": list(program.inputs),
        "shapes": {n: list(s) for n, s in program.shapes.items()},
        "steps": [_step_to_json(s) for s in program.steps],
        "outputs": list(program.outputs),
        "clear": print_program(program.clear),
        "ranges": dict(program.ranges),
        "results": list(program.results),
    }


def program_from_json(data: Mapping[str, Any]) -> EncryptedProgram:
    """The program again (spans are not kept)."""
    assert data["format"] == FORMAT, "a program of another version"
    return EncryptedProgram(
        tuple(data["inputs"]),
        {n: tuple(s) for n, s in data["shapes"].items()},
        tuple(_step_from_json(s) for s in data["steps"]),
        tuple(data["outputs"]),
        parse_ir(data["clear"]),
        dict(data["ranges"]),
        tuple(data["results"]),
    )


def _step_to_json(step: Step) -> dict[str, Any]:
    match step:
        case Linear():
            terms = [_term_to_json(t) for t in step.terms]
            return {"kind": "linear", "name": step.name, "argument": step.argument, "terms": terms, "bias": step.bias}
        case Product():
            return {
                "kind": "product",
                "name": step.name,
                "operands": list(step.operands),
                "inputs": [list(i) for i in step.inputs],
                "output": list(step.output),
                "extents": dict(step.extents),
                "clear": step.clear,
                "clear_indices": list(step.clear_indices),
                "factor": step.factor,
            }
        case Sum():
            operands = [[n, x] for n, x in step.operands]
            return {"kind": "sum", "name": step.name, "operands": operands, "bias": step.bias}
        case Polynomial():
            return {
                "kind": "polynomial",
                "name": step.name,
                "argument": step.argument,
                "coefficients": list(step.coefficients),
                "low": step.low,
                "high": step.high,
                "chebyshev": step.chebyshev,
                "function": step.function,
                "error": step.error,
            }


def _step_from_json(data: Mapping[str, Any]) -> Step:
    name = data["name"]
    if data["kind"] == "linear":
        return Linear(name, data["argument"], tuple(_term_from_json(t) for t in data["terms"]), data["bias"])
    if data["kind"] == "product":
        return Product(
            name,
            tuple(data["operands"]),
            tuple(tuple(i) for i in data["inputs"]),
            tuple(data["output"]),
            dict(data["extents"]),
            data["clear"],
            tuple(data["clear_indices"]),
            data["factor"],
        )
    if data["kind"] == "sum":
        return Sum(name, tuple((n, x) for n, x in data["operands"]), data["bias"])
    assert data["kind"] == "polynomial", "an unknown kind of step"
    return Polynomial(
        name,
        data["argument"],
        tuple(data["coefficients"]),
        data["low"],
        data["high"],
        data["chebyshev"],
        data["function"],
        data["error"],
    )


def _term_to_json(term: Term) -> dict[str, Any]:
    return {
        "indices": [[n, x] for n, x in term.indices],
        "rows": [_slot_to_json(s) for s in term.rows],
        "columns": [_slot_to_json(s) for s in term.columns],
        "coefficients": term.coefficients,
        "at": [_slot_to_json(s) for s in term.at],
        "factor": term.factor,
    }


def _term_from_json(data: Mapping[str, Any]) -> Term:
    rows, columns, at = (tuple(_slot_from_json(s) for s in data[k]) for k in ("rows", "columns", "at"))
    indices = tuple((n, x) for n, x in data["indices"])
    return Term(indices, rows, columns, data["coefficients"], at, data["factor"])


def _slot_to_json(slot: Slot) -> list[Any]:
    return [[[n, c] for n, c in slot.terms], slot.offset, slot.modulus]


def _slot_from_json(data: Any) -> Slot:
    terms, offset, modulus = data
    return Slot(tuple((n, c) for n, c in terms), offset, modulus)
