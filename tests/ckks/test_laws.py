"""The laws of structures on the slot simulator: whatever way a structure is applied to an encrypted vector, it is its
dense matrix times the vector.

A structure joins by being listed in `ir.structures.samples`. The simulator's slots are exact, so the bound is that of
`tests/laws`: sums of at most n products each, in chains of at most `DEPTH`, on the norms.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import pytest

from stein.backends.ckks.core.simulator import simulate
from stein.backends.ckks.lowering.lower import lower
from stein.backends.ckks.planning.planner import plan
from stein.ir.errors import EncryptionError
from stein.ir.expr import Program
from stein.ir.interpret import interpret
from stein.ir.structures import (
    Banded,
    BlockDiagonal,
    BlockSparse,
    Hadamard,
    Kronecker,
    LowRank,
    Monarch,
    Structure,
    Toeplitz,
    samples,
)
from stein.ir.types import F64
from stein.runtime.encrypted import compile_encrypted
from stein.runtime.encrypted_choice import Wanted

SAMPLES = samples()
LARGER: dict[str, Structure] = {
    "kronecker": Kronecker((8, 8), (8, 8)),
    "monarch": Monarch(6, 8, 8, 6),
    "toeplitz": Toeplitz.of(48, 40),
    "block_diagonal": BlockDiagonal(8, 8, 8),
    "block_sparse": BlockSparse((8, 8), (8, 6), 12),
    "low_rank": LowRank((60,), (64,), 2),
    "banded": Banded(64, 60, 2, 3),
    "hadamard": Hadamard(6),
}
DEPTH = 16
ROOM = 1e-2  # these values are no real data: any precision will do


def secret(program: Program) -> Program:
    """The program with its argument encrypted."""
    return replace(program, inputs=tuple(replace(i, encrypted=i.name == "x") for i in program.inputs))


def operands(structure: Structure) -> dict[str, Any]:
    """Random operands and an argument; selections and permutations are what they say."""
    rng = np.random.default_rng(3)
    found: dict[str, Any] = {"x": rng.uniform(-1, 1, structure.operator().shape[1])}
    for name, operand in structure.operator().operands.items():
        value = rng.uniform(-1, 1, operand.shape)
        if "selection" in operand.facts:
            chosen = np.eye(operand.shape[0])[:, rng.integers(0, operand.shape[0], operand.shape[-1])]
            value = np.broadcast_to(chosen, operand.shape)
        elif "permutation" in operand.facts:
            value = np.eye(operand.shape[-1])[rng.permutation(operand.shape[-1])]
        found[name] = np.asarray(value, dtype=float)
    return found


def law(structure: Structure, got: Any, given: dict[str, Any]) -> None:
    """A result is the dense matrix times the argument."""
    rows, cols = structure.operator().shape
    dense = structure.dense(F64)
    w = interpret(dense, given)[dense.outputs[0]].reshape(prod(rows), prod(cols))
    x = given["x"].ravel()
    bound = DEPTH * len(x) * np.finfo(float).eps * np.abs(w).sum(1).max() * np.abs(x).sum()
    assert np.abs(np.asarray(got).ravel() - w @ x).max() <= bound


def planned(program: Program, given: dict[str, Any]) -> Any:
    """The result of the program as it is written, on exact slots."""
    steps = lower(program)
    circuit = plan(steps, (4096, 8192), ROOM).best.circuit
    clear = {}
    if steps.clear.outputs:
        clear = interpret(steps.clear, {i.name: given[i.name] for i in steps.clear.inputs})
    return simulate(circuit, {"x": given["x"]}, clear, steps.shapes).outputs[program.outputs[0]]


@pytest.mark.parametrize("name", SAMPLES)
def test_every_structure(name: str) -> None:
    structure, given = SAMPLES[name], operands(SAMPLES[name])
    law(structure, planned(secret(structure.operator().apply(())), given), given)


METHODS = {name: structure.applies(())[1] for name, structure in SAMPLES.items() if len(structure.applies(())) > 1}
COMPLEX = {name for name, p in METHODS.items() if any(t.dtype.kind == "c" for t in p.tensors.values())}
FEW_STEPS = 2  # maps in a row that are planned in a second: the others would take a minute in all


@pytest.mark.parametrize("name", [n for n, p in METHODS.items() if len(p.equations) <= FEW_STEPS and n not in COMPLEX])
def test_factor_by_factor(name: str) -> None:
    given = operands(SAMPLES[name])
    law(SAMPLES[name], planned(secret(METHODS[name]), given), given)


@pytest.mark.parametrize("name", sorted(COMPLEX))
def test_complex_methods_are_refused(name: str) -> None:
    with pytest.raises(EncryptionError, match="encrypted values are real"):
        planned(secret(METHODS[name]), operands(SAMPLES[name]))


@pytest.mark.parametrize("name", LARGER)
def test_what_is_chosen(name: str) -> None:
    """With structure found again in the open expression, and its ways to be applied compared."""
    structure, given = LARGER[name], operands(LARGER[name])
    compiled = compile_encrypted(secret(structure.operator().apply(())), {}, Wanted(ROOM, (8192,)), {})
    assert name == "banded" or compiled.findings  # bands show in indices alone
    law(structure, compiled.simulate(**{i.name: given[i.name] for i in compiled.program.inputs}), given)


def test_a_broken_plan_is_caught() -> None:
    structure = SAMPLES["low_rank"]
    given = operands(structure)
    got = np.asarray(planned(secret(structure.operator().apply(())), given)) + 1e-9
    with pytest.raises(AssertionError):
        law(structure, got, given)
