"""`make bench`: stein beside NumPy, opt_einsum, torch and JAX on the CPU, in one run.

Outside the compiler. Prints one row per expression: the time of each library, how many times stein is faster than the
best peer, its rate, and the share of the roofline that was measured at the start. Every row is checked once.

    python benchmarks/cpu.py                       # about six minutes
    python benchmarks/cpu.py --quick               # under one
    python benchmarks/cpu.py --only blas --only network --json benchmarks/results/cpu.json
    STEIN_BENCH_TARGET=numpy:einsum python benchmarks/cpu.py --quick    # the harness itself

The process restarts itself before NumPy is loaded, in the environment of `bench_environment`.
"""

from __future__ import annotations

import os
import sys

from bench_environment import THREADS, restart_clean

if __name__ == "__main__":
    restart_clean()

import argparse
import json
import math
import platform
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from bench_peers import Peer, Thunk, all_peers
from bench_rows import QUICK, ROWS, Array, Row
from bench_timing import Machine, Timing, probe, race, ratio


@dataclass
class Result:
    """What one row gave: the best variant of each library, or why there is none."""

    row: Row
    times: dict[str, Timing] = field(default_factory=dict)
    variants: dict[str, str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    @property
    def best_peer(self) -> str | None:
        """The fastest library other than stein."""
        peers = {n: t.median for n, t in self.times.items() if n != "stein"}
        return min(peers, key=lambda n: peers[n]) if peers else None

    @property
    def advantage(self) -> float | None:
        """How many times faster stein is than the best peer."""
        if "stein" not in self.times or self.best_peer is None:
            return None
        return ratio(self.times["stein"], self.times[self.best_peer])


def reference(row: Row, operands: list[Array]) -> tuple[Array, float]:
    """The right answer in double precision, and how far a result may be off.

    The bound is (K + operands + 2) * 1.5 * eps * sum|terms|, with K the terms that one element adds.
    """
    wide = [a.astype(np.float64) for a in operands]
    value = np.asarray(np.einsum(row.spec, *wide, optimize=True))
    magnitude = np.asarray(np.einsum(row.spec, *(np.abs(a) for a in wide), optimize=True))
    summed = math.prod(n for c, n in row.sizes.items() if c not in row.output)
    steps = min(summed, sum(row.sizes.values()) * 64) + len(operands) + 2
    eps = float(np.finfo(row.dtype).eps) + 1e-16
    return value, float(magnitude.max(initial=0.0)) * 1.5 * eps * steps


def measure(row: Row, peers: list[Peer], rounds: int, seconds: float) -> Result:
    """Check and time one row; variants of one library first race each other, the best one enters."""
    result = Result(row)
    operands = row.operands()
    value, bound = reference(row, operands)
    contestants: dict[str, Thunk] = {}
    for peer in peers:
        good: dict[str, Thunk] = {}
        try:
            for name, thunk in peer.variants(row, operands).items():
                answer = np.asarray(thunk())
                same = answer.shape == value.shape
                error = float(np.abs(answer - value).max(initial=0.0)) if same else math.inf
                if not error <= bound:
                    result.problems[peer.name] = f"{name}: wrong by {error:.3g}, bound {bound:.3g}"
                else:
                    good[name] = thunk
        except Exception as error:  # a library that cannot do a row is reported in its column
            result.problems[peer.name] = f"{type(error).__name__}: {error}"
        if good:
            first = race(good, 1, seconds / 2) if len(good) > 1 else {}
            choice = min(first, key=lambda n: first[n].median) if first else next(iter(good))
            contestants[peer.name], result.variants[peer.name] = good[choice], choice
    result.times = race(contestants, rounds, seconds)
    return result


def seconds_text(value: float) -> str:
    """A time with a unit: 3.2 us."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"


def rate_text(result: Result) -> str:
    """GF/s where an element is used often, GB/s where the row only moves data."""
    row, seconds = result.row, result.times["stein"].median
    if row.flops < 4 * row.bytes:
        return f"{row.bytes / seconds / 1e9:.3g} GB/s"
    return f"{row.flops / seconds / 1e9:.3g} GF/s"


def print_results(results: list[Result], names: list[str], machine: Machine) -> None:
    """The table, with rich if it is installed and as plain columns if not."""
    head = ["group", "row", *names, "best/stein", "rate", "flops", "bytes", "roofline"]
    lines = []
    for r in results:
        cells = [r.row.group, r.row.name]
        cells += [seconds_text(r.times[n].median) if n in r.times else "-" for n in names]
        advantage = r.advantage
        cells.append(f"{advantage:.2f}x" if advantage is not None else "-")
        if "stein" in r.times:
            share = machine.fraction(r.row.flops, r.row.bytes, r.times["stein"].median, r.row.dtype)
            cells += [rate_text(r), f"{r.row.flops:.3g}", f"{r.row.bytes:.3g}", f"{100 * share:.0f} %"]
        else:
            cells += ["-", f"{r.row.flops:.3g}", f"{r.row.bytes:.3g}", "-"]
        lines.append(cells)
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        for cells in (head, *lines):
            print("  ".join(c.rjust(11) for c in cells))
        return
    table = Table(title="time per call; best/stein is above 1 where stein is ahead")
    for k, title in enumerate(head):
        table.add_column(title, justify="left" if k < 2 else "right", no_wrap=k != 1)
    for r, cells in zip(results, lines, strict=True):
        advantage = r.advantage
        style = "" if advantage is None else "green" if advantage >= 1 else "yellow" if advantage >= 0.9 else "red"
        table.add_row(*cells, style=style)
    Console(width=None if sys.stdout.isatty() else 190).print(table)


def print_summary(results: list[Result]) -> None:
    """Geometric mean, worst row, rows ahead, and everything that went wrong."""
    ranked = [(r.advantage, r) for r in results if r.advantage is not None]
    if ranked:
        mean = math.exp(sum(math.log(a) for a, _ in ranked) / len(ranked))
        worst, row = min(((a, r.row) for a, r in ranked), key=lambda x: x[0])
        ahead = sum(a >= 1 for a, _ in ranked)
        print(f"geometric mean {mean:.2f}x, worst {worst:.2f}x ({row.group}: {row.name})")
        print(f"ahead in {ahead} of {len(ranked)} rows")
        for group in dict.fromkeys(r.row.group for _, r in ranked):
            values = [a for a, r in ranked if r.row.group == group]
            print(f"  {group:<11} {math.exp(sum(map(math.log, values)) / len(values)):.2f}x over {len(values)} rows")
    for r in results:
        for name, problem in r.problems.items():
            print(f"{r.row.group}: {r.row.name}: {name}: {problem}")


def print_header(peers: list[Peer], missing: dict[str, str], machine: Machine) -> None:
    """Machine, versions, threads, and the measured peaks."""
    print(f"{_cpu_name()}, {os.cpu_count()} cores, {THREADS} threads, Python {platform.python_version()}")
    for peer in peers:
        print(f"  {peer.name} {peer.version}")
    for name, reason in missing.items():
        print(f"  {name}: - ({reason})")
    copies = ", ".join(f"{rate / 1e9:.0f} at {size >> 10} KB" for size, rate in machine.copies)
    print(
        f"  peaks: {machine.flops32 / 1e9:.0f} GF/s f32, {machine.flops64 / 1e9:.0f} GF/s f64 (best product of 1024^2)"
    )
    print(f"  copies: {copies} (GB/s read and written)")


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def as_json(results: list[Result], peers: list[Peer], machine: Machine) -> dict[str, Any]:
    """Everything that was measured."""
    rows = [
        {
            "group": r.row.group, "name": r.row.name, "spec": r.row.spec, "sizes": r.row.sizes, "dtype": r.row.dtype,
            "flops": r.row.flops, "bytes": r.row.bytes, "seconds": {n: t.rounds for n, t in r.times.items()},
            "variants": r.variants, "advantage": r.advantage, "problems": r.problems,
        }
        for r in results
    ]  # fmt: skip
    return {
        "cpu": _cpu_name(), "threads": THREADS, "versions": {p.name: p.version for p in peers},
        "peaks": vars(machine), "rows": rows,
    }  # fmt: skip


def selected(options: argparse.Namespace) -> list[Row]:
    """The rows that were asked for."""
    rows = [r for r in ROWS if not options.only or r.group in options.only]
    return [r for r in rows if r.name in QUICK] if options.quick else rows


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; 1 if stein is missing or wrong on a row."""
    groups = list(dict.fromkeys(r.group for r in ROWS))
    parser = argparse.ArgumentParser(description="stein beside its peers on the CPU")
    parser.add_argument("--quick", action="store_true", help="fifteen rows, three rounds")
    parser.add_argument("--only", action="append", choices=groups, metavar="GROUP", help=f"one of {', '.join(groups)}")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")

    peers, missing = all_peers(THREADS)
    machine = probe(THREADS, [p.product for p in peers if p.product])
    print_header(peers, missing, machine)
    rounds, seconds = (3, 0.02) if options.quick else (9, 0.05)
    rows, results = selected(options), []
    began = time.perf_counter()
    for k, row in enumerate(rows):
        if sys.stderr.isatty():
            print(f"\r\033[K{k + 1}/{len(rows)} {row.group}: {row.name}", end="", file=sys.stderr, flush=True)
        results.append(measure(row, peers, rounds, seconds))
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    print_results(results, ["stein", "numpy", "opt_einsum", "torch", "jax"], machine)
    print_summary(results)
    print(f"{time.perf_counter() - began:.0f} s")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(as_json(results, peers, machine), indent=1))
    return 1 if any("stein" not in r.times for r in results) else 0


if __name__ == "__main__":
    sys.exit(main())
