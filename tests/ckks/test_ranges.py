"""Ranges: no value that fits is refused, and none that does not is let through."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from stein.backends.ckks.chain.fitting import check_values, fit, on_chain
from stein.backends.ckks.chain.parameters import chain
from stein.backends.ckks.chain.ranges import assumed, check_ranges, exact, headroom, largest_value, magnitudes
from stein.backends.ckks.chain.scales import bind
from stein.backends.ckks.core import circuit as c
from stein.backends.ckks.core.layout import Packing
from stein.backends.ckks.core.simulator import Slots
from stein.backends.ckks.lowering.problem import EncryptedProgram, Linear, Polynomial, Product, Slot, Sum, Term
from stein.ir.errors import EncryptionError, Source, Span
from stein.ir.expr import Program
from stein.tests.ckks.encrypted_runs import MEDIUM, SMALL, Fixed, Real, circuits, one_output

SLOTS = 2048


@settings(deadline=None, derandomize=True, max_examples=50, suppress_health_check=list(HealthCheck))
@given(circuits(slots=SLOTS, levels=3, operations=12))
def test_no_value_exceeds_its_bound(circuit: c.Circuit) -> None:
    for sign in (1, -1):
        inputs = {"x": np.full(SLOTS, 1.0), "y": np.full(SLOTS, float(sign))}
        machine = Slots(circuit, inputs, {})
        machine.run()
        for wide in (False, True):
            vectors = exact(circuit, {}) if wide else assumed(circuit, {})
            bounds = magnitudes(circuit, {"x": 1.0, "y": 1.0}, vectors, wide)
            assert machine.largest <= max(bounds) * (1 + 1e-12)


def linear(values: np.ndarray, *, span: Span = Span(7, 16)) -> c.Circuit:
    """A sum of rotated inputs times rows of values (of a clear tensor)."""
    b = c.Builder(SLOTS)
    x = b.input("x", 0)
    terms = [b.multiply_plain(b.rotate(x, k), Fixed(row, ("W",)), span) for k, row in enumerate(values)]
    return one_output(b, b.rescale(b.total(terms), span), ("x",))


def test_bounds_of_linear_maps_are_sharp() -> None:
    values = np.random.default_rng(0).uniform(-1, 1, (6, SLOTS))
    circuit = linear(values)
    bound = magnitudes(circuit, {"x": 3.0}, exact(circuit, {}), wide=True)[-1]
    assert bound == pytest.approx(3 * np.abs(values).sum(axis=0).max())
    assert magnitudes(circuit, {"x": 3.0}, assumed(circuit, {"W": 0.5}))[-1] == 3 * 0.5 * 6


def test_what_would_overflow_in_silence_is_refused_at_its_expression() -> None:
    values = np.full((3, SLOTS), 1.0)
    circuit = linear(values)
    scales = bind(circuit, SMALL)  # holds values below 8
    source = Source("<program>", "y[i] = W[i,j] * x[j]")
    found = magnitudes(circuit, {"x": 2.0}, exact(circuit, {}), wide=True)
    check_ranges(circuit, scales, found, source)
    found = magnitudes(circuit, {"x": 3.0}, exact(circuit, {}), wide=True)
    with pytest.raises(EncryptionError, match="can reach 9, and these parameters hold values up to 7") as caught:
        check_ranges(circuit, scales, found, source)
    assert caught.value.code == "overflow" and (caught.value.line, caught.value.col) == (1, 8) and caught.value.help


def test_the_headroom_is_where_results_go_wrong() -> None:
    pytest.importorskip("tenseal", reason="encrypted programs need tenseal")
    b = c.Builder(SLOTS)
    x = b.input("x", 0)
    circuit = one_output(b, b.rescale(b.multiply_plain(x, Fixed(np.ones(SLOTS)))), ("x",))
    real = Real(circuit, SMALL)
    room = headroom(SMALL, 1, real.scales.values[-1])
    for magnitude, good in ((room, True), (room * 1.01, False)):
        # All slots alike: the polynomial is one coefficient, as large as the slots.
        error = np.abs(real.outputs({"x": np.full(SLOTS, magnitude)}, {"z": (SLOTS,)})["z"] - magnitude).max()
        assert (error < 1e-3) == good


def test_clean_packings_are_zero_where_nothing_lies() -> None:
    at = np.full((1, SLOTS), -1, dtype=np.int32)
    at[0, :4] = range(4)
    b = c.Builder(SLOTS)
    x = b.input("x", 0)
    total = b.total([b.rotate(x, k) for k in range(8)])
    circuit = b.circuit({"x": Packing(at)}, {"y": (Packing.vector(SLOTS), (total,))})
    assert magnitudes(circuit, {"x": 1.0}, assumed(circuit, {}), wide=True)[-1] == 4.0
    assert magnitudes(circuit, {"x": 1.0}, assumed(circuit, {}))[-1] == 8.0


def index(name: str) -> Slot:
    return Slot(((name, 1),))


def program(*steps: Linear | Product | Sum | Polynomial, **ranges: float) -> EncryptedProgram:
    shapes = {"x": (4, 6), "y": (6, 3)} | {s.name: (4,) for s in steps}
    clear = Program((), (), ())
    return EncryptedProgram(("x", "y"), shapes, steps, (steps[-1].name,), clear, ranges)


def test_the_largest_value_of_a_program_is_known_before_its_circuit() -> None:
    row = Term((("i", 4), ("j", 6)), (index("i"),), (index("i"), index("j")), "W", (index("j"),), 2.0)
    step = Linear("z", "x", (row,), "b")
    assert largest_value(program(step, x=3.0, W=0.5, b=7.0)) == 2 * 0.5 * 6 * 3 + 7
    product = Product("p", ("x", "y"), (("i", "j"), ("j", "k")), ("i", "k"), {"i": 4, "j": 6, "k": 3})
    assert largest_value(program(product, x=3.0, y=5.0)) == 6 * 3 * 5
    total = Sum("s", (("x", 2.0), ("x", -1.0)))
    assert largest_value(program(total, x=3.0)) == 9.0
    assert largest_value(program(Polynomial("q", "x", (1.0, 0.0, 2.0)), x=3.0)) == 19.0
    assert largest_value(program(Polynomial("q", "x", (1.0, 0.5), chebyshev=True), x=3.0)) == 1.5


def test_fitting_gives_values_room_and_nothing_away() -> None:
    small, large = (fit(linear(np.ones((3, SLOTS))), 1, {"x": x}, 1e-3) for x in (1.0, 20.0))
    assert small.parameters.ring == large.parameters.ring == 4096
    assert small.parameters.scale_bits > large.parameters.scale_bits
    assert headroom(large.parameters, 1, 2.0**large.parameters.scale_bits) >= 60


def test_fitting_refuses_what_has_no_room() -> None:
    with pytest.raises(EncryptionError, match="can reach 3e") as caught:
        fit(linear(np.ones((3, SLOTS))), 1, {"x": 1e12}, 1e-3, Source("<program>", "y[i] = W[i,j] * x[j]"))
    assert caught.value.code == "overflow" and caught.value.col == 8
    with pytest.raises(EncryptionError, match="1e-09 is wanted") as caught:
        fit(linear(np.ones((3, SLOTS))), 1, {"x": 1.0}, 1e-9, Source("<program>", "y[i] = W[i,j] * x[j]"))
    assert caught.value.code == "imprecise" and caught.value.col == 8


def test_fitting_corrects_scales_where_that_pays_and_only_there() -> None:
    b = c.Builder(MEDIUM.slots)
    x = b.input("x", 0)
    square = b.rescale(b.relinearise(b.multiply(x, x)))
    fourth = b.rescale(b.relinearise(b.multiply(square, square)))
    circuit = one_output(b, b.add(b.add(fourth, square), x), ("x",))
    precise = chain(8192, 2, 50.0)
    assert precise is not None and precise.scale_bits == 45
    fitted = on_chain(circuit, precise, {"x": 1.0})
    assert not fitted.scales.drift and fitted.circuit is not circuit
    # Beside an error a hundred times as large (a product rescaled before it is relinearised) there is nothing to gain.
    rough = b.relinearise(b.rescale(b.multiply(x, x)))
    noisy = one_output(b, b.add(b.add(b.add(fourth, square), x), rough), ("x",))
    assert bind(noisy, precise).drift and on_chain(noisy, precise, {"x": 1.0}).circuit is noisy
    again = on_chain(circuit, precise, {"x": 1.0})  # what a saved plan does
    assert again.circuit.text() == fitted.circuit.text() and again.scales == fitted.scales


def test_values_of_clear_tensors_are_checked_once_they_are_known() -> None:
    circuit = linear(np.full((3, SLOTS), 1.0))
    scales = bind(circuit, SMALL)
    check_values(circuit, scales, {"x": 1.0}, exact(circuit, {}))
    with pytest.raises(EncryptionError, match="can reach 24"):
        check_values(circuit, scales, {}, exact(circuit, {}))  # nothing declared: up to 8
