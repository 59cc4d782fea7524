"""Covers meet every pair of a pattern exactly once, whatever the packings; bounds bound."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stein.backends.ckks.core.layout import Packing
from stein.backends.ckks.linear.cover import Cover, bound, cover, sites
from stein.backends.ckks.linear.matrix import Matrix
from stein.backends.ckks.lowering.problem import Linear

sys.path.insert(0, str(Path(__file__).resolve().parent))
import linear_programs as programs

EVERYTHING = 1 << 40


def _matrix(program: programs.EncryptedProgram) -> Matrix:
    step = program.steps[0]
    assert isinstance(step, Linear)
    tensors = {n: tuple(s.constant or 0 for s in t.shape) for n, t in program.clear.tensors.items()}
    return Matrix(step, {**program.shapes, **tensors})


def _met(found: Cover, p: Packing, q: Packing, matrix: Matrix) -> np.ndarray:
    """How often each (row, element) is met."""
    times = np.zeros((matrix.rows, matrix.columns), dtype=int)
    for number, (d, c, k) in enumerate(found.places.tolist()):
        at = found.served(number)
        rows, elements = q.at[d][at], p.at[c][(at + k) % found.slots]
        assert (rows >= 0).all() and (elements >= 0).all()
        np.add.at(times, (rows, elements), 1)
    return times


def _pattern(matrix: Matrix) -> np.ndarray:
    flags = np.zeros(matrix.rows * matrix.columns, dtype=int)
    flags[np.arange(matrix.count) if matrix.full else matrix.keys] = 1
    return flags.reshape(matrix.rows, matrix.columns)


@st.composite
def _packings(draw: st.DrawFn, count: int, slots: int) -> Packing:
    """Every number at least once in one to three ciphertexts, repeats and gaps anywhere."""
    rows = draw(st.integers(-(-count // slots), 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    at = np.full(rows * slots, -1, dtype=np.int32)
    if draw(st.booleans()):
        at = rng.integers(-1, count, rows * slots).astype(np.int32)
    at[rng.permutation(rows * slots)[:count]] = np.arange(count)
    return Packing(at.reshape(rows, slots))


@settings(max_examples=150, deadline=None)
@given(st.data(), programs.random_programs(7))
def test_every_pair_is_met_once(data: st.DataObject, program: programs.EncryptedProgram) -> None:
    matrix = _matrix(program)
    slots = data.draw(st.sampled_from([16, 32, 24]))
    if matrix.columns > 3 * slots or matrix.rows > 3 * slots:
        return
    p, q = data.draw(_packings(matrix.columns, slots)), data.draw(_packings(matrix.rows, slots))
    of_p, of_q = sites(p, matrix.columns, slots), sites(q, matrix.rows, slots)
    found = cover(matrix, of_p, of_q, data.draw(st.sampled_from([1, 4])), EVERYTHING)
    assert found is not None
    assert (_met(found, p, q, matrix) == _pattern(matrix)).all()
    assert len({tuple(place) for place in found.places.tolist()}) == len(found)
    if matrix.count:
        assert bound(matrix, of_p, of_q) <= len(found)
        assert cover(matrix, of_p, of_q, 1, bound(matrix, of_p, of_q) - 1) is None


def test_a_dense_matrix_in_slots_without_repeats_takes_every_offset() -> None:
    matrix = _matrix(programs.dense(16, 16))
    of = sites(Packing.vector(16), 16, 16)
    found = cover(matrix, of, of, 1, EVERYTHING)
    assert found is not None and len(found) == 16


def test_repeats_are_put_to_use() -> None:
    """x four times over, rows by neighbouring fours: only multiples of four are needed."""
    matrix = _matrix(programs.dense(16, 16))
    p, q = Packing(np.tile(np.arange(16), 4)[None]), Packing(np.repeat(np.arange(16), 4)[None])
    found = cover(matrix, sites(p, 16, 64), sites(q, 16, 64), 4, EVERYTHING)
    assert found is not None
    assert sorted(k % 16 for k in found.places[:, 2].tolist()) == [0, 4, 8, 12]


def test_a_limit_is_kept() -> None:
    matrix = _matrix(programs.dense(16, 16))
    of = sites(Packing.vector(16), 16, 16)
    assert cover(matrix, of, of, 1, 15) is None
    assert cover(matrix, of, of, 1, 16) is not None


def test_a_packing_that_lacks_a_number_has_no_cover() -> None:
    matrix = _matrix(programs.dense(4, 4))
    whole, part = sites(Packing.vector(4), 4, 4), sites(Packing(np.array([[0, 1, 2, -1]])), 4, 4)
    assert cover(matrix, part, whole, 1, EVERYTHING) is None
    assert cover(matrix, whole, part, 1, EVERYTHING) is None


@pytest.mark.parametrize("case", ["banded", "kronecker"])
def test_zero_diagonals_do_not_appear(case: str) -> None:
    program = programs.banded(64, 2) if case == "banded" else programs.outer_axis(8)
    matrix = _matrix(program)
    of = sites(Packing.vector(64), 64, 64)
    found = cover(matrix, of, of, 1, EVERYTHING)
    assert found is not None
    offsets = {(k + 32) % 64 - 32 for k in found.places[:, 2].tolist()}
    wanted = {-2, -1, 0, 1, 2} if case == "banded" else {8 * k for k in range(8)}
    assert {k % 64 for k in offsets} == {k % 64 for k in wanted}
