"""Lookups on tensors laid out anew: a block that is visited many times should lie together.

With the batch first, `x[b,J[s],c]`, the rows of a block lie a whole matrix row apart, each on a page of its own. Where
blocks are visited often enough, it is cheaper to copy x to `x[j,c,b]` first, and to sum into `y[i,a,b]` and copy that
back at the end. The price decides, as for dense contractions (`rearrange`); no operation has a case of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod

from ...ir.loops import Axis, Contraction, Load
from .choose import choose
from .compose import stage_of
from .machine import Machine
from .plan import Plan, Stage
from .problem import copy_form, problem_of

_BETTER = 0.9  # of the price on the tensors as they lie
_VISITS = 2  # times that each element must be visited for a copy to be looked at
_RUN = 16  # elements that must lie side by side after the copy


def laid_plan(problem: Contraction, machine: Machine, plain: Plan, plan: Callable[[Contraction], Plan]) -> Plan:
    """The cheaper of `plain` and of the plan on copies of the tensors whose positions are looked up.

    `plan` schedules a contraction with lookups as it stands.
    """
    looked = {axis for axis, _ in problem.lookups}
    lists = {i for i, a in enumerate(problem.axes) if any(a.strides[t + 1] for _, t in problem.lookups)} - looked
    best, price = plain, _price(plain.stages)
    for last in _last_axes(problem, looked, lists):
        moved = [t for t in range(len(problem.dtypes)) if _pays(problem, t, last, looked, lists)]
        for tensors in ([t for t in moved if t], moved):
            if not tensors or (0 in tensors and not problem.update):
                continue
            found = _laid(problem, machine, tensors, last, looked, plan)
            if _price(found.stages) < _BETTER * price:
                best, price = found, _price(found.stages) / _BETTER
    return best


def _price(stages: Sequence[Stage]) -> float:
    return sum(stage.nanoseconds for stage in stages)


def _last_axes(problem: Contraction, looked: set[int], lists: set[int]) -> list[int]:
    """Axes that blocks may be turned to: long ones of the result, which are neither looked up nor lists."""
    outs = [i for i, a in enumerate(problem.axes) if not a.reduced and i not in looked | lists and a.extent >= _RUN]
    return sorted(outs, key=lambda i: -problem.axes[i].extent)[:2]


def _pays(problem: Contraction, t: int, last: int, looked: set[int], lists: set[int]) -> bool:
    """Whether a tensor has looked-up axes and `last`, not contiguous, and is visited several times."""
    axes = problem.axes
    mine = [i for i, a in enumerate(axes) if a.strides[t]]
    if t - 1 in {o for _, o in problem.lookups} or last not in mine or not looked & set(mine) or lists & set(mine):
        return False
    whole = prod(axes[i].extent for i in mine)
    visits = prod(axes[i].extent for i in lists) * prod(axes[i].extent for i in mine if i not in looked)
    return abs(axes[last].strides[t]) != problem.dtypes[t].itemsize and visits >= _VISITS * whole


def _laid(
    problem: Contraction,
    machine: Machine,
    tensors: Sequence[int],
    last: int,
    looked: set[int],
    plan: Callable[[Contraction], Plan],
) -> Plan:
    """Copies of the tensors, the plan on these, and the result copied back."""
    count = len(problem.dtypes)
    buffers = {t: count + k for k, t in enumerate(tensors)}
    axes, sizes = list(problem.axes), []
    before: list[Stage] = []
    after: list[Stage] = []
    for t in tensors:
        size = problem.dtypes[t].itemsize
        mine = [i for i, a in enumerate(problem.axes) if a.strides[t]]
        order = sorted(mine, key=lambda i: (i not in looked, i == last, -abs(problem.axes[i].strides[t])))
        dense, step = {}, size
        for i in reversed(order):
            dense[i] = step
            step *= problem.axes[i].extent
        sizes.append(step)
        here = {i: (problem.axes[i].extent, dense[i], problem.axes[i].strides[t]) for i in order}
        before.append(_copy(problem, t, [(n, d, s) for n, d, s in here.values()], buffers[t], t, "laid", machine))
        if t == 0:
            back = [(n, s, d) for n, d, s in here.values()]
            after.append(_copy(problem, t, back, 0, buffers[0], "stored", machine))
        for i in mine:
            strides = axes[i].strides
            axes[i] = replace(axes[i], strides=(*strides[:t], dense[i], *strides[t + 1 :]))
    inner = plan(replace(problem, axes=tuple(axes), sources=()))
    assert not inner.temporaries, "a plan of lookups has no buffers of its own"
    stages = [
        replace(stage, pointers=tuple((w, buffers.get(b, b), o) for w, b, o in stage.pointers))
        for stage in inner.stages
    ]
    moved = 2.0 * sum(sizes)
    return Plan((*before, *stages, *after), tuple(sizes), inner.flops, inner.bytes + moved)


def _copy(
    problem: Contraction,
    t: int,
    lines: Sequence[tuple[int, int, int]],
    target: int,
    source: int,
    label: str,
    machine: Machine,
) -> Stage:
    """One copy between a tensor and its buffer: (extent, stride to, stride from) of each axis."""
    dtype = problem.dtypes[t]
    axes = tuple(Axis(n, (to, since)) for n, to, since in lines)
    found = problem_of(Contraction(axes, (dtype, dtype), (Load(0),), dtype))
    assert found is not None, "an empty tensor is not copied"
    copy = replace(found, form=copy_form(dtype))
    stage = stage_of(copy, choose(copy, machine), machine, False, (target, source))
    return replace(stage, family=f"{label} {stage.family}")
