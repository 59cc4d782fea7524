"""Runs programs in Triton's interpreter, and prints a line of JSON for each: name, type, worst error over its bound.

A process of its own, because what `triton.jit` makes of a kernel is decided once for a process:

    python -m stein.tests.gpu.interpreted cases [name ...]
    python -m stein.tests.gpu.interpreted random 0 100
"""

from __future__ import annotations

import json
import sys
import traceback
from math import prod
from typing import Any

import numpy as np

import stein
from stein.backends.gpu.choose import Settings
from stein.ir.expr import Einsum, Program, walk
from stein.ir.interpret import interpret
from stein.ir.types import dtype_of, parse_dtype
from stein.tests.gpu.cases import CASES, Case
from stein.tests.gpu.interpreter import computed  # first: it asks for the interpreter
from stein.tests.random_programs import random_text
from stein.tests.rounding import differences, unit

Arrays = dict[str, np.ndarray[Any, Any]]


def report(name: str, **fields: object) -> None:
    print(json.dumps({"name": name, **fields}), flush=True)


def program_of(case: Case, dtype: str) -> Program:
    """The elaborated program of a case, with every size in numbers."""
    declared = {n: stein.tensor(s, case.texts.get(n, dtype)) for n, s in case.shapes.items()}
    program: Program = stein.compile(case.text, dtype=dtype, target="reference", **declared).program
    return program


def operands(case: Case, program: Program, seed: int) -> Arrays:
    """Values of a case: numbers near 1, small integers, and lists of positions that are in range."""
    values = np.random.default_rng(seed)
    found: Arrays = {}
    for tensor in program.inputs:
        shape = case.shapes[tensor.name]
        kind = tensor.dtype.kind
        if tensor.name in case.texts and kind == "i" and tensor.name in "IJ":
            found[tensor.name] = values.integers(0, 5, shape).astype(tensor.dtype.numpy)
        elif kind == "b":
            found[tensor.name] = values.random(shape) < 0.3
        elif kind in "iu":
            low = -9 if kind == "i" else 0
            found[tensor.name] = values.integers(low, 99, shape).astype(tensor.dtype.numpy)
        else:
            drawn = values.standard_normal(shape) + 0j
            if kind == "c":
                drawn = drawn + 1j * values.standard_normal(shape)
            found[tensor.name] = (drawn if kind == "c" else drawn.real).astype(tensor.dtype.numpy)
    return found


def bounds(case: Case, program: Program, planned: Program, arrays: Arrays) -> tuple[Arrays, Arrays]:
    """The exact results, and how far a kernel may be from them."""
    if case.kind == "exact":
        found = interpret(program, arrays)
        return found, {n: np.zeros(a.shape) for n, a in found.items()}
    wide = program_of(case, "complex128" if dtype_kind(program) == "c" else "float64")
    wide_types = {i.name: i.dtype.numpy for i in wide.inputs}
    exact = interpret(wide, {n: a.astype(wide_types[n]) for n, a in arrays.items()})
    if case.kind == "function":
        return exact, differences(program, arrays, {})
    magnitude = interpret(wide, {n: _absolute(a).astype(wide_types[n]) for n, a in arrays.items()})
    relative = 0.0
    for equation in planned.equations:
        extents = {i.name: i.extent.evaluate({}) for i in equation.indices}
        for node in walk(equation.expr):
            relative += unit(node.dtype)
            if isinstance(node, Einsum):
                relative += (prod(extents[n] for n in node.bound) + len(node.factors)) * unit(node.accumulate)
        relative += 2 * unit(equation.dtype)
        if len(equation.free) > len(set(planned.tensors)) or any(len(s.indices) > 1 for s in equation.slots):
            free = [extents[n] for n in equation.free]  # sums at one place
            relative += prod(free) / max(free) * unit(equation.dtype)
    return exact, {n: 1.01 * relative * np.abs(m) for n, m in magnitude.items()}


def dtype_kind(program: Program) -> str:
    """The greatest kind of type among the inputs."""
    return "c" if any(i.dtype.kind == "c" for i in program.inputs) else "f"


def _absolute(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return array if array.dtype.kind in "biu" else np.abs(array)


def check(case: Case, dtype: str, settings: Settings) -> None:
    program = program_of(case, dtype)
    arrays = operands(case, program, sum(map(ord, case.name)))
    with np.errstate(all="ignore"):
        found, bound = computed(program, arrays, {}, settings)
        exact, allowed = bounds(case, program, planned_of(program), arrays)
    worst = 0.0
    for name, want in exact.items():
        got = np.asarray(found[name]).astype(want.dtype)
        assert got.shape == want.shape, f"{name} has shape {got.shape}, not {want.shape}"
        wide = np.complex128 if want.dtype.kind == "c" else np.float64
        miss = np.abs(got.astype(wide) - want.astype(wide))
        miss = np.where(got == want, 0.0, miss)
        with np.errstate(all="ignore"):
            ratio = np.where(miss == 0, 0.0, miss / allowed[name])
        worst = max(worst, float(np.nan_to_num(ratio, nan=np.inf, posinf=np.inf).max(initial=0.0)))
    texts = "\n".join(bound.source.splitlines())
    report(case.name, dtype=dtype, specialise=settings.specialise, worst=min(worst, 1e9), dot="tl.dot" in texts)


def planned_of(program: Program) -> Program:
    from stein.passes.base import Context
    from stein.passes.candidates import BEST, Draft, plan

    return plan(Draft(BEST, program), Context(sizes={})).program


def run_cases(names: list[str]) -> None:
    for number, case in enumerate(CASES):
        if names and case.name not in names:
            continue
        for dtype in case.dtypes:
            try:
                check(case, dtype, Settings(specialise=(number + len(dtype)) % 3 == 0))
            except Exception:
                report(case.name, dtype=dtype, failed=traceback.format_exc()[-1500:])


# --- random programs --------------------------------------------------------------------------------------------------


def run_random(first: int, last: int) -> None:
    """Random programs of the language against their definition; complex ones included."""
    for seed in range(first, last):
        drawn = random_text(seed)
        try:
            with np.errstate(all="ignore"):
                compiled = stein.compile(drawn.text, target="reference")
                compiled(**drawn.arguments)
        except stein.SteinError:
            continue
        expression, sizes = compiled._last  # type: ignore[misc]
        program = expression.program
        arrays = {i.name: np.asarray(drawn.arguments[i.name], i.dtype.numpy) for i in program.inputs}
        try:
            with np.errstate(all="ignore"):
                want = interpret(program, arrays, sizes)
                found, _ = computed(program, arrays, dict(sizes), Settings(specialise=seed % 3 == 0))
        except stein.BackendError as error:
            report(f"random {seed}", refused=error.code, sentence=str(error))
            continue
        except Exception:
            report(f"random {seed}", failed=drawn.text + "\n" + traceback.format_exc()[-1500:])
            continue
        words = drawn.text
        least = max(
            [2.0**-53, *(e for w, e in (("f16", 2.0**-11), ("f32", 2.0**-24), ("c64", 2.0**-24)) if w in words)]
        )
        least = 2.0**-8 if "bf16" in words else least
        wrong = [n for n, w in want.items() if not _close(found[n], w, least * drawn.roundings * drawn.magnitude)]
        report(f"random {seed}", wrong=wrong, **({"text": drawn.text} if wrong else {}))


def _close(found: np.ndarray[Any, Any], want: np.ndarray[Any, Any], error: float) -> bool:
    if found.dtype != want.dtype or found.shape != want.shape:
        return False
    if want.dtype.kind in "biu":
        return bool(np.array_equal(found, want))
    wide = np.complex128 if want.dtype.kind == "c" else np.float64
    own = unit(dtype_of(want.dtype))
    with np.errstate(all="ignore"):
        a, b = found.astype(wide), want.astype(wide)
        return bool(((a == b) | (np.isnan(a) & np.isnan(b)) | (np.abs(a - b) <= max(4 * error, own))).all())


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["random"]:
        run_random(int(arguments[1]), int(arguments[2]))
    else:
        run_cases(arguments[1:])


if __name__ == "__main__":
    assert parse_dtype("float32") is not None
    main(sys.argv[1:])
