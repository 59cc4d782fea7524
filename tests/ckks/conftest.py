"""Two compiled programs and their key pairs, made once for all tests of bundles, messages and clients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import stein
from stein.backends.ckks.calibration import machine_rates

Pair = tuple[Any, Any]


@pytest.fixture(autouse=True, scope="session")
def default_rates() -> Iterator[None]:
    """Plans are chosen by the built-in rates, the same on every machine."""
    machine_rates.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEIN_CALIBRATION", "off")
        yield
    machine_rates.cache_clear()


LINEAR = "y[i] = W[i,j] * x[j]; z = sum[j] v[j] * x[j]; w2[j] = 2 * v[j]"


def linear_program(W: Any) -> Any:
    """A matrix that is a constant, a vector that the server is given at each run, a result that nobody encrypted."""
    x = stein.encrypted(8)
    return stein.compile(
        LINEAR, W=stein.constant(W), v=(8,), x=x, dtype="float64", target="ckks", rings=(8192,), precision=1e-5
    )


@pytest.fixture(scope="session")
def W() -> Any:
    return np.random.default_rng(0).standard_normal((5, 8)) / 2


@pytest.fixture(scope="session")
def linear_of() -> Callable[[Any], Any]:
    """The program of `linear` for another value of its constant."""
    return linear_program


@pytest.fixture(scope="session")
def linear(W: Any) -> Any:
    pytest.importorskip("tenseal", reason="encrypted programs need tenseal")
    return linear_program(W)


@pytest.fixture(scope="session")
def square() -> Any:
    pytest.importorskip("tenseal", reason="encrypted programs need tenseal")
    return stein.compile(
        "y[i] = x[i] * x[i]", x=stein.encrypted(8, range=2.0), dtype="float64", target="ckks", rings=(8192,)
    )


@pytest.fixture(scope="session")
def linear_pair(linear: Any) -> Pair:
    client, server = linear.keygen()
    return client, server


@pytest.fixture(scope="session")
def square_pair(square: Any) -> Pair:
    client, server = square.keygen()
    return client, server
