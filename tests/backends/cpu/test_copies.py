"""Padded and periodic copies: the runs of one dimension against the definition, position by position."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import stein
from stein.backends.cpu.copies import inner_range, runs_of
from stein.ir.expr import Read
from stein.ir.index import Affine
from stein.ir.types import F64


def source(position: int, modulus: int | None, extent: int, pad: float | str | None) -> int | None:
    if modulus is not None:
        position %= modulus
    if pad == "wrap":
        return position % extent
    if pad == "edge":
        return min(max(position, 0), extent - 1)
    return position if 0 <= position < extent else None


@given(
    length=st.integers(0, 20),
    low=st.integers(-15, 15),
    step=st.sampled_from([1, 1, 1, -1, 0, 2, 3]),
    modulus=st.sampled_from([None, None, 1, 2, 3, 5, 7]),
    extent=st.integers(1, 8),
    pad=st.sampled_from([0.0, "edge", "wrap", None]),
)
def test_runs_read_what_the_definition_says(
    length: int, low: int, step: int, modulus: int | None, extent: int, pad: float | str | None
) -> None:
    if pad is None and (modulus is None or modulus > extent):
        return
    found: list[int | None] = [None] * length
    for run in runs_of(length, low, step, modulus, extent, pad):
        for k in range(run.periods):
            for q in range(run.length):
                position = run.at + k * run.length + q
                assert found[position] is None, "a position is written once"
                found[position] = run.start + q * run.step
    assert found == [source(low + step * p, modulus, extent, pad) for p in range(length)]


def test_a_long_period_is_one_run() -> None:
    runs = runs_of(1_000_000, 3, 1, 7, 7, None)
    assert len(runs) <= 3
    assert max(r.periods for r in runs) > 100_000


@given(
    extents=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    rows=st.tuples(st.sampled_from([-2, -1, 0, 1, 2]), st.sampled_from([-1, 0, 1]), st.integers(-6, 8)),
    cols=st.tuples(st.sampled_from([-1, 1, 2]), st.sampled_from([-2, -1, 1, 3]), st.integers(-8, 8)),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_the_inner_range_is_the_longest_that_needs_no_padding(
    extents: tuple[int, int], rows: tuple[int, int, int], cols: tuple[int, int, int], shape: tuple[int, int]
) -> None:
    i, j = Affine.of("i"), Affine.of("j")
    slots = tuple(i * a + j * b + c for a, b, c in (rows, cols))
    found = inner_range(Read("x", slots, F64, 0.0), {"i": extents[0], "j": extents[1]}, {}, shape)
    best = 0
    for name, axis in (("i", 0), ("j", 1)):
        good = []
        for value in range(extents[axis]):
            points = [p for p in itertools.product(*map(range, extents)) if p[axis] == value]
            reads = [[a * p + b * q + c for a, b, c in (rows, cols)] for p, q in points]
            good.append(all(0 <= v < n for at in reads for v, n in zip(at, shape, strict=True)))
        if name == found[0] and found[2] > found[1]:
            assert all(good[found[1] : found[2]])
        best = max(best, sum(good))  # what is good is one run: every slot is monotone in each index
    assert max(0, found[2] - found[1]) == best


def test_a_padded_diagonal_read() -> None:
    for n, m, low, width in ((7, 9, 2, 5), (9, 7, 0, 3), (5, 5, 4, 9), (1, 4, 1, 2), (6, 2, 3, 4), (4, 4, -6, 3)):
        w = np.arange(1.0, n * m + 1).reshape(n, m)
        f = stein.compile(f"W: f64[{n},{m}] pad=0; b[i,d] = W[i,i+d-({low})] for i in 0..{n}, d in 0..{width}")
        padded = np.pad(w, ((0, 0), (20, 20)))
        wanted = np.stack([padded[i, 20 + i - low : 20 + i - low + width] for i in range(n)])
        assert np.array_equal(f(W=w), wanted)
