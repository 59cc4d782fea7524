"""Runs kernels in every choice of blocks that tuning may make, in Triton's interpreter; prints a line of JSON for each:
the name of the program, the blocks, and the worst error over its bound.

A process of its own, as `interpreted`; with `few`, it takes four choices of each kernel at most:

    python -m stein.tests.gpu.reblocked all [name ...]
    python -m stein.tests.gpu.reblocked few [name ...]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from stein.backends.gpu.choose import Settings
from stein.backends.gpu.configurations import other_blocks
from stein.backends.gpu.launch import launch
from stein.backends.gpu.nodes import Apply, Kernel, Loop, Map, Outer, Seq, Tensor, Tile
from stein.backends.gpu.program import Bound, bind
from stein.backends.gpu.reblock import reblocked
from stein.backends.gpu.roofline import H200
from stein.backends.gpu.run import run
from stein.backends.gpu.steps import Launch, Origin
from stein.ir.semiring import MAX_PLUS
from stein.ir.types import F32
from stein.runtime.gpu_tuning import configured
from stein.tests.gpu import cases, fused_cases, fused_interpreted, interpreted
from stein.tests.gpu.interpreter import array_of, layout_of, poisoned, tensor_of  # it asks for the interpreter

FEW, EVERY = 4, 1000  # choices of blocks for each kernel

# Programs of one kernel, each in one type: products with all strides, sums, other semirings, moves, scatter, chunks.
SINGLE = {
    "matrix_nt": "float32", "matrix_tn": "bfloat16", "matrix_to_transposed": "float16",
    "batched": "float32", "batch_inside": "float16", "high_order": "float32",
    "vector": "float32", "vector_columns": "float16", "norm": "float32", "sum_rows": "float32",
    "sum_columns": "float32", "sum_middle": "float16", "transposed": "float16", "permuted": "float32",
    "exp": "float32", "positions": "float32", "triangle": "float32", "fused_ends": "float32",
    "bias_relu": "float32", "shortest_paths": "float32", "viterbi": "float32", "largest": "float32",
    "logsumexp": "float32", "reachable": "bool", "int_matrix": "int8", "circulant": "float32",
    "convolution": "float16", "padded_channels": "float32", "edge_pad": "float32", "fold": "float32",
    "scatter": "float32", "gather_product": "float32", "block_list": "float32",
    "update": "float32", "update_part": "float32", "long_sum": "float32", "long_inner": "float16",
}  # fmt: skip

# Programs of one plan, at sizes with loops of several rounds.
SQUARE = fused_cases.square
FUSED = (
    ("low rank", "float16", {"U": (72, 20), "V": (20, 70), "x": (37, 70)}),
    ("low rank", "float32", {"U": (72, 20), "V": (20, 70), "x": (37, 70)}),
    ("dense + low rank", "bfloat16", {"W": (40, 70), "U": (40, 20), "V": (20, 70), "x": (37, 70), "c": (40,)}),
    ("kronecker", "float32", SQUARE(64, 2)),  # slabs
    ("kronecker 16x256", "bfloat16", None),
    ("monarch 32", "float16", {"L": (32, 32, 32), "R": (32, 32, 32), "x": (19, 32, 32)}),
    ("monarch 64", "float16", {"L": (64, 64, 64), "R": (64, 64, 64), "x": (5, 64, 64)}),
    ("block sparse", "float32", None),
    ("block sparse 16", "float16", None),
    ("gated block sparse, two lists", "float16", None),
    ("attention", "float32", {"q": (2, 45, 64), "k": (2, 150, 64), "v": (2, 150, 32)}),
    ("attention, causal", "float16", dict.fromkeys("qkv", (2, 70, 64))),
    ("attention, common prefix", "float16", None),
    ("causal convolution", "float16", None),
)  # fmt: skip


def varied(bound: Bound, most: int) -> Iterator[tuple[dict[str, int], Bound]]:
    """The program as it is, then with each of its kernels in each choice of other blocks, or in `most` of these."""
    yield {}, bound
    seen: set[Kernel] = set()
    for n, step in enumerate(bound.steps):
        if not isinstance(step, Launch) or step.chosen.kernel in seen:
            continue
        kernel = step.chosen.kernel
        seen.add(kernel)
        every = list(other_blocks(kernel, dict(step.chosen.numbers), H200))
        for blocks in every[:: -(-len(every) // most) or 1]:
            made = reblocked(kernel, blocks)
            if made is not None:
                steps = (*bound.steps[:n], configured(step, made, Origin()), *bound.steps[n + 1 :])
                yield blocks, replace(bound, steps=steps)


def single(case: cases.Case, dtype: str, settings: Settings, most: int) -> Iterator[dict[str, object]]:
    """The variants of a program of `interpreted`."""
    program = interpreted.program_of(case, dtype)
    planned = interpreted.planned_of(program)
    arrays = interpreted.operands(case, program, sum(map(ord, case.name)))
    tensors = {n: tensor_of(a) for n, a in arrays.items()}
    bound = bind(planned, {}, {n: layout_of(t) for n, t in tensors.items()}, settings, False)
    exact, allowed = interpreted.bounds(case, program, planned, arrays)
    for blocks, variant in varied(bound, most):
        results = run(variant, tensors, torch.device("cpu"), poisoned)
        worst = 0.0
        for name, result in zip(program.outputs, results, strict=True):
            want = exact[name].astype(np.float64)
            miss = np.abs(array_of(result).astype(np.float64) - want)
            ratio = np.where(miss == 0, 0.0, miss / allowed[name])
            worst = max(worst, float(np.nan_to_num(ratio, nan=np.inf).max(initial=0.0)))
        yield {"blocks": blocks, "worst": min(worst, 1e9)}


def fused(case: fused_cases.Case, dtype: str, most: int) -> Iterator[dict[str, object]]:
    """The variants of a plan of `fused_interpreted`."""
    program = fused_cases.program_of(case, dtype, case.small)
    arrays = fused_interpreted.operands(case, program)
    tensors = {n: tensor_of(a) for n, a in arrays.items()}
    exact, sizes = fused_interpreted.exact_of(case, arrays)
    limits = fused_interpreted.allowed(case, program, program.tensors["y"].dtype, arrays, exact, sizes)
    bound = bind(program, {}, fused_cases.layouts_of(program), library=False, goal=fused_cases.goal_of("sm_90"))
    assert bound.plans, f"{case.name} has a plan at this size"
    for blocks, variant in varied(bound, most):
        results = run(variant, tensors, torch.device("cpu"), poisoned)
        found = {n: array_of(t).astype(np.float64) for n, t in zip(program.outputs, results, strict=True)}
        worst = max(fused_interpreted.ratio(case, found[n], exact[n], limits[n]) for n in program.outputs)
        yield {"blocks": blocks, "worst": min(worst, 1e9)}


def below_greatest() -> Iterator[dict[str, object]]:
    """y[i,j] = x[i,j] - max over j: the one block of j holds all of it, so only that of i may change."""
    x, y = (Tensor(n, ("i", "j"), F32, (40, 1)) for n in "xy")
    most = Tile("most", ("x",), ("i",), ("j",), MAX_PLUS, accumulate=F32)
    rest = Map("y", Apply("sub", ("x", "most"), F32), ("i", "j"))
    kernel = Kernel((x, y), (("i", 19), ("j", 40)), Outer((("i", 8), ("j", 64)), Seq((most, rest))))
    values = torch.randn(19, 40)
    return direct(kernel, values, values - values.amax(1, keepdim=True))


def odd_chunks() -> Iterator[dict[str, object]]:
    """y[c] = sum of x over the chunk c, whose length is three blocks: it may be halves of these, not two of them."""
    x, y = Tensor("x", ("k",), F32, (1,)), Tensor("y", ("c",), F32, (1,))
    loop = Loop("k", 8, Tile("y", ("x",), ("c",), ("k",)), reduced=True, chunk=("c", 24))
    kernel = Kernel((x, y), (("c", 3), ("k", 70)), Outer((("c", 1),), loop))
    values = torch.arange(70.0)
    return direct(kernel, values, torch.stack([part.sum() for part in values.split(24)]))


def direct(kernel: Kernel, values: torch.Tensor, want: torch.Tensor) -> Iterator[dict[str, object]]:
    """A kernel on its own, whose result is exact in every choice of blocks."""
    for blocks in ({}, *other_blocks(kernel, {}, H200)):
        made = reblocked(kernel, blocks)
        assert made is not None
        found = poisoned(tuple(want.shape), torch.float32)
        launch(made, {"x": values, "y": found}, {})
        yield {"blocks": blocks, "worst": 0.0 if torch.equal(found, want) else 1e9}


def lines(names: list[str], most: int = EVERY) -> Iterator[dict[str, Any]]:
    """What is printed."""
    known = {c.name: c for c in cases.CASES}
    for number, (name, dtype) in enumerate(SINGLE.items()):
        if not names or name in names:
            for found in single(known[name], dtype, Settings(specialise=number % 4 == 0), most):
                yield {"name": name, **found}
    bulk = cases.Case("descriptors", "y[i,k] = A[i,j] * B[j,k]", {"A": (40, 48), "B": (48, 56)})
    if not names or bulk.name in names:
        for found in single(bulk, "float16", Settings(descriptors=True), most):
            yield {"name": bulk.name, **found}
    for name, made in (("below the greatest", below_greatest), ("odd chunks", odd_chunks)):
        if not names or name in names:
            for found in made():
                yield {"name": name, **found}
    plans = {c.name: c for c in fused_cases.CASES}
    for name, dtype, shapes in FUSED:
        if not names or name in names:
            case = plans[name] if shapes is None else replace(plans[name], small=shapes)
            for found in fused(case, dtype, most):
                yield {"name": f"{name}, {dtype}", **found}


def main(how: str, *names: str) -> None:
    with np.errstate(all="ignore"):
        for line in lines(list(names), FEW if how == "few" else EVERY):
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
