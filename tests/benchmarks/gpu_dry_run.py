"""Runs commands of `benchmarks/gpu.py`, one for each argument, in Triton's interpreter; a process of its own.

Rows are there beside the script's own: `fails` raises when it is compiled, `wrong` has another definition than its
program, the definition of `slow` takes a minute, and a rival of `rivalled` raises. The interpreter is mended first, as
for all tests in it.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from stein.tests.gpu.interpreter import repair  # first: it asks for the interpreter

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import gpu
from gpu_rivals import Rival
from gpu_rows import ROWS

assert repair


def broken(torch: Any, operands: Any) -> Any:
    """A rival that does not work."""
    raise RuntimeError("this rival is broken")


def slow(torch: Any, operands: Any) -> Any:
    """A definition that takes longer than there is time."""
    time.sleep(60)


def main(commands: list[str]) -> None:
    by_name = {r.name: r for r in ROWS}
    low_rank, kronecker = by_name["low rank 64"], by_name["kronecker 64x64"]
    own = (
        replace(low_rank, name="fails", text="y[b,i] = U[i,r] * V[r,j] * x[b,k]"),
        replace(low_rank, name="slow", exact=slow),
        replace(low_rank, name="wrong", exact=lambda torch, o: 1.1 * (o["x"] @ o["V"].t() @ o["U"].t())),
        replace(kronecker, name="rivalled", rivals=(Rival("broken", broken, 2.0), *kronecker.rivals)),
    )
    for command in commands:
        print(f"exit status {gpu.main(command.split(), (*own, *ROWS))}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
