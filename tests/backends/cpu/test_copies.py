"""Padded and periodic copies: the runs of one dimension against the definition, position by position."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stein.backends.cpu.copies import runs_of


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
