"""`make gpu-check`: every fused kernel assembled for GPUs that are not here, and held to what it must be.

Prints a row for each kernel and architecture, and fails if one needs more shared memory than there is, keeps values in
local memory, does without the matrix instruction that it should have, or if an expression takes more kernels or bytes
than its plan promises.

    python tests/gpu_check.py
    python tests/gpu_check.py --only attention --architecture sm_90
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from stein.backends.gpu.ahead import Facts, inspect_printed, violations
from stein.backends.gpu.kernels import FusedPlan, Goal, fused
from stein.backends.gpu.nodes import Kernel
from stein.backends.gpu.roofline import moved_bytes
from stein.ir.errors import BackendError
from stein.tests.gpu.fused_cases import CASES, Case, layouts_of, program_of
from stein.tests.gpu.fused_kernels import DIRECT, TYPES, Direct

ARCHITECTURES = ("sm_90", "sm_80", "gfx942")
CACHES = {"sm_90": (132, 50 << 20), "sm_80": (108, 40 << 20), "gfx942": (304, 256 << 20)}


@dataclass(frozen=True)
class Item:
    """One kernel of the plan of a case, for one architecture."""

    case: Case
    dtype: str
    architecture: str
    plan: FusedPlan
    kernel: Kernel
    floor: int

    @property
    def formed(self) -> bool:
        """Whether it only prepares operands."""
        return self.kernel in self.plan.kernels[: self.plan.formed]

    @property
    def tensor_core(self) -> str:
        """The instruction that it must have."""
        if self.formed or self.dtype == "float32" or self.architecture == "gfx942":
            return "MFMA" if self.architecture == "gfx942" and not self.formed else ""
        last = self.kernel == self.plan.kernels[-1]
        if self.architecture == "sm_90":
            return self.case.tensor_core if last else ""
        return "HMMA"


def goal_of(architecture: str) -> Goal:
    """What plans for an architecture are made for."""
    processors, cache = CACHES[architecture]
    return Goal(architecture, processors, cache)


def items(case: Case, dtype: str, architecture: str) -> list[Item]:
    """The kernels of a case; none where no plan fits the architecture."""
    program = program_of(case, dtype, case.full)
    plans = fused(program, {}, layouts_of(program), goal_of(architecture))
    floor = moved_bytes(program, {})
    return [Item(case, dtype, architecture, plan, kernel, floor) for plan in plans for kernel in plan.kernels]


def faults(item: Item, facts: Facts) -> tuple[str, ...]:
    """What is wrong with a kernel or with its plan."""
    found = list(violations(facts, item.tensor_core))
    # Where less fits on chip, a plan may take two kernels; it says so.
    if item.architecture != "gfx942" and len(item.plan.kernels) - item.plan.formed != item.case.count:
        found.append(f"{len(item.plan.kernels)} kernels for {item.case.count}")
    return tuple(found)


def measures(facts: Facts) -> tuple[str, ...]:
    """What the compiler made of a kernel, as cells."""
    matrix = " ".join(f"{n} {k}" for n, k in facts.instructions if n.endswith(("MMA", "MFMA")) and n != "FFMA")
    return (
        str(facts.warps),
        str(facts.registers),
        f"{facts.shared / 1024:.0f} ({facts.limit / 1024:.0f})",
        matrix,
        f"{facts.count('LDL')}/{facts.count('STL')}",
    )


def row(item: Item, facts: Facts, wrong: tuple[str, ...]) -> tuple[str, ...]:
    """The cells of a kernel."""
    kernels = f"{len(item.plan.kernels) - item.plan.formed}" + (f"+{item.plan.formed}" if item.plan.formed else "")
    return (
        item.case.name + (" (ahead)" if item.formed else ""),
        item.dtype,
        item.architecture,
        *measures(facts),
        kernels,
        f"{item.plan.moved_bytes / item.floor:.3f}",
        "; ".join(wrong) or "ok",
    )


def single(kernel: Direct, dtype: str, architecture: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The cells of a kernel that no program is matched to, and what is wrong with it."""
    facts = inspect_printed(kernel.full(TYPES[dtype]), architecture)
    wanted = {"sm_90": kernel.tensor_core, "sm_80": "HMMA", "gfx942": "MFMA"}[architecture]
    wrong = violations(facts, wanted)
    return (kernel.name, dtype, architecture, *measures(facts), "1", "", "; ".join(wrong) or "ok"), wrong


HEADINGS = ("kernel", "type", "target", "warps", "registers", "shared KB (limit)", "matrix units", "LDL/STL", "kernels",
            "bytes / floor", "")  # fmt: skip


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", action="append", default=[], help="cases whose name begins so")
    options.add_argument("--architecture", action="append", default=[], choices=ARCHITECTURES)
    chosen = options.parse_args()
    console = Console(width=150)
    table = Table(*HEADINGS, title="fused kernels, ahead of time")
    bad = 0
    cases = [c for c in CASES if not chosen.only or any(c.name.startswith(o) for o in chosen.only)]
    work = [
        (case, dtype, architecture)
        for architecture in chosen.architecture or ARCHITECTURES
        for case in cases
        for dtype in ("bfloat16", "float32")
        if dtype in case.dtypes
    ]
    kernels = [
        (kernel, dtype, architecture)
        for architecture in chosen.architecture or ARCHITECTURES
        for kernel in DIRECT
        for dtype in ("bfloat16",)
        if not (architecture != "sm_90" and "descriptors" in kernel.name)
        and (not chosen.only or any(kernel.name.startswith(o) for o in chosen.only))
    ]
    with Progress(console=console, transient=True) as progress:
        for case, dtype, architecture in progress.track(work, description="assembling"):
            found = items(case, dtype, architecture)
            if not found:
                table.add_row(case.name, dtype, architecture, *[""] * 7, "no plan: kernels of their own")
            for item in found:
                try:
                    facts = inspect_printed(item.kernel, architecture)
                    wrong = faults(item, facts)
                    cells = row(item, facts, wrong)
                except BackendError as error:
                    wrong = (error.sentence,)
                    cells = (case.name, dtype, architecture, *[""] * 7, error.sentence)
                bad += bool(wrong)
                table.add_row(*cells, style="red" if wrong else "")
        for kernel, dtype, architecture in progress.track(kernels, description="single kernels"):
            cells, wrong = single(kernel, dtype, architecture)
            bad += bool(wrong)
            table.add_row(*cells, style="red" if wrong else "")
    console.print(table)
    console.print(f"{bad} kernels are not as they must be" if bad else "all kernels are as they must be")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
