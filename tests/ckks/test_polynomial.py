"""Polynomials: certified fits, logarithmic depth, exact values on slots, zeros where nothing is held."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stein.backends.ckks.core.circuit import ADD, MULTIPLY_PLAIN
from stein.backends.ckks.core.layout import Packing
from stein.backends.ckks.core.simulator import Slots
from stein.backends.ckks.lowering.chebyshev import fit
from stein.backends.ckks.lowering.problem import Polynomial
from stein.backends.ckks.steps import polynomial
from stein.backends.ckks.steps.context import Free
from stein.backends.ckks.steps.option import Placed
from stein.backends.ckks.steps.polynomial import Evaluation
from stein.ir.errors import EncryptionError
from stein.ir.functions import FUNCTIONS
from stein.tests.ckks.product_cases import Array, context_for, run, written

RING, SLOTS = 64, 32
FITS = [
    ("exp", 7, -1.0, 1.0), ("sigmoid", 7, -8.0, 8.0), ("tanh", 15, -4.0, 4.0), ("relu", 7, -1.0, 2.0),
    ("gelu", 15, -4.0, 4.0), ("silu", 9, -6.0, 6.0), ("sqrt", 15, 0.0, 1.0), ("log", 12, 0.1, 4.0),
    ("erf", 21, -3.0, 3.0), ("abs", 8, -1.0, 1.0), ("sin", 20, -1.0, 1.0), ("cos", 1, 0.0, 3.0),
]  # fmt: skip


@pytest.mark.parametrize(("name", "degree", "low", "high"), FITS)
def test_the_error_of_a_fit_is_a_bound_and_a_tight_one(name: str, degree: int, low: float, high: float) -> None:
    """No point of a fine grid is further away than the bound, and some is nearly as far."""
    function = FUNCTIONS[name].numpy
    found = fit(function, degree, low, high)
    x = np.linspace(low, high, 100_003)
    largest = float(np.abs(function(x) - found(x)).max())
    scale = float(np.abs(function(x)).max())
    assert largest <= found.error <= 1.1 * largest + 200 * np.finfo(float).eps * scale
    assert len(found.coefficients) <= degree + 1


def test_fits_leave_out_what_is_zero_by_symmetry() -> None:
    """tanh is odd, so no even term costs anything."""
    assert not any(fit(np.tanh, 9, -2.0, 2.0).coefficients[::2])


def test_a_function_without_a_value_is_refused() -> None:
    """log on a range with 0 in it."""
    with pytest.raises(EncryptionError, match="no finite value"):
        fit(np.log, 5, -1.0, 1.0)


def value_of(step: Polynomial, x: Array) -> Array:
    """The polynomial by NumPy."""
    if not step.chebyshev:
        return np.asarray(np.polynomial.polynomial.polyval(x, step.coefficients))
    scaled = (2 * x - step.high - step.low) / (step.high - step.low)
    return np.asarray(np.polynomial.chebyshev.chebval(scaled, step.coefficients))


def evaluations(step: Polynomial, levels: int, shape: tuple[int, ...] = (7,)) -> list[Evaluation]:
    """All ways for an input of this shape."""
    context = context_for(step, {"x": shape, "y": shape}, RING, levels)
    return [o for o in polynomial.options(step, context, (Free("x", shape),)) if isinstance(o, Evaluation)]


@pytest.mark.parametrize(("degree", "levels"), [(1, 1), (2, 2), (3, 2), (4, 3), (7, 3), (8, 4), (15, 4), (31, 5)])
@pytest.mark.parametrize(("low", "high", "scaling"), [(-1.0, 1.0, 0), (-4.0, 2.0, 1)])
def test_depth_is_the_logarithm(degree: int, levels: int, low: float, high: float, scaling: int) -> None:
    """Degree 3 takes 2 levels, 7 takes 3, 15 takes 4; one more where the range has to be scaled."""
    coefficients = tuple(np.random.default_rng(degree).uniform(0.1, 1, degree + 1))
    step = Polynomial("y", "x", coefficients, low, high, chebyshev=True)
    found = evaluations(step, levels + scaling)
    assert min(e.level for e in found) == levels + scaling
    assert not evaluations(step, levels + scaling - 1)
    x = np.random.default_rng(1).uniform(low, high, 7)
    for option in found:
        _, got = run(step, option, SLOTS, {"x": x}, (7,))
        np.testing.assert_allclose(got.outputs["y"], value_of(step, x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("coefficients", "levels", "products"),
    [
        ((0, 0, 1), 1, 1), ((0, 0, 0, 1), 2, 2), ((1, 0, 1), 1, 1), ((0, 1, 1), 1, 1), ((0, 0, 0, 0, 1), 2, 2),
        ((0, 0, 0, 0, 0, 1), 3, 3), ((0, 3), 0, 0), ((5, -1), 0, 0), ((0, 0.5), 1, 0), ((0, 0, -2), 1, 1),
    ],
)  # fmt: skip
def test_powers(coefficients: tuple[float, ...], levels: int, products: int) -> None:
    """Powers and small integers cost no plain product and no level of their own."""
    step = Polynomial("y", "x", tuple(map(float, coefficients)))
    option = min(evaluations(step, 4), key=lambda e: e.level)
    x = np.linspace(-1, 1, 7)
    circuit, got = run(step, option, SLOTS, {"x": x}, (7,))
    np.testing.assert_allclose(got.outputs["y"], value_of(step, x), atol=1e-12)
    assert (circuit.levels, option.work.cipher_products) == (levels, products)


@given(
    st.lists(st.sampled_from([0.0, 1.0, -1.0, 0.3, -0.7, 2.0]), min_size=2, max_size=24),
    st.booleans(),
    st.sampled_from([(-1.0, 1.0), (-3.0, 1.0), (-0.5, 0.5)]),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_any_polynomial(coefficients: list[float], chebyshev: bool, ends: tuple[float, float]) -> None:
    """Every way to evaluate a polynomial gives its value, and is the same when it is made again."""
    coefficients[-1] = coefficients[-1] or 1.0
    step = Polynomial("y", "x", tuple(coefficients), *ends, chebyshev=chebyshev)
    x = np.random.default_rng(2).uniform(*(ends if chebyshev else (-1.0, 1.0)), (3, 5))
    context = context_for(step, {"x": (3, 5), "y": (3, 5)}, RING, 8)
    arguments = (Free("x", (3, 5)),)
    for option in polynomial.options(step, context, arguments):
        _, got = run(step, option, SLOTS, {"x": x}, (3, 5))
        np.testing.assert_allclose(got.outputs["y"], value_of(step, x), rtol=1e-9, atol=1e-9)
        again = polynomial.restore(step, context, arguments, json.loads(json.dumps(option.decision())))
        assert written(step, again, SLOTS).text() == written(step, option, SLOTS).text()


def test_slots_without_an_element_stay_zero() -> None:
    """Constants are added where there is something, so that the result can still be summed."""
    step = Polynomial("y", "x", (1.0, 0.0, 2.0), chebyshev=True)
    packing = Packing(np.array([[0, 1, 2, -1] + [-1] * 28], dtype=np.int32))
    context = context_for(step, {"x": (3,), "y": (3,)}, RING, 3)
    for option in polynomial.options(step, context, (Placed(packing, 0),)):
        circuit = written(step, option, SLOTS)
        assert option.gives.packing.clean
        machine = Slots(circuit, {"x": np.array([0.1, 0.2, 0.3])}, {})
        values = machine.run()
        (node,) = circuit.downloads["y"][1]
        assert not values[node][3:].any()


def test_what_a_fold_left_is_masked_before_it_can_overflow() -> None:
    """A series on a range is never evaluated on slots that hold anything."""
    step = Polynomial("y", "x", (0.0, 1.0, 0.0, 1.0), chebyshev=True)
    packing = Packing(np.array([[0, -1, 1, -1] + [-1] * 28], dtype=np.int32), clean=False)
    context = context_for(step, {"x": (2,), "y": (2,)}, RING, 4)
    option = next(polynomial.options(step, context, (Placed(packing, 1),)))
    circuit = written(step, option, SLOTS)
    first = next(n for n in circuit.nodes if n.kind == MULTIPLY_PLAIN)
    np.testing.assert_array_equal(circuit.plains[first.plain].vector({}) != 0, packing.at[0] >= 0)
    assert option.gives.packing.clean


def test_sums_meet_before_a_rescaling() -> None:
    """No settled values of different levels are added: scales would differ there."""
    step = Polynomial("y", "x", tuple(np.linspace(0.1, 1, 16)), chebyshev=True)
    for option in evaluations(step, 6):
        circuit = written(step, option, SLOTS)
        for node in circuit.nodes:
            if node.kind == ADD:
                kinds = {circuit.nodes[a].kind for a in node.args}
                assert "switch" not in kinds or node.pending


@pytest.mark.parametrize("degree", [7, 15, 30])
def test_bounds_that_are_claimed_hold(degree: int) -> None:
    """Values of Chebyshev polynomials stay below what is claimed of them, which keeps ranges from exploding."""
    found = fit(np.tanh, degree, -4.0, 4.0)
    step = Polynomial("y", "x", found.coefficients, -4.0, 4.0, chebyshev=True)
    x = np.linspace(-4, 4, 30)
    for option in evaluations(step, 7, (30,)):
        circuit = written(step, option, SLOTS)
        machine = Slots(circuit, {"x": x}, {})
        values: list[Array] = []
        for node in circuit.nodes:
            values.append(machine.value(node, [values[a] for a in node.args]))
        assert len(circuit.claims) > 3
        for number, largest in circuit.claims.items():
            assert np.abs(values[number]).max() <= largest * (1 + 1e-12)
        assert circuit.claims[circuit.downloads["y"][1][0]] < 3
