"""Random programs of the named language on the CPU against the interpreter; STEIN_TEST_PROGRAMS=5000 runs more."""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np
import pytest

import stein
from stein.tests.random_programs import Drawn, random_text

COUNT = int(os.environ.get("STEIN_TEST_PROGRAMS", "120"))
ROUND = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "complex64": 2.0**-24}


def laid_out(array: np.ndarray[Any, Any], choose: random.Random) -> np.ndarray[Any, Any]:
    """The same values, lying in memory in another way: turned round, with gaps, not aligned, or read-only."""
    kind = choose.randrange(6)
    if kind == 0:
        return np.array(array, order="F")
    if kind == 1 and array.ndim:
        return np.ascontiguousarray(array[::-1])[::-1]
    if kind == 2 and array.ndim:
        wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
        wide[..., ::2] = array
        return wide[..., ::2]
    if kind == 3:
        unaligned: np.ndarray[Any, Any] = np.ndarray(array.shape, array.dtype, bytearray(array.nbytes + 1), 1)
        unaligned[...] = array
        return unaligned
    if kind == 4:
        array = array.copy()
        array.flags.writeable = False
    return array


def outcome(drawn: Drawn, arguments: dict[str, Any], **options: Any) -> Any:
    """The results by name, or the message."""
    try:
        with np.errstate(all="ignore"):
            compiled = stein.compile(drawn.text, **options)
            found = compiled(**{n: a for n, a in arguments.items() if n not in options})
            again = compiled(**{n: a for n, a in arguments.items() if n not in options})
    except stein.SteinError as error:
        return str(error)
    found, again = ({"": r} if not isinstance(r, dict) else r for r in (found, again))
    for name, value in found.items():
        np.testing.assert_array_equal(value, again[name], err_msg=f"a second call differs: {drawn.text}")
    return found


def check(drawn: Drawn, got: Any, want: Any) -> None:
    if isinstance(want, str) or isinstance(got, str):
        assert got == want, drawn.text
        return
    words = drawn.text
    least = max([2.0**-53, *(e for w, e in (("f16", 2.0**-11), ("f32", 2.0**-24), ("c64", 2.0**-24)) if w in words)])
    least = 2.0**-8 if "bf16" in words else least
    assert got.keys() == want.keys()
    for name, value in want.items():
        value, other = np.asarray(value), np.asarray(got[name])
        assert (other.dtype, other.shape) == (value.dtype, value.shape), drawn.text
        if value.dtype.kind in "biu":
            assert np.array_equal(other, value), f"{drawn.text}\n{name}: {other} is not {value}"
            continue
        wide = np.complex128 if value.dtype.kind == "c" else np.float64
        a, b = value.astype(wide), other.astype(wide)
        bound = 4 * max(least, ROUND.get(value.dtype.name, 0.0)) * drawn.roundings * drawn.magnitude
        with np.errstate(all="ignore"):
            close = (a == b) | (np.isnan(a) & np.isnan(b)) | (np.abs(a - b) <= bound)
        assert close.all(), f"{drawn.text}\n{name}: {other} is not {value} within {bound}"


@pytest.mark.parametrize("block", range(max(COUNT // 20, 1)))
def test_random_programs(block: int) -> None:
    legal = 0
    for seed in range(20 * block, 20 * block + 20):
        drawn, choose = random_text(seed), random.Random(-seed)
        want = outcome(drawn, drawn.arguments, target="reference")
        legal += not isinstance(want, str)
        arguments = {n: laid_out(a, choose) for n, a in drawn.arguments.items()}
        options: dict[str, Any] = {}
        if choose.random() < 0.3:
            options["strict"] = True
        elif choose.random() < 0.5:
            options["optimize"] = choose.choice((False, "greedy", "optimal", True))
        if choose.random() < 0.3:
            name = choose.choice(sorted(arguments)) if arguments else ""
            if name and not drawn.text.startswith(f"{name}:") and drawn.arguments[name].ndim:
                options[name] = stein.constant(arguments[name])
        check(drawn, outcome(drawn, arguments, **options), want)
    assert legal >= 12, "most random programs are legal"
