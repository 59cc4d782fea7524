"""Runs fused plans in Triton's interpreter, and prints a line of JSON for each: name, type, worst error over its bound.

A process of its own, as `interpreted`:

    python -m stein.tests.gpu.fused_interpreted [name ...]
"""

from __future__ import annotations

import json
import sys
from math import prod
from typing import Any

import numpy as np
import torch

from stein.backends.gpu.kernels import Goal
from stein.backends.gpu.launch import launch
from stein.backends.gpu.program import bind
from stein.backends.gpu.run import run, torch_type
from stein.ir.expr import Einsum, Program, walk
from stein.ir.interpret import interpret
from stein.ir.types import DType
from stein.tests.gpu.fused_cases import CASES, Case, layouts_of, planned, program_of
from stein.tests.gpu.fused_kernels import DIRECT, TYPES, Direct
from stein.tests.gpu.interpreter import array_of, poisoned, tensor_of  # it asks for the interpreter
from stein.tests.rounding import unit

Arrays = dict[str, np.ndarray[Any, Any]]


def operands(case: Case, program: Program) -> Arrays:
    """Values for every input: x and the like near 1, factors so that results are too."""
    values = np.random.default_rng(sum(map(ord, case.name)))
    found: Arrays = {}
    for tensor in program.inputs:
        shape = case.small[tensor.name]
        if tensor.name == "h":  # a declared Hadamard matrix has its own values
            array = sylvester(shape[0])
        else:
            array = values.standard_normal(shape) / (1 if tensor.name in "xuqktK" else shape[-1] ** 0.5)
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
    program = planned(text, "float64", case.small)
    wide = {n: a.astype(np.float64) for n, a in arrays.items()}
    return interpret(program, wide), interpret(program, {n: np.abs(a) for n, a in wide.items()})


def product_error(program: Program, dtype: DType, roundings: int) -> float:
    """Relative to sums of absolute values: every sum in f32, each intermediate and the result rounded once.

    An intermediate that is rounded by u changes the result by no more than u times the sum of absolute values.
    """
    steps = 0
    for equation in program.equations:
        extents = {i.name: i.extent.evaluate({}) for i in equation.indices}
        for node in walk(equation.expr):
            if isinstance(node, Einsum):
                steps += prod(extents[n] for n in node.bound) + 2
    return 1.01 * (steps * 2.0**-24 + roundings * unit(dtype))


def allowed(case: Case, program: Program, dtype: DType, arrays: Arrays, exact: Arrays, sizes: Arrays) -> Arrays:
    """How far each result may be from the exact one."""
    roundings = 2 * len(program.equations) + 2  # each value, the factors made ahead, and what is added at the end
    relative = product_error(program, dtype, roundings)
    if case.kind == "product":
        return {n: relative * np.abs(sizes[n]) for n in exact}
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
    (generator,) = (arrays[n].astype(np.float64) for n in ("t", "K") if n in arrays)
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


def check(case: Case, name: str) -> dict[str, object]:
    program = program_of(case, name, case.small)
    dtype = program.tensors["y"].dtype if case.kind != "quantised" else program.tensors["x"].dtype
    arrays = operands(case, program)
    bound = bind(program, {}, layouts_of(program), library=False, goal=Goal())
    tensors = {n: tensor_of(a) for n, a in arrays.items()}
    results = run(bound, tensors, torch.device("cpu"), poisoned)
    found = {n: array_of(t).astype(np.float64) for n, t in zip(program.outputs, results, strict=True)}
    exact, sizes = exact_of(case, arrays)
    limits = allowed(case, program, dtype, arrays, exact, sizes)
    worst = 0.0
    for output in program.outputs:
        miss = np.abs(found[output] - exact[output])
        if case.kind == "transform":
            miss = np.linalg.norm(miss, axis=-1, keepdims=True)
        assert miss.shape == np.broadcast_shapes(miss.shape, limits[output].shape)
        ratio = np.nan_to_num(miss / np.maximum(limits[output], 1e-30), nan=np.inf)
        worst = max(worst, float(ratio.max()))
    kernels = len(dict.fromkeys(c.kernel for c in bound.kernels))
    return {"worst": min(worst, 1e9), "kernels": kernels}


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
                    print(json.dumps({"name": case.name, "dtype": dtype, **check(case, dtype)}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
