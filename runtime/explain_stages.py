"""What `explain` and `stats` say of a program that runs in stages: solvers with their reasons, kernels, leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod
from typing import Any

from ..ir.count import count, count_program
from ..ir.expr import Equation, Linalg, Program, reads
from ..ir.text import print_program
from .explain import Explanation, StepNote
from .expression import Expression
from .formula import equation_formula
from .stages import Staged, Stages

Explain = Callable[[Expression, Mapping[str, int], str], Explanation]
Statistics = Callable[[Expression, Mapping[str, int]], "dict[str, Any]"]


def explain_stages(expression: Staged, sizes: Mapping[str, int], target: str, explain: Explain) -> Explanation:
    """The story of a program with functions of matrices: the solver of each, then stage by stage kernels and leaves."""
    if target != "cpu":
        return _as_written(expression, sizes, target)
    stages = expression.stages(sizes)
    steps: list[StepNote] = []
    parts: list[Explanation] = []
    for stage in stages.stages:
        if stage.kernels is not None:
            parts.append(explain(stage.kernels, {}, target))
            steps += parts[-1].steps
        steps += [_leaf_step(e) for e in stage.leaves]
    before, after = count_program(expression.program, sizes), count_program(stages.program, {})
    own = {n for n in expression.program.tensors if "." not in n}
    ahead = [n for n in stages.known if n not in expression.constants]
    notes = [_solver_text(s.value, s.function, s.method, s.reason, s.structured) for s in stages.solvers]
    if ahead:
        notes.append(f"computed once, ahead of the calls: {', '.join(ahead)}")
    return Explanation(
        title=expression.program.source.text.strip() or print_program(expression.program),
        program=print_program(replace(expression.program, constraints=())),
        passes=tuple(n for p in parts for n in p.passes),
        steps=tuple(steps),
        naive_flops=before.flops,
        flops=after.flops,
        naive_bytes=before.bytes,
        bytes=after.bytes,
        peak_memory=peak_memory(stages, [p.peak_memory for p in parts]),
        target=target,
        findings=tuple(f for p in parts for f in p.findings if f.value in own and f.argument in own),
        facts=tuple(f for p in parts for f in p.facts if f.value in own and f.argument in (*own, "")),
        notes=tuple(notes),
    )


def _as_written(expression: Staged, sizes: Mapping[str, int], target: str) -> Explanation:
    """The story for a target that evaluates the program without a plan."""
    cost = count_program(expression.program, sizes)
    return Explanation(
        title=expression.program.source.text.strip() or print_program(expression.program),
        program=print_program(replace(expression.program, constraints=())),
        steps=tuple(_step(e, sizes) for e in expression.program.equations),
        naive_flops=cost.flops,
        flops=cost.flops,
        naive_bytes=cost.bytes,
        bytes=cost.bytes,
        target=target,
        notes=(f"the {target} target evaluates each statement as it is written; no structure is used",),
    )


def stage_statistics(expression: Staged, sizes: Mapping[str, int], statistics: Statistics) -> dict[str, Any]:
    """Figures of all stages: `launches` counts kernels and leaves, `peak_memory` what is live between them too."""
    stages = expression.stages(sizes)
    parts = [statistics(k, {}) for k in expression.kernels(sizes)]
    cost = count_program(stages.program, {})
    structured = dict.fromkeys(s.method for s in stages.solvers if s.structured)
    return {
        "candidate": "; ".join(structured) or "dense leaves",
        "flops": cost.flops,
        "bytes": cost.bytes,
        "launches": sum(p["launches"] for p in parts) + sum(len(s.leaves) for s in stages.stages),
        "peak_memory": peak_memory(stages, [p["peak_memory"] for p in parts]),
        "constants": sum(p["constants"] for p in parts),
    }


def peak_memory(stages: Stages, temporaries: list[float]) -> int:
    """The most bytes of intermediates that are there at once: those of a stage with the temporaries of its kernels."""
    program, live, most, rest = stages.program, dict[str, int](), 0, list(temporaries)
    for stage in stages.stages:
        own = rest.pop(0) if stage.kernels is not None else 0
        made = [e.name for e in stage.leaves] + list(stage.kernels.program.outputs if stage.kernels is not None else ())
        live.update({n: _nbytes(program, n) for n in made if n not in program.outputs})
        most = max(most, sum(live.values()) + int(own))
        live = {n: b for n, b in live.items() if n not in stage.drop}
    return most


def _nbytes(program: Program, name: str) -> int:
    tensor = program.tensors[name]
    return prod(s.evaluate({}) for s in tensor.shape) * tensor.dtype.itemsize


def _solver_text(value: str, function: str, method: str, reason: str, structured: bool) -> str:
    name = value.split(".")[0]
    if structured:
        return f"{function} in {name} uses the structure of its matrix: {method}"
    return f"{function} in {name} is a {method}" + (f": {reason}" if reason else "")


def _leaf_step(equation: Equation) -> StepNote:
    from ..backends.cpu.lapack import method

    node = equation.expr
    assert isinstance(node, Linalg)
    return replace(_step(equation, {}), kernel=f"leaf: {method(node.function, node.assume)}", family="LAPACK")


def _step(equation: Equation, sizes: Mapping[str, int]) -> StepNote:
    """An equation with its cost; of a function of matrices only the indices of its value are shown."""
    node = equation.expr
    shown = node.result if isinstance(node, Linalg) else tuple(equation.extents)
    cost = count(equation, sizes)
    return StepNote(
        name=equation.name,
        expression=equation_formula(equation),
        inputs=tuple(dict.fromkeys(r.tensor for r in reads(node))),
        extents=tuple((i.name, i.extent.evaluate(sizes)) for i in equation.indices if i.name in shown),
        flops=cost.flops,
        bytes=cost.bytes,
    )
