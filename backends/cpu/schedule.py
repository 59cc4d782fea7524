"""The front of the CPU code generator: `schedule` chooses a plan for a contraction, `launch` makes it ready to run.

A plan is a list of stages. Most contractions are one kernel; an operand in an order that no register tile likes is
laid out anew first, and a long sum with few results is done in parts that threads can share. `schedule` is pure: it
compiles nothing.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from ...ir.loops import Contraction
from .choose import moved_bytes
from .compose import stage_of
from .jit import compile_kernel, is_compiled
from .known import MEMORY, Known
from .launch import Call
from .machine import Machine, host
from .plan import Plan, Stage
from .problem import Problem, problem_of
from .rearrange import Part, parts_of
from .scatter import lookup_plan
from .symmetric import symmetric_plan

CHEAP = (
    200_000.0  # predicted nanoseconds of a contraction for which a kernel that is there beats compiling a better one
)


def schedule(
    problem: Contraction,
    *,
    constants: bool = False,
    family: str | None = None,
    machine: Machine | None = None,
    prefer_known: bool = False,
) -> Plan:
    """The plan of a contraction, for its sizes and strides.

    With `constants`, kernels are specialised to exactly these sizes: faster for small ones, and one kernel for each
    size. `family` forces "direct" or "packed" where that is possible (for tests and experiments). With
    `prefer_known`, a cheap contraction takes a kernel of other sizes that is compiled already, rather than a better one
    that is not; the plan says so (`stand_in`).

    >>> from ...ir.loops import Axis, Load
    >>> from ...ir.types import F32
    >>> product = Contraction((Axis(8, (32, 32, 0)), Axis(8, (4, 0, 4)), Axis(8, (0, 4, 32), True)), (F32,) * 3,
    ...                       (Load(0), Load(1)), F32)
    >>> schedule(product).family
    'direct'
    """
    machine = machine or host()
    if problem.lookups:
        return lookup_plan(problem, machine)
    small = problem_of(problem)
    if small is None:
        return Plan((), (), 0.0, 0.0)
    if small.sources and family is None:
        halved = symmetric_plan(small, machine)
        if halved is not None:
            return replace(halved, flops=_estimate(small)[0] * halved.flops, bytes=_estimate(small)[1])
    if constants or family is not None:
        return _searched(small, machine, constants, family)
    known = MEMORY.find(small, machine)
    if known is None or (known.stand_in and not prefer_known):
        plan, known = _chosen(small, machine, prefer_known)
        if known is None:
            return plan
    buffers = tuple(range(len(small.form.dtypes)))
    stage = stage_of(small, known.choice, machine, False, buffers, known.kernels)
    return Plan((stage,), (), *_estimate(small), known.stand_in)


def _chosen(problem: Problem, machine: Machine, prefer_known: bool) -> tuple[Plan, Known | None]:
    """A search, whose outcome is remembered if it is one kernel on the operands as they are."""
    plan = _searched(problem, machine, False, None)
    parts, _ = parts_of(problem, machine, False, None)
    if len(parts) != 1 or parts[0].label:
        return plan, None
    known = Known(parts[0].choice)
    if prefer_known and plan.nanoseconds < CHEAP and not is_compiled(plan.stages[0].kernel, machine):
        other = MEMORY.latest(problem, machine)
        if other is not None:
            cycles = other.choice.cycles if other.choice.cycles > known.choice.cycles else known.choice.cycles
            known = Known(replace(other.choice, cycles=cycles), stand_in=True)
    MEMORY.remember(problem, machine, known)
    return plan, known


def _searched(problem: Problem, machine: Machine, constants: bool, family: str | None) -> Plan:
    parts, temporaries = parts_of(problem, machine, constants, family)
    stages = tuple(_stage(part, machine, constants) for part in parts)
    return Plan(stages, tuple(temporaries), *_estimate(problem))


def _stage(part: Part, machine: Machine, constants: bool) -> Stage:
    stage = stage_of(part.problem, part.choice, machine, constants, part.buffers)
    return replace(stage, family=f"{part.label} {stage.family}") if part.label else stage


def _estimate(problem: Problem) -> tuple[float, float]:
    """(flops, bytes that must move at least once)."""
    form, lines = problem.form, problem.lines
    steps = float(prod(line.extent for line in lines))
    sums = 1 if any(line.reduced for line in lines) else 0
    flops = steps * (max(0, len(form.factors) - 1) + sums + sum(form.work))
    return flops, moved_bytes(problem)


def launch(plan: Plan, machine: Machine | None = None) -> tuple[Call, ...]:
    """The calls of a plan, compiled now unless that was done before. Run them in order."""
    return tuple(_call(stage, machine or host()) for stage in plan.stages)


def _offsets(axes: tuple[tuple[int, int], ...]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Byte offsets of all positions of some (extent, stride) axes, the last one fastest."""
    offsets = np.zeros(1, np.int64)
    for extent, stride in axes:
        offsets = np.add.outer(offsets, np.arange(extent, dtype=np.int64) * stride).ravel()
    return offsets


def _call(stage: Stage, machine: Machine) -> Call:
    compiled = compile_kernel(stage.kernel, machine)
    words, keep = list(stage.words), [compiled]
    tables = []
    for word, axes in stage.tables:
        table = _offsets(axes)
        words[word] = table.ctypes.data
        tables.append(table)
    return Call(
        compiled.address, tuple(words), stage.pointers, stage.scratch, stage.count, stage.nanoseconds,
        name=compiled.symbol, family=stage.family, keep=(*keep, *tables),
    )  # fmt: skip


__all__ = ["Plan", "launch", "schedule"]
