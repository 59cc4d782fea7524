"""Every example runs, at a small size; each checks its own results against NumPy or torch.

Examples of published systems take a `scale` and return a report. Which structure must be found in them is written in
the example (`EXPECTED`); a finding that is lost, or a result out of its bound, raises.
"""

from __future__ import annotations

import doctest
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SMALL: dict[str, dict[str, int]] = {
    "attention": {"n": 12},
    "classic": {"n": 9},
    "convolution": {"n": 13},
    "cp_decomposition": {"n": 8},
    "encrypted_einsums": {"cases": 2},
    "encrypted_gram": {"vectors": 6, "features": 8},
    "encrypted_kronecker": {"m": 8},
    "encrypted_logistic": {"patients": 32},
    "encrypted_monarch": {"m": 4},
    "explain": {"n": 8},
    "kronecker": {"n": 5},
    "marginals": {"n": 5},
    "monarch_training": {"seeds": 1, "epochs": 2, "picture": False},
    "own_semiring": {"n": 12},
    "pytorch": {"n": 7},
    "semirings": {"n": 12},
    "tensor_network": {"n": 3},
}
NAMES = sorted(path.stem for path in EXAMPLES.glob("[a-z]*.py") if path.stem != "run")


@pytest.fixture(autouse=True)
def _beside_their_helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


def _load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def _is_system(module: Any) -> bool:
    return "scale" in inspect.signature(module.main).parameters


@pytest.mark.parametrize("name", [name for name in NAMES if name != "demo"])
def test_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    if name.startswith("encrypted"):
        pytest.importorskip("tenseal", reason="encrypted programs need tenseal")
    module = _load(name)
    if _is_system(module):
        report = module.main("small")
        assert report.found == module.EXPECTED and report.error <= 1 and report.flops > 0
        assert bool(report.evidence) == bool(report.found)
        assert all(ratio > 0 for ratio in report.faster.values())
    else:
        module.main(**SMALL.get(name, {}))
    printed = capsys.readouterr().out
    assert printed.strip()
    if name in ("pytorch", "monarch_training", "encrypted_logistic") and "not installed" in printed:
        pytest.skip(printed.strip())


@pytest.mark.parametrize("name", NAMES)
def test_example_explains_itself(name: str) -> None:
    module = _load(name)
    assert (module.__doc__ or "").strip()
    text = inspect.getsource(module)
    assert 'if __name__ == "__main__":\n    main()\n' in text


@pytest.mark.parametrize("name", ["_race", "_system", "run"])
def test_doctests_of_the_helpers(name: str) -> None:
    failed, tried = doctest.testmod(_load(name))
    assert tried and not failed


def test_small_sizes_belong_to_examples() -> None:
    assert set(SMALL) <= set(NAMES)
    assert not [name for name in SMALL if _is_system(_load(name))]


def test_rows_are_listed_once() -> None:
    """README.md of the examples has one line for each system, with its file or the reason why there is none."""
    text = (EXAMPLES / "README.md").read_text()
    rows = [line.split("|")[1:4] for line in text.splitlines() if line.startswith("| ") and line[2].isdigit()]
    assert [int(number) for number, *_ in rows] == list(range(1, 43))
    linked = [cell.strip().strip("`") for _, _, cell in rows]
    files = {name.removesuffix(".py") for name in linked if name.endswith(".py")}
    assert files == {name for name in NAMES if name != "demo" and _is_system(_load(name))}
    assert all(name.endswith(".py") or name == "no" for name in linked)


class TestStudy:
    """The helper notices what it must: it would be no check otherwise."""

    W = np.arange(6.0).reshape(2, 3)
    x = np.ones((4, 3))

    def _study(self, program: str, expected: tuple[str, ...] = (), **more: Any) -> Any:
        operands = {"W": self.W, "x": self.x}
        matrix = more.pop("matrix", lambda W: W)
        return _load("_system").study(0, "none", "small", program, operands, expected, matrix=matrix, **more)

    def test_right(self, capsys: pytest.CaptureFixture[str]) -> None:
        report = self._study("y[t,i] = W[i,j] * x[t,j]", spec="ij,tj->ti")
        assert set(report.faster) >= {"dense", "order"} and report.same_as_order and report.flops_dense == 2 * 6 * 4
        assert "no flop is saved over it" in capsys.readouterr().out

    def test_wrong_value(self) -> None:
        with pytest.raises(AssertionError, match="stein: the largest error is"):
            self._study("y[t,i] = W[i,j] * x[t,j] + 1e-13")

    def test_not_a_number(self) -> None:
        with pytest.raises(AssertionError, match="inf times its bound"):
            self._study("y[t,i] = W[i,j] * x[t,j] / 0")

    def test_lost_finding(self) -> None:
        with pytest.raises(AssertionError, match="kronecker not found"):
            self._study("y[t,i] = W[i,j] * x[t,j]", ("kronecker",))

    def test_wrong_peer(self) -> None:
        with pytest.raises(AssertionError, match="order: the largest error is"):
            self._study("y[t,i] = W[i,j] * x[t,j]", spec="ij,tj->ti", spec_operands={"W": self.W + 1, "x": self.x})


class TestRun:
    """`make examples`: the table, and an exit code that says whether all is well."""

    @pytest.fixture
    def runner(self) -> Iterator[Any]:
        yield _load("run")

    def test_table(self, runner: Any, capsys: pytest.CaptureFixture[str]) -> None:
        assert runner.main(["--scale", "small", "monarch", "errors"]) == 0
        printed = capsys.readouterr().out
        assert "2 of 2 examples ran" in printed and "Also ran: errors" in printed
        line = next(line for line in printed.splitlines() if "Monarch" in line and "proved" in line)
        assert line.split("│")[3].strip() == "monarch"

    def test_failure(self, runner: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(name: str, scale: str, quiet: bool) -> None:
            raise AssertionError("out of its bound")

        monkeypatch.setattr(runner, "run", broken)
        assert runner.main(["--scale", "small", "monarch"]) == 1
        printed = capsys.readouterr().out
        assert "failed monarch: AssertionError: out of its bound" in printed and "0 of 1" in printed

    def test_unknown_name(self, runner: Any, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            runner.main(["no_such_example"])
        assert "no example no_such_example" in capsys.readouterr().err

    def test_names(self, runner: Any) -> None:
        assert runner.names() == [name for name in NAMES if name != "demo"]


class TestDemo:
    """`make demo` on a small picture of noise."""

    def test_writes_pictures_and_reports(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        pytest.importorskip("matplotlib", reason="the demo needs matplotlib")
        from stein.runtime.demo import main

        picture = np.random.default_rng(0).random((40, 32, 3), dtype=np.float32)
        main(tmp_path / "out", picture, seconds=0.01, edge=8)
        written = {"before.png", "blurred.png", "low_pass.png", "tree.png"}
        printed = capsys.readouterr().out
        if "need tenseal" not in printed:
            written |= {"encrypted_before.png", "encrypted_blurred.png", "circuit.png"}
        assert {p.name for p in (tmp_path / "out").iterdir()} == written
        assert "encrypted pixels" in printed
        assert "np.einsum(optimize=True)" in printed and "opt_einsum" in printed and "contraction tree" in printed

    def test_the_check_notices_a_wrong_pixel(self) -> None:
        from stein.runtime.demo import deviation, gaussian

        rng = np.random.default_rng(0)
        A, B, x = gaussian(16, 2.0), gaussian(12, 2.0), rng.random((16, 12, 3), dtype=np.float32)
        right = np.einsum("ik,jl,klc->ijc", A, B, x)
        assert deviation(A, B, x, right)[1] <= 1
        wrong = right.copy()
        wrong[3, 4, 1] += 1e-3
        error, share = deviation(A, B, x, wrong)
        assert error == pytest.approx(1e-3, rel=1e-2) and share > 1

    def test_filters_mean_what_they_say(self) -> None:
        from stein.runtime.demo import gaussian, low_pass

        np.testing.assert_allclose(gaussian(20, 3.0).sum(axis=1), 1, rtol=1e-6)
        passed = low_pass(32, 4)
        np.testing.assert_allclose(passed @ passed, passed, atol=1e-5)  # a projection
        assert np.linalg.matrix_rank(passed, tol=1e-4) == 4
