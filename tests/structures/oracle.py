"""The judge of findings: their terms against the interpreter, and the claims of kinds against numbers."""

from __future__ import annotations

from collections.abc import Mapping
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
        for s in i.structure:
            value = with_structure(value, s.name, {k: v.evaluate({}) for k, v in s.options}, rng)
        found[i.name] = value
    return found


def with_structure(value: Array, name: str, options: Mapping[str, int], rng: np.random.Generator) -> Array:
    """Values of a declared structure, made from any values of that shape."""
    shape = value.shape
    if name == "unit":
        return value / np.linalg.norm(value)
    if len(shape) > 2:  # a matrix for each place on the leading axes
        return np.stack([with_structure(v, name, options, rng) for v in value])
    if name == "symmetric":
        return value + value.T
    if name == "psd":
        return value @ value.T
    if name == "orthogonal":
        return np.linalg.qr(value)[0]
    if name == "permutation":
        return np.eye(shape[0])[rng.permutation(shape[0])]
    if name == "selection":
        return np.eye(shape[0])[:, rng.integers(0, shape[0], shape[1])]
    if name == "mask":
        return (value > 0).astype(float)
    if name == "doubly_stochastic":
        permutations = [np.eye(shape[0])[rng.permutation(shape[0])] for _ in range(3)]
        return sum(w * p for w, p in zip((0.5, 0.25, 0.25), permutations, strict=True))
    if name == "hadamard":
        h = np.ones((1, 1))
        while h.shape[0] < shape[0]:
            h = np.kron(np.array([[1.0, 1.0], [1.0, -1.0]]), h)
        return h
    if name == "identity":
        return np.eye(shape[0])
    i, j = np.indices(shape[:2])
    if name in ("toeplitz", "hankel", "circulant"):
        at = {"toeplitz": i - j, "hankel": i + j, "circulant": (i - j) % shape[0]}[name]
        return rng.standard_normal(sum(shape))[at]
    lower, upper = {
        "diag": (0, 0), "lower": (shape[0], 0), "upper": (0, shape[1]),
        "banded": (options.get("lo", 0), options.get("hi", 0)),
    }.get(name, (shape[0], shape[-1]))  # fmt: skip
    if name == "blockdiag":
        return np.where(i // options["block"] == j // options["block"], value, 0.0)
    return np.where((i - j <= lower) & (j - i <= upper), value, 0.0) if len(shape) == 2 else value


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


def check_term(program: Program, finding: Finding, given: dict[str, Array], most: int = 64) -> None:
    """The finding's term is the program's matrix, densely and by each of its methods (by `most` of them, evenly).

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
    applies = finding.term.applies(x=finding.argument)
    for apply in applies[:: -(-len(applies) // most)]:
        inputs = {i.name: given[i.name] for i in apply.inputs} | {finding.argument: x.reshape(rows[1])}
        y = interpret(apply, inputs)[apply.outputs[0]]
        assert np.abs(y.ravel() - wanted).max() <= bound, (finding.kind, apply)
