"""`make bench`, second part: structured products beside the dense product and beside hand-written structured code.

Outside the compiler. N = 4096, batch 256, float32. Every row is checked against the dense product in float64; the
memory that stein needs is measured in a process of its own, which must never hold a matrix of N x N.

    python benchmarks/structures.py
    python benchmarks/structures.py --only toeplitz --json FILE
"""

from __future__ import annotations

import os
import sys

from bench_environment import THREADS, clean_environment, restart_clean

if __name__ == "__main__":
    restart_clean()

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from bench_structures import BATCH, STRUCTURES, Array, N, Operands, StructureRow, Thunk, dense_input
from bench_timing import Timing, race, ratio


def compiled(row: StructureRow, operands: Operands) -> Any:
    """stein's callable for a row."""
    import stein

    declared: dict[str, Any] = {n: a.shape for n, a in operands.items() if f"{n}:" not in row.program}
    declared |= {n: stein.constant(operands[n]) for n in row.constants}
    return stein.compile(
        row.program, dtype="float32", **{n: d for n, d in declared.items() if n not in ("I", "J", "h")}
    )


def dense_products(w: Array, x: Array) -> dict[str, Thunk]:
    """The dense product by each library that is there."""
    found: dict[str, Thunk] = {"numpy": lambda: x @ w.T}
    try:
        import torch

        tw, tx = torch.from_numpy(w), torch.from_numpy(x)
        found["torch"] = lambda: tx @ tw.T
    except ImportError:
        pass
    try:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        import jax
        import jax.numpy as jnp

        function, jw, jx = jax.jit(lambda a, b: jnp.matmul(b, a.T)), jnp.asarray(w), jnp.asarray(x)
        found["jax"] = lambda: function(jw, jx).block_until_ready()
    except ImportError:
        pass
    return found


def error_of(answer: Any, row: StructureRow, w: Array, x: Array) -> float:
    """The largest deviation of some rows from float64, in units of eps times the sum of absolute terms."""
    some = slice(0, BATCH, 37)
    y = np.asarray(answer, np.float64).reshape(BATCH, -1)[some]
    wide, rows = w.astype(np.float64).T, x[some].astype(np.float64)
    scale = np.abs(rows) @ np.abs(wide)
    return float((np.abs(y - rows @ wide) / np.maximum(scale, 1e-30)).max() / np.finfo(np.float32).eps)


def measure(row: StructureRow, rounds: int, seconds: float) -> dict[str, Any]:
    """One row: times of stein, of every peer and of every dense product, errors, what stein found and chose."""
    operands = row.operands()
    f = compiled(row, operands)
    x, w = dense_input(operands), np.ascontiguousarray(row.dense(operands))
    thunks: dict[str, Thunk] = {"stein": lambda: f(**operands)}
    thunks |= {name: make(operands) for name, make in row.peers.items()}
    problems = []
    errors = {name: error_of(thunk(), row, w, x) for name, thunk in thunks.items()}
    for name, error in errors.items():
        # a sum of N terms in any order, or a transform of 2N points, is off by less than N eps of the absolute sum
        if not error <= N:
            problems.append(f"{name}: off by {error:.3g} eps of the absolute sum")
    thunks |= {f"dense {name}": thunk for name, thunk in dense_products(w, x).items()}
    times = race(thunks, rounds, seconds)
    kinds = list(dict.fromkeys(finding.kind for finding in f.findings))
    return {
        "name": row.name, "goal": row.goal, "program": row.program, "flops": row.flops, "errors": errors,
        "findings": kinds, "stats": {k: v for k, v in f.stats.items() if isinstance(v, int | float | str)},
        "memory": memory_of(row), "problems": problems, "seconds": {n: t.rounds for n, t in times.items()},
    }  # fmt: skip


def memory_of(row: StructureRow) -> int:
    """Bytes by which the peak memory of a fresh process grows while stein compiles and runs a row."""
    command = [sys.executable, __file__, "--memory", row.name]
    done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def print_memory(row: StructureRow) -> None:
    """Compile a tiny program first, so that the compiler itself is not counted; then this row, twice."""
    import stein

    warm = stein.compile("y[i] = A[i,j] * x[j]", A=(2, 2), x=(2,), dtype="float32")
    warm(np.eye(2, dtype=np.float32), np.ones(2, np.float32))
    operands = row.operands()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = _peak()
    f = compiled(row, operands)
    f(**operands)
    f(**operands)
    print(_peak() - before)


def _peak() -> int:
    """Bytes of the largest resident set of this process so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


def print_table(results: list[dict[str, Any]]) -> None:
    """Times and ratios, each the median over rounds of one run."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"N = {N}, batch {BATCH}, float32, {THREADS} threads; ratios above 1: stein is ahead")
    for k, title in enumerate(
        ("structure", "found", "stein", "best dense", "dense/stein", "goal", "best peer", "peer/stein", "memory")
    ):
        table.add_column(title, justify="left" if k < 2 else "right")
    for r in results:
        times = {n: Timing(tuple(t)) for n, t in r["seconds"].items()}
        dense = min((n for n in times if n.startswith("dense")), key=lambda n: times[n].median)
        peer = min((n for n in times if n != "stein" and not n.startswith("dense")), key=lambda n: times[n].median)
        gain, ahead = ratio(times["stein"], times[dense]), ratio(times["stein"], times[peer])
        table.add_row(
            r["name"], ", ".join(r["findings"][:2]) or "-", f"{times['stein'].median * 1e3:.2f} ms",
            f"{times[dense].median * 1e3:.1f} ms ({dense[6:]})", f"{gain:.1f}x", f"{r['goal']:g}x",
            f"{times[peer].median * 1e3:.2f} ms ({peer})", f"{ahead:.2f}x", f"{r['memory'] / 2**20:.0f} MiB",
            style="green" if gain >= r["goal"] else "red",
        )  # fmt: skip
    Console(width=None if sys.stdout.isatty() else 170).print(table)
    print(f"a dense matrix alone takes {N * N * 4 >> 20} MiB")


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; 1 if an answer is wrong."""
    parser = argparse.ArgumentParser(description="structured products beside dense ones")
    parser.add_argument("--only", action="append", metavar="WORD", help="rows whose name holds this")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.memory:
        print_memory(next(r for r in STRUCTURES if r.name == options.memory))
        return 0
    rows = [r for r in STRUCTURES if not options.only or any(word in r.name for word in options.only)]
    results = []
    for k, row in enumerate(rows):
        print(f"{k + 1}/{len(rows)} {row.name}", file=sys.stderr, flush=True)
        results.append(measure(row, 9, 0.05))
    print_table(results)
    problems = [f"{r['name']}: {p}" for r in results for p in r["problems"]]
    print("\n".join(problems) or "every answer is right")
    if options.json:
        options.json.write_text(json.dumps({"threads": THREADS, "n": N, "batch": BATCH, "rows": results}, indent=1))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
