"""The plan as data: a `ContractionStep` for each equation of a planned program, to be shown and compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..ir.count import count
from ..ir.expr import Program, reads
from ..ir.rewrite import Step
from .base import Context, PassRecord, run_passes
from .pipeline import NORMAL_PASSES, PLAN_PASSES
from .tools import Hints


@dataclass(frozen=True)
class ContractionStep:
    """One kernel: the tensors that it reads and writes, operations, bytes moved at least, extents by index."""

    inputs: tuple[str, ...]
    output: str
    flops: int
    bytes: int
    extents: tuple[tuple[str, int], ...]


def contraction_steps(program: Program, sizes: Mapping[str, int]) -> tuple[ContractionStep, ...]:
    """The steps of a planned program at these sizes, in order; a size that is not given counts as the usual hint.

    >>> from ..ir.text import parse_ir
    >>> text = "input A: f32[n, n]\\ny[i]: f32[n] = einsum[plustimes, f32](j; A[i,j], A[j,i]) over i<n, j<n\\nreturn y"
    >>> [(s.inputs, s.output, s.flops, s.bytes) for s in contraction_steps(parse_ir(text), {"n": 8})]
    [(('A',), 'y', 128, 288)]
    """
    hints = Hints(sizes)
    out = []
    for equation in program.equations:
        cost = count(equation, hints)
        inputs = tuple(dict.fromkeys(r.tensor for r in reads(equation.expr)))
        extents = tuple((i.name, i.extent.evaluate(hints)) for i in equation.indices)
        out.append(ContractionStep(inputs, equation.name, cost.flops, cost.bytes, extents))
    return tuple(out)


def plan(program: Program, context: Context) -> tuple[Program, tuple[PassRecord, ...]]:
    """All passes in order: from an elaborated to a planned program."""
    normal, first = run_passes(program, NORMAL_PASSES, context)
    planned, second = run_passes(normal, PLAN_PASSES, context)
    return planned, first + second


def rewrite_steps(records: tuple[PassRecord, ...]) -> tuple[Step, ...]:
    """Every rewrite step of a run, in order."""
    return tuple(s for r in records for s in r.steps)
