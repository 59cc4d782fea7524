"""What the driver of a GPU is told by launches, on machines without one: `driver/launched.py`, in a process of its own.

The stand-in of the driver is built here, from `driver/libcuda.c`. `python -m stein.tests.gpu.driver.every` launches all
programs of the tests.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stein.runtime.gpu import has_descriptors
from stein.tests.gpu.driver.stand_in import build, environment, missing


def test_launches(tmp_path: Path) -> None:
    if missing():
        pytest.skip(missing())
    if not has_descriptors():
        pytest.skip("needs Triton 3.4, for tensor descriptors")
    build(tmp_path)
    file = Path(__file__).parent / "driver" / "launched.py"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(tmp_path))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
