"""The fuzz under pytest: a thousand calls of stein, and the harness itself against einsums made wrong on purpose."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent

# A fault, the class that must find it, and how many calls it may take.
MUTANTS = (
    ("stale_buffer", "earlier", 60),
    ("skips_nan", "nan", 60),
    ("half_precision", "plain", 60),
    ("promotes_late", "mixed", 200),
    ("ignores_strides", "strides", 100),
    ("writes_operands", "plain", 60),
    ("wrong_type", "integers", 60),
    ("ignores_order", "fortran", 100),
    ("keeps_first_answer", "threads", 100),
    ("drops_tail", "edges", 60),
)


def fuzz(*arguments: str, target: str = "stein:einsum") -> subprocess.CompletedProcess[str]:
    """The fuzz command."""
    environment = os.environ | {"STEIN_FUZZ_TARGET": target}
    command = [sys.executable, str(HERE / "run.py"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1500)


def test_a_thousand_calls() -> None:
    done = fuzz("--seed", "1", "--calls", "1000")
    assert done.returncode == 0, done.stdout + done.stderr


def test_two_hundred_malformed_calls() -> None:
    done = fuzz("--seed", "2", "--calls", "240", "--only", "malformed")
    assert done.returncode == 0, done.stdout + done.stderr


def test_numpy_is_right() -> None:
    done = fuzz("--calls", "500", target="numpy:einsum")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("mutant", "name", "calls"), MUTANTS)
def test_a_wrong_einsum_is_caught(mutant: str, name: str, calls: int) -> None:
    done = fuzz("--calls", str(calls), "--only", name, target=f"fuzz_mutants:{mutant}")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "import numpy as np, stein" in done.stdout  # with a snippet


def test_a_crash_is_attributed() -> None:
    done = fuzz("--calls", "60", "--only", "empty", target="fuzz_mutants:crashes")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "signal SIGSEGV" in done.stdout


def test_a_case_is_reproducible() -> None:
    first, second = (fuzz("--case", "60", target="fuzz_mutants:wrong_type") for _ in range(2))
    strip = [[line for line in d.stdout.splitlines() if line.startswith(("---", "a", "r ="))] for d in (first, second)]
    assert strip[0] == strip[1]
