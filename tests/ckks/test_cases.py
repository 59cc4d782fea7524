"""The quick ones of the cases that must run encrypted, for real: planned, encrypted, evaluated, decrypted, compared.

`benchmarks/ckks.py` runs all of them and prints what they take.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stein

pytest.importorskip("tenseal", reason="encrypted programs need tenseal")

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "ckks_cases.py"
PRECISION = 1e-5
COUNTS = ("rotations", "plain_products", "cipher_products", "relinearisations")
NAMES = (
    "ij->ji",
    "ij->j",
    "ik,kj->ij",
    "i,j->ij",
    "ijk,ikl->ijl",
    "bthd,bThd->bhtT",
    "pqrs,tuqvr->pstuv",
    "ii->i",
    "...i,...i->...",
    "dot of 20,000",
    "Toeplitz 4096",
    "banded 17 of 1024",
    "dense 200 x 200",
    "block diagonal 1024",
)


def _cases() -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("ckks_cases", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return {case.name: case for case in module.CASES}


CASES = _cases()


@pytest.mark.parametrize("name", NAMES)
def test_case(name: str) -> None:
    case = CASES[name]
    secret, clear = case.arrays()
    declared: dict[str, Any] = {}
    if "encrypted" not in case.program:
        declared = {**case.clear, **{n: stein.encrypted(shape) for n, shape in case.encrypted.items()}}
    compiled: Any = stein.compile(case.program, dtype="float64", target="ckks", precision=PRECISION, **declared)

    # The planner offers a plan that reaches the counts, if not as its quickest then beside it.
    def figures(plan: Any) -> dict[str, int]:
        found = {n: getattr(plan.work, n) for n in COUNTS}
        return {**found, "levels": plan.levels, "uploads": plan.uploads}

    plans = compiled.choice.chosen.plans
    reaching = [p for p in plans if all(figures(p)[n] <= count for n, count in case.goal.items())]
    assert reaching, (case.goal, [figures(p) for p in plans])

    client, server = compiled.keygen(plan=reaching[0])
    request = client.encrypt(**secret)
    got = client.decrypt(server.run(request, **clear), answers=request)
    wanted = case.reference(*secret.values(), *clear.values())
    error = float(np.abs(got - wanted).max())
    assert error <= PRECISION * np.abs(wanted).max()
    (predicted,) = server.predict(**clear).values()
    assert error <= predicted
    assert {n: server.executed[n] for n in (*COUNTS, "levels", "uploads")} == figures(reaching[0])


def test_names_are_unique_and_known() -> None:
    assert len(CASES) > 30 and set(NAMES) <= CASES.keys()
