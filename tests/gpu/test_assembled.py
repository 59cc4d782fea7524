"""The generated kernels assembled for GPUs that are not here: no spills, shared memory within its limit, tensor cores.

A process of its own (`assembled`): the tests beside this one ask Triton for its interpreter. `python -m
stein.tests.gpu.assembled sm_90` assembles every case.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs PyTorch: pip install 'stein[gpu]'")
pytest.importorskip("triton", reason="needs Triton: pip install 'stein[gpu]'")

CHOSEN = ("matrix", "transposed", "functions", "scatter")
Lines = list[dict[str, Any]]


def assembled(architecture: str, *names: str) -> Lines:
    environment = {n: v for n, v in os.environ.items() if n != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "stein.tests.gpu.assembled", architecture, *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_kernels_assemble_for_hopper() -> None:
    lines = assembled("sm_90", *CHOSEN)
    assert {line["name"] for line in lines} == set(CHOSEN)
    for line in lines:
        assert "failed" not in line, line["failed"]
        assert line["spills"] == 0 and line["shared"] <= line["limit"], line
    matrix = next(line for line in lines if line["name"] == "matrix")
    assert matrix["instructions"]["HGMMA"] and matrix["instructions"]["LDGSTS"], "wide products, asynchronous loads"
    transposed = next(line for line in lines if line["name"] == "transposed")
    assert transposed["vector_loads"], "contiguous along the axis that is read"


def test_a_product_assembles_for_other_gpus() -> None:
    (ampere,) = assembled("sm_80", "matrix")
    (amd,) = assembled("gfx942", "matrix")
    assert ampere["instructions"]["HMMA"] and amd["instructions"]["MFMA"]
    assert amd["shared"] <= amd["limit"] and not ampere["spills"]
