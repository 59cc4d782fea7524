"""`target="cuda"`: what can be seen without a GPU, without PyTorch and without Triton, and calls in the interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import stein

WITHOUT = """
import sys
sys.modules["torch"] = sys.modules["triton"] = None
import numpy as np, stein
f = stein.compile("y[i,k] = exp(sum[j] A[i,j] * B[j,k])", dtype="float32", target="cuda", A=("n", 64), B=(64, "m"))
assert "tl.dot(" in f.source("triton")
assert "cuda" in str(f.explain()) and f.stats["launches"] == 1 and "einsum" in f.ir("planned")
try:
    f(np.ones((3, 64), "f4"), np.ones((64, 5), "f4"))
except stein.BackendError as error:
    assert "target 'cuda' needs torch and triton, which are not installed" in str(error), error
    assert error.help == "pip install 'stein[gpu]'"
else:
    raise AssertionError("a program for a GPU ran without PyTorch")
"""


def test_everything_can_be_seen_without_libraries() -> None:
    """Only a call needs PyTorch and Triton, and says so."""
    subprocess.run([sys.executable, "-c", WITHOUT], check=True)


def test_a_missing_library_is_told() -> None:
    from stein.runtime.gpu import require

    with pytest.raises(stein.BackendError, match="no_such_library") as caught:
        require("sys", "no_such_library")
    assert caught.value.help == "pip install 'stein[gpu]'"


def test_arrays_are_computed_here() -> None:
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'stein[gpu]'")
    pytest.importorskip("triton", reason="needs Triton: pip install 'stein[gpu]'")
    f = stein.compile("y[i] = A[i,j] * x[j]", dtype="float64", target="cuda")
    np.testing.assert_allclose(f(np.ones((2, 3)), np.ones(3)), [3, 3])
    assert "y" in f.source("triton")
    with pytest.raises(stein.BackendError, match="llvm"):
        f.source("llvm")


def test_bounds_stand_in_the_explanation() -> None:
    shapes = {"A": (64, 512), "B": (512, 64)}
    exact = stein.compile("y[i,k] = A[i,j] * B[j,k]", dtype="float32", target="cuda", **shapes)
    rounded = stein.compile("y[i,k] = A[i,j] * B[j,k]", dtype="float32", target="cuda", precision="tf32", **shapes)
    assert "errs by at most 3.1e-05" in str(exact.explain())
    assert "errs by at most 1.0e-03" in str(rounded.explain())
    assert rounded.stats["precision"] == "tf32"


@pytest.mark.parametrize("name", ["called.py", "tuned.py", "bulk.py"])
def test_calls_in_the_interpreter(name: str) -> None:
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'stein[gpu]'")
    pytest.importorskip("triton", reason="needs Triton: pip install 'stein[gpu]'")
    file = Path(__file__).parent / name
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(file)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"TRITON_INTERPRET": "1"}
    )
    assert done.returncode == 0, done.stdout[-4000:]
