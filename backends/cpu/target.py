"""The CPU as a target: what a planned program will take, without compiling anything.

Every equation is turned into its contractions at dense layouts, as `program.bind` would do, and each contraction into
the parts that the scheduler would run. A part takes the longer of its arithmetic (vector steps, at the rate that its
family of kernels achieves) and of its traffic (bytes, at the speed of the smallest cache that holds them between two
uses), shared among threads as the executor would, plus the cost of a launch. The rates are those of `calibration`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod

from ...ir.count import count_program
from ...ir.expr import Program
from ...ir.target import Cost
from .calibration import Rates, rates
from .choose import STEP
from .equations import EquationTemplate, Operand
from .machine import Machine, host
from .native_record import LEAST_SHARE, SHARE_WORK, Layout
from .plan import Stage
from .pool import KEEP_BYTES, get_threads
from .price import volumes
from .problem import Problem, problem_of
from .rearrange import Part, parts_of
from .scatter import lookup_plan
from .symmetric import symmetric_plan


@dataclass(frozen=True)
class CpuTarget:
    """A processor with its rates and a number of threads: prices planned programs.

    >>> from ...ir.text import parse_ir
    >>> from .calibration import DEFAULTS
    >>> text = "input x: f32[n]\\ny[i]: f32[n] = exp(x[i]) over i<n\\nreturn y"
    >>> target = CpuTarget(host(), DEFAULTS, 1)
    >>> costs = [target.price(parse_ir(text), {"n": n}) for n in (1000, 10**6)]
    >>> costs[0].flops, costs[0].nanoseconds < costs[1].nanoseconds
    (1000, True)
    """

    machine: Machine
    rates: Rates
    threads: int
    name: str = "cpu"

    @staticmethod
    def here() -> CpuTarget:
        """This machine, calibrated now if it never was, with the threads that kernels use."""
        return CpuTarget(host(), rates(), get_threads())

    def describe(self) -> str:
        """Where the times come from, for `explain`."""
        threads = f"{self.threads} thread" + ("" if self.threads == 1 else "s")
        basis = "measured on this machine" if self.rates.measured else "built-in rates, not measured on this machine"
        return f"times for {threads}, {basis}"

    def price(self, program: Program, sizes: Mapping[str, int]) -> Cost:
        """Flops and bytes of each equation, launches, and the predicted nanoseconds of one call."""
        total = count_program(program, sizes)
        layouts = {
            n: Layout.dense(t.dtype, tuple(s.evaluate(sizes) for s in t.shape)) for n, t in program.tensors.items()
        }
        outside = {i.name for i in program.inputs} | set(program.outputs)
        whole = sum(layouts[n].nbytes for n in layouts)
        time, launches = 0.0, 0
        for equation in program.equations:
            for step in EquationTemplate(equation).contractions(sizes, layouts):
                if step.problem.lookups:
                    stages = lookup_plan(step.problem, self.machine).stages
                    time += max(map(self._planned, stages), default=0.0)  # of several, the data let one do the work
                    launches += len(stages)
                    continue
                problem = problem_of(step.problem)
                if problem is None:
                    continue
                halved = symmetric_plan(problem, self.machine) if problem.sources else None
                if halved is not None:
                    time += sum(map(self._planned, halved.stages))
                    launches += len(halved.stages)
                    continue
                homes = tuple(whole if _is_outside(o, outside) else 0 for o in step.operands)
                for part in parts_in(problem, self.machine):
                    time += self._time(part, homes)
                    launches += 1
        beyond = max(0, sum(layouts[n].nbytes for n in layouts if n not in outside) - KEEP_BYTES)
        return Cost(total.flops, total.bytes, launches, time + beyond / self.rates.fresh)

    def _planned(self, stage: Stage) -> float:
        """Nanoseconds of a stage whose schedule is known: its own estimate, at the rate of this machine."""
        usual = STEP / self.machine.frequency  # what the scheduler takes a vector step for
        one = stage.nanoseconds * self.rates.step(stage.family, stage.kernel.dtypes[0]) / usual
        return self._shared(one, 0.0, stage.count)

    def _time(self, part: Part, homes: tuple[int, ...]) -> float:
        """Nanoseconds of one part. `homes` are the bytes that pass between two uses of each operand, 0 for those that
        the program itself has just made.
        """
        form, choice = part.problem.form, part.choice
        work = choice.cycles * self.rates.step(choice.family, form.accumulate)
        touched = touched_bytes(part.problem)
        here = sum(touched)
        traffic = slow = 0.0
        for nbytes, buffer in zip(touched, part.buffers, strict=True):
            level = self._level(max(here, homes[buffer] if buffer < len(homes) else 0))
            traffic += nbytes / self.rates.bandwidth[level]
            slow += nbytes if level == "memory" else 0
        return self._shared(max(work, traffic, 10.0), slow, shares_of(part))

    def _shared(self, one: float, slow: float, shares: int) -> float:
        """Nanoseconds of what takes `one` on a single core and moves `slow` bytes of memory, in so many shares."""
        threads = min(self.threads, int(one // LEAST_SHARE), shares) if one >= SHARE_WORK else 1
        if threads < 2:
            return self.rates.launch + one
        together = max(one / threads, slow / self.rates.together)
        return self.rates.launch + self.rates.region + together

    def _level(self, nbytes: int) -> str:
        """The smallest cache that holds this many bytes."""
        machine = self.machine
        if nbytes <= machine.level1:
            return "level1"
        return "level2" if nbytes <= machine.level2 else "level3" if nbytes <= self.rates.level3 else "memory"


def _is_outside(operand: Operand, outside: set[str]) -> bool:
    return isinstance(operand.tensor, str) and operand.tensor in outside


def touched_bytes(problem: Problem) -> list[int]:
    """Bytes of each tensor that are touched: its points, but no more than the span of memory that they lie in.

    >>> from ...ir.loops import Axis, Contraction, Load
    >>> from ...ir.types import F32
    >>> axes = (Axis(8, (4, 4, 0)), Axis(8, (0, -4, 4), True))
    >>> toeplitz = problem_of(Contraction(axes, (F32,) * 3, (Load(0), Load(1)), F32))
    >>> touched_bytes(toeplitz)
    [32, 60, 32]
    """
    sizes = problem.form.sizes
    spans = [
        size + sum((line.extent - 1) * abs(line.strides[t]) for line in problem.lines) for t, size in enumerate(sizes)
    ]
    points = [n * size for n, size in zip(volumes(problem.lines, len(sizes)), sizes, strict=True)]
    return [min(pair) for pair in zip(points, spans, strict=True)]


@lru_cache(maxsize=1024)
def parts_in(problem: Problem, machine: Machine) -> tuple[Part, ...]:
    """The parts in which a contraction is done, as the scheduler decides them."""
    return tuple(parts_of(problem, machine, False, None)[0])


def shares_of(part: Part) -> int:
    """Into how many shares a part can be cut: outer positions, or blocks of a register axis."""
    lines, choice = part.problem.lines, part.choice
    if part.problem.form.collides:
        return 1
    outer = prod(lines[i].extent for i in choice.outer)
    tile = {choice.vector: choice.lanes * choice.vectors, choice.rows: choice.height, choice.columns: choice.width}
    blocks = [
        -(-lines[i].extent // max(1, size)) for i, size in tile.items() if i is not None and i < len(lines)
        and not lines[i].reduced
    ]  # fmt: skip
    return max([outer, *blocks])
