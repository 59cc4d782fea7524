"""What `explain` shows for `target="cuda"`: the steps of the plan, each with its kernel, precision and error bound."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from ..backends.gpu.precision import error_bound
from ..backends.gpu.program import Bound
from ..backends.gpu.steps import BlockRows, Drop, Launch, Product, Step, shown
from ..ir.count import count, count_program
from ..ir.expr import Equation, reads
from ..ir.text import print_program
from .explain import Explanation, StepNote
from .explain_program import _equations_text, _note, _structure, naive_cost
from .formula import equation_formula
from .gpu import GpuExpression


def explain_gpu(expression: GpuExpression, sizes: Mapping[str, int]) -> Explanation:
    """The story of an expression on the GPU, for dense operands of these sizes."""
    planned, bound = expression.gpu_plan(sizes), expression.dense_steps(sizes)
    naive, chosen = naive_cost(expression.program, sizes), count_program(planned.called, sizes)
    ahead = sorted(set(planned.values) - set(expression.constants))
    bounds = [error_bound(e, sizes, expression.options.precision) for e in planned.called.equations]
    notes = [f"the sum in {e.name} errs by {b}" for e, b in zip(planned.called.equations, bounds, strict=True) if b]
    return replace(
        _structure(expression, sizes, planned, "cpu"),
        target="cuda",
        title=expression.program.source.text.strip() or print_program(expression.program),
        program=_equations_text(expression.program),
        passes=tuple(_note(r) for r in planned.records if r.changed),
        steps=tuple(_step(e, sizes, bound) for e in planned.called.equations),
        naive_flops=naive.flops,
        flops=chosen.flops,
        naive_bytes=naive.bytes,
        bytes=bound.bytes,
        peak_memory=bound.peak_memory,
        notes=(
            *((f"computed once, ahead of the calls: {', '.join(ahead)}",) if ahead else ()),
            *(f"fused: {plan.text()}" for plan in bound.plans),
            *notes,
        ),
    )


def _step(equation: Equation, sizes: Mapping[str, int], bound: Bound) -> StepNote:
    cost = count(equation, sizes)
    plan = next((p for p in bound.plans if equation.name in p.equations), None)
    mine = [s for s in bound.steps if _equation(_output(s)) == equation.name]
    kernels = [s for s in mine if isinstance(s, Launch | Product)]
    past = [reader for name, reader in bound.folded if name == equation.name]
    where = f"in the kernel of {plan.equations[-1]}" if plan else f"in the loads of {', '.join(past)}" if past else ""
    return StepNote(
        name=equation.name,
        expression=equation_formula(equation),
        inputs=tuple(dict.fromkeys(r.tensor for r in reads(equation.expr))),
        extents=tuple((i.name, i.extent.evaluate(sizes)) for i in equation.indices),
        flops=cost.flops,
        bytes=cost.bytes,
        kernel="\n".join(map(shown, mine)) or where,
        family=f"{plan.structure}, fused"
        if plan
        else " + ".join(_family(k) for k in kernels) or "not made" * bool(past),
    )


def _equation(buffer: str) -> str:
    """The equation that a buffer belongs to: sums, chunks and parts have names that begin with its own."""
    for end in (".sum", ".chunks", ".scattered"):
        buffer = buffer.removesuffix(end)
    return re.sub(r"\.(re|im)(\.\d+)?$", "", buffer)


def _output(step: Step) -> str:
    """The buffer that a step writes."""
    match step:
        case Launch(output=output):
            return output
        case Product(out=out):
            return out.tensor
        case Drop() | BlockRows():
            return ""
        case _:
            return step.name


def _family(step: Launch | Product) -> str:
    if isinstance(step, Product):
        return "torch.matmul"
    return "tl.dot" if step.chosen.dot else "elementwise or reduction"
