"""Runs fused plans in Triton's interpreter, and prints a line of JSON for each: name, type, the architecture that it is
for, worst error over its bound.

A process of its own, as `interpreted`:

    python -m stein.tests.gpu.fused_interpreted [name ...]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
import torch

from stein.backends.gpu.launch import launch
from stein.backends.gpu.program import bind
from stein.backends.gpu.run import run, torch_type
from stein.ir.expr import Einsum, Program, walk
from stein.ir.interpret import interpret
from stein.ir.lookup import split_lookups
from stein.ir.types import DType
from stein.tests.gpu.fused_cases import ARCHITECTURES, CASES, LISTS, Case, goal_of, layouts_of, planned, program_of
from stein.tests.gpu.fused_kernels import DIRECT, TYPES, Direct
from stein.tests.gpu.interpreter import array_of, poisoned, tensor_of  # it asks for the interpreter
from stein.tests.rounding import unit

GENERATORS = ("t", "K")
TINY = 1e-7  # what numbers below the range of f16 may lose

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]


def operands(case: Case, program: Program) -> Arrays:
    """Values for every input: x and the like near 1, factors so that results are too."""
    values = np.random.default_rng(sum(map(ord, case.name)))
    found: Arrays = {}
    for tensor in program.inputs:
        shape = case.small[tensor.name]
        if tensor.name in LISTS:  # in no order, some twice, some outside of the grid
            found[tensor.name] = values.integers(-1, case.small["x"][1] + 1, shape)
            continue
        if tensor.name == "h":  # a declared Hadamard matrix has its own values
            array = sylvester(shape[0])
        elif case.kind == "impulse" and tensor.name in GENERATORS:
            array = np.zeros(shape)
            array[..., 0 if tensor.name == "K" else shape[-1] // 2] = 1
        else:
            near_one = tensor.name in "xuqktK" or case.kind == "impulse"
            array = values.standard_normal(shape) / (1 if near_one else shape[-1] ** 0.5)
        found[tensor.name] = array.astype(tensor.dtype.numpy)
    return found


def sylvester(n: int) -> np.ndarray[Any, Any]:
    made = np.ones((1, 1))
    while len(made) < n:
        made = np.kron(made, [[1, 1], [1, -1]])
    return made


def exact_of(case: Case, arrays: Arrays) -> tuple[Arrays, Arrays]:
    """The results in double precision, and the same with absolute values in place of all operands."""
    text = case.text.replace("y: i8[b,i,j]\n", "").replace(
        "i8(clip(round(z[b,i,j] / g[b]), -127, 127))", "z[b,i,j] / g[b]"
    )
    if case.kind == "gated":
        text += "\n    return y, g, h"
    program = planned(text, "float64", case.small)
    wide = {n: a if a.dtype.kind == "i" else a.astype(np.float64) for n, a in arrays.items()}
    sizes = {n: a if a.dtype.kind == "i" else np.abs(a) for n, a in wide.items()}
    return interpret(program, wide), interpret(program, sizes)


def product_error(program: Program, dtype: DType, roundings: int) -> float:
    """Relative to sums of absolute values: every sum in f32, each intermediate and the result rounded once.

    An intermediate that is rounded by u changes the result by no more than u times the sum of absolute values.
    """
    steps = 0
    for equation in program.equations:
        extents = {i.name: i.extent.evaluate({}) for i in equation.indices}
        for node in walk(equation.expr):
            if isinstance(node, Einsum):
                looked = {found.index for found in split_lookups(node.factors)[0]}
                steps += prod(extents[n] for n in node.bound if n not in looked) + 2
    return 1.01 * (steps * 2.0**-24 + roundings * unit(dtype))


def allowed(case: Case, program: Program, dtype: DType, arrays: Arrays, exact: Arrays, sizes: Arrays) -> Arrays:
    """How far each result may be from the exact one."""
    roundings = 2 * len(program.equations) + 2  # each value, the factors made ahead, and what is added at the end
    relative = product_error(program, dtype, roundings)
    if case.kind == "product":
        return {n: relative * np.abs(sizes[n]) for n in exact}
    if case.kind == "gated":  # silu(g) h, with g and h in f32
        g, h = exact["g"], exact["h"]
        gate = g / (1 + np.exp(-g))
        # The slope of silu is below 1.1; exp and the quotient have some units of f32 of their own.
        off = 1.1 * relative * sizes["g"] + 16 * 2.0**-24 * np.abs(gate) + unit(dtype) * np.abs(gate)
        of_y = np.abs(h) * off + (np.abs(gate) + off) * relative * sizes["h"] + 1.01 * unit(dtype) * np.abs(exact["y"])
        return {"y": of_y + TINY}
    if case.kind == "quantised":
        g, z = exact["g"][:, None, None], exact["y"] * exact["g"][:, None, None]
        most, magnitude = sizes["g"][:, None, None], sizes["y"] * sizes["g"][:, None, None]
        of_g = relative * most + 3 * unit(dtype) * g
        # The quotient is rounded to the type before it is rounded to a whole number.
        of_y = 0.5 + (relative * magnitude + np.abs(z) * of_g / g) / (g - of_g) + 2 * unit(dtype) * np.abs(exact["y"])
        return {"g": of_g[:, 0, 0], "y": of_y}
    if case.kind == "softmax":
        q, k, v = (np.abs(arrays[n].astype(np.float64)) for n in "qkv")
        width, keys = q.shape[-1], k.shape[-2]
        terms = float(q.max() * k.max() * width)
        if "f" in arrays:
            terms += float(np.abs(arrays["f"]).max() * np.abs(arrays["g"]).max() * arrays["f"].shape[-1])
        scores = (width + 4) * 2.0**-24 * terms + 2 * unit(dtype) * _largest_score(case, arrays)
        weights = np.expm1(2 * scores) + (keys + 16) * 2.0**-24 + 4 * unit(dtype)
        return {"y": np.full_like(exact["y"], 1.0) * weights * v.max()}
    # Transforms keep the norm of a row; their rounding errors are independent, so that sixteen of them (the matrices,
    # the pointwise factors and what they are multiplied with) add up like their squares (Higham and Mary, 2019).
    (generator,) = (arrays[n].astype(np.float64) for n in GENERATORS if n in arrays)
    (x,) = (arrays[n].astype(np.float64) for n in ("x", "u") if n in arrays)
    gain = float(np.abs(np.fft.fft(generator, 2 * generator.shape[-1], axis=-1)).max())
    rows = np.linalg.norm(x, axis=-1, keepdims=True)
    return {"y": 4 * unit(dtype) * gain * rows}


def _largest_score(case: Case, arrays: Arrays) -> float:
    q, k = (arrays[n].astype(np.float64) for n in "qk")
    if case.name.endswith("prefix"):
        return float(np.abs(np.einsum("bhc,hjc->bhj", q, k)).max())
    found = np.abs(np.einsum("...ic,...jc->...ij", q, k)).max()
    return float(found + (np.abs(arrays["f"] @ arrays["g"].T).max() if "f" in arrays else 0.0))


def check(case: Case, name: str) -> Iterator[dict[str, object]]:
    """The plans of a case: one for each architecture that has kernels of its own."""
    program = program_of(case, name, case.small)
    dtype = program.tensors["y"].dtype if case.kind != "quantised" else program.tensors["x"].dtype
    arrays = operands(case, program)
    tensors = {n: tensor_of(a) for n, a in arrays.items()}
    exact, sizes = exact_of(case, arrays)
    limits = allowed(case, program, dtype, arrays, exact, sizes)
    seen = set()
    for architecture in ARCHITECTURES:
        bound = bind(program, {}, layouts_of(program), library=False, goal=goal_of(architecture))
        kernels = tuple(dict.fromkeys(c.kernel for c in bound.kernels))
        if kernels in seen:
            continue
        seen.add(kernels)
        results = run(bound, tensors, torch.device("cpu"), poisoned)
        found = {n: array_of(t).astype(np.float64) for n, t in zip(program.outputs, results, strict=True)}
        worst = max(ratio(case, found[n], exact[n], limits[n]) for n in program.outputs)
        yield {"architecture": architecture, "worst": min(worst, 1e9), "kernels": len(kernels)}


def ratio(case: Case, found: Array, exact: Array, limit: Array) -> float:
    """The greatest error in units of what is allowed."""
    assert exact.any(), "a result of zeros tells nothing"
    miss = np.abs(found - exact)
    if case.kind == "transform":
        miss = np.linalg.norm(miss, axis=-1, keepdims=True)
    assert miss.shape == np.broadcast_shapes(miss.shape, limit.shape)
    return float(np.nan_to_num(miss / np.maximum(limit, 1e-30), nan=np.inf).max())


def direct(kernel: Direct, name: str) -> dict[str, object]:
    """A kernel on its own."""
    made = kernel.small(TYPES[name])
    wide = kernel.operands()
    narrow = TYPES[name].numpy
    arrays = {n: a if a.dtype.kind == "i" else a.astype(narrow) for n, a in wide.items()}
    widened = {n: a if a.dtype.kind == "i" else a.astype(np.float64) for n, a in arrays.items()}
    exact = kernel.results(widened, unit(TYPES[name]))
    values: dict[str, Any] = {n: tensor_of(a) for n, a in arrays.items()}
    stored = {t.name: t for t in made.tensors if t.name not in arrays and t.argument not in arrays}
    for tensor in stored.values():
        shape = tuple(kernel.sizes.get(str(n), n) for n in (dict(made.sizes)[a] for a in tensor.axes))
        values[tensor.name] = poisoned(shape, torch_type(tensor.dtype))
    results = {n: values[n] for n in stored}
    launch(made, values | kernel.sizes, kernel.sizes)
    worst = 0.0
    for output, (want, allowed) in exact.items():
        found = array_of(results[output]).astype(np.float64)
        if "int4" in kernel.name and output == "y":
            both = found.astype(np.int64)
            found = np.stack([(both + 8) % 16 - 8, both >> 4], -1).reshape(want.shape)
        ratio = np.nan_to_num(np.abs(found - want) / np.maximum(allowed, 1e-30), nan=np.inf)
        worst = max(worst, float(ratio.max()))
    return {"worst": min(worst, 1e9), "kernels": 1}


def main(names: list[str]) -> None:
    for kernel in DIRECT:
        for dtype in TYPES:
            if not names or kernel.name in names:
                with np.errstate(all="ignore"):
                    print(json.dumps({"name": kernel.name, "dtype": dtype, **direct(kernel, dtype)}), flush=True)
    for case in CASES:
        for dtype in case.dtypes:
            if not names or case.name in names:
                with np.errstate(all="ignore"):
                    for found in check(case, dtype):
                        print(json.dumps({"name": case.name, "dtype": dtype, **found}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
