"""Assembles the kernels of programs for a GPU that is not here, and prints a line of JSON for each.

A process of its own, without Triton's interpreter:

    python -m stein.tests.gpu.assembled sm_90 [name ...]
"""

from __future__ import annotations

import json
import sys

import stein
from stein.backends.gpu.ahead import Launch, inspect_kernel
from stein.backends.gpu.launch import function
from stein.backends.gpu.nodes import Kernel
from stein.backends.gpu.program import bind
from stein.backends.gpu.source import arguments, source
from stein.backends.gpu.views import Layout
from stein.ir.expr import Program
from stein.passes.base import Context
from stein.passes.candidates import BEST, Draft, plan
from stein.tests.gpu.cases import CASES, Case

POINTERS = {"bool": "i1", "f16": "fp16", "f32": "fp32", "f64": "fp64"}


def signature(kernel: Kernel) -> dict[str, str]:
    """The Triton type of every argument."""
    found = {t.argument: "*" + POINTERS.get(t.dtype.name, t.dtype.name) for t in kernel.tensors}
    return found | {n: "i32" for n in arguments(kernel) if n not in found}


def kernels_of(case: Case, dtype: str) -> tuple[Kernel, ...]:
    """The kernels of a program for dense operands, products of matrices included."""
    declared = {n: stein.tensor(s, case.texts.get(n, dtype)) for n, s in case.shapes.items()}
    program: Program = stein.compile(case.text, dtype=dtype, target="reference", **declared).program
    planned = plan(Draft(BEST, program), Context(sizes={})).program
    layouts = {i.name: Layout.dense(tuple(n.evaluate({}) for n in i.shape), i.dtype) for i in planned.inputs}
    found = bind(planned, {}, layouts, library=False)
    return tuple(dict.fromkeys(c.kernel for c in found.kernels))


def main(architecture: str, names: list[str]) -> None:
    for case in CASES:
        if names and case.name not in names:
            continue
        dtype = next((d for d in case.dtypes if d in ("float16", "int32")), case.dtypes[0])
        for kernel in kernels_of(case, dtype):
            made = function(source(kernel, kernel.name), kernel.name)
            line: dict[str, object] = {"name": case.name, "dtype": dtype}
            try:
                options = Launch(kernel.warps, kernel.stages, kernel.fuse_multiply_add)
                facts = inspect_kernel(made, signature(kernel), architecture, options)
                line |= {"spills": facts.spills, "shared": facts.shared, "limit": facts.limit}
                line |= {"instructions": dict(facts.instructions), "vector_loads": facts.vector_loads}
            except stein.BackendError as error:
                line["failed"] = str(error)
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
