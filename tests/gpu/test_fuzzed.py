"""Random calls on the GPU backend in Triton's interpreter; `python -m stein.tests.gpu.fuzzed` makes more of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def test_random_calls_agree_with_the_oracle() -> None:
    pytest.importorskip("torch", reason="needs PyTorch")
    pytest.importorskip("triton", reason="needs Triton")
    command = [sys.executable, "-m", "stein.tests.gpu.fuzzed", "--seed", "1", "--cases", "240"]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, env=environment)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    calls = int(done.stdout.splitlines()[-1].split()[0])
    assert calls > 100
