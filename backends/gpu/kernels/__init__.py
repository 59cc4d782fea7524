"""Fused plans: runs of equations that one kernel computes, or two, in place of one kernel for each equation.

`fused` looks at a planned program and says which of its equations belong together. What it finds follows from the
equations, whatever structure of the algebra they came from: a matcher for each kind of plan, tried in the order below.
A plan is taken where it moves fewer bytes than its equations alone, or computes less; it carries both counts.
"""

from __future__ import annotations

from collections.abc import Mapping

from ....ir.expr import Einsum, Program, walk
from ..views import Layout
from .adapters import adapter_plan
from .chain import chains
from .convolutions import convolution_plan
from .monarch_plans import monarch_plan
from .plan import FusedPlan, Goal, steps_of
from .products import kronecker_plan, low_rank_plan
from .sparse import sparse_plan
from .streaming import attention_plan

__all__ = ["FusedPlan", "Goal", "fused", "steps_of"]


def fused(
    program: Program, sizes: Mapping[str, int], layouts: Mapping[str, Layout], goal: Goal = Goal()
) -> tuple[FusedPlan, ...]:
    """Plans for disjoint sets of equations of a planned program, for inputs that lie as `layouts` says.

    Values that the program makes are dense. The last equation of a plan is where its launches belong.
    """
    every = dict(layouts)
    for equation in program.equations:
        shape = tuple(s.evaluate(sizes) for s in equation.shape)
        every.setdefault(equation.name, Layout.dense(shape, equation.dtype))
    found: list[FusedPlan] = []
    taken: set[str] = set()
    for start, equation in enumerate(program.equations):
        if equation.name in taken:
            continue
        plan = _at(program, start, sizes, every, goal)
        if plan is None or not plan.pays or not is_single(program, plan):
            continue
        if not taken & {*plan.equations}:
            found.append(plan)
            taken |= {*plan.equations}
    return tuple(found)


def is_single(program: Program, plan: FusedPlan) -> bool:
    """Whether the equations of a plan sum in f32 at most, as its kernels do: f64 and integers are no case for them."""
    own = {*plan.equations}
    sums = (n for e in program.equations if e.name in own for n in walk(e.expr) if isinstance(n, Einsum))
    return all(n.accumulate.kind == "f" and n.accumulate.bits <= 32 for n in sums)


def _at(
    program: Program, start: int, sizes: Mapping[str, int], layouts: Mapping[str, Layout], goal: Goal
) -> FusedPlan | None:
    """The first plan that fits the equations from one on."""
    for whole in (attention_plan, adapter_plan, convolution_plan, sparse_plan):
        plan = whole(program, start, sizes, layouts, goal)
        if plan is not None:
            return plan
    for chain in chains(program, start, sizes, layouts):
        for match in (low_rank_plan, monarch_plan, kronecker_plan):
            plan = match(chain, goal)
            if plan is not None:
                return plan
    return None
