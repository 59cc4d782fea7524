"""Rotations, products and levels of linear programs at ring 8192, never more than these, values checked against NumPy.

The whole table, with planning times: `python tests/ckks/run.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from stein.backends.ckks.planning.planner import plan

sys.path.insert(0, str(Path(__file__).resolve().parent))
import linear_programs as programs

QUICK = (
    "dense 1024", "dense 200x200", "kronecker 1024", "kronecker 1024, outer first", "three factors 4096",
    "monarch 1024", "block diagonal 1024", "low rank 8 1024", "low rank 32 4096", "banded 17 1024",
    "block-sparse 2 of 16", "toeplitz 1024", "bit reversal at the client", "ij->", "ij->j", "ij->i", "ij->ji", "ii->i",
)  # fmt: skip


@pytest.mark.parametrize("name", QUICK)
def test_counts(name: str) -> None:
    make, (rotations, products, levels) = programs.CASES[name]
    found = programs.by_uploads(plan(make(), rings=(8192,)))
    counts = programs.checked(found)
    assert counts.get("rotate", 0) <= rotations
    assert counts.get("multiply plain", 0) <= products
    assert found.levels <= levels
    assert found.circuit.counts() == counts


def test_uploads_buy_rotations() -> None:
    """A band in lanes: the client sends the shifted copies, and nothing is rotated but a fold."""
    plans = plan(programs.banded(1024, 8), rings=(8192,))
    assert min(programs.checked(p).get("rotate", 0) for p in plans) <= 2
