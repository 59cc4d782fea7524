"""The judge of findings: their terms against the interpreter, and the claims of kinds against numbers."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from stein.ir.expr import Input, Program
from stein.ir.interpret import interpret
from stein.passes.recognise import Finding

Array = Any


def random_inputs(program: Program, seed: int = 0) -> dict[str, Array]:
    """Normal deviates for each input; facts that a finding may rest on are made true."""
    rng = np.random.default_rng(seed)
    found = {}
    for i in program.inputs:
        shape = [s.evaluate({}) for s in i.shape]
        value = rng.standard_normal(shape)
        facts = {s.name for s in i.structure}
        if "unit" in facts:
            value /= np.linalg.norm(value)
        if "selection" in facts:
            value = np.eye(shape[0])[:, rng.integers(0, shape[0], shape[1])]
        if "permutation" in facts:
            value = np.eye(shape[0])[rng.permutation(shape[0])]
        if "symmetric" in facts:
            value = value + value.T
        found[i.name] = value
    return found


def matrix_of(program: Program, finding: Finding, given: dict[str, Array]) -> Array:
    """The value as a matrix in the argument, found by applying the program to unit vectors; offsets cancel."""
    shape = given[finding.argument].shape
    base = interpret(program, given | {finding.argument: np.zeros(shape)})[finding.value]
    columns = []
    for k in range(prod(shape)):
        unit = np.zeros(prod(shape))
        unit[k] = 1
        columns.append(
            (interpret(program, given | {finding.argument: unit.reshape(shape)})[finding.value] - base).ravel()
        )
    return np.stack(columns, 1)


def check_term(program: Program, finding: Finding, given: dict[str, Array]) -> None:
    """The finding's term is the program's matrix, densely and by each of its methods.

    Bound: each product is a sum of at most n terms; |error| <= c n eps |W| |x| normwise, c for the depth of methods.
    """
    tensor = program.tensors[finding.argument]
    if finding.term is None or finding.number is not None or not isinstance(tensor, Input):
        return
    shape = given[finding.argument].shape
    rows = finding.term.operator().shape
    rng = np.random.default_rng(7)
    x = rng.standard_normal(shape)
    value = interpret(program, given | {finding.argument: x})[finding.value]
    offset = interpret(program, given | {finding.argument: np.zeros(shape)})[finding.value]
    wanted = (value - offset).ravel()
    dense = finding.term.dense()
    operands = {i.name: given[i.name] for i in dense.inputs}
    w = interpret(dense, operands)[dense.outputs[0]].reshape(prod(rows[0]), prod(rows[1]))
    bound = (
        64 * w.shape[1] * np.finfo(float).eps * (np.abs(w).sum(1).max() + 1) * (np.abs(x).max() + np.abs(value).max())
    )
    assert np.abs(w @ x.ravel() - wanted).max() <= bound, (finding.kind, "dense")
    for apply in finding.term.applies(x=finding.argument):
        inputs = {i.name: given[i.name] for i in apply.inputs} | {finding.argument: x.reshape(rows[1])}
        y = interpret(apply, inputs)[apply.outputs[0]]
        assert np.abs(y.ravel() - wanted).max() <= bound, (finding.kind, apply)
