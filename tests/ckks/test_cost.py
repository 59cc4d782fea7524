"""Prices: they follow the counts of transforms, add up over a circuit, and come from believable measurements alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stein.backends.ckks import calibration
from stein.backends.ckks.core import circuit as c
from stein.backends.ckks.planning.cost import DEFAULTS, Prices, Rates, work
from stein.tests.ckks.encrypted_runs import Fixed, one_output

RINGS = (4096, 8192, 16384, 32768)
MEASURED = {  # milliseconds on a machine that had nothing else to do: ring 8192, by data primes left
    "rotate": {1: 0.53, 2: 1.1, 3: 1.87},
    "relinearise": {2: 1.08, 3: 1.78},
    "multiply_plain": {2: 0.085, 3: 0.127},
    "multiply": {2: 0.183, 3: 0.274},
    "rescale": {2: 0.278, 3: 0.431},
    "encode": {2: 0.282, 3: 0.405},
}


@pytest.mark.parametrize("name", MEASURED)
def test_the_built_in_prices_are_near_a_measurement(name: str) -> None:
    for primes, milliseconds in MEASURED[name].items():
        assert getattr(Prices(8192), name)(primes) == pytest.approx(milliseconds, rel=0.2)


@pytest.mark.parametrize("ring", RINGS)
def test_everything_is_cheaper_with_fewer_primes_and_in_smaller_rings(ring: int) -> None:
    for name in (
        "rotate",
        "relinearise",
        "multiply_plain",
        "multiply",
        "rescale",
        "add",
        "encode",
        "encrypt",
        "upload",
    ):
        prices = [getattr(Prices(ring), name)(p) for p in range(1, 9)]
        assert prices == sorted(prices) and prices[0] > 0
        assert getattr(Prices(2 * ring), name)(3) > 1.5 * getattr(Prices(ring), name)(3)


def test_key_switching_grows_with_the_square_of_the_primes() -> None:
    prices = Prices(8192)
    assert prices.rotate(8) > 10 * prices.rotate(1)  # its share alone would make it 8
    assert prices.rescale(2) + prices.rotate(1) < prices.rotate(2)  # so partial sums are rescaled before they rotate


def test_the_work_of_a_circuit_is_the_sum_of_its_operations() -> None:
    b = c.Builder(4096)
    x, y = b.input("x", 0), b.input("y", 0)
    rotated = b.rescale(b.multiply_plain(b.rotate(x, 1), Fixed(np.ones(4096))))
    product = b.rescale(b.relinearise(b.multiply(rotated, b.switch(y, 1))))
    circuit = one_output(b, b.subtract(b.add_plain(product, Fixed(np.ones(4096))), b.rotate(product, 2)))
    prices = Prices(8192)
    found = work(circuit, prices, 3)  # on a chain of three levels: 4, 3, 2 primes
    parts = [prices.rotate(4), prices.multiply_plain(4), prices.rescale(4), prices.add(3), prices.multiply(3)]
    parts += [prices.relinearise(3), prices.rescale(3), prices.add(2, 1), prices.rotate(2), prices.add(2)]
    assert found.milliseconds == pytest.approx(sum(parts))
    counts = (found.rotations, found.plain_products, found.cipher_products, found.relinearisations, found.rescales)
    assert counts == (2, 1, 1, 1, 2) and found.additions == 2


def test_rates_are_kept_and_only_believed_if_they_can_be_true(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "rates.json"
    found = replace(DEFAULTS, butterfly=2.0, measured=True)
    calibration.save(path, found)
    assert calibration.load(path) == found
    good = json.loads(path.read_text())
    for change in ({"format": 0}, {"butterfly": 1e5}, {"butterfly": "2"}, {"butterfly": float("nan")}, {"more": 1.0}):
        path.write_text(json.dumps(good | change))
        assert calibration.load(path) is None
    path.write_text("{")
    assert calibration.load(path) is None and calibration.load(tmp_path / "none.json") is None


def test_the_cache_folder_is_the_users_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEIN_CACHE_DIR", str(tmp_path))
    path = calibration.kept_at()
    assert path is not None and path.parent == tmp_path
    monkeypatch.setenv("STEIN_CACHE_DIR", "off")
    assert calibration.kept_at() is None


def test_an_absurd_measurement_is_not_believed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STEIN_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("STEIN_CALIBRATION", raising=False)
    monkeypatch.setattr(calibration, "measure", lambda: replace(DEFAULTS, plain=500.0, measured=True))
    assert calibration.machine_rates.__wrapped__() is DEFAULTS
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("STEIN_CALIBRATION", "off")
    monkeypatch.setattr(calibration, "measure", lambda: pytest.fail("measured although it is off"))
    assert calibration.machine_rates.__wrapped__() is DEFAULTS


def test_measuring_gives_all_figures() -> None:
    pytest.importorskip("tenseal", reason="encrypted programs need tenseal")
    found = calibration.measure()
    assert isinstance(found, Rates) and found.measured
    assert all(value > 0 for value in vars(found).values())
