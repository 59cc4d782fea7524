"""Structured products on one GPU beside a copy, cuBLAS, torch.einsum and torch.compile, all in one run.

    python benchmarks/gpu.py check                    # results, and what plans promise; says so where there is no GPU
    python benchmarks/gpu.py bench                    # medians, share of the floor, goals; under ten minutes
    python benchmarks/gpu.py bench --only kronecker --json out.json

Outside the compiler. Every row is checked on a small batch before it is timed; a row that is wrong is not timed. Times
are medians over repeated launches with a cold second-level cache, as `triton.testing.do_bench` takes them.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpu_rows import BATCH, ROWS, N, Row, Thunk, operands
from rich.console import Console
from rich.table import Table

import stein
from stein.backends.gpu.kernels import Goal, fused
from stein.backends.gpu.roofline import Device, device_named, floor
from stein.backends.gpu.views import Layout
from stein.ir.expr import Program
from stein.passes.base import Context
from stein.passes.candidates import BEST, Draft, plan

SMALL = 256  # the batch of a check


@dataclass
class Result:
    """Microseconds of one row: ours, what users of PyTorch write, the same compiled, the dense product, a copy."""

    name: str
    error: float
    floor: float
    ours: float = 0.0
    rival: float = 0.0
    compiled: float = 0.0
    dense: float = 0.0
    copy: float = 0.0
    missed: tuple[str, ...] = ()
    configurations: tuple[str, ...] = ()


def planned(row: Row, batch: int) -> Program:
    """The program of a row, every contraction in the best order."""
    declared = {n: stein.tensor(s, "bfloat16") for n, s in row.shapes(batch).items()}
    program = stein.compile(row.text, dtype="bfloat16", target="reference", **declared).program
    return plan(Draft(BEST, program), Context(sizes={})).program


def promises(console: Console, rows: list[Row]) -> int:
    """What can be said without a GPU: kernels of each expression, and bytes beside the floor's."""
    table = Table("row", "plan", "bytes / floor", title="plans")
    bad = 0
    for row in rows:
        program = planned(row, BATCH)
        layouts = {i.name: Layout.dense(tuple(s.evaluate({}) for s in i.shape), i.dtype) for i in program.inputs}
        least = floor(program, {}).bytes
        plans = fused(program, {}, layouts, Goal())
        ratio = sum(p.moved_bytes for p in plans) / least
        wrong = bool(plans) and ratio > 1.05
        bad += wrong
        shown = "; ".join(p.text() for p in plans) or "torch.matmul, or kernels of their own"
        table.add_row(row.name, shown, f"{ratio:.3f}" if plans else "", style="red" if wrong else "")
    console.print(table)
    return bad


def checked(row: Row, torch: Any) -> float:
    """The error of a row on a small batch, relative to the norm of the result in double precision."""
    given = operands(row, torch, SMALL)
    run = stein.compile(row.text, dtype="bfloat16", target="cuda", **row.shapes(SMALL))
    first = run(**given)  # compiles, tunes
    found = captured(run, given, torch).double()
    if not torch.equal(found, first.double()):
        raise SystemExit(f"{row.name}: a captured call gives another result than a call")
    wide = {n: t.double().cpu().numpy() for n, t in given.items()}
    shapes = {n: a.shape for n, a in wide.items()}
    exact = stein.compile(row.text, dtype="float64", target="cpu", **shapes)(**wide)
    want = torch.as_tensor(exact, device=found.device)
    return float((found - want).norm() / want.norm())


def captured(run: Any, given: dict[str, Any], torch: Any) -> Any:
    """The result of a call that is captured in a CUDA graph, and replayed."""
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = run(**given)
    found.fill_(float("nan"))
    graph.replay()
    torch.cuda.synchronize()
    return found


def configurations(run: Any) -> tuple[str, ...]:
    """Where the configuration of each kernel comes from."""
    lines = (line for step in run.explain().steps for line in step.kernel.splitlines())
    return tuple(line.partition("; configuration ")[2] for line in lines if "; configuration " in line)


def measured(thunk: Thunk) -> float:
    """The median of one call in microseconds."""
    import triton.testing

    return float(1e3 * triton.testing.do_bench(thunk, warmup=50, rep=200, return_mode="median"))


def timed(row: Row, torch: Any, device: Device, error: float) -> Result:
    """One row at full size beside its rivals."""
    given = operands(row, torch, BATCH)
    run = stein.compile(row.text, dtype="bfloat16", target="cuda", **row.shapes(BATCH))
    result = Result(row.name, error, floor(planned(row, BATCH), {}, device).microseconds)
    run(**given)  # compiles, tunes
    result.configurations = configurations(run)
    result.ours = measured(lambda: run(**given))
    rival = row.rival(torch, given)
    result.rival = measured(rival)
    try:
        faster = torch.compile(rival)
        result.compiled = measured(faster)
    except Exception as problem:  # a missing C compiler, say: the other columns still count
        print(f"torch.compile of {row.name}: {type(problem).__name__}", file=sys.stderr)
    x = given.get("x", given.get("q"))
    target = torch.empty_like(x)
    result.copy = measured(lambda: target.copy_(x))
    if "x" in given:
        flat = x.reshape(BATCH, N)
        matrix = (torch.randn((N, N), device="cuda") / N**0.5).bfloat16()
        result.dense = measured(lambda: flat @ matrix.t())
    result.missed = tuple(goals_missed(row, result, device))
    return result


def goals_missed(row: Row, result: Result, device: Device) -> list[str]:
    """Which goals a row does not reach; microseconds count on an H200 only."""
    found = []
    if row.goal is not None and device.name == "H200" and result.ours > row.goal:
        found.append(f"{result.ours:.0f} > {row.goal:.0f} us")
    if row.against_dense is not None and result.dense and result.dense / result.ours < row.against_dense:
        found.append(f"{result.dense / result.ours:.2f} < {row.against_dense}x dense")
    if row.against_torch is not None and result.rival / result.ours < row.against_torch:
        found.append(f"{result.rival / result.ours:.2f} < {row.against_torch}x torch")
    return found


def show(console: Console, results: list[Result], device: Device) -> None:
    """The table of a run."""
    table = Table("row", "us", "of floor", "copy", "dense", "torch", "torch.compile", "x dense", "x torch", "goals",
                  title=f"{device.name}, N {N}, batch {BATCH}, bfloat16")  # fmt: skip
    for r in results:
        cells = [f"{v:.0f}" if v else "" for v in (r.copy, r.dense, r.rival, r.compiled)]
        ratios = [f"{v / r.ours:.2f}" if v else "" for v in (r.dense, r.rival)]
        goals = "; ".join(r.missed) or "reached"
        table.add_row(r.name, f"{r.ours:.1f}", f"{r.floor / r.ours:.0%}", *cells, *ratios, goals)
    console.print(table)
    for r in results:
        for text in r.configurations:
            console.print(f"{r.name}: {text}")


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("what", choices=("check", "bench"))
    options.add_argument("--only", action="append", default=[], help="rows whose name begins so")
    options.add_argument("--json", type=Path, help="write the results there")
    chosen = options.parse_args()
    rows = [r for r in ROWS if not chosen.only or any(r.name.startswith(o) for o in chosen.only)]
    console = Console(width=160)
    bad = promises(console, rows)
    import torch

    if not torch.cuda.is_available():
        console.print("there is no GPU here: nothing was run on one; `make gpu-check` assembles the kernels")
        return 1 if bad else 0
    device = device_named(torch.cuda.get_device_name())
    results = []
    for row in rows:
        error = checked(row, torch)
        console.print(f"{row.name}: error {error:.1e} of the norm" + ("" if error <= row.tolerance else ": WRONG"))
        bad += error > row.tolerance
        if chosen.what == "bench" and error <= row.tolerance:
            results.append(timed(row, torch, device, error))
    if results:
        show(console, results, device)
        bad += sum(bool(r.missed) for r in results)
    if chosen.json is not None:
        chosen.json.write_text(json.dumps([asdict(r) for r in results], indent=1) + "\n", encoding="utf-8")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
