"""One row of `gpu.py bench`: compiled, tuned, checked, then timed in turn with all that stands beside it.

Outside the compiler. Contestants are measured in interleaved rounds, so that a clock that sinks with the heat sinks for
all; each as it is called and, where it can be recorded, replayed from a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from gpu_budget import Budget, OutOfTime
from gpu_check import Checked, sentence_of
from gpu_machine import Machine, untuned
from gpu_report import COMPILED, COPY, DENSE, FAILED, OURS, Result, Times, judge
from gpu_rivals import Thunk
from gpu_rows import Row, Scale, compiled, given_and_places

from stein.backends.gpu.program import Bound
from stein.backends.gpu.roofline import H200, Device, moved_bytes, rate
from stein.backends.gpu.steps import Launch, Product
from stein.ir.types import BF16, F16, F32

TYPES = {"bfloat16": BF16, "float16": F16, "float32": F32}


@dataclass(frozen=True)
class Plan:
    """What the compiler makes of a row, before any operand is there: steps, and the least bytes that it can move."""

    bound: Bound
    bytes: int

    @property
    def flops(self) -> int:
        """Operations of the kernels and of products by torch."""
        return sum(s.flops for s in self.bound.steps if isinstance(s, Launch | Product))

    @property
    def text(self) -> str:
        """What computes a row that gets no fused kernel."""
        steps = [s for s in self.bound.steps if isinstance(s, Launch | Product)]
        return ", ".join("torch.matmul" if isinstance(s, Product) else "a kernel of its own" for s in steps)

    def floor(self, row: Row, scale: Scale, device: Device) -> tuple[float, str]:
        """The least time on a device in microseconds: inputs and results once through memory, the operations of this
        plan (or what the row says) at full rate; and which of these it is.
        """
        memory = 1e6 * self.bytes / device.bandwidth
        flops = self.flops if row.operations is None else row.operations(scale)
        compute = 1e6 * flops / rate(device, TYPES[scale.dtype])
        return max(memory, compute), "memory" if memory >= compute else "compute"


def plan_of(row: Row, scale: Scale) -> Plan:
    """What a user gets who compiles the text of a row."""
    run = compiled(row, row.at(scale))
    expression, sizes = run._shown()
    planned = run.gpu(expression)
    return Plan(planned.dense_steps(sizes), moved_bytes(planned.gpu_plan(sizes).called, sizes))


def bench_row(machine: Machine, row: Row, scale: Scale, budget: Budget, rows: int) -> Result:
    """One row beside its rivals, the first of so many that are left; whatever goes wrong is told in the result."""
    result = Result(row.name)
    seconds = budget.share(rows)
    try:
        with budget.limited(seconds), ExitStack() as stack:
            _bench(machine, row, row.at(scale), budget, result, stack)
    except OutOfTime:
        result.problems["time"] = f"it took longer than {seconds:.0f} s"
    except Exception as problem:  # whatever it is: the other rows still count
        result.failed(sentence_of(problem))
    finally:
        machine.tidy()
    if OURS in result.times and machine.judged:
        # Microseconds are goals for the device, the sizes and the width that they were set for.
        usual = row.at(scale) == replace(row.at(Scale()), dtype=scale.dtype) and scale.dtype != "float32"
        judge(row, result, usual and machine.rates.name == H200.name)
    elif OURS not in result.times and result.status != FAILED:
        result.failed(result.problems.get(OURS) or result.problems["time"])
    return result


def _bench(
    machine: Machine,
    row: Row,
    scale: Scale,
    budget: Budget,
    result: Result,
    stack: ExitStack,
) -> None:
    at = Checked(machine, row, scale)
    with budget.phase("compiling", result.seconds):
        plan, run, given = plan_of(row, scale), at.run, at.given
    result.floor, result.bound = plan.floor(row, scale, machine.rates)
    result.bytes, result.flops = plan.bytes, plan.flops
    result.plans = [p.text() for p in plan.bound.plans]
    tuning = budget.remaining / 2
    try:
        with budget.limited(tuning), budget.phase("tuning", result.seconds):
            run(**given)
            machine.wait()
    except OutOfTime:
        stack.enter_context(untuned())
        result.problems["tuning"] = f"not done within {tuning:.0f} s: configurations are those of the model"
    with budget.phase("checking", result.seconds):
        result.item, result.element = at.value()
        if not (result.item <= 1 and result.element <= 1):
            result.failed(f"WRONG: errors are {result.item:.3g} and {result.element:.3g} times what is allowed")
            return
        at.captured()
    result.configurations = configurations(run)
    del at.found
    with budget.phase("timing", result.seconds):
        contestants = beside(machine, row, scale, given)
        race(machine, {OURS: (lambda: run(**given), True)} | contestants, result)
    first = row.rivals[0] if row.rivals else None
    if first is not None and first.name in result.times:
        with budget.phase("torch.compile", result.seconds):
            by_torch_compile(machine, contestants[first.name][0], budget, result)


Contestants = dict[str, tuple[Thunk, bool]]


def beside(machine: Machine, row: Row, scale: Scale, given: dict[str, Any]) -> Contestants:
    """What stands beside: a copy of the main operand, the dense product of the same sizes, rivals; and whether a call
    can be recorded.

    A rival that cannot be made stands for its error when it is called.
    """
    torch = machine.torch
    source = given[row.batched[0]]
    target = torch.empty_like(source)
    found: Contestants = {COPY: (lambda: target.copy_(source), True)}
    if row.product is not None:
        m, k, n = row.product(scale)
        left, right = (torch.randn(s, device=machine.device).to(source.dtype) for s in ((m, k), (n, k)))
        out = torch.empty((m, n), dtype=source.dtype, device=machine.device)
        found[DENSE] = (lambda: torch.mm(left, right.t(), out=out), True)
    every = given_and_places(row, torch, scale, machine.device, given)
    for rival in row.rivals:
        found[rival.name] = (_made(partial(rival.make, torch, every)), rival.capture)
    return found


def _made(make: Callable[[], Thunk]) -> Thunk:
    try:
        return make()
    except Exception as problem:
        kept = problem

        def raising() -> Any:
            raise kept

        return raising


def race(machine: Machine, contestants: Contestants, result: Result) -> None:
    """Measure all in interleaved rounds; one that raises is out, with its sentence."""
    ways: dict[str, dict[str, Thunk]] = {}
    for name, (thunk, recorded) in contestants.items():
        try:
            thunk()
            machine.wait()
            ways[name] = {"called": thunk}
        except Exception as problem:
            result.problems[name] = sentence_of(problem)
            continue
        if recorded:
            try:
                ways[name]["replayed"] = machine.captured(thunk).replay
            except Exception as problem:
                result.problems[f"{name} in a graph"] = sentence_of(problem)
    times = {name: Times() for name in ways}
    for _ in range(machine.rounds):
        for name, thunks in list(ways.items()):
            try:
                for way, thunk in thunks.items():
                    getattr(times[name], way).append(machine.measure(thunk))
            except Exception as problem:
                result.problems[name] = sentence_of(problem)
                del ways[name], times[name]
    result.times |= times


def by_torch_compile(machine: Machine, thunk: Thunk, budget: Budget, result: Result) -> None:
    """The same rival through torch.compile in its default mode, within half of the time that is left."""
    seconds = budget.remaining / 2
    try:
        with budget.limited(seconds):
            machine.torch.compiler.reset()
            faster = machine.torch.compile(thunk, backend=machine.compiler)
            race(machine, {COMPILED: (faster, True)}, result)
    except OutOfTime:
        result.problems[COMPILED] = f"took longer than {seconds:.0f} s"


def configurations(run: Any) -> list[str]:
    """Where the configuration of each kernel comes from."""
    lines = (line for step in run.explain().steps for line in step.kernel.splitlines())
    return list(dict.fromkeys(line.partition("; configuration ")[2] for line in lines if "; configuration " in line))
