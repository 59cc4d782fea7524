"""Plans compute what their programs say, whatever shapes, slots and sizes; alternatives are no worse in everything."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from stein.backends.ckks.core.simulator import simulate
from stein.backends.ckks.lowering.problem import EncryptedProgram, Product, Sum
from stein.backends.ckks.planning.plan import Plan, with_few_keys
from stein.backends.ckks.planning.planner import plan
from stein.ir.errors import EncryptionError

sys.path.insert(0, str(Path(__file__).resolve().parent))
import linear_programs as programs

RINGS = (8192,)
ANY = 1e9  # precision: random coefficients are not what is tested here


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs.random_programs(16))
def test_random_linear_programs(program: EncryptedProgram) -> None:
    try:
        plans = plan(program, RINGS, precision=ANY)
    except EncryptionError as error:
        assert error.code in ("overflow", "no-terms")
        return
    for found in plans:
        programs.checked(found)


@pytest.mark.parametrize(
    "program",
    [programs.dense(13, 29), programs.dense(3, 5000), programs.dense(5000, 3), programs.banded(4500, 2)],
    ids=["ragged", "wide", "tall", "two ciphertexts"],
)
def test_sizes_that_are_no_power_of_two_or_exceed_a_ciphertext(program: EncryptedProgram) -> None:
    for found in plan(program, RINGS, precision=ANY):
        programs.checked(found)


def _gate(n: int) -> EncryptedProgram:
    """(W x) * (V x) + x + b."""
    steps = (
        programs.linear("a", "x", {"i": n, "j": n}, "i", "j", "W", "ij"),
        programs.linear("c", "x", {"i": n, "j": n}, "i", "j", "V", "ij"),
        Product("g", ("a", "c"), (("i",), ("i",)), ("i",), {"i": n}),
        Sum("y", (("g", 1.0), ("x", 1.0)), "b"),
    )
    tensors = {"W": (n, n), "V": (n, n), "b": (n,)}
    return EncryptedProgram(("x",), dict.fromkeys("xacgy", (n,)), steps, ("y", "a"), programs.clear(tensors))


def test_a_value_that_is_read_several_times_and_returned() -> None:
    plans = plan(_gate(48), RINGS, precision=ANY)
    for found in plans:
        programs.checked(found)


def test_an_input_that_is_returned_as_it_is() -> None:
    program = programs.dense(4, 4)
    program = replace(program, outputs=("y", "x"))
    programs.checked(plan(program, RINGS).best)


def test_gathers_at_the_client_are_packings() -> None:
    """Transposed before, and a diagonal after, a map: nothing but the map runs."""
    turn = programs.linear("t", "x", {"i": 8, "j": 12}, "ji", "ij", None, "")
    map_ = programs.linear("h", "t", {"i": 8, "j": 12, "k": 8}, "ki", "ji", "W", "kj")
    diagonal = programs.linear("y", "h", {"i": 8}, "i", "ii", None, "")
    shapes = {"x": (8, 12), "t": (12, 8), "h": (8, 8), "y": (8,)}
    found = plan(programs.program(shapes, [turn, map_, diagonal], W=(8, 12)), RINGS).best
    alone = plan(programs.program({"t": (12, 8), "h": (8, 8), "x": (1,)} | shapes, [turn, map_], "h", W=(8, 12)), RINGS)
    counts = programs.checked(found)
    assert counts.get("rotate", 0) <= programs.checked(alone.best).get("rotate", 0)
    assert found.levels == 1


def test_plans_trade_time_uploads_and_keys() -> None:
    plans = plan(programs.kronecker(32), RINGS)
    assert plans.best is plans[0] and len(plans) > 1
    for one in plans:
        for other in plans:
            better = (
                round(other.work.milliseconds, 6) <= round(one.work.milliseconds, 6)
                and other.uploads <= one.uploads
                and other.key_bytes < one.key_bytes
            )
            assert not better or one.chained < other.chained


def test_few_keys_take_as_many_operations() -> None:
    found = min(plan(programs.dense(256, 256), RINGS), key=lambda p: (p.uploads, p.chained))
    few = with_few_keys(found)
    one, other = programs.checked(found), programs.checked(few)
    assert (one["rotate"], one["multiply plain"]) == (other["rotate"], other["multiply plain"])
    assert few.keys < found.keys and few.chained and not found.chained


def test_a_saved_plan_gives_the_same_circuit_without_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    programs_ = [_gate(24), programs.monarch(8), programs.toeplitz(20, 30), programs.low_rank(64, 3)]
    found = [p for program in programs_ for p in plan(program, RINGS, precision=ANY)]
    texts = [json.dumps(p.to_json()) for p in found]
    monkeypatch.setattr("stein.backends.ckks.linear.diagonals.maps", _no_search)
    for one, text in zip(found, texts, strict=True):
        again = Plan.from_json(json.loads(text))
        assert again.circuit.text() == one.circuit.text()
        assert again.program == replace(one.program, clear=again.program.clear)
        assert again.parameters == one.parameters
        rng = np.random.default_rng(1)
        tensors = {i.name: rng.uniform(-1, 1, [n.constant or 0 for n in i.shape]) for i in one.program.clear.inputs}
        for a, b in zip(one.circuit.plains, again.circuit.plains, strict=True):
            np.testing.assert_array_equal(a.vector(tensors), b.vector(tensors))


def _no_search(*_: object) -> None:
    raise AssertionError("a search")


def test_no_ring_deep_enough_is_said() -> None:
    n, deep = 4, 14
    names = ["x", *(f"v{k}" for k in range(deep))]
    steps = tuple(programs.linear(b, a, {"i": n, "j": n}, "i", "j", "W", "ij") for a, b in pairwise(names))
    program = EncryptedProgram(("x",), dict.fromkeys(names, (n,)), steps, (names[-1],), programs.clear({"W": (n, n)}))
    with pytest.raises(EncryptionError, match="depth 14") as caught:
        plan(program, RINGS)
    assert caught.value.code == "too-deep"


def test_progress_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stein.backends.ckks.planning.planner.QUIET_SECONDS", 0.0)
    heard: list[str] = []
    plan(programs.kronecker(4), RINGS, progress=heard.append)
    assert heard and "ring 8192" in heard[0]


def test_plans_do_not_depend_on_values() -> None:
    """Patterns come from index expressions: one plan serves a matrix with zeros anywhere."""
    found = plan(programs.dense(16, 16), RINGS).best
    wanted = np.diag(np.arange(1.0, 17.0))
    run = simulate(found.circuit, {"x": np.ones(16)}, {"W": wanted}, {"y": (16,)})
    np.testing.assert_allclose(run.outputs["y"], np.arange(1.0, 17.0), rtol=1e-12)
