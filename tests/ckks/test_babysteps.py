"""Splits of offsets into baby and giant steps."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stein.backends.ckks.linear.babysteps import least, split
from stein.backends.ckks.planning.cost import Prices

PRICES = Prices(8192)


def _places(offsets: list[int]) -> np.ndarray:
    return np.array([(0, 0, k) for k in offsets])


@given(st.sets(st.integers(0, 255), min_size=1, max_size=60))
def test_parts_add_up_and_are_counted(offsets: set[int]) -> None:
    found = split(_places(sorted(offsets)), 256, PRICES, 2)
    parts = [found.parts(k, 256) for k in sorted(offsets)]
    assert [(a + b) % 256 for a, b in parts] == sorted(offsets)
    assert found.babies == len({a for a, _ in parts} - {0})
    assert found.giants == len({b for _, b in parts} - {0})
    baby, giant = PRICES.rotate(2), PRICES.rotate(1) + PRICES.rescale(2)
    assert found.babies * baby + found.giants * giant >= least(len(offsets), baby, giant) - 1e-9


def test_all_offsets_take_about_twice_the_root() -> None:
    found = split(_places(list(range(1024))), 1024, PRICES, 2)
    assert found.babies + found.giants <= 64


def test_offsets_around_zero_are_signed() -> None:
    found = split(_places([*range(9), *range(4088, 4096)]), 4096, PRICES, 2)
    assert found.babies + found.giants <= 7


def test_more_giants_than_babies_where_giants_are_cheaper() -> None:
    """A rotation at the last level costs half; so does the best split of a dense map have fewer babies."""
    found = split(_places(list(range(4096))), 4096, PRICES, 2)
    assert found.babies < found.giants


def test_a_common_stride_is_found() -> None:
    found = split(_places([96 * k for k in range(16)]), 4096, PRICES, 2)
    assert found.babies + found.giants == 6
