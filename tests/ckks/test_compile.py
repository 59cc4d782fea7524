"""`stein.compile(..., target="ckks")`: from text to a plan whose circuit gives the program's values on exact slots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import stein
from stein.backends.ckks.core.circuit import ROTATE
from stein.ir.expr import Program
from stein.ir.interpret import interpret
from stein.runtime.encrypted import EncryptedCompiled, compile_encrypted, known_sizes
from stein.runtime.encrypted_choice import Wanted
from stein.tests.ckks.encrypted_programs import arrays_of, programs

E = stein.encrypted
ERROR = 1e-9  # of exact slots, whose values stay below 1e3: rounding of a few thousand additions


@pytest.fixture(autouse=True)
def usual_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans that do not depend on the machine."""
    monkeypatch.setenv("STEIN_CALIBRATION", "off")


def check(compiled: EncryptedCompiled, seed: int = 0) -> None:
    """The circuit on exact slots gives what the program means."""
    arrays = arrays_of(compiled.program, seed) | compiled.constants
    got = compiled.simulate(**{n: a for n, a in arrays.items() if n not in compiled.constants})
    want = interpret(compiled.program, arrays)
    found = {compiled.program.outputs[0]: got} if len(want) == 1 else dict(zip(want, got.values(), strict=True))
    for name, value in want.items():
        assert found[name].dtype == value.dtype and found[name].shape == value.shape
        np.testing.assert_allclose(found[name], value, rtol=0, atol=ERROR)


PROGRAMS: dict[str, tuple[str, dict[str, Any]]] = {
    "map": ("y[i] = A[i,j]*x[j] + b[i]", {"A": (5, 7), "b": (5,), "x": E(7)}),
    "in the text": ("A: f64[3,4]; x: encrypted f64[4]\ny = A @ x", {}),
    "sizes by name": ("x: encrypted f64[n]; y[i] = A[i,j]*x[j]", {"A": (6, 9), "x": E(9)}),
    "two inputs": ("y[i] = A[i,j]*x[j] - z[i]", {"A": (5, 7), "x": E(7), "z": E(5)}),
    "two outputs": ("s = sum[i] x[i]; y[i] = d[i]*x[i]; return s, y", {"d": (6,), "x": E(6)}),
    "clear results": ("c[i] = 2*d[i]; y[i] = c[i]*x[i]; return c, y", {"d": (6,), "x": E(6)}),
    "the input itself": ("y[i] = d[i]*x[i]; return x, y", {"d": (6,), "x": E(6)}),
    "product": ("y = x @ z", {"x": E((3, 4)), "z": E((4, 5))}),
    "gram": ("G[i,j] = X[k,i]*X[k,j]", {"X": E((4, 3))}),
    "distance": ("d = sum[i] (x[i] - z[i])^2", {"x": E(9), "z": E(9)}),
    "clear between": ("y[i] = x[i]*A[i,j]*z[j]", {"A": (3, 4), "x": E(3), "z": E(4)}),
    "normalised": ("y[i] = x[i]/s[i]", {"s": (5,), "x": E(5)}),
    "kron": ("y = kron(A, B) @ x", {"A": (2, 3), "B": (3, 2), "x": E(6)}),
    "update": ("z[i] += A[i,j]*x[j]", {"A": (4, 4), "x": E(4), "z": E(4)}),
    "moving average": ("x: encrypted f64[9] pad=0; w: f64[-1..2]; y[i] = w[d]*x[i+d] for i in 0..9", {}),
    "toeplitz": ("t: f64[9]; y[i] = t[i-j+4]*x[j]", {"x": E(5)}),
    "transposition": ("y = x' + B", {"x": E((3, 4)), "B": (4, 3)}),
    "integers": ("y[i] = A[i,j]*x[j]", {"A": stein.tensor((3, 4), "int64"), "x": E(4, "int64")}),
    "single precision": ("y[i] = 2*x[i] + 1", {"x": E(5, "float32")}),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name: str) -> None:
    text, declared = PROGRAMS[name]
    compiled = stein.compile(text, target="ckks", rings=8192, **declared)
    assert isinstance(compiled, EncryptedCompiled)
    if compiled.program.tensors[compiled.program.outputs[0]].dtype.bits == 32:
        x = np.arange(5, dtype="float32")
        np.testing.assert_array_equal(compiled.simulate(x=x), 2 * x + 1)
    else:
        check(compiled)


STRINGS: dict[str, tuple[Any, ...]] = {
    "ij->ji": (E((3, 4)),),
    "ij->": (E((3, 4)),),
    "ii->i": (E((4, 4)),),
    "...ij,...jk->...ik": (E((2, 3, 4)), E((2, 4, 2))),
    "ij,jk->ik": (E((4, 4)), (4, 3)),
    "i,i->": (E(40), E(40)),
    "ij,ij,ij->ij": (E((3, 4)),) * 3,
    "ai,bj,ij->ab": ((3, 3), (4, 4), E((3, 4))),
}


@pytest.mark.parametrize("spec", STRINGS)
def test_einsum_strings(spec: str) -> None:
    check(stein.compile(spec, *STRINGS[spec], target="ckks", rings=8192))


@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(programs(products=False, terms=1))
def test_random_programs(program: Program) -> None:
    check(compile_encrypted(program, {}, Wanted(rings=(8192,)), {}))


def test_an_approximation_is_as_far_off_as_it_says() -> None:
    text = "y[i] = approx(tanh, degree=7, range=-2..2)(sum[j] A[i,j]*x[j])"
    compiled = stein.compile(text, A=(6, 6), x=E(6), target="ckks")
    A, x = np.eye(6) * 1.5, np.linspace(-1, 1, 6)
    error = np.abs(compiled.simulate(A=A, x=x) - np.tanh(A @ x)).max()
    assert 0 < error <= compiled.stats["approximation_error"] < 0.01


def test_what_is_kept_of_constants_is_size_and_structure() -> None:
    """Two constants of one shape give one plan, byte for byte, whatever their values (zeros too)."""

    def plan(W: Any) -> Any:
        made = stein.compile("y[i] = W[i,j]*x[j]", W=stein.constant(W), x=E(6), target="ckks", rings=8192)
        return made.plan.to_json()

    assert plan(np.ones((6, 6))) == plan(np.eye(6)) == plan(np.zeros((6, 6)))


def test_declared_blocks_are_used_and_their_places_public() -> None:
    W = np.zeros((12, 12))
    W[0:4, 8:12], W[4:8, 0:4] = 1.0, 2.0
    text = "W: const f64[12,12] bsr(block=4); y = W @ x"
    compiled = stein.compile(text, W=stein.constant(W), x=E(12), target="ckks", rings=8192)
    assert len(compiled.problem.steps[0].terms) == 2  # type: ignore[union-attr]
    np.testing.assert_allclose(compiled.simulate(x=np.arange(12.0)), W @ np.arange(12.0), atol=ERROR)


def test_a_declared_range_is_in_the_plan() -> None:
    def made(**options: Any) -> EncryptedCompiled:
        return stein.compile("y[i] = x[i]*x[i]", x=E(4, **options), target="ckks", rings=8192)

    assert made(range=2.0).problem.ranges["x"] == 2.0
    small, large = made(range=1.0), made(range=1000.0)
    assert (
        large.plan.parameters.bits[0] - large.plan.parameters.scale_bits
        > (small.plan.parameters.bits[0] - small.plan.parameters.scale_bits)
        or large.plan.parameters.bits[0] >= small.plan.parameters.bits[0]
    )
    with pytest.raises(stein.ShapeError, match="range"):
        E(4, range=-1.0)


def test_stats_are_those_of_the_circuit() -> None:
    compiled = stein.compile("y[i] = A[i,j]*x[j]", A=(8, 8), x=E(8), target="ckks", rings=8192)
    stats, circuit = compiled.stats, compiled.plan.circuit
    counts = circuit.counts()
    assert stats["rotations"] == counts.get(ROTATE, 0) and stats["levels"] == circuit.levels
    assert stats["uploads"] == counts["input"] and stats["ring"] == 8192
    assert stats["predicted_error"] > 0 and 0 < stats["predicted_relative_error"] <= 1e-5
    assert compiled.source().splitlines()[0].startswith("4096 slots")
    assert "A[i, j]" in compiled.ir() and "encrypted x" in compiled.ir("elaborated")


def test_a_saved_plan_is_the_same_circuit(tmp_path: Path) -> None:
    A = np.arange(12.0).reshape(3, 4)
    compiled = stein.compile("y = A @ x", A=stein.constant(A), x=E(4), target="ckks", rings=8192)
    compiled.save(tmp_path / "plan.json")
    again = stein.EncryptedCompiled.load(tmp_path / "plan.json", A=A)
    assert again.source() == compiled.source() and again.plan.to_json() == compiled.plan.to_json()
    np.testing.assert_allclose(again.simulate(x=np.ones(4)), A @ np.ones(4), atol=ERROR)
    without = stein.EncryptedCompiled.load(tmp_path / "plan.json")
    assert [i.name for i in without.arguments] == ["A"]
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(stein.BackendError, match="no plan"):
        stein.EncryptedCompiled.load(tmp_path / "plan.json")


def test_mistakes_are_named() -> None:
    def compiled(**options: Any) -> Any:
        return stein.compile("y[i] = 2*x[i]", x=E(4), target="ckks", **options)

    for options in ({"precision": 2.0}, {"rings": 1000}, {"structure": 1}):
        with pytest.raises(stein.BackendError):
            compiled(**options)
    with pytest.raises(stein.DTypeError, match="options of encrypted programs"):
        stein.compile("y[i] = 2*x[i]", x=(4,), precision=1e-3)
    made = compiled(rings=8192)
    with pytest.raises(stein.BackendError, match="keygen"):
        made(x=np.ones(4))
    for arrays in ({}, {"x": np.ones(5)}, {"x": np.ones(4) * 1j}, {"x": np.ones(4), "z": 1}):
        with pytest.raises((stein.DTypeError, stein.ShapeError)):
            made.simulate(**arrays)
    with pytest.raises(stein.BackendError, match="stage"):
        made.ir("nothing")


def test_sizes_follow_from_constraints() -> None:
    """An input whose size no declaration states gets it from those that it is used with."""
    compiled = stein.compile("x: encrypted f64[n]; y[i] = A[i,j]*x[j]", A=(4, 6), x=E(6), target="ckks", rings=8192)
    assert known_sizes(compiled.program, {}) == {}
    assert [s.evaluate({}) for s in compiled.encrypted[0].shape] == [6]
