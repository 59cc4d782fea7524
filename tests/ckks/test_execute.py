"""Execution: decrypted results are those of exact slots within the predicted error; what ran is what was planned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from stein.backends.ckks.chain.ranges import check_ranges
from stein.backends.ckks.core import circuit as c
from stein.backends.ckks.core.layout import Packing
from stein.backends.ckks.execution.execute import run
from stein.backends.ckks.execution.seal import EvaluationKeys, Scheme, Secret
from stein.ir.errors import EncryptionError, Source, Span
from stein.tests.ckks.encrypted_runs import MEDIUM, SMALL, Fixed, Real, circuits, one_output, worst

pytest.importorskip("tenseal", reason="encrypted programs need tenseal")

rng = np.random.default_rng(0)


@pytest.fixture(scope="module")
def owners() -> dict[int, Secret]:
    return {p.ring: Secret(Scheme(p)) for p in (SMALL, MEDIUM)}


def inputs(slots: int) -> dict[str, Any]:
    return {"x": rng.uniform(-1, 1, slots), "y": rng.uniform(-1, 1, slots)}


def check(circuit: c.Circuit, secret: Secret) -> None:
    real = Real(circuit, secret.scheme.parameters, secret)
    prediction = real.prediction({"x": 1.0, "y": 1.0})
    try:
        check_ranges(circuit, real.scales, prediction.magnitudes)
    except EncryptionError:  # sums of sums: refused in time, which test_ranges looks at
        return
    errors = worst(real, inputs(circuit.slots))
    assert errors["z"] <= prediction.errors["z"]
    assert real.execute(inputs(circuit.slots)).executed == circuit.counts()


common = settings(deadline=None, derandomize=True, max_examples=15, suppress_health_check=list(HealthCheck))


@common
@given(circuits(slots=2048, levels=1))
def test_random_circuits_of_one_level(owners: dict[int, Secret], circuit: c.Circuit) -> None:
    check(circuit, owners[4096])


@common
@given(circuits(slots=4096, levels=3, operations=10))
def test_random_circuits_of_three_levels(owners: dict[int, Secret], circuit: c.Circuit) -> None:
    check(circuit, owners[8192])


def test_uploads_are_left_as_they_are(owners: dict[int, Secret]) -> None:
    # The input dies at its only use, a product in place: the caller's ciphertext must not change.
    b = c.Builder(2048)
    x = b.input("x", 0)
    circuit = one_output(b, b.rescale(b.multiply_plain(x, Fixed(np.linspace(0, 1, 2048)))), ("x",))
    real = Real(circuit, SMALL, owners[4096])
    uploads = real.uploads(inputs(2048))
    before = real.owner.decrypt(uploads["x"][0])
    for _ in range(2):
        run(circuit, real.scales, real.scheme, real.keys, uploads, real.encodings)
    assert (real.owner.decrypt(uploads["x"][0]) == before).all()


def test_a_value_that_is_read_again_survives(owners: dict[int, Secret]) -> None:
    b = c.Builder(2048)
    x, y = b.input("x", 0), b.input("y", 0)
    s = b.add(x, y)
    circuit = one_output(b, b.add(b.negate(s), b.add(b.rotate(s, 1), s)))
    real = Real(circuit, SMALL, owners[4096])
    assert worst(real, inputs(2048))["z"] <= real.prediction({}).errors["z"]


def test_several_ciphertexts_and_outputs(owners: dict[int, Secret]) -> None:
    packing = Packing(np.arange(5000, dtype=np.int32)[np.minimum(np.arange(3 * 2048), 4999)].reshape(3, 2048))
    b = c.Builder(2048)
    parts = tuple(b.input("x", k) for k in range(3))
    circuit = b.circuit({"x": packing}, {"y": (packing, parts), "n": (packing, tuple(map(b.negate, parts)))})
    real = Real(circuit, SMALL, owners[4096])
    x = rng.uniform(-1, 1, 5000)
    got = real.outputs({"x": x}, {"y": (50, 100), "n": (5000,)})
    bound = real.prediction({"x": 1.0}).errors
    assert np.abs(got["y"].ravel() - x).max() <= bound["y"] and np.abs(got["n"] + x).max() <= bound["n"]


def test_coefficients_convolve(owners: dict[int, Secret]) -> None:
    ring = 4096
    at = np.full((1, ring), -1, dtype=np.int32)
    at[0, :1000] = np.arange(1000)
    out = np.arange(ring, dtype=np.int32)[None, :]
    kernel = np.zeros(ring)
    kernel[:50] = rng.uniform(-1, 1, 50)
    kernel[-1] = 0.5  # wraps around with the other sign
    b = c.Builder(ring // 2)
    y = b.rescale(b.multiply_plain(b.input("x", 0), Fixed(kernel)))
    circuit = b.circuit({"x": Packing(at, kind="coefficients")}, {"y": (Packing(out, kind="coefficients"), (y,))})
    real = Real(circuit, SMALL, owners[4096])
    x = rng.uniform(-1, 1, 1000)
    full = np.convolve(np.concatenate([x, np.zeros(ring - 1000)]), kernel)
    want = full[:ring].copy()
    want[: len(full) - ring] -= full[ring:]
    error = np.abs(real.outputs({"x": x}, {"y": (ring,)})["y"] - want).max()
    assert error <= real.prediction({"x": 1.0}).errors["y"]


def test_scales_that_do_not_meet_are_counted_as_an_error(owners: dict[int, Secret]) -> None:
    b = c.Builder(4096)
    x = b.input("x", 0)
    p = b.rescale(b.relinearise(b.multiply(x, x)))
    q = b.rescale(b.relinearise(b.multiply(b.add(p, x), b.add(p, x))))
    circuit = one_output(b, b.add(b.add(q, p), x), ("x",))
    real = Real(circuit, MEDIUM, owners[8192])
    assert real.scales.drift
    prediction = real.prediction({"x": 1.0})
    assert 0 < prediction.drifts["z"] < prediction.errors["z"]
    assert worst(real, inputs(4096))["z"] <= prediction.errors["z"]


def test_progress_is_told(owners: dict[int, Secret]) -> None:
    b = c.Builder(2048)
    circuit = one_output(b, b.rotate(b.add(b.input("x", 0), b.input("y", 0)), 1))
    real, heard = Real(circuit, SMALL, owners[4096]), []
    run(
        circuit, real.scales, real.scheme, real.keys, real.uploads(inputs(2048)), real.encodings,
        lambda done, total: heard.append((done, total)),
    )  # fmt: skip
    assert heard == [(k, 4) for k in (1, 2, 3, 4)]


def test_errors_stand_at_the_place_of_the_expression(owners: dict[int, Secret]) -> None:
    b = c.Builder(2048)
    circuit = one_output(b, b.rotate(b.input("x", 0), 7, Span(7, 11)), ("x",))
    real = Real(circuit, SMALL, owners[4096])
    none = EvaluationKeys(None, None, frozenset())
    with pytest.raises(EncryptionError, match="no key for a rotation by 7") as caught:
        run(
            circuit, real.scales, real.scheme, none, real.uploads(inputs(2048)), real.encodings,
            source=Source("<program>", "y[i] = x[j]"),
        )  # fmt: skip
    assert caught.value.code == "missing-key" and (caught.value.line, caught.value.col) == (1, 8)


def test_values_that_cancel_exactly_are_zero(owners: dict[int, Secret]) -> None:
    b = c.Builder(2048)
    x, same = b.input("x", 0), np.linspace(-1, 1, 2048)
    difference = b.subtract(b.multiply_plain(x, Fixed(same)), b.multiply_plain(x, Fixed(same.copy())))
    real = Real(one_output(b, b.rescale(difference), ("x",)), SMALL, owners[4096])
    assert worst(real, inputs(2048))["z"] == 0.0


def test_equal_encodings_are_shared_and_memory_is_bounded(owners: dict[int, Secret]) -> None:
    b = c.Builder(2048)
    x = b.input("x", 0)
    vectors = [np.tile([1.0, 2.0, 3.0, float(k % 2)], 512) for k in range(6)]  # two different ones
    total = b.total([b.multiply_plain(b.rotate(x, k), Fixed(v)) for k, v in enumerate(vectors)])
    real = Real(one_output(b, b.rescale(total), ("x",)), SMALL, owners[4096])
    real.encodings.prepare()
    each = 2 * 4096 * 8
    assert real.encodings.made == 2 and real.encodings.bytes == 2 * each
    real.execute(inputs(2048))
    assert real.encodings.made == 2
    tight = Real(real.circuit, SMALL, owners[4096])
    tight.encodings.budget = each
    expected = tight.prediction({"x": 1.0}).errors["z"]
    assert worst(tight, inputs(2048))["z"] <= expected
    assert tight.encodings.bytes == each and tight.encodings.made == 1 + 3  # the other vector, each time it is met
