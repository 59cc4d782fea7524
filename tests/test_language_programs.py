"""Every program of the language page on the CPU, with sizes known and symbolic, against the interpreter."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import stein
from stein.ir.text import parse_ir, print_program
from stein.tests.frontend.test_programs import GOOD, symbolic

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
        got, want = (stein.compile(text, target=t, **given)(**arrays) for t in ("cpu", "reference"))
    if not isinstance(want, dict):
        got, want = {"": got}, {"": want}
    assert got.keys() == want.keys()
    for name, value in want.items():
        value = np.asarray(value)
        assert got[name].dtype == value.dtype and got[name].shape == value.shape
        if value.dtype.kind in "fc":  # a few hundred roundings of well-scaled values
            finite = np.abs(value[np.isfinite(value)])
            scale = max(1.0, float(finite.max())) if finite.size else 1.0
            np.testing.assert_allclose(got[name], value, rtol=0, atol=1000 * scale * np.finfo(value.dtype).eps)
        else:
            np.testing.assert_array_equal(got[name], value)


@pytest.mark.parametrize(("text", "arrays"), [(g[1], g[3]) for g in MEANT], ids=[g[0] for g in MEANT])
def test_their_text_reads_back_at_every_stage(text: str, arrays: dict[str, Any]) -> None:
    compiled = stein.compile(text, **keywords(text, arrays, False))
    for stage in ("elaborated", "normal", "planned"):
        printed = compiled.ir(stage)
        assert print_program(parse_ir(printed)) == printed
