"""The conformance harness checked on stand-ins: it must pass NumPy as NumPy, and catch NumPy posing as a compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).resolve().parent / "run.py"


def run(*arguments: str, target: str = "numpy:einsum") -> subprocess.CompletedProcess[str]:
    """The conformance command on a stand-in."""
    environment = os.environ | {"STEIN_CONFORMANCE_TARGET": target}
    command = [sys.executable, str(RUN), "--suite", "numpy", "-k", "test_einsum_misc or test_spaces", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_a_correct_einsum_passes() -> None:
    done = run("--guard", "off")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "total" in done.stdout


@pytest.mark.parametrize("guard", ["raise", "count"])
def test_a_delegating_einsum_is_caught(guard: str) -> None:
    done = run("--guard", guard)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "delegated: numpy._core.einsumfunc.c_einsum" in done.stdout


def test_a_missing_target_is_named() -> None:
    done = run(target="numpy:no_such_function")
    assert done.returncode == 1
    assert "numpy:no_such_function" in done.stdout
