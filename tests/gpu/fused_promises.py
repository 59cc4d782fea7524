"""What a fused plan promises, checked against the program: that it computes all of it, in so many kernels, and that its
bytes are those of the floor, to the byte. What it prepares for itself comes on top, each part written and read once.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from stein.backends.gpu.kernels import FusedPlan
from stein.backends.gpu.kernels.plan import CACHE, touched
from stein.ir.expr import Program, reads
from stein.tests.gpu.fused_cases import Case

INDEX_BYTES = 4  # of an entry of a list of blocks in order


@dataclass(frozen=True)
class Traffic:
    """Bytes of a plan: the `floor` of its equations, what is `missing` of it, what operands and buffers of its `own`
    add, and what is read `again`; `prepared` is what its own must be.
    """

    floor: int
    missing: int
    own: int
    again: int
    prepared: int

    @property
    def total(self) -> int:
        """All bytes through device memory."""
        return self.floor - self.missing + self.own + self.again

    @property
    def ratios(self) -> str:
        """The total as shares of the floor: without what is prepared, and that."""
        rest = (self.total - self.prepared) / self.floor
        return f"{rest:.4f}" + (f" + {self.prepared / self.floor:.4f}" if self.prepared else "")


def traffic(program: Program, plan: FusedPlan) -> Traffic:
    """The bytes that the launches of a plan touch, tensor by tensor, beside what its equations must touch."""
    inside = [e for e in program.equations if e.name in plan.equations]
    outside = [e for e in program.equations if e.name not in plan.equations]
    wanted = {r.tensor for e in outside for r in reads(e.expr)} | {*program.outputs}
    ends = {r.tensor for e in inside for r in reads(e.expr)} - {*plan.equations}
    ends |= {e.name for e in inside if e.name in wanted}
    least = {n: _bytes(program, n) for n in ends}
    cached = {p.value for p in plan.placements if p.where == CACHE}
    found: dict[str, int] = {}
    for chosen in plan.launches:
        names = dict(chosen.tensors)
        for parameter, n in touched(chosen.kernel, dict(chosen.numbers)).items():
            name = names[parameter]
            found[name] = max(found.get(name, 0), n) if name in plan.resident else found.get(name, 0) + n
    own = sum(n for name, n in found.items() if name not in ends and name not in cached)
    for made in plan.lists:
        for name in (made.rows_of, made.columns_of):
            found[name] = least[name]
        own += made.bytes - least[made.rows_of] - least[made.columns_of]
    return Traffic(
        sum(least.values()),
        sum(max(0, n - found.get(name, 0)) for name, n in least.items()),
        own,
        sum(max(0, found.get(name, 0) - n) for name, n in least.items()),
        prepared(plan, cached),
    )


def prepared(plan: FusedPlan, cached: set[str]) -> int:
    """Bytes of what a plan makes for itself: operands that are formed, and lists in order, each written and read once
    (so are lists as they were given); of constants, what each launch reaches.
    """
    formed = sum(2 * prod(layout.shape) * layout.dtype.itemsize for name, layout in plan.buffers if name not in cached)
    constants, taken, tables = {c.name for c in plan.constants}, 0, 0
    for chosen in plan.launches:
        names = dict(chosen.tensors)
        reached = touched(chosen.kernel, dict(chosen.numbers))
        taken += sum(n for parameter, n in reached.items() if names[parameter] in constants)
    for made in plan.lists:
        assert not made.constant
        tables += 2 * INDEX_BYTES * (made.extents[0] + 1 + 2 * made.blocks)
    return formed + taken + tables


def _bytes(program: Program, name: str) -> int:
    tensor = program.tensors[name]
    return prod(s.evaluate({}) for s in tensor.shape) * tensor.dtype.itemsize


def broken(case: Case, program: Program, plans: tuple[FusedPlan, ...]) -> tuple[str, ...]:
    """What the plans of a program do not keep of what the case says."""
    if len(plans) != 1:
        return (f"{len(plans)} plans" if plans else "no plan",)
    (plan,) = plans
    found = []
    if plan.structure != case.structure:
        found.append(f"a plan for {plan.structure}")
    left = len(program.equations) - len(plan.equations)
    if left != case.apart:
        found.append(f"{left} equations are left to other kernels")
    main = len(plan.kernels) - plan.formed
    if (main, plan.formed) != (case.count, case.formed):
        found.append(f"{main}+{plan.formed} kernels for {case.count}+{case.formed}")
    moved = traffic(program, plan)
    if moved.total != plan.moved_bytes:
        found.append(f"says {plan.moved_bytes} bytes, moves {moved.total}")
    if moved.missing:
        found.append(f"{moved.missing} bytes of the floor are not touched")
    if moved.again:
        found.append(f"{moved.again} bytes are read again")
    if moved.own != moved.prepared:
        found.append(f"{moved.own} bytes of its own, {moved.prepared} to prepare operands")
    if moved.prepared and not (plan.formed or plan.lists):
        found.append("operands are prepared that the case does not say")
    return tuple(found)
