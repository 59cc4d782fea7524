"""`make gpu-check`: every fused kernel assembled for GPUs that are not here, and held to what it must be.

For each program, element type and architecture, prints a row for each kernel of the plan. A row fails if the plan does
not compute the whole program, takes other kernels than it should or moves other bytes than the floor (and, behind a
plus, those of operands that it prepares for itself), or if a kernel
needs more shared memory than there is, keeps values in local memory, or lacks the matrix instruction that it should
have. The exit status says whether all rows passed.

    python tests/gpu_check.py
    python tests/gpu_check.py --only attention --architecture sm_90 --type bfloat16 --jobs 1
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from stein.backends.gpu.ahead import Facts, inspect_printed, violations
from stein.backends.gpu.kernels import FusedPlan, fused
from stein.backends.gpu.nodes import Kernel
from stein.ir.errors import BackendError
from stein.tests.gpu.fused_cases import ALL, ARCHITECTURES, CASES, Case, goal_of, layouts_of, program_of
from stein.tests.gpu.fused_kernels import DIRECT, TYPES, Direct
from stein.tests.gpu.fused_promises import broken, traffic

HEADINGS = ("kernel", "type", "target", "warps", "registers", "shared KB (limit)", "matrix units", "LDL/STL", "kernels",
            "bytes / floor", "")  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One line of the table: its cells, and what is wrong (nothing, if all is well)."""

    cells: tuple[str, ...]
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class Work:
    """What one line, or one for each kernel of a plan, is about: the name of a case or of a kernel of its own."""

    name: str
    dtype: str
    architecture: str
    direct: bool = False

    def rows(self) -> list[Row]:
        """Assemble everything, and look at it."""
        if self.direct:
            return [self.single(next(k for k in DIRECT if k.name == self.name))]
        case = next(c for c in CASES if c.name == self.name)
        program = program_of(case, self.dtype, case.full)
        plans = fused(program, {}, layouts_of(program), goal_of(self.architecture))
        wrong = broken(case, program, plans)
        if not plans:
            return [self.failed(wrong)]
        found = []
        for plan in plans:
            moved = traffic(program, plan)
            kernels = f"{len(plan.kernels) - plan.formed}" + (f"+{plan.formed}" if plan.formed else "")
            last = (kernels, moved.ratios)
            found += [self.row(k, n, case, plan, last, wrong) for n, k in enumerate(plan.kernels)]
        return found

    def row(
        self, kernel: Kernel, number: int, case: Case, plan: FusedPlan, last: tuple[str, str], wrong: tuple[str, ...]
    ) -> Row:
        """One kernel of a plan; what is wrong with the plan stands with the last one."""
        ahead = number < plan.formed
        wrong = wrong if kernel == plan.kernels[-1] else ()
        return self.assembled(
            kernel,
            self.name + (" (ahead)" if ahead else ""),
            "" if ahead else self.wanted(case, number - plan.formed),
            last,
            wrong,
        )

    def wanted(self, case: Case, number: int) -> str:
        """The matrix instruction that a kernel must have: none in exact products of f32."""
        if self.dtype == "float32":
            return ""
        if self.architecture != "sm_90":
            return "MFMA" if self.architecture == "gfx942" else "HMMA"
        return case.tensor_cores[number] if number < len(case.tensor_cores) else ""

    def single(self, kernel: Direct) -> Row:
        """A kernel that no program is matched to."""
        wanted = {"sm_90": kernel.tensor_core, "sm_80": "HMMA", "gfx942": "MFMA"}[self.architecture]
        return self.assembled(kernel.full(TYPES[self.dtype]), self.name, wanted, ("1", ""), ())

    def assembled(self, kernel: Kernel, title: str, wanted: str, last: tuple[str, str], wrong: tuple[str, ...]) -> Row:
        """The row of a kernel that must have the matrix instruction `wanted`."""
        try:
            facts = inspect_printed(kernel, self.architecture)
        except BackendError as error:
            return self.failed((*wrong, error.sentence), title)
        wrong = (*wrong, *violations(facts, wanted))
        cells = (title, self.dtype, self.architecture, *measures(facts), *last, "; ".join(wrong) or "ok")
        return Row(cells, wrong)

    def failed(self, wrong: tuple[str, ...], title: str = "") -> Row:
        """A row without figures."""
        blank = [""] * (len(HEADINGS) - 4)
        return Row((title or self.name, self.dtype, self.architecture, *blank, "; ".join(wrong)), wrong)


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


def all_work(only: list[str], architectures: list[str], types: list[str]) -> list[Work]:
    """Every case by type by architecture, then the kernels of their own."""

    def named(name: str) -> bool:
        return not only or any(name.startswith(o) for o in only)

    found = [
        Work(c.name, dtype, architecture)
        for architecture in architectures
        for c in CASES
        if named(c.name)
        for dtype in types
        if dtype in c.dtypes
    ]
    return found + [
        Work(k.name, dtype, architecture, True)
        for architecture in architectures
        for k in DIRECT
        if named(k.name) and (architecture == "sm_90" or "descriptors" not in k.name)
        for dtype in types
        if dtype in TYPES and dtype != "float32"
    ]


def done(work: list[Work], jobs: int) -> Iterator[list[Row]]:
    """The rows of each piece of work, in order; on several processes if so said."""
    if jobs == 1:
        yield from map(Work.rows, work)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(Work.rows, work)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", action="append", default=[], help="cases whose name begins so")
    options.add_argument("--architecture", action="append", default=[], choices=ARCHITECTURES)
    options.add_argument("--type", action="append", default=[], choices=ALL)
    options.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    chosen = options.parse_args()
    console = Console(width=160)
    work = all_work(chosen.only, chosen.architecture or [*ARCHITECTURES], chosen.type or [*ALL])
    table = Table(*HEADINGS, title="fused kernels, ahead of time")
    rows: list[Row] = []
    with Progress(console=console, transient=True) as progress:
        for found in progress.track(done(work, chosen.jobs), total=len(work), description="assembling"):
            for row in found:
                table.add_row(*row.cells, style="red" if row.wrong else "")
                if row.wrong:  # at once: the table comes when all is done
                    console.print(" ".join((*row.cells[:3], row.cells[-1])), style="red")
            rows += found
    console.print(table)
    bad = sum(bool(row.wrong) for row in rows)
    total = f"{len(rows)} kernels, {len(work)} programs by type and architecture"
    console.print(f"{total}: {f'{bad} are not as they must be' if bad else 'all as they must be'}")
    return 1 if bad or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
