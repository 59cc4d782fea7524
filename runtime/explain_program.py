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
from .explain_stages import explain_stages, stage_statistics
from .explain_structure import candidate_notes, finding_notes, near_texts
from .expression import Expression, Planned
from .formula import equation_formula, formula
from .stages import Staged


def explain_expression(expression: Expression, sizes: Mapping[str, int], target: str) -> Explanation:
    """The story of an expression at these sizes: what was found and chosen, passes that changed something, steps with
    their costs and kernels.
    """
    if isinstance(expression, Staged):
        return explain_stages(expression, sizes, target, explain_expression)
    planned = expression.planned(sizes)
    bound = _bound(expression, planned, sizes) if target == "cpu" else None
    bound_steps: dict[str, list[Any]] = {}
    for step in bound.steps if bound else ():
        bound_steps.setdefault(step.equation, []).append(step)
    steps = tuple(_step(e, sizes, bound_steps.get(e.name, [])) for e in planned.called.equations)
    naive, chosen = naive_cost(expression.program, sizes), count_program(planned.called, sizes)
    ahead = [e.name for e in (*planned.made.equations, *planned.program.equations) if e.name in planned.cpu.constants]
    return replace(
        _structure(expression, sizes, planned, target),
        title=expression.program.source.text.strip() or print_program(expression.program),
        program=_equations_text(expression.program),
        passes=tuple(_note(r) for r in planned.records if r.changed),
        steps=steps,
        naive_flops=naive.flops,
        flops=chosen.flops,
        naive_bytes=naive.bytes,
        bytes=chosen.bytes,
        peak_memory=sum(bound.executable.temporaries) if bound else 0,
        notes=(f"computed once, ahead of the calls: {', '.join(ahead)}",) if ahead else (),
    )


def _structure(expression: Expression, sizes: Mapping[str, int], planned: Planned, target: str) -> Explanation:
    """What was found, and the table of candidates. Where only an order of contraction was to be chosen, the table is
    made for show.
    """
    from .findings import found_in, used_first

    found, missed = found_in(expression.program, sizes)
    choice = expression.candidates(sizes) if target == "cpu" and not expression.is_empty(sizes) else None
    used = choice.chosen.draft.finding if choice is not None and planned.choice is not None else None
    found = used_first(found, used)
    structures, facts = finding_notes(found, expression.program.source, found[0] if used is not None else None)
    return Explanation(
        title="",
        target=target,
        findings=structures,
        facts=facts,
        near_misses=near_texts(missed),
        candidates=candidate_notes(choice, planned.name) if choice is not None else (),
        prices=_prices(expression, planned, sizes) if choice is not None else "",
    )


def _prices(expression: Expression, planned: Planned, sizes: Mapping[str, int]) -> str:
    """Of which sizes the times speak, where they come from, and what decided."""
    target = expression.pricing()
    describe = getattr(target, "describe", None)
    basis = describe() if describe is not None else f"prices of {target.name}"
    if sizes:
        basis = f"at {', '.join(f'{n}={size}' for n, size in sizes.items())}: {basis}"
    if planned.choice is None:
        return f"{basis}; a product of different operands runs in the best order, the other rows are for comparison"
    return f"{basis}; the least time is chosen, equal times by what is stored"


def statistics(expression: Expression, sizes: Mapping[str, int]) -> dict[str, Any]:
    """Figures of the chosen plan at these sizes."""
    if isinstance(expression, Staged):
        return stage_statistics(expression, sizes, statistics)
    planned = expression.planned(sizes)
    cost = count_program(planned.called, sizes)
    bound = _bound(expression, planned, sizes)
    return {
        "candidate": planned.name,
        "flops": cost.flops,
        "bytes": cost.bytes,
        "launches": len(bound.executable.calls),
        "peak_memory": sum(bound.executable.temporaries),
        "constants": sum(a.nbytes for a in bound.executable.constants),
    }


def kernel_sources(expression: Expression, sizes: Mapping[str, int], kind: str) -> str:
    """LLVM text or assembly of every kernel at these sizes, each once, in order of use."""
    from ..backends.cpu.jit import compile_kernel

    if isinstance(expression, Staged):
        parts = [kernel_sources(k, {}, kind) for k in expression.kernels(sizes)]
        return "\n\n".join(dict.fromkeys(p for p in parts if p))
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


def _step(equation: Equation, sizes: Mapping[str, int], steps: Sequence[Any]) -> StepNote:
    plans = [step.plan for step in steps]
    sliced = next((step.slices for step in steps if step.slices), "")
    cost = count(equation, sizes)
    inputs = tuple(dict.fromkeys(r.tensor for r in reads(equation.expr)))
    return StepNote(
        name=equation.name,
        expression=equation_formula(equation),
        inputs=inputs,
        extents=tuple((i.name, i.extent.evaluate(sizes)) for i in equation.indices),
        flops=cost.flops,
        bytes=cost.bytes,
        kernel="\n".join([*([sliced] if sliced else []), *(x for p in plans for x in p.describe().splitlines()[1:])]),
        family=" + ".join(p.family for p in plans),
        predicted_ns=sum(step.plan.nanoseconds * step.times for step in steps),
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
