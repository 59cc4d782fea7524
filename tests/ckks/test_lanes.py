"""The parts of products in lanes: folds, digits read from packings, orders of operands."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stein.backends.ckks.core import fold
from stein.backends.ckks.core.circuit import Builder
from stein.backends.ckks.core.layout import Form, Layout, Packing
from stein.backends.ckks.core.simulator import simulate
from stein.backends.ckks.lowering.problem import Product
from stein.backends.ckks.planning.cost import Prices
from stein.backends.ckks.steps.context import Context
from stein.backends.ckks.steps.digits import ONLY, REPLICA, read_digits
from stein.backends.ckks.steps.trees import Network, leaves, orders, tally


@given(st.integers(1, 60), st.integers(1, 3))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_folds(extent: int, stride: int) -> None:
    """Slot 0 has the sum, in as many rotations as predicted, by the predicted steps."""
    builder = Builder(256)
    result = fold.emit(builder, builder.input("x", 0), extent, stride)
    vector = Packing.vector(256)
    circuit = builder.circuit({"x": vector}, {"y": (vector, (result,))})
    x = np.random.default_rng(0).uniform(-1, 1, 256)
    got = simulate(circuit, {"x": x}, {}, {"y": (256,)}).outputs["y"]
    np.testing.assert_allclose(got[0], x[: extent * stride : stride].sum())
    assert circuit.counts().get("rotate", 0) == fold.rotations(extent) == len(fold.steps(extent, stride))
    assert set(circuit.steps) == set(fold.steps(extent, stride))
    assert fold.rotations(extent) >= fold.rotations(fold.room(extent)) == (extent - 1).bit_length()


def test_a_fold_of_the_top_digit_is_cyclic() -> None:
    """All positions get the sum if the digit fills the ciphertext."""
    builder = Builder(16)
    result = fold.emit(builder, builder.input("x", 0), 4, 4)
    vector = Packing.vector(16)
    circuit = builder.circuit({"x": vector}, {"y": (vector, (result,))})
    got = simulate(circuit, {"x": np.arange(16.0)}, {}, {"y": (16,)}).outputs["y"]
    np.testing.assert_array_equal(got.reshape(4, 4), np.tile(np.arange(16.0).reshape(4, 4).sum(0), (4, 1)))


LAYOUTS = [
    Layout((("i", 3),), (("f", 2), ("i", 4))),
    Layout((("i", 5), ("j", 3)), (("i", 5), ("j", 4)), (("r", 1),)),
    Layout((("i", 10), ("j", 3)), (("j", 3), ("i", 4)), (("c", 3),), (("i", Form((("i", 1), ("c", 4)))),)),
    Layout((("i", 16),), (("h", 4), ("f", 2), ("l", 4)), (), (("i", Form((("h", 4), ("l", 1)))),)),
    Layout((("i", 4), ("j", 2)), (("g", 4), ("i", 4), ("j", 2)), only=("g",)),
    Layout((("i", 4),), (("i", 4), ("g", 8)), only=("g",)),
    Layout((("i", 1),), (("i", 1),)),
    Layout((("i", 3), ("j", 5)), (("j", 5), ("i", 3))),
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.text())
def test_digits_are_read_back(layout: Layout) -> None:
    """The digits of a layout's packing give the same packing."""
    packing = layout.packing(64)
    shape = tuple(n for _, n in layout.axes)
    digits = read_digits(packing, shape)
    assert digits is not None
    np.testing.assert_array_equal(digits.layout(shape).packing(64).at, packing.at)


def test_replicas_and_folded_digits_are_told_apart() -> None:
    """A replica can hold other indices; what a fold left cannot."""
    layout = Layout((("i", 4),), (("r", 2), ("i", 4), ("g", 8)), only=("g",))
    digits = read_digits(layout.packing(64), (4,))
    assert digits is not None and [d.axis for d in digits.slots] == [REPLICA, 0, ONLY]


@pytest.mark.parametrize(
    "at",
    [
        np.array([[0, 1, 2, 3, 1, 2, 3, 0]]),  # skewed
        np.array([[0, 2, 1, 3, 0, 0, 1, 1]]),  # no order
        np.array([[-1, 0, 1, 2, 3, -1, -1, -1]]),  # not from the start
    ],
)
def test_packings_without_digits_are_not_misread(at: np.ndarray) -> None:
    """None, where the packing is no grid."""
    assert read_digits(Packing(at.astype(np.int32)), (4,)) is None


def network(*terms: str, output: str = "", levels: tuple[int, ...] = ()) -> Network:
    """The network of operands with these indices."""
    names = tuple(f"x{k}" for k in range(len(terms)))
    step = Product("y", names, tuple(map(tuple, terms)), tuple(output), dict.fromkeys("".join(terms), 2))
    return Network.of(step, levels or (0,) * len(terms))


def test_orders_are_all_binary_trees() -> None:
    """3, 15 and 105 of three, four and five operands, each with every operand once."""
    for count, trees in ((2, 1), (3, 3), (4, 15), (5, 105)):
        found = orders(network(*["i"] * count, output="i"), 5)
        assert len(set(found)) == trees
        assert all(leaves(t) == frozenset(range(count)) for t in found)


def test_the_least_depth_comes_first() -> None:
    """Operands that are lower already are multiplied late."""
    found = orders(network("i", "i", "i", output="i", levels=(2, 0, 0)), 3)
    assert found[0] == (0, (1, 2))
    assert network("i", "i", "i", output="i", levels=(2, 0, 0)).level(found[0]) == 3
    many = network(*["i"] * 9, output="i")
    assert many.level(orders(many, 4)[0]) == 4
    assert not orders(many, 3)


def test_sums_come_before_products_where_an_index_is_alone() -> None:
    """sum_j a[i, j] b[i]: the ciphertexts along j are added first."""
    context = Context(8192, 1, Prices(8192), {})
    counts = {"i": np.array([1]), "j": np.array([8])}
    found = tally((0, 1), network("ij", "i", output="i"), counts, context)
    assert (found.cipher_products[0], found.additions[0], found.relinearisations[0]) == (1, 7, 1)
