"""What every plan promises: security, no secrets in it, room for its values, and that the caveats are said."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import stein
from stein.backends.ckks.core import circuit as c
from stein.runtime import client, server

pytest.importorskip("tenseal", reason="encrypted programs need tenseal")

# Total bits of all primes, special one included, for 128-bit security against classical attacks with a ternary secret:
# Albrecht et al., "Homomorphic Encryption Standard" (2018), table 1.
STANDARD = {1024: 27, 2048: 54, 4096: 109, 8192: 218, 16384: 438, 32768: 881}

PROGRAMS = {
    "matrix": ("y[i] = W[i,j] * x[j]", {"W": (6, 8), "x": 8}, ("x",)),
    "kronecker": ("y[a,b] = A[a,i] * B[b,j] * x[i,j]", {"A": (4, 4), "B": (4, 4), "x": (4, 4)}, ("x",)),
    "product": ("C[i,k] = A[i,j] * B[j,k]", {"A": (4, 4), "B": (4, 4)}, ("A", "B")),
    "sigmoid": ("y[i] = approx(sigmoid, degree=3, range=-2..2)(x[i])", {"x": 8}, ("x",)),
    "sum": ("y = sum[i] x[i]", {"x": 30}, ("x",)),
}


@pytest.fixture(scope="module", params=list(PROGRAMS))
def compiled(request: pytest.FixtureRequest) -> Any:
    text, shapes, hidden = PROGRAMS[request.param]
    declared = {n: stein.encrypted(s) if n in hidden else s for n, s in shapes.items()}
    return stein.compile(text, dtype="float64", target="ckks", **declared)


def test_128_bits(compiled: Any) -> None:
    for plan in compiled.choice.chosen.plans:
        assert sum(plan.parameters.bits) <= STANDARD[plan.parameters.ring]


def test_the_special_prime_is_the_largest(compiled: Any) -> None:
    for plan in compiled.choice.chosen.plans:
        assert plan.parameters.bits[-1] == max(plan.parameters.bits)


def test_a_plan_comes_back_from_its_text(compiled: Any) -> None:
    from stein.backends.ckks.planning.plan import Plan

    for plan in compiled.choice.chosen.plans:
        again = Plan.from_json(json.loads(json.dumps(plan.to_json())))
        assert again.circuit.text() == plan.circuit.text() and again.parameters == plan.parameters
        assert {n: p.key for n, p in again.circuit.uploads.items()} == {
            n: p.key for n, p in plan.circuit.uploads.items()
        }


def test_every_key_is_used(compiled: Any) -> None:
    mine, theirs = compiled.keygen()
    kinds = mine.plan.circuit.counts()
    assert theirs._keys.steps == set(mine.plan.circuit.steps)
    assert (theirs._keys.relinearisation is not None) == (c.RELINEARISE in kinds)
    assert (theirs._keys.galois is not None) == (c.ROTATE in kinds)


def test_what_runs_is_what_was_promised(compiled: Any) -> None:
    rng = np.random.default_rng(0)
    mine, theirs = compiled.keygen()
    secret = {i.name: rng.uniform(-1, 1, [s.evaluate({}) for s in i.shape]) for i in compiled.encrypted}
    clear = {i.name: rng.uniform(-0.5, 0.5, [s.evaluate({}) for s in i.shape]) for i in compiled.arguments}
    got = mine.decrypt(theirs.run(mine.encrypt(**secret), **clear))
    stats = compiled.stats
    assert {n: stats[n] for n in theirs.executed} == theirs.executed
    (expected,) = theirs.predict(**clear).values()
    exact = compiled.simulate(**secret, **clear)
    assert np.abs(got - exact).max() <= expected  # of noise; the simulation has the polynomial's own error too


def test_no_value_of_a_constant_is_in_a_plan() -> None:
    marked = np.full((4, 4), 0.7312345678)
    plans = []
    for values in (marked, np.eye(4)):
        p: Any = stein.compile("y[i] = W[i,j] * x[j]", W=stein.constant(values), x=stein.encrypted(4), target="ckks")
        plans.append(json.dumps(p.plan.to_json()))
    assert plans[0] == plans[1] and "7312" not in plans[0]


def test_the_caveats_are_said(compiled: Any) -> None:
    text = str(compiled.explain())
    assert "IND-CPA-D" in text and "circuit" in text.split("privacy")[0][-40:]
    assert "no circuit privacy" in (server.__doc__ or "") and "Li and Micciancio" in (client.__doc__ or "")
