"""Lists of blocks in order of their rows, and axes in digits: what block-sparse plans stand on."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stein.backends.gpu.block_rows import ordered
from stein.backends.gpu.kernels.digits import in_digits
from stein.backends.gpu.views import Layout
from stein.ir.text import parse_ir
from stein.ir.types import F32

PLACES = st.lists(st.tuples(st.integers(-2, 6), st.integers(-2, 6)), max_size=12)


@settings(deadline=None)
@given(PLACES, st.integers(1, 5), st.integers(1, 5))
def test_every_block_in_the_grid_is_at_one_place_of_its_row(
    places: list[tuple[int, int]], high: int, wide: int
) -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    rows, columns = (torch.tensor([p[k] for p in places], dtype=torch.int64) for k in (0, 1))
    pointers, column, order = (t.tolist() for t in ordered(rows, columns, (high, wide)))
    for row in range(high):
        blocks = order[pointers[row] : pointers[row + 1]]
        assert blocks == [s for s, (r, c) in enumerate(places) if r == row and 0 <= c < wide]
        assert column[pointers[row] : pointers[row + 1]] == [places[s][1] for s in blocks]


@pytest.mark.parametrize(
    ("text", "slots"),
    [
        ("y[3*i+a]: f32[12] = x[3*i+a] over i<4, a<3", "i a"),
        ("y[j]: f32[12] = x[j] over j<12", "j"),
        ("y[3*i+a]: f32[12] = x[2*k+c] over i<4, a<3, k<6, c<2", "i a"),  # digits of each tensor by itself
        ("y[3*i+a]: f32[12] = exp(y2[2*k+c]) over i<4, a<3, k<6, c<2", None),  # one tensor in two ways
        ("y[4*i+a]: f32[12] = x[4*i+a] over i<3, a<3", None),  # a gap
        ("y[3*i+a]: f32[12] = x[3*i+a+1] over i<4, a<3", None),
        ("y[3*i+a]: f32[12] = x[3*i+a] over i<3, a<3", None),  # not all of it
    ],
)
def test_digits(text: str, slots: str | None) -> None:
    first = "y2[3*i+a]: f32[12] = x[3*i+a] over i<4, a<3\n" if "y2" in text else ""
    program = parse_ir(f"input x: f32[12]\n{first}{text}\nreturn y")
    found = in_digits(program.equations, {n: Layout.dense((12,), F32) for n in ("x", "y", "y2")}, {})
    if slots is None:
        assert found is None
    else:
        assert found is not None
        (equation,) = found[0]
        assert [s.bare for s in equation.slots] == slots.split()
        assert all(s.bare is not None for s in equation.slots)
        assert len(found[1]["y"].shape) == len(equation.slots)
