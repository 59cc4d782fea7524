"""The generated kernels against their definition, in Triton's interpreter: no GPU is needed.

The interpreter must be asked for before Triton is loaded, so a process of its own (`interpreted`) runs the programs on
buffers full of NaN and prints what it saw; the tests here read its lines. STEIN_TEST_KERNELS=1000 runs more random
programs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from stein.tests.gpu.cases import CASES

pytest.importorskip("torch", reason="needs PyTorch: pip install 'stein[gpu]'")
pytest.importorskip("triton", reason="needs Triton: pip install 'stein[gpu]'")

RANDOM = int(os.environ.get("STEIN_TEST_KERNELS", "40"))
Lines = list[dict[str, Any]]


def run(*arguments: str) -> Lines:
    """The lines that the process prints."""
    command = [sys.executable, "-m", "stein.tests.gpu.interpreted", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"TRITON_INTERPRET": "1"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def lines() -> Lines:
    return run("cases")


@pytest.mark.parametrize("name", [c.name for c in CASES])
def test_kernels_compute_what_is_meant(name: str, lines: Lines) -> None:
    """In every type, within the bound that follows from precision and length, from poisoned buffers."""
    case = next(c for c in CASES if c.name == name)
    mine = [line for line in lines if line["name"] == name]
    assert [line["dtype"] for line in mine] == list(case.dtypes)
    for line in mine:
        assert "failed" not in line, line["failed"]
        assert line["worst"] <= 1, f"{name} in {line['dtype']} errs by {line['worst']} times its bound"


def test_products_of_matrices_go_to_tensor_cores(lines: Lines) -> None:
    dots = {line["name"] for line in lines if line.get("dot")}
    assert {"matrix", "matrix_nt", "matrix_tn", "batched", "kronecker", "high_order", "fused_ends"} <= dots
    assert not {"vector", "sum_all", "shortest_paths", "int_matrix", "double_matrix"} & {
        line["name"] for line in lines if line.get("dot") and line["dtype"] != "int8"
    }


def test_random_programs() -> None:
    """Programs of the language, drawn at random: affine slots, pads, moduli, semirings, mixed types."""
    found = run("random", "0", str(RANDOM))
    broken = [line for line in found if "failed" in line or line.get("wrong")]
    assert not broken, broken[0]
    count = Counter("refused" in line for line in found)
    assert count[False] >= 3 * count[True], "most programs have kernels"
