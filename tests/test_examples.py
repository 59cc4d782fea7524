"""Every example runs, at a small size; each checks its own results against NumPy or torch."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SMALL: dict[str, dict[str, int]] = {
    "attention": {"n": 12},
    "classic": {"n": 9},
    "convolution": {"n": 13},
    "cp_decomposition": {"n": 8},
    "explain": {"n": 8},
    "kronecker": {"n": 5},
    "marginals": {"n": 5},
    "monarch": {"n": 4},
    "own_semiring": {"n": 12},
    "pytorch": {"n": 7},
    "semirings": {"n": 12},
    "tensor_network": {"n": 3},
}
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))


def _load(name: str) -> object:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", [name for name in NAMES if name != "demo"])
def test_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    main = getattr(_load(name), "main")  # noqa: B009
    main(**SMALL.get(name, {}))
    printed = capsys.readouterr().out
    assert printed.strip()
    if name == "pytorch" and "not installed" in printed:
        pytest.skip("PyTorch is not installed")


@pytest.mark.parametrize("name", NAMES)
def test_example_explains_itself(name: str) -> None:
    module = _load(name)
    assert (module.__doc__ or "").strip()
    text = inspect.getsource(module)  # type: ignore[arg-type]
    assert 'if __name__ == "__main__":\n    main()\n' in text


def test_small_sizes_belong_to_examples() -> None:
    assert set(SMALL) <= set(NAMES)


class TestDemo:
    """`make demo` on a small picture of noise."""

    def test_writes_pictures_and_reports(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        pytest.importorskip("matplotlib", reason="the demo needs matplotlib")
        from stein.runtime.demo import main

        picture = np.random.default_rng(0).random((40, 32, 3), dtype=np.float32)
        main(tmp_path / "out", picture, seconds=0.01)
        assert {p.name for p in (tmp_path / "out").iterdir()} == {
            "before.png",
            "blurred.png",
            "low_pass.png",
            "tree.png",
        }
        printed = capsys.readouterr().out
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
