"""The laws: every way to apply a structure gives the product with its dense matrix, and recognition finds it again.

A structure joins by being listed in `ir.structures.samples`. Bounds are normwise and derived: each result is a sum of
products whose absolute values add up to at most |W| |x|, through a chain of at most `DEPTH` sums of at most n terms, so
|error| <= DEPTH * n * eps * |W| |x|; the Fourier methods add log factors that the same bound covers, on the norms.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest

from stein.ir.check import check_program
from stein.ir.expr import Program
from stein.ir.interpret import interpret
from stein.ir.semiring import BOOLEAN, MAX_PLUS, MIN_PLUS, PLUS_TIMES, Semiring
from stein.ir.structures import Structure, Toeplitz, samples
from stein.ir.structures.build import Builder, Method, Value
from stein.ir.structures.operator import Atom, Term
from stein.ir.structures.slot import slot, var
from stein.ir.text import parse_ir, print_program
from stein.ir.types import BOOL, C128, F32, F64, I64, DType
from stein.passes.recognise import recognise

SAMPLES = samples()
DEPTH = 16
BATCH = (3,)


def _operands(program: Program, structure: Structure, dtype: DType, seed: int) -> dict[str, Any]:
    """Random operands; selections and permutations are what they say."""
    rng = np.random.default_rng(seed)
    facts = {n: o.facts for n, o in structure.operator().operands.items()}
    found = {}
    for i in program.inputs:
        shape = tuple(s.constant or 0 for s in i.shape)
        if "selection" in facts[i.name]:
            value: Any = np.eye(shape[0])[:, rng.integers(0, shape[0], shape[-1])]
            value = np.broadcast_to(value, shape)
        elif "permutation" in facts[i.name]:
            value = np.eye(shape[-1])[rng.permutation(shape[-1])]
        elif dtype.kind in "ib":
            value = rng.integers(0, 2 if dtype == BOOL else 9, shape)
        else:
            value = rng.standard_normal(shape)
            value = value + 1j * rng.standard_normal(shape) if dtype.kind == "c" else value
        found[i.name] = np.asarray(value).astype(dtype.numpy)
    return found


def _argument(structure: Structure, dtype: DType, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    shape = BATCH + structure.operator().shape[1]
    if dtype.kind in "ib":
        return rng.integers(0, 2 if dtype == BOOL else 9, shape).astype(dtype.numpy)
    x = rng.standard_normal(shape)
    return (x + 1j * rng.standard_normal(shape) if dtype.kind == "c" else x).astype(dtype.numpy)


def broken(structure: Structure, dtype: DType, semiring: Semiring = PLUS_TIMES) -> list[str]:
    """The methods that break the law, for random operands and argument."""
    dense = structure.dense(dtype, semiring)
    check_program(dense)
    operands = _operands(dense, structure, dtype, 1)
    w = interpret(dense, operands)[dense.outputs[0]]
    rows, cols = structure.operator().shape
    w = w.reshape(prod(rows), prod(cols))
    x = _argument(structure, dtype, 2)
    flat = x.reshape(*BATCH, -1)
    bad = []
    for program in structure.applies(BATCH, dtype, semiring):
        check_program(program)
        y = interpret(program, {i.name: operands[i.name] for i in program.inputs if i.name != "x"} | {"x": x})
        got = y[program.outputs[0]].reshape(*BATCH, -1)
        if semiring == PLUS_TIMES and dtype.kind in "fc":
            wide = np.complex128 if dtype.kind == "c" else np.float64
            wanted = flat.astype(wide) @ w.astype(wide).T
            size = np.abs(w).sum(1).max() * np.abs(flat).sum()
            ok = np.abs(got - wanted).max() <= DEPTH * w.shape[1] * np.finfo(dtype.numpy).eps * size
        else:
            ok = np.array_equal(got, _product(w, flat, semiring))
        if not ok:
            bad.append(print_program(program))
    return bad


def _product(w: Any, x: Any, semiring: Semiring) -> Any:
    """The product by definition."""
    if semiring == PLUS_TIMES:
        return np.asarray(x @ w.T, x.dtype)
    both = x[..., None, :] & w if semiring == BOOLEAN else x[..., None, :] + w
    reduce: dict[str, Any] = {"boolean": np.any, "maxplus": np.max, "minplus": np.min}
    return np.asarray(reduce[semiring.name](both, axis=-1))


@pytest.mark.parametrize("dtype", [F32, F64, C128], ids=str)
@pytest.mark.parametrize("name", SAMPLES)
def test_numbers(name: str, dtype: DType) -> None:
    assert not broken(SAMPLES[name], dtype)


@pytest.mark.parametrize("name", SAMPLES)
def test_exact_integers(name: str) -> None:
    assert not broken(SAMPLES[name], I64)


NEED_A_RING = {"householder", "hadamard", "rotation"}


@pytest.mark.parametrize("semiring", [MAX_PLUS, MIN_PLUS], ids=lambda s: s.name)
@pytest.mark.parametrize("name", [n for n in SAMPLES if n not in NEED_A_RING])
def test_tropical(name: str, semiring: Semiring) -> None:
    """In floats, where the semiring's zero is an infinity and sums of small integers are exact."""
    structure = SAMPLES[name]
    dense = structure.dense(F64, semiring)
    operands = {n: np.round(v.real) for n, v in _operands(dense, structure, F64, 1).items()}
    w = interpret(dense, operands)[dense.outputs[0]]
    x = np.round(_argument(structure, F64, 2))
    wanted = _product(w.reshape(structure.operator().size), x.reshape(*BATCH, -1), semiring)
    for program in structure.applies(BATCH, F64, semiring):
        y = interpret(program, {i.name: operands[i.name] for i in program.inputs if i.name != "x"} | {"x": x})
        assert np.array_equal(y[program.outputs[0]].reshape(wanted.shape), wanted), print_program(program)


@pytest.mark.parametrize("name", [n for n in SAMPLES if n not in NEED_A_RING])
def test_boolean(name: str) -> None:
    assert not broken(SAMPLES[name], BOOL, BOOLEAN)


@pytest.mark.parametrize("name", SAMPLES)
def test_programs_print_and_read_back(name: str) -> None:
    for program in (SAMPLES[name].dense(), *SAMPLES[name].applies(BATCH)):
        assert parse_ir(print_program(program)) == program


AGAIN = {
    "identity": "identity", "affine_permutation": "permutation", "permutation": "permutation", "diagonal": "diagonal",
    "kronecker": "kronecker", "kronecker_three": "kronecker", "kronecker_sum_of": "kronecker_sum_of",
    "kronsum": "kronsum", "monarch": "monarch", "btt": "btt", "low_rank": "low_rank",
    "outer_product": "outer_product", "dplr": "dplr", "toeplitz": "toeplitz", "hankel": "hankel",
    "circulant": "circulant", "two_level_toeplitz": "block_hankel", "scaled_toeplitz": "toeplitz_scaled",
    "banded": "banded", "block_diagonal": "block_diagonal", "block_sparse": "block_sparse", "sparse": "sparse",
    "blast": "blast", "cp": "cp", "tucker": "tucker", "tensor_train": "tensor_train", "hadamard": "kronecker",
    "householder": "householder", "transposed_monarch": "monarch", "transposed_toeplitz": "toeplitz",
    "transposed_block_sparse": "block_sparse", "shuffled_kronecker": "kronecker",
    "toeplitz_beside_dense": "kronecker", "batch_toeplitz": "toeplitz", "batch_kronecker": "kronecker",
}  # fmt: skip


@pytest.mark.parametrize("name", AGAIN)
def test_structures_are_recognised_again(name: str) -> None:
    found = [f for f in recognise(SAMPLES[name].operator().apply(BATCH), "x") if f.number is None and f.term]
    assert found and found[0].kind == AGAIN[name]


def test_what_needs_a_ring_is_not_offered_without_one() -> None:
    assert len(Toeplitz.of(4, 3).applies(BATCH, F64, MAX_PLUS)) == 1
    assert len(Toeplitz.of(4, 3).applies(BATCH, I64)) == 1
    for name in NEED_A_RING:
        assert not SAMPLES[name].applies(BATCH, F64, MAX_PLUS), name


def test_a_broken_method_is_caught() -> None:
    class Broken(Toeplitz):
        """Toeplitz with a method that is off by one."""

        def extra(self) -> tuple[Method, ...]:
            def run(b: Builder, x: Value) -> Value:
                (batch,) = b.indices(x.shape[:-1])
                i, j = b.indices((6, 5))
                t = Atom("t", (slot([(i, 1), (j, -1)], 5),))
                return b.let(
                    (*x.shape[:-1], 6), [var(batch), var(i)], [Term(1, (t, Atom(x.name, (var(batch), var(j)))))]
                )

            return (Method("broken", run),)

    good = Toeplitz.of(6, 5)
    assert len(broken(Broken(good.levels), F64)) == 1
