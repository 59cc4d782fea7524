"""Random calls and random structured programs on the GPU backend, in Triton's interpreter. `stein.tests.gpu.fuzzed` and
`stein.tests.gpu.fused_random`, run as modules, make more of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def last_line(module: str, *arguments: str) -> str:
    """What such a run says at its end, where nothing was wrong."""
    pytest.importorskip("torch", reason="needs PyTorch")
    pytest.importorskip("triton", reason="needs Triton")
    command = [sys.executable, "-m", f"stein.tests.gpu.{module}", *arguments]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, env=environment)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout.splitlines()[-1]


def test_random_calls_agree_with_the_oracle() -> None:
    assert int(last_line("fuzzed", "--seed", "1", "--cases", "240").split()[0]) > 100


def test_random_structured_programs_agree_with_double_precision() -> None:
    plans = last_line("fused_random", "--seed", "2", "--cases", "30")
    assert "kronecker" in plans and "low_rank" in plans
