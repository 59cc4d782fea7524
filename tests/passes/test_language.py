"""Every program of the language page, planned at its own sizes and at large hints, against the interpreter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from stein.frontend.elaborate import elaborate
from stein.frontend.parser import parse_program
from stein.ir.check import check_program
from stein.ir.interpret import interpret, solve_sizes
from stein.passes.base import Context
from stein.passes.plan import plan
from stein.tests.frontend.test_programs import GOOD, declared, symbolic

MEANT = [g for g in GOOD if g[2] is not None]


@pytest.mark.parametrize("known", [True, False], ids=["known", "symbolic"])
@pytest.mark.parametrize(("text", "meaning", "arrays"), [g[1:] for g in MEANT], ids=[g[0] for g in MEANT])
def test_planned_programs_mean_the_same(
    text: str, meaning: Callable[..., Any], arrays: dict[str, Any], known: bool
) -> None:
    program = elaborate(parse_program(text), declared(arrays) if known else symbolic(text, arrays))
    sizes = solve_sizes(program, {i.name: np.shape(arrays[i.name]) for i in program.inputs})
    want = interpret(program, arrays)
    for hints in (sizes, dict.fromkeys(sizes, 100)):
        for options in ({}, {"optimize": False}, {"strict": True}):
            after, _ = plan(program, Context(sizes=hints, **options))  # type: ignore[arg-type]
            check_program(after, "planned")
            got = interpret(after, arrays)
            for name, value in want.items():
                assert got[name].dtype == value.dtype and got[name].shape == value.shape
                if value.dtype.kind in "fc":  # a few hundred roundings of well-scaled values
                    finite = np.abs(value[np.isfinite(value)])
                    scale = max(1.0, float(finite.max())) if finite.size else 1.0
                    bound = 1000 * scale * np.finfo(value.dtype).eps
                    np.testing.assert_allclose(got[name], value, rtol=0, atol=bound)
                else:
                    np.testing.assert_array_equal(got[name], value)
