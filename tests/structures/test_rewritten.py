"""Candidates: the program with a structure's method in place of a value computes the same."""

from __future__ import annotations

import numpy as np
import pytest

from stein.ir.check import check_program
from stein.ir.interpret import interpret
from stein.passes.recognise import recognise
from stein.passes.structured import rewritten
from stein.tests.structures import cases, oracle


@pytest.mark.parametrize("case", [c for c in cases.CASES if c.kind], ids=lambda c: c.number)
def test_equal(case: cases.Case) -> None:
    program, count = case.program, 0
    given = oracle.random_inputs(program)
    wanted = interpret(program, given)[program.outputs[0]]
    for finding in recognise(program, case.argument):
        for name, other in rewritten(program, finding):
            check_program(other)
            got = interpret(other, given)[program.outputs[0]]
            # a sum of n products of normal deviates, in a chain of at most 16 sums, or Fourier transforms of the same
            scale = max(1.0, np.abs(wanted).max(initial=0)) * 64 * max(v.size for v in given.values())
            assert np.abs(got - wanted).max(initial=0) <= scale * np.finfo(float).eps, name
            count += 1
    assert count, "no program came of it"
