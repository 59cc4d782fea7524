"""Structured products on one GPU beside a copy, cuBLAS, torch.einsum and torch.compile, all in one run.

    python benchmarks/gpu.py check                    # results, streams, graphs, layouts, gradients, layers
    python benchmarks/gpu.py bench                    # medians, share of the floor, goals
    python benchmarks/gpu.py bench --only kronecker --json out.json --minutes 3

Outside the compiler. Both end within `--minutes`: the most important rows come first, and what was left out is told.
Both begin with a table of plans, which needs no GPU: where there is none, that is all. A row that fails says so in the
table, and the others go on. The exit status is 0 if everything was run, is right and reached its goals.

With TRITON_INTERPRET=1 everything runs on the CPU in Triton's interpreter, which shows that the script works and
nothing else: `TRITON_INTERPRET=1 python benchmarks/gpu.py bench --size 256 --batch 3 --dtype float16`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gpu_bench import bench_row, plan_of
from gpu_budget import Budget, OutOfTime
from gpu_check import Outcome, full_checks, sentence_of, small_checks
from gpu_layers import layer_checks
from gpu_machine import Machine, machine_here, untuned
from gpu_report import FAILED, MISSED, Result, line, read, show_bench, show_checks, show_seconds, write, wrong_of
from gpu_rows import ROWS, UNIT, Row, Scale
from rich.console import Console
from rich.markup import escape
from rich.table import Table

SMALL = 251  # the batch of a small check: no multiple of any block
LEAST = 3.0  # seconds without which no row is begun
Checks = Callable[[], Iterator[Outcome]]
LAYERS = "nn"  # the layers of stein.nn: the beginning of the names of their checks


def promises(console: Console, rows: Sequence[Row], dtype: str) -> int:
    """What can be said without a GPU, at full size: which kernels a row gets, and their bytes beside the floor's.

    The number of rows that do not get what they promise.
    """
    table = Table("row", "plan", "bytes / floor", title="plans")
    bad = 0
    for row in rows:
        try:
            plan = plan_of(row, Scale(dtype=dtype))
        except Exception as problem:
            bad += 1
            table.add_row(row.name, escape(sentence_of(problem)), "", style="red")
            continue
        plans = plan.bound.plans
        ratio = sum(p.moved_bytes for p in plans) / plan.bytes
        # Blocks of single precision fill the chip earlier: for these nothing is promised.
        wrong = dtype != "float32" and (tuple(p.structure for p in plans) != row.plans or ratio > row.traffic)
        bad += wrong
        shown = "\n".join(p.text() for p in plans) or plan.text
        shown += f"\nNOT {', '.join(row.plans) or 'so'}" if wrong else ""
        table.add_row(row.name, escape(shown), f"{ratio:.3f}" if plans else "", style="red" if wrong else "")
    console.print(table)
    return bad


class Run:
    """One run of `check` or `bench` on a machine: what it has found, and the file where that stands."""

    def __init__(self, console: Console, machine: Machine, options: argparse.Namespace, rows: Sequence[Row]) -> None:
        self.console, self.machine, self.options, self.rows = console, machine, options, rows
        self.scale = Scale(options.size, options.batch, options.dtype)
        self.path: Path | None = options.json
        self.facts = machine.facts()  # once: a GPU that answers no more tells nothing
        self.results: list[Result] = []
        self.outcomes: list[Outcome] = []
        self.left_out: list[str] = []
        earlier = 0.0
        if options.resume and self.path is not None and self.path.exists():
            results, outcomes, earlier = read(self.path)
            self.results, self.outcomes = results, outcomes
        self.budget = Budget(options.minutes, earlier)

    @property
    def header(self) -> dict[str, Any]:
        """What stands at the beginning of the file."""
        return {
            "what": self.options.what,
            "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "n": self.scale.n,
            "batch": self.scale.batch,
            "dtype": self.scale.dtype,
            "minutes": self.options.minutes,
            "seconds": self.budget.spent,
            "seconds_spent_on": self.budget.spent_on,
            "device": self.facts,
        }

    def save(self) -> None:
        """Write the file, if there is one."""
        if self.path is not None:
            write(self.path, self.header, self.results, self.outcomes, self.left_out)

    def go_on(self) -> None:
        """After some errors a GPU answers this process no more: the rest of the rows runs in a new one."""
        if self.machine.alive():
            return
        if self.path is None:
            self.path = Path(tempfile.mkdtemp(prefix="stein-gpu-")) / "results.json"
        self.save()
        self.console.print("[red]the GPU answers this process no more[/]: going on in a new one")
        arguments = [a for a in sys.argv if a != "--resume"]
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *arguments, "--resume", "--json", str(self.path)])

    def bench(self) -> int:
        """Time all rows; the number of those that failed, missed a goal or were left out."""
        known = {r.name for r in self.results}
        rows = [r for r in self.rows if r.name not in known]
        for number, row in enumerate(rows):
            if self.budget.left < LEAST:
                self.left_out = [r.name for r in rows[number:]]
                break
            found = bench_row(self.machine, row, self.scale, self.budget, len(rows) - number)
            self.results.append(found)
            self.console.print(line(found), highlight=False, markup=False)
            self.save()
            self.go_on()
        self.save()
        show_bench(self.console, self.results, self.header, self.left_out)
        show_seconds(self.console, self.budget.spent_on, self.budget.spent, self.options.minutes)
        return len(self.left_out) + sum(r.status in (FAILED, MISSED) for r in self.results)

    def check(self) -> int:
        """Check all rows and the layers; the number of checks that went wrong, and of rows that were left out."""
        known = {o.row.partition(".")[0] for o in self.outcomes}
        small = Scale(self.scale.n, min(self.scale.batch, SMALL), self.scale.dtype)
        jobs: list[tuple[str, list[Checks]]] = []
        for row in self.rows:
            full = partial(full_checks, self.machine, row, self.scale)
            jobs.append((row.name, [partial(small_checks, self.machine, row, small), full]))
        if not self.options.only or any(LAYERS.startswith(o) for o in self.options.only):
            size = Scale(min(self.scale.n, 1024), min(self.scale.batch, 64), "float32")
            jobs.append((LAYERS, [partial(layer_checks, self.machine, size)]))
        jobs = [j for j in jobs if j[0] not in known]
        with untuned():
            for number, (name, parts) in enumerate(jobs):
                if self.budget.left < LEAST:
                    self.left_out = [n for n, _ in jobs[number:]]
                    break
                found = self._checked(name, parts, self.budget.share(len(jobs) - number))
                self.outcomes += found
                wrong = wrong_of(found)
                told = "; ".join(wrong) or "right"
                self.console.print(f"{name}: {len(found)} checks, {told}", highlight=False, markup=False)
                self.save()
                self.go_on()
        self.save()
        show_checks(self.console, self.outcomes)
        if self.left_out:
            self.console.print(f"[red]left out, as the time was over:[/] {', '.join(self.left_out)}")
        show_seconds(self.console, self.budget.spent_on, self.budget.spent, self.options.minutes)
        return len(self.left_out) + sum(not o.right for o in self.outcomes)

    def _checked(self, name: str, parts: Sequence[Checks], seconds: float) -> list[Outcome]:
        """The outcomes of one row, as far as it came."""
        found: list[Outcome] = []
        try:
            with self.budget.limited(seconds), self.budget.phase("checking", {}):
                for part in parts:
                    for outcome in part():
                        found.append(outcome)
                    self.machine.tidy()
        except OutOfTime:
            found.append(Outcome(name, "time", sentence=f"it took longer than {seconds:.0f} s"))
        except Exception as problem:
            found.append(Outcome(name, "all", sentence=sentence_of(problem)))
        return found


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of the command."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("what", choices=("check", "bench"))
    options.add_argument("--only", action="append", default=[], help="rows whose name begins so")
    minutes = "for everything, an earlier part of the run included (default 9)"
    options.add_argument("--minutes", type=float, default=9, help=minutes)
    options.add_argument("--json", type=Path, help="write the results there, after each row")
    options.add_argument("--resume", action="store_true", help="go on with the rows that are not in that file")
    options.add_argument("--dtype", choices=sorted(UNIT), default="bfloat16")
    options.add_argument("--size", type=int, default=4096, help="the order of the matrices, a square (default 4096)")
    options.add_argument("--batch", type=int, default=16384)
    chosen = options.parse_args(arguments)
    if Scale(chosen.size).side ** 2 != chosen.size:
        options.error(f"--size is a square, {chosen.size} is none")
    return chosen


def main(arguments: Sequence[str], rows: Sequence[Row] = ROWS) -> int:
    """Run the command on these rows; the exit status."""
    options = parsed(arguments)
    names = [*(r.name for r in rows), *([LAYERS] if options.what == "check" else [])]
    unknown = [o for o in options.only if not any(name.startswith(o) for name in names)]
    if unknown:
        print(f"no row begins with {', '.join(unknown)}; there are {', '.join(names)}", file=sys.stderr)
        return 2
    rows = [r for r in rows if not options.only or any(r.name.startswith(o) for o in options.only)]
    console = Console(width=160)
    bad = promises(console, rows, options.dtype)
    machine = machine_here()
    if machine is None:
        console.print("there is no GPU here: nothing was run on one; `make gpu-check` assembles the kernels")
        return 1 if bad else 0
    run = Run(console, machine, options, rows)
    bad += run.bench() if options.what == "bench" else run.check()
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
