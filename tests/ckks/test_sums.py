"""Sums of encrypted values: numbers, bias, levels, packings."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stein.backends.ckks.core.layout import Packing
from stein.backends.ckks.linear import sums
from stein.backends.ckks.lowering.problem import Sum
from stein.backends.ckks.steps.context import Argument, Free
from stein.backends.ckks.steps.option import Placed
from stein.tests.ckks.product_cases import Array, context_for, run, written

RING, SLOTS = 64, 32


def arrays_of(step: Sum, shape: tuple[int, ...]) -> dict[str, Array]:
    """Values of the operands."""
    rng = np.random.default_rng(0)
    return {name: rng.uniform(-1, 1, shape) for name, _ in step.operands}


def value_of(step: Sum, arrays: dict[str, Array], bias: Array) -> Array:
    """The sum by NumPy."""
    return np.asarray(sum((f * arrays[n] for n, f in step.operands), start=bias if step.bias else 0 * bias))


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([1.0, -1.0, 3.0, 0.25])), min_size=1, max_size=4),
    st.lists(st.integers(0, 2), min_size=3, max_size=3),
    st.booleans(),
    st.sampled_from([(7,), (5, 11)]),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_any_sum(terms: list[tuple[str, float]], levels: list[int], bias: bool, shape: tuple[int, ...]) -> None:
    """Operands packed by the client or computed, at any level, once or several times."""
    step = Sum("y", tuple(terms), "b" if bias else None)
    shapes = {n: shape for n, _ in terms} | {"y": shape}
    context = context_for(step, shapes, RING, 4, final=False)
    arrays, b = arrays_of(step, shape), np.linspace(1, 2, int(np.prod(shape))).reshape(shape)
    free: dict[str, Argument] = {n: Free(n, shape) for n in "abc"}
    total = {n: sum(f for m, f in terms if m == n) for n, _ in terms}
    found = list(sums.options(step, context, tuple(free[n] for n, _ in terms)))
    assert bool(found) == any(total.values())
    for option in found[:2]:
        placed = {n: Placed(option.gives.packing, lv) for n, lv in zip("abc", levels, strict=True)}
        for given_ in (tuple(free[n] for n, _ in terms), tuple(placed[n] for n, _ in terms)):
            made = next(sums.options(step, context, given_))
            _, got = run(step, made, SLOTS, arrays, shape, {"b": b})
            np.testing.assert_allclose(got.outputs["y"], value_of(step, arrays, b), rtol=1e-12, atol=1e-12)
            again = sums.restore(step, context, given_, json.loads(json.dumps(made.decision())))
            assert written(step, again, SLOTS).text() == written(step, made, SLOTS).text()


def test_signs_take_no_level() -> None:
    """x - y, and 2 x - 3 y, are additions alone."""
    step = Sum("z", (("x", 2.0), ("y", -3.0)))
    context = context_for(step, dict.fromkeys("xyz", (4,)), RING, 2)
    option = next(sums.options(step, context, (Free("x", (4,)), Free("y", (4,)))))
    assert option.gives.level == 0 and option.work.plain_products == 0


def test_values_of_different_levels_meet_before_a_rescaling() -> None:
    """x + f(x): the higher value is multiplied by 1, so that scales agree exactly."""
    step = Sum("z", (("x", 1.0), ("y", 1.0)))
    context = context_for(step, dict.fromkeys("xyz", (4,)), RING, 2)
    packing = Packing(np.array([[0, 1, 2, 3] + [-1] * 28], dtype=np.int32))
    option = next(sums.options(step, context, (Placed(packing, 0), Placed(packing, 2))))
    assert option.gives.level == 2 and option.work.plain_products == 1


@pytest.mark.parametrize("turn", [1, 3])
def test_values_in_different_packings_are_moved_together(turn: int) -> None:
    """A permuted operand is gathered, one level lower."""
    step = Sum("z", (("x", 1.0), ("y", 1.0)))
    context = context_for(step, dict.fromkeys("xyz", (8,)), RING, 2)
    rng = np.random.default_rng(turn)
    one = Packing(np.concatenate([np.arange(8), np.full(24, -1)])[None].astype(np.int32))
    two = Packing(np.concatenate([rng.permutation(8), np.full(24, -1)])[None].astype(np.int32))
    arguments = (Placed(one, 0), Placed(two, 0))
    option = next(sums.options(step, context, arguments))
    arrays = arrays_of(step, (8,))
    _, got = run(step, option, SLOTS, arrays, (8,))
    np.testing.assert_allclose(got.outputs["z"], arrays["x"] + arrays["y"])
    again = sums.restore(step, context, arguments, json.loads(json.dumps(option.decision())))
    assert written(step, again, SLOTS).text() == written(step, option, SLOTS).text()


def test_replicas_that_one_operand_lacks_are_given_up() -> None:
    """A periodic value plus one that is held once need no move."""
    step = Sum("z", (("x", 1.0), ("y", 1.0)))
    context = context_for(step, dict.fromkeys("xyz", (8,)), RING, 2)
    one = Packing(np.tile(np.arange(8, dtype=np.int32), 4)[None])
    two = Packing(np.concatenate([np.arange(8), np.full(24, -1)])[None].astype(np.int32), clean=False)
    option = next(sums.options(step, context, (Placed(one, 0), Placed(two, 0))))
    assert option.work.rotations == 0 and option.gives.level == 0
    assert not option.gives.packing.clean
