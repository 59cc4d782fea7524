"""Every program of the language page on the CPU, with sizes known and symbolic, against the interpreter."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import stein
from stein.ir.interpret import solve_sizes
from stein.ir.text import parse_ir, print_program
from stein.tests.frontend.test_programs import GOOD, symbolic
from stein.tests.rounding import differences

MEANT = [g for g in GOOD if g[2] is not None]


def keywords(text: str, arrays: dict[str, Any], known: bool) -> dict[str, Any]:
    """The declarations: the arrays themselves, or only what the text does not say about axes and types."""
    if known:
        return {n: np.asarray(v) for n, v in arrays.items()}
    said = symbolic(text, arrays)
    return {n: stein.tensor(d.shape, d.dtype) for n, d in said.items() if d.shape is not None}


@pytest.mark.parametrize("known", [True, False], ids=["known", "symbolic"])
@pytest.mark.parametrize(("text", "meaning", "arrays"), [g[1:] for g in MEANT], ids=[g[0] for g in MEANT])
def test_programs_on_the_cpu(text: str, meaning: Callable[..., Any], arrays: dict[str, Any], known: bool) -> None:
    given = keywords(text, arrays, known)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled = stein.compile(text, target="cpu", **given)
        got, want = compiled(**arrays), stein.compile(text, target="reference", **given)(**arrays)
    program = parse_ir(compiled.ir("elaborated"))
    sizes = solve_sizes(program, {i.name: np.shape(arrays[i.name]) for i in program.inputs})
    bounds = differences(program, arrays, sizes)
    if not isinstance(want, dict):
        got, want = {"": got}, {"": want}
    assert got.keys() == want.keys() and len(want) == len(bounds)
    for (name, value), bound in zip(want.items(), bounds.values(), strict=True):
        value = np.asarray(value)
        assert got[name].dtype == value.dtype and got[name].shape == value.shape
        finite = np.isfinite(value)
        np.testing.assert_array_equal(got[name][~finite], value[~finite])
        if value.dtype.kind in "fc":
            assert (np.abs(got[name] - value)[finite] <= bound[finite]).all()
            largest = max(1.0, float(np.abs(value[finite]).max(initial=0)))
            assert (bound[finite] <= np.sqrt(np.finfo(value.dtype).eps) * largest).all()  # else it says nothing
        else:
            np.testing.assert_array_equal(got[name], value)


@pytest.mark.parametrize(("text", "arrays"), [(g[1], g[3]) for g in MEANT], ids=[g[0] for g in MEANT])
def test_their_text_reads_back_at_every_stage(text: str, arrays: dict[str, Any]) -> None:
    compiled = stein.compile(text, **keywords(text, arrays, False))
    for stage in ("elaborated", "normal", "planned"):
        printed = compiled.ir(stage)
        assert print_program(parse_ir(printed)) == printed
