"""The GPU as a target: what a planned program will take, by a roofline, without making any kernel.

Every equation is one launch (more where it scatters), unless several are fused (`kernels`), and takes the longer of its
traffic (each operand and the result once, at the rate of device memory) and its arithmetic (at the rate of its type:
matrix units for products of two factors). The rates are those of one table of devices (`roofline`), so that programs
are priced alike where there is no GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from ...ir.count import count
from ...ir.expr import Einsum, Equation, Program, reads, walk
from ...ir.target import Cost
from ...ir.types import BF16, F16, F32, DType
from .choose import Settings
from .folded import at_loads, by_library, folded
from .kernels import FusedPlan, Goal, fused
from .roofline import H200, Device, rate
from .scattered import scattered
from .views import Layout

LEAST_MATRIX = 16  # points of each of M, N and K from which on the matrix units are of use


@dataclass(frozen=True)
class GpuTarget:
    """A device, the precision of products of f32, and the inputs that never change: prices planned programs.

    >>> from ...ir.text import parse_ir
    >>> text = "input x: f32[n]\\ny[i]: f32[n] = exp(x[i]) over i<n\\nreturn y"
    >>> cost = GpuTarget().price(parse_ir(text), {"n": 43 * 10**7})
    >>> cost.launches, round(cost.nanoseconds / 1e3)
    (1, 803)
    """

    device: Device = H200
    precision: str = "ieee"
    fixed: tuple[str, ...] = ()
    name: str = "cuda"

    def describe(self) -> str:
        """Where the times come from, for `explain`."""
        device = self.device
        return f"roofline of one {device.name}: {device.bandwidth / 1e12:g} TB/s, {device.launch * 1e6:g} us a kernel"

    def price(self, program: Program, sizes: Mapping[str, int]) -> Cost:
        """Flops and bytes of each equation, launches, and the predicted nanoseconds of one call."""
        total = Cost()
        goal = Goal.of(self.device, self.precision, self.fixed)
        layouts = {i.name: Layout.dense(tuple(s.evaluate(sizes) for s in i.shape), i.dtype) for i in program.inputs}
        plans = fused(program, sizes, layouts, goal)
        within = {name: plan for plan in plans for name in plan.equations}
        inner = {r.tensor for e in program.equations if e.name in within for r in reads(e.expr)}
        processors, named = self.device.multiprocessors, {e.name: e for e in program.equations}
        held = by_library(program, sizes, layouts, Settings(self.precision))
        program, past = folded(program, sizes, processors, held | {*within, *inner})
        masks = sum(at_loads(named[reader], named[copy], sizes, processors) for copy, reader in past)
        total += Cost(nanoseconds=1e9 * masks)
        for equation in program.equations:
            plan = within.get(equation.name)
            if plan is not None:
                if equation.name == plan.equations[-1]:
                    total += self._fused(plan)
                continue
            cost = count(equation, sizes)
            more, launches = scattered(equation, sizes)
            moved, launches = cost.bytes + more, 1 + launches
            seconds = max(moved / self.device.bandwidth, cost.flops / self._rate(equation, sizes))
            total += Cost(cost.flops, moved, launches, 1e9 * (seconds + launches * self.device.launch))
        return total

    def _fused(self, plan: FusedPlan) -> Cost:
        """The cost of equations that are computed together."""
        done = rate(self.device, plan.product_type, self.precision)
        seconds = max(plan.moved_bytes / self.device.bandwidth, plan.flops / done)
        launches = plan.started
        return Cost(plan.flops, plan.moved_bytes, launches, 1e9 * (seconds + launches * self.device.launch))

    def _rate(self, equation: Equation, sizes: Mapping[str, int]) -> float:
        """Operations per second of an equation."""
        einsum = next((e for e in walk(equation.expr) if isinstance(e, Einsum) and e.bound), None)
        if einsum is None:
            return rate(self.device, equation.dtype, self.precision, product=False)
        kind = _widest(einsum)
        matrix = einsum.semiring.name == "plustimes" and len(einsum.factors) == 2
        extents = {i.name: i.extent.evaluate(sizes) for i in equation.indices}
        sides = (prod(extents[n] for n in einsum.bound), prod(extents[n] for n in equation.free) ** 0.5)
        large = min(sides) >= LEAST_MATRIX
        return rate(self.device, kind, self.precision, product=matrix and large and kind in (F16, BF16, F32))


def _widest(einsum: Einsum) -> DType:
    return max((f.dtype for f in einsum.factors), key=lambda t: t.bits, default=einsum.dtype)
