"""Scales: every sum meets at one scale, by choice of plain factors and inputs, or by a product with ones."""

from __future__ import annotations

from math import log2

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from stein.backends.ckks.chain.parameters import Parameters
from stein.backends.ckks.chain.scales import EXACT, Scales, bind, settle
from stein.backends.ckks.core import circuit as c
from stein.backends.ckks.core.layout import Packing
from stein.backends.ckks.core.simulator import simulate
from stein.tests.ckks.encrypted_runs import MEDIUM, Fixed, circuits, one_output

SLOTS = MEDIUM.slots
ONES = Fixed(np.ones(SLOTS))


def check(circuit: c.Circuit, scales: Scales, parameters: Parameters) -> None:
    """Each operation's scale follows from its operands' as SEAL computes it."""
    for number, node in enumerate(circuit.nodes):
        args = [scales.values[a] for a in node.args]
        if node.kind == c.INPUT:
            continue
        exact = args[0]
        if node.kind == c.MULTIPLY_PLAIN:
            exact = args[0] * scales.factors[number]
        elif node.kind == c.MULTIPLY:
            exact = args[0] * args[1]
        elif node.kind == c.RESCALE:
            exact = args[0] / parameters.dropped(node.level - 1)
        elif node.kind == c.ADD_PLAIN:
            assert scales.factors[number] == args[0]
        elif node.kind in (c.ADD, c.SUBTRACT):
            assert (args[0] == args[1]) == (number not in scales.drift)
        assert abs(scales.values[number] / exact - 1) <= EXACT


@settings(deadline=None, derandomize=True, max_examples=60, suppress_health_check=list(HealthCheck))
@given(circuits(slots=SLOTS, levels=3, operations=14))
def test_random_circuits_are_consistent_once_settled(circuit: c.Circuit) -> None:
    check(circuit, bind(circuit, MEDIUM), MEDIUM)
    settled = settle(circuit, MEDIUM)
    scales = bind(settled, MEDIUM)
    check(settled, scales, MEDIUM)
    kinds = {n.kind for n in circuit.nodes}
    assert c.SWITCH not in kinds or settled.levels == circuit.levels
    inputs = {name: np.linspace(-1, 1, SLOTS) for name in ("x", "y")}
    before, after = (simulate(k, inputs, {}, {"z": (SLOTS,)}).outputs["z"] for k in (circuit, settled))
    assert np.allclose(before, after, rtol=1e-12, atol=1e-12)


def test_linear_programs_keep_the_nominal_scale() -> None:
    b = c.Builder(SLOTS)
    x = b.input("x", 0)
    for _ in range(3):
        x = b.rescale(b.add(b.multiply_plain(x, ONES), b.multiply_plain(b.rotate(x, 1), Fixed(-ONES.values))))
    circuit = one_output(b, x, ("x",))
    scales = bind(circuit, MEDIUM)
    for node, scale, factor in zip(circuit.nodes, scales.values, scales.factors, strict=True):
        if not node.pending:
            assert scale == pytest.approx(2.0**38, rel=EXACT)
        if node.kind == c.MULTIPLY_PLAIN:  # at the prime that its rescale drops
            assert factor == pytest.approx(MEDIUM.dropped(node.level), rel=EXACT)


def test_a_sum_of_unlike_powers_moves_the_input_to_the_scale_where_they_meet() -> None:
    # x + x^2 meets if the scale of x is the prime itself.
    b = c.Builder(SLOTS)
    x = b.input("x", 0)
    circuit = one_output(b, b.add(b.rescale(b.relinearise(b.multiply(x, x))), x), ("x",))
    scales = bind(circuit, MEDIUM)
    assert not scales.drift and scales.values[0] == pytest.approx(MEDIUM.dropped(0), rel=EXACT)
    assert settle(circuit, MEDIUM) is circuit


def test_what_cannot_meet_drifts_and_is_settled_by_one_product() -> None:
    # x + x^2 fixes the scale of x at the first dropped prime, x^2 + x^4 that of x^2 at the second.
    b = c.Builder(SLOTS)
    x = b.input("x", 0)
    square = b.rescale(b.relinearise(b.multiply(x, x)))
    fourth = b.rescale(b.relinearise(b.multiply(square, square)))
    circuit = one_output(b, b.add(b.add(fourth, square), x), ("x",))
    scales = bind(circuit, MEDIUM)
    apart = abs(MEDIUM.dropped(0) / MEDIUM.dropped(1) - 1)
    assert scales.drift and max(scales.drift.values()) == pytest.approx(apart, rel=0.5)
    settled = settle(circuit, MEDIUM)
    assert not bind(settled, MEDIUM).drift
    more = {k: settled.counts().get(k, 0) - circuit.counts().get(k, 0) for k in c.KINDS}
    assert {k: n for k, n in more.items() if n} == {c.MULTIPLY_PLAIN: 1, c.RESCALE: 1, c.SWITCH: -1}
    assert settled.levels == circuit.levels


def test_plain_factors_make_polynomials_meet() -> None:
    # a x + b x^2 + c x^4 with plain coefficients: no drift, nothing to settle.
    b = c.Builder(SLOTS)
    x = b.input("x", 0)
    square = b.rescale(b.relinearise(b.multiply(x, x)))
    fourth = b.rescale(b.relinearise(b.multiply(square, square)))
    terms = [b.rescale(b.multiply_plain(v, Fixed(np.full(SLOTS, 0.3)))) for v in (x, square, fourth)]
    total = b.add(b.add(terms[0], terms[1]), terms[2])
    circuit = one_output(b, total, ("x",))
    assert not bind(circuit, MEDIUM).drift and settle(circuit, MEDIUM) is circuit


def test_all_ciphertexts_of_a_tensor_have_one_scale() -> None:
    packing = Packing(np.arange(2 * SLOTS, dtype=np.int32).reshape(2, SLOTS))
    b = c.Builder(SLOTS)
    first, second = b.input("x", 0), b.input("x", 1)
    y = b.rescale(b.relinearise(b.multiply(first, second)))
    circuit = b.circuit({"x": packing}, {"y": (Packing.vector(SLOTS), (b.add(y, first),))})
    scales = bind(circuit, MEDIUM)
    inputs = [s for n, s in zip(circuit.nodes, scales.values, strict=True) if n.kind == c.INPUT]
    assert len(inputs) == 2 and inputs[0] == inputs[1] and not scales.drift


def test_no_scale_strays_far_from_nominal() -> None:
    b = c.Builder(SLOTS)
    x, y = b.input("x", 0), b.input("y", 0)
    for _ in range(3):
        x = b.rescale(b.relinearise(b.multiply(x, x)))
    circuit = one_output(b, b.add(x, b.switch(y, 3)))
    scales = bind(circuit, MEDIUM)
    settled = [s for n, s in zip(circuit.nodes, scales.values, strict=True) if not n.pending]
    assert all(abs(log2(s) - 38) < 1e-4 for s in settled)  # primes of a size differ by a millionth
