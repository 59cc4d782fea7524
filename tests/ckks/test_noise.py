"""Predicted errors: never below what is measured, and not far above."""

from __future__ import annotations

import numpy as np
import pytest

import stein
from stein.backends.ckks.chain.noise import predict
from stein.backends.ckks.chain.parameters import Parameters
from stein.backends.ckks.chain.ranges import assumed, exact
from stein.backends.ckks.chain.scales import bind
from stein.backends.ckks.core import circuit as c
from stein.tests.ckks.encrypted_runs import MEDIUM, Fixed, one_output
from stein.tests.ckks.noise_cases import CASES, Build, bits, case

RUNS = 20  # of each of some thirty circuits, each with its own key; noise_cases.py studies a thousand


@pytest.mark.parametrize(("name", "build"), CASES, ids=lambda v: v if isinstance(v, str) else v.__name__)
def test_the_prediction_is_above_the_error_by_less_than_three_bits(name: str, build: Build) -> None:
    pytest.importorskip("tenseal", reason="encrypted programs need tenseal")
    circuit = case(name, build)
    if circuit is None:
        return
    found, _ = bits(name, circuit, RUNS, 1)
    assert 0 <= found.min() < 3  # of the worst run: how much keys err at one slot differs by three bits from key to key


def error(circuit: c.Circuit, parameters: Parameters = MEDIUM, wide: bool = False, **ranges: float) -> float:
    vectors = exact(circuit, {}) if wide else assumed(circuit, ranges)
    return predict(circuit, bind(circuit, parameters), ranges, vectors, wide).errors["z"]


def test_what_is_assumed_of_clear_tensors_is_no_less_than_their_values() -> None:
    b = c.Builder(4096)
    x = b.input("x", 0)
    values = np.random.default_rng(0).uniform(-1, 1, (5, 4096))
    terms = [b.multiply_plain(b.rotate(x, k), Fixed(v, ("W",))) for k, v in enumerate(values)]
    circuit = one_output(b, b.rescale(b.total(terms)), ("x",))
    assert error(circuit, wide=True) < error(circuit) < 4 * error(circuit, wide=True)


def test_the_error_of_a_linear_map_does_not_depend_on_the_inputs_range_but_that_of_a_product_does() -> None:
    b = c.Builder(4096)
    x, y = b.input("x", 0), b.input("y", 0)
    linear, product = one_output(b, b.rotate(x, 1), ("x",)), one_output(b, b.rescale(b.multiply(x, y)))
    assert error(linear, x=1.0) == error(linear, x=50.0)
    assert error(product, x=50.0, y=50.0) > error(product, x=1.0, y=1.0)


def test_a_small_special_prime_shows() -> None:
    b = c.Builder(4096)
    circuit = one_output(b, b.rotate(b.input("x", 0), 1), ("x",))
    poor, good = Parameters(8192, (60, 40, 40, 60)), Parameters(8192, (45, 40, 40, 60))
    assert error(circuit, poor) > 20 * error(circuit, good)


def test_masked_slots_have_no_error_of_what_was_masked() -> None:
    b = c.Builder(4096)
    x = b.input("x", 0)
    noisy = x
    for _ in range(20):
        noisy = b.rotate(noisy, 1)
    mask = np.where(np.arange(4096) < 2048, 1.0, 2.0**-10)
    circuit = one_output(b, b.rescale(b.multiply_plain(noisy, Fixed(mask))), ("x",))
    everywhere = one_output(b, b.rescale(b.multiply_plain(noisy, Fixed(np.full(4096, 2.0**-10)))), ("x",))
    assert error(everywhere, wide=True) < error(circuit, wide=True)


def test_relative_errors_compare_with_the_usual_magnitude() -> None:
    b = c.Builder(4096)
    x = b.input("x", 0)
    total = x
    for k in range(12):
        total = b.add(total, b.rotate(total, 1 << k))
    circuit = one_output(b, total, ("x",))
    found = predict(circuit, bind(circuit, MEDIUM), {"x": 1.0}, assumed(circuit, {"x": 1.0}))
    assert found.usual["z"] == pytest.approx(3 * np.sqrt(4096 / 3))  # not 4096, which only equal signs reach
    assert found.magnitudes[-1] == 4096
    assert found.relative == found.errors["z"] / found.usual["z"]


def test_claims_cap_what_intervals_see() -> None:
    # T2 = 2 x^2 - 1 stays in [-1, 1]; intervals see 3.
    b = c.Builder(4096)
    x = b.input("x", 0)
    square = b.rescale(b.relinearise(b.multiply(x, x)))
    second = b.claim(b.add_plain(b.add(square, square), Fixed(np.full(4096, -1.0))), 1.0)
    circuit = one_output(b, second, ("x",))
    found = predict(circuit, bind(circuit, MEDIUM), {"x": 1.0}, assumed(circuit, {}))
    assert found.magnitudes[-1] == 1.0 and max(found.magnitudes) == 2.0


@pytest.mark.parametrize("text", ["y[i] = t[i-j+255] * x[j] for i in 0..256", "y[i] = t[k] * x[i+k] for i in 0..200"])
def test_products_of_polynomials_err_by_less_than_two_bits_below_the_prediction(text: str) -> None:
    """Coefficients, not slots: their errors are sums over the whole ring, and empty coefficients add none."""
    pytest.importorskip("tenseal", reason="needs SEAL: pip install 'stein[ckks]'")
    taps = 511 if "i-j" in text else 57
    program = stein.compile(
        text, target="ckks", dtype="float64", t=(taps,), x=stein.encrypted(256, range=1.0), structure=True
    )
    assert program.stats["rotations"] == 0
    rng = np.random.default_rng(5)
    t, x = rng.uniform(-1, 1, taps) / 16, rng.uniform(-1, 1, 256)
    wanted = stein.compile(text, t=(taps,), x=(256,), dtype="float64", target="reference")(t=t, x=x)
    errors = []
    for _ in range(4):
        client, server = program.keygen()
        server.bind(t=t)
        errors.append(np.abs(client.decrypt(server.run(client.encrypt(x=x))) - wanted).max())
    (predicted,) = server.predict().values()
    assert max(errors) <= predicted <= 4 * max(errors)
