"""From an expression and its plan to what `explain`, `source` and `stats` show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..ir.count import count, count_program
from ..ir.expr import Equation, Program, reads
from ..ir.rewrite import Step
from ..ir.target import Cost
from ..ir.text import print_program
from ..passes.pipeline import PassRecord
from .explain import Explanation, PassNote, StepNote
from .expression import Expression, Planned
from .formula import equation_formula, formula


def explain_expression(
    expression: Expression, sizes: Mapping[str, int], target: str, findings: Sequence[Any] = ()
) -> Explanation:
    """The story of an expression at these sizes: passes that changed something, steps with their costs and kernels."""
    planned = expression.planned(sizes)
    bound = _bound(expression, planned, sizes) if target == "cpu" else None
    plans: dict[str, list[Any]] = {}
    for step in bound.steps if bound else ():
        plans.setdefault(step.equation, []).append(step.plan)
    steps = tuple(_step(e, sizes, plans.get(e.name, [])) for e in planned.program.equations)
    naive, chosen = naive_cost(expression.program, sizes), count_program(planned.program, sizes)
    records = (*expression.normal_records, *planned.records)
    ahead = [e.name for e in planned.program.equations if e.name in planned.cpu.constants]
    return Explanation(
        title=expression.program.source.text.strip() or print_program(expression.program),
        program=_equations_text(expression.program),
        passes=tuple(_note(r) for r in records if r.changed),
        steps=steps,
        naive_flops=naive.flops,
        flops=chosen.flops,
        naive_bytes=naive.bytes,
        bytes=chosen.bytes,
        peak_memory=sum(bound.executable.temporaries) if bound else 0,
        target=target,
        findings=tuple(f"{f.value} is {f.kind} ({f.evidence})" for f in findings),
        notes=(f"computed once, ahead of the calls: {', '.join(ahead)}",) if ahead else (),
    )


def statistics(expression: Expression, sizes: Mapping[str, int]) -> dict[str, float]:
    """Figures of the chosen plan at these sizes."""
    planned = expression.planned(sizes)
    cost = count_program(planned.program, sizes)
    bound = _bound(expression, planned, sizes)
    return {
        "flops": cost.flops,
        "bytes": cost.bytes,
        "launches": len(bound.executable.calls),
        "peak_memory": sum(bound.executable.temporaries),
    }


def kernel_sources(expression: Expression, sizes: Mapping[str, int], kind: str) -> str:
    """LLVM text or assembly of every kernel at these sizes, each once, in order of use."""
    from ..backends.cpu.jit import compile_kernel

    bound = _bound(expression, expression.planned(sizes), sizes)
    kernels = dict.fromkeys(k for step in bound.steps for k in step.plan.kernels)
    return "\n\n".join(compile_kernel(k).source(kind) for k in kernels)


def naive_cost(program: Program, sizes: Mapping[str, int]) -> Cost:
    """The cost without a plan: each equation as one loop nest over all of its indices."""
    return count_program(program, sizes)


def _bound(expression: Expression, planned: Planned, sizes: Mapping[str, int]) -> Any:
    from ..backends.cpu.native_record import Layout

    operands = {i.name: Layout.dense(i.dtype, tuple(n.evaluate(sizes) for n in i.shape)) for i in expression.arguments}
    return planned.cpu.bind(sizes, operands, specialise=expression.options.specialise)


def _step(equation: Equation, sizes: Mapping[str, int], plans: Sequence[Any]) -> StepNote:
    cost = count(equation, sizes)
    inputs = tuple(dict.fromkeys(r.tensor for r in reads(equation.expr)))
    return StepNote(
        name=equation.name,
        expression=equation_formula(equation),
        inputs=inputs,
        extents=tuple((i.name, i.extent.evaluate(sizes)) for i in equation.indices),
        flops=cost.flops,
        bytes=cost.bytes,
        kernel="\n".join(line for p in plans for line in p.describe().splitlines()[1:]),
        family=" + ".join(p.family for p in plans),
        predicted_ns=sum(p.nanoseconds for p in plans),
    )


def _step_text(step: Step) -> str:
    """A rewrite in one line; nothing for one that only changed types or names."""
    before, after = formula(step.before), formula(step.after)
    return "" if before == after else f"{step.equation}: {step.rule}: {before}  ->  {after}"


def _equations_text(program: Program) -> str:
    """The program without the conditions on its sizes, which matter when they fail."""
    return print_program(replace(program, constraints=()))


def _note(record: PassRecord) -> PassNote:
    return PassNote(
        record.name,
        record.summary,
        tuple(text for text in map(_step_text, record.steps) if text),
        _equations_text(record.before),
        _equations_text(record.after),
    )
