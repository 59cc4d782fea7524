"""The random calls of the fuzz on the GPU backend, in Triton's interpreter: `make fuzz`'s scenarios, target "cuda".

A process of its own, as `interpreted`. Prints a line for each failure and a summary, and exits 0 if there is none.
Scenarios that are of no use here are left out: NumPy's keywords, operands that torch cannot hold, large ones.

    python -m stein.tests.gpu.fuzzed --seed 0 --cases 400
    python -m stein.tests.gpu.fuzzed --seed 0 --start 154 --cases 1
"""

from __future__ import annotations

import argparse
import sys
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import torch

import stein
from stein.ir.errors import SteinError
from stein.tests.gpu.interpreter import repair  # it asks for the interpreter

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fuzz"))

from fuzz_call import Call  # type: ignore[import-not-found]
from fuzz_classes import CLASSES  # type: ignore[import-not-found]
from fuzz_oracle import expected_of, judge  # type: ignore[import-not-found]
from fuzz_programs import program  # type: ignore[import-not-found]
from fuzz_worker import NAMES, scenarios  # type: ignore[import-not-found]

assert repair
POINTS, RESULTS = 1_000_000, 50_000  # the largest loop and result that the interpreter is given
LEFT_OUT = ("malformed", "threads", "earlier", "cache", "out", "overlap", "optimize", "dozens")
NOT_HELD = ("uint16", "uint32", "uint64", "longdouble", "complex256", "float128")  # by torch, or not computed with
Array = np.ndarray[Any, Any]


@dataclass
class Count:
    """What was run: calls, calls that were left out, failures, the worst error in units of its bound."""

    calls: int = 0
    left_out: int = 0
    failures: int = 0
    worst: float = 0.0


def tensor_of(array: Array) -> torch.Tensor:
    """The array as a tensor with its strides, where torch has such."""
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(np.array(array).view(np.int16)).view(torch.bfloat16)
    held = array.flags.writeable and array.dtype.isnative
    held = held and all(s >= 0 and s % array.itemsize == 0 for s in array.strides)
    if not held:
        array = np.array(array.astype(array.dtype.newbyteorder("=")))
    return torch.from_numpy(array)


def array_of(tensor: torch.Tensor) -> Array:
    """The values of a result."""
    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return np.asarray(tensor.resolve_conj().numpy())


def of_interest(call: Call) -> bool:
    """Whether a call says something of the GPU backend, and is small enough for the interpreter."""
    keywords = {*dict(call.keywords)} - {"order", "optimize", "casting", "semiring"}
    if call.style in ("lists", "hashable") or call.out is not None or keywords:
        return False
    return prod(call.sizes().values()) <= POINTS and prod(call.shape()) <= RESULTS


def run_call(call: Call, count: Count) -> str:
    """Make one call; what is wrong with it ("" if nothing is)."""
    arrays = [np.asarray(o.build()) for o in call.operands]
    expected = expected_of(call, [a.copy() for a in arrays])
    if any(a.dtype.name in NOT_HELD for a in arrays) or expected.dtype.name in NOT_HELD:
        count.left_out += 1
        return ""
    tensors = [tensor_of(a) for a in arrays]
    declared = [stein.tensor(tuple(t.shape), str(t.dtype).removeprefix("torch.")) for t in tensors]
    options = {k: v for k, v in call.keywords if k == "semiring"}
    if call.style == "named":
        options["names"] = True
    compiled = stein.compile(call.spelling()[0], *declared, target="cuda", **options)
    verdict = judge(array_of(compiled(*tensors)), expected)
    count.calls += 1
    count.worst = max(count.worst, verdict.ratio)
    return "" if verdict.ok else f"{verdict.message}\n{call.code()}"


def run_program(rng: np.random.Generator, count: Count) -> str:
    """One program of the named language."""
    call = program(rng)
    arrays = call.arrays(0)
    if sum(a.size for a in arrays.values()) > RESULTS:
        count.left_out += 1
        return ""
    compiled = stein.compile(call.template.text, dtype="float64", target="cuda", **dict(call.shapes()))
    verdict = judge(array_of(compiled(**{n: tensor_of(a) for n, a in arrays.items()})), call.expected(arrays))
    count.calls += 1
    count.worst = max(count.worst, verdict.ratio)
    return "" if verdict.ok else f"{verdict.message}\n{call.code()}"


def failures(seed: int, start: int, cases: int, count: Count) -> Iterator[str]:
    """What is wrong, scenario by scenario."""
    names = tuple(n for n in NAMES if n not in LEFT_OUT)
    for case, name, rng in scenarios(names, seed, start):
        if case >= start + cases:
            return
        try:
            if name == "programs":
                found = [run_program(rng, count)]
            else:
                calls = [c for c in CLASSES[name](rng).calls if of_interest(c)]
                found = [run_call(c, count) for c in calls[:2]]
        except Exception as error:  # any exception of a correct call is a failure
            where = "" if isinstance(error, SteinError) else traceback.format_exc()
            found = [f"raised {type(error).__name__}: {error}\n{where}"]
        for text in filter(None, found):
            count.failures += 1
            yield f"case {case}, {name}: {text}"


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--start", type=int, default=0)
    options.add_argument("--cases", type=int, default=400)
    chosen = options.parse_args()
    warnings.filterwarnings("ignore")
    count = Count()
    for text in failures(chosen.seed, chosen.start, chosen.cases, count):
        print(text, flush=True)
    print(f"{count.calls} calls, {count.left_out} left out, {count.failures} wrong; worst error {count.worst:.3f}")
    return 1 if count.failures or not count.calls else 0


if __name__ == "__main__":
    sys.exit(main())
