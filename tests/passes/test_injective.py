"""Whether an output position is written once: read as mixed-radix numbers, whatever order the digits are written in."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

import stein
from stein.ir.text import parse_ir
from stein.passes.tools import is_injective


def _equation(coefficients: list[int], extents: list[int]) -> object:
    names = [f"i{k}" for k in range(len(extents))]
    slot = "+".join(f"{c}*{n}" for c, n in zip(coefficients, names, strict=True))
    size = sum(c * (n - 1) for c, n in zip(coefficients, extents, strict=True)) + 1
    over = ", ".join(f"{n}<{e}" for n, e in zip(names, extents, strict=True))
    shape = ", ".join(map(str, extents))
    text = f"input x: f64[{shape}]\ny[{slot}]: f64[{size}] = x[{', '.join(names)}] over {over}\nreturn y"
    return parse_ir(text).equations[0]


@given(st.lists(st.tuples(st.integers(1, 12), st.integers(2, 4)), min_size=1, max_size=4))
def test_what_counts_as_injective_is(digits: list[tuple[int, int]]) -> None:
    """Never true where two points meet; true for every mixed-radix number, in any order of its digits."""
    coefficients, extents = [c for c, _ in digits], [e for _, e in digits]
    places = [sum(c * k for c, k in zip(coefficients, p, strict=True)) for p in product(*map(range, extents))]
    claimed = is_injective(_equation(coefficients, extents))  # type: ignore[arg-type]
    assert not claimed or len(set(places)) == len(places)
    reach, radix = 0, True
    for c, e in sorted(digits):
        radix, reach = radix and c > reach, reach + c * (e - 1)
    assert claimed == radix


@pytest.mark.parametrize("text", ["y[b,(i j)] = A[i,k] * x[b,k,j]", "y[b,(j i)] = A[i,k] * x[b,k,j]"])
def test_a_composed_output_needs_no_copy(text: str) -> None:
    """The product writes into the composed axis itself: one kernel, no intermediate."""
    f = stein.compile(text, A=(4, 5), x=(3, 5, 6), dtype="float64")
    assert f.stats["launches"] == 1
    assert f.stats["peak_memory"] == 0
