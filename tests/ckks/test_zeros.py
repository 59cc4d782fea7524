"""Zeros: in clear tensors, in numbers of the program, and by terms that cancel. SEAL refuses each of them by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import stein
from stein.backends.ckks.lowering.lower import lower
from stein.backends.ckks.lowering.problem import Linear, Polynomial
from stein.tests.ckks.encrypted_programs import typed

pytest.importorskip("tenseal", reason="encrypted programs need tenseal")

N = 8
rng = np.random.default_rng(0)
x, z, M = rng.uniform(-1, 1, N), rng.uniform(-1, 1, N), rng.uniform(-1, 1, (N, N))
NOTHING, ZEROS = np.zeros((N, N)), np.zeros(N)
CLOSE = 1e-6  # above the noise of two levels at this range, far below any wrong term


def given_to(text: str, encrypted: dict[str, Any], clear: dict[str, Any]) -> Any:
    """What a client gets back from a server with these clear tensors, which no plan has seen."""
    declared: dict[str, Any] = {name: stein.encrypted(array.shape, range=1.0) for name, array in encrypted.items()}
    declared |= {name: array.shape for name, array in clear.items()}
    program = stein.compile(text, target="ckks", dtype="float64", rings=(8192,), **declared)
    client, server = program.keygen()
    request = client.encrypt(**encrypted)
    return client.decrypt(server.run(request, **clear), answers=request)


def close(found: Any, wanted: Any) -> None:
    assert np.abs(np.asarray(found) - wanted).max() <= CLOSE


MATRIX = "y[i] = W[i,j] * x[j] + b[i]; u[i] = a[i] * x[i]"


@pytest.mark.parametrize("W", [NOTHING, np.diag(x), np.triu(M, 5), np.where(np.arange(N) == 3, M, 0)])
@pytest.mark.parametrize("b", [ZEROS, z])
def test_zeros_in_clear_tensors(zero_pair: Any, W: Any, b: Any) -> None:
    client, server = zero_pair
    for a in (ZEROS, np.eye(N)[3]):
        request = client.encrypt(x=x)
        found = client.decrypt(server.run(request, W=W, b=b, a=a), answers=request)
        close(found["y"], W @ x + b)
        close(found["u"], a * x)


@pytest.fixture(scope="module")
def zero_pair() -> Any:
    program = stein.compile(
        MATRIX, W=(N, N), b=(N,), a=(N,), x=stein.encrypted(N, range=1.0), target="ckks", dtype="float64", rings=(8192,)
    )
    return program.keygen()


@pytest.mark.parametrize(
    ("text", "clear", "wanted"),
    [
        ("u[i] = W[i,j] * x[j]; v[i] = V[i,j] * x[j]; y[i] = u[i]*u[i] - v[i]*v[i]", {"W": M, "V": M}, ZEROS),
        ("u[i] = a[i] * x[i]; v[i] = b[i] * x[i]; y[i] = (u[i] - v[i]) * x[i] + x[i]", {"a": z, "b": z}, x),
        ("y[i] = a[i] * x[i] * x[i] + b[i] * x[i]", {"a": ZEROS, "b": ZEROS}, ZEROS),
    ],
)
def test_values_that_cancel_for_these_clear_tensors(text: str, clear: dict[str, Any], wanted: Any) -> None:
    close(given_to(text, {"x": x}, clear), wanted)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("y[i] = x[i] - x[i]", ZEROS),
        ("y[i] = 0 * x[i] + 0 * x[i] * x[i]", ZEROS),
        ("y[i] = x[i]^3 - x[i]^3 + 2", ZEROS + 2),
        ("y[i] = x[i] * z[i] - z[i] * x[i]", ZEROS),
        ("y = x[i] * z[i] - x[i] * z[i]", 0.0),
        ("y[i] = x[i] + z[i] - z[i]", x),
        ("u[i] = z[i] - z[i]; y[i] = u[i] * x[i] + x[i]", x),
        ("y[i] = approx(relu, degree=3, range=-4..-1)(x[i] - 2) + z[i]", z),
    ],
)
def test_terms_that_cancel_in_the_program(text: str, wanted: Any) -> None:
    encrypted = {name: array for name, array in (("x", x), ("z", z)) if f"{name}[" in text}
    close(given_to(text, encrypted, {}), wanted)


def test_what_is_left_of_it() -> None:
    """One product with zeros where all cancels; else nothing at all, and the client still gives what it has."""
    nothing = lower(secret("y[i] = x[i] * z[i] - z[i] * x[i]"))
    (step,) = nothing.steps
    assert isinstance(step, Linear) and [t.factor for t in step.terms] == [0.0] and nothing.inputs == ("x", "z")
    some = lower(secret("y[i] = x[i]^3 + 0 * x[i]^2 + z[i] - z[i]"))
    (step,) = some.steps
    assert isinstance(step, Polynomial) and step.coefficients == (0.0, 0.0, 0.0, 1.0) and some.inputs == ("x", "z")


def secret(text: str) -> Any:
    """A program whose x and z are encrypted."""
    return typed(f"x: encrypted f64[{N}]\nz: encrypted f64[{N}]\n{text}")
