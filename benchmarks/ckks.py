"""Encrypted einsums, end to end: planned, encrypted, evaluated by SEAL, decrypted, checked; with TenSEAL beside it.

    python benchmarks/ckks.py                      # all cases, TenSEAL's matmul, structure on and off
    python benchmarks/ckks.py --quick              # the cases that take a few seconds
    python benchmarks/ckks.py --only "Kronecker"   # cases whose name has these words
    python benchmarks/ckks.py --json FILE

One row for each case. "goal" is the count of the best known circuit, "EinHops" the rotations of that system. Times are
CPU seconds of one thread: SEAL runs on one, and the machine may be shared. A case fails where the result is off by more
than the wanted precision or than was predicted, or where what ran is not what was planned. Predictions more than three
bits above the worst of the runs are noted: keys differ by as much among themselves. Exits with 1 if a case fails.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from bench_environment import restart_clean
from ckks_cases import CASES, Case

PRECISION = 1e-5
MANY = 64  # elements of a result from which on its largest error says something of the others
RANGE = 1.0  # of the magnitudes of encrypted inputs
COUNTS = ("rotations", "plain_products", "cipher_products", "relinearisations", "levels", "uploads")


@dataclass
class Row:
    """What one case took. Errors are relative to the largest magnitude of the result."""

    name: str
    group: str
    planned: dict[str, int] = field(default_factory=dict)
    first_choice: bool = True  # the quickest plan; else one of its alternatives reaches the goal
    executed: dict[str, int] = field(default_factory=dict)
    planning: float = math.nan
    keys: float = math.nan
    encryption: float = math.nan
    encoding: float = math.nan  # of the clear tensors, once for all requests
    evaluation: float = math.nan  # of the circuit
    online: float = math.nan  # a request's whole way through the server
    predicted: float = math.nan  # time of the circuit, at the rates that were once measured on this machine
    at_rates_now: float = math.nan  # the same over the measured time, at rates measured around each run: their median
    error: float = math.nan
    predicted_error: float = math.nan
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def measure(case: Case, repeats: int, verbose: bool = False) -> Row:
    """Run one case and check all of it."""
    row = Row(case.name, case.group)
    try:
        _measure(case, row, repeats)
    except Exception as error:  # one case may fail in any way; the others still run
        row.problems.append(f"{type(error).__name__}: {str(error).splitlines()[0]}")
        if verbose:
            traceback.print_exc()
    return row


def compiled_case(case: Case, **options: Any) -> Any:
    """The program of a case, planned."""
    import stein

    declared: dict[str, Any] = {}
    if "encrypted" not in case.program:
        declared = {name: stein.encrypted(shape, range=RANGE) for name, shape in case.encrypted.items()} | case.clear
    return stein.compile(
        case.program, dtype="float64", target="ckks", precision=PRECISION, **declared, **case.options, **options
    )


def _measure(case: Case, row: Row, repeats: int) -> None:
    secret, clear = case.arrays()
    compiled, row.planning = timed(lambda: compiled_case(case))
    plans = compiled.choice.chosen.plans
    plan = next((p for p in plans if reaches(counts(p), case)), plans.best)
    row.planned, row.first_choice = counts(plan), plan is plans.best
    row.predicted = plan.work.milliseconds / 1e3
    wanted = case.reference(*secret.values(), *clear.values())
    times: dict[str, list[float]] = {name: [] for name in ("keys", "encryption", "encoding", "online", "evaluation")}
    ratios, errors = [], []
    before = predicted_now(plan)
    for _ in range(repeats):  # keys of their own each: errors depend on them
        (client, server), seconds = timed(lambda: compiled.keygen(plan=plan))
        times["keys"].append(seconds)
        request, seconds = timed(lambda client=client: client.encrypt(**secret))
        times["encryption"].append(seconds)
        _, seconds = timed(lambda server=server: server.bind(**clear))
        times["encoding"].append(seconds)
        server.run(request)  # loads the keys: once for all requests
        answer, seconds = timed(lambda server=server, request=request: server.run(request))
        times["online"].append(seconds)
        times["evaluation"].append(server.seconds["evaluate"])
        after = predicted_now(plan)
        ratios.append((before + after) / 2 / server.seconds["evaluate"])
        before = after
        errors.append(float(np.max(np.abs(client.decrypt(answer) - wanted))))
        row.executed = dict(server.executed)
    for name, seconds in times.items():
        setattr(row, name, min(seconds))
    row.at_rates_now = median(ratios)
    row.error, scale = max(errors), float(np.max(np.abs(wanted)))
    (row.predicted_error,) = server.predict().values()
    row.problems = check(row, scale)
    if wanted.size >= MANY and row.predicted_error > 8 * row.error:
        worst = f"{row.error:.1e}, the worst of {repeats} keys"
        row.notes.append(f"predicted error {row.predicted_error:.1e} is over 3 bits above {worst}")
    row.error /= scale
    row.predicted_error /= scale


def predicted_now(plan: Any) -> float:
    """Predicted seconds of a plan's circuit at the rates of this moment: a shared machine changes them from one second
    to the next, and what is compared here is the model, not the machine.
    """
    from stein.backends.ckks.calibration import measure as measure_rates
    from stein.backends.ckks.planning.cost import Prices, work

    prices = Prices(plan.parameters.ring, measure_rates())
    return work(plan.circuit, prices, plan.levels).milliseconds / 1e3


def counts(plan: Any) -> dict[str, int]:
    """The figures of a plan by the names of `stats`."""
    found = {name: getattr(plan.work, name) for name in COUNTS[:4]}
    found |= {"levels": plan.levels, "uploads": plan.uploads, "ring": plan.parameters.ring, "keys": plan.keys}
    return found | {"key_bytes": plan.key_bytes}


def reaches(planned: dict[str, int], case: Case) -> bool:
    """Whether no count exceeds the one to reach."""
    return all(planned[name] <= count for name, count in case.goal.items())


def check(row: Row, scale: float) -> list[str]:
    """What is not as it should be."""
    found = []
    if row.error > PRECISION * scale:
        found.append(f"relative error {row.error / scale:.1e} is more than {PRECISION:.0e}")
    if not row.error <= row.predicted_error:
        found.append(f"error {row.error:.1e} is more than predicted, {row.predicted_error:.1e}")
    for name, count in row.executed.items():
        if name in row.planned and row.planned[name] != count:
            found.append(f"{count} {name} ran, {row.planned[name]} were planned")
    return found


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call gives, and its CPU seconds."""
    started = time.process_time()
    value = call()
    return value, time.process_time() - started


def tenseal(n: int) -> dict[str, float]:
    """TenSEAL's own product of a plain n-by-n matrix with an encrypted vector: CPU seconds and relative error."""
    import tenseal as ts

    context = ts.context(ts.SCHEME_TYPE.CKKS, 8192, -1, [60, 40, 40, 60])
    context.global_scale = 2.0**40
    context.generate_galois_keys()
    rng = np.random.default_rng(0)
    W, x = rng.standard_normal((n, n)) / math.sqrt(n), rng.uniform(-1, 1, n)
    vector, matrix = ts.ckks_vector(context, x.tolist()), W.tolist()
    result, seconds = timed(lambda: vector.matmul(matrix))
    wanted = x @ W
    return {"seconds": seconds, "error": float(np.max(np.abs(result.decrypt() - wanted)) / np.max(np.abs(wanted)))}


def print_rows(rows: list[Row]) -> None:
    """The table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="reached / to reach; CPU seconds of one thread; errors relative to the largest result")
    for title in ("case", "rotations", "EinHops", "ct*pt", "ct*ct", "relin", "levels", "uploads", "ring", "keys MB"):
        table.add_column(title, justify="left" if title == "case" else "right")
    for title in ("plan s", "encode s", "online s", "circuit s", "predicted", "now", "error", "predicted"):
        table.add_column(title, justify="right")
    cases = {case.name: case for case in CASES}
    for row in rows:
        case = cases[row.name]
        reached = [_reached(row, case, name) for name in COUNTS]
        einhops = "" if case.einhops is None else str(case.einhops)
        missed = bool(row.planned) and not reaches(row.planned, case)
        name = row.name if row.first_choice else f"{row.name} *"
        table.add_row(
            name, reached[0], einhops, *reached[1:], str(row.planned.get("ring", "")),
            f"{row.planned.get('key_bytes', math.nan) / 1e6:.1f}", f"{row.planning:.2f}", f"{row.encoding:.3f}",
            f"{row.online:.4f}", f"{row.evaluation:.4f}", f"{row.predicted:.4f}",
            f"{row.at_rates_now:.2f}x", f"{row.error:.1e}", f"{row.predicted_error:.1e}",
            style="red" if row.problems else "yellow" if missed else "",
        )  # fmt: skip
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    if not all(row.first_choice for row in rows):
        print("* a plan that the planner offers beside a quicker one")
    for row in rows:
        for problem in (*row.problems, *row.notes):
            print(f"{row.name}: {problem}")
    done = [row for row in rows if row.predicted > 0 and row.evaluation > 0]
    print_agreement("at the rates of this machine's first calibration", [r.predicted / r.evaluation for r in done])
    print_agreement("at rates measured around each run", [row.at_rates_now for row in done])


def print_agreement(rates: str, ratios: list[float]) -> None:
    """How many predictions of time come near."""
    if ratios:
        near = [sum(1 - part <= r <= 1 + part for r in ratios) for part in (0.2, 0.3)]
        print(
            f"predicted / measured time {rates}: median {median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}; "
            f"{near[0]} of {len(ratios)} within 20 %, {near[1]} within 30 %"
        )


def _reached(row: Row, case: Case, name: str) -> str:
    count = str(row.planned.get(name, ""))
    return f"{count} / {case.goal[name]}" if name in case.goal else count


def print_tenseal(rows: list[Row], n: int = 1024) -> dict[str, float]:
    """TenSEAL's matmul beside the dense case of the same size, in the same run."""
    own = next((row for row in rows if row.name == f"dense {n}" and not row.problems), None)
    found = tenseal(n)
    print(f"TenSEAL {n} x {n} matmul: {found['seconds']:.2f} s, error {found['error']:.1e}")
    if own is not None:
        found |= {
            "online": found["seconds"] / own.online,
            "with encoding": found["seconds"] / (own.online + own.encoding),
        }
        print(f"  {found['online']:.0f} times the time here, {found['with encoding']:.0f} with encoding counted")
    return found


STRUCTURED = (
    "Kronecker 1024", "Monarch 1024", "low rank 8 of 1024", "block diagonal 1024", "banded 17 of 1024",
    "Kronecker 4096", "low rank 8 of 4096",
)  # fmt: skip


def structures(names: tuple[str, ...] = STRUCTURED) -> list[dict[str, Any]]:
    """Plans of programs that say nothing of their structure, with and without the compiler looking for it."""
    found = []
    for case in (c for c in CASES if c.name in names):
        row: dict[str, Any] = {"name": case.name}
        for key, structure in (("with", True), ("without", False)):
            compiled, seconds = timed(lambda case=case, structure=structure: compiled_case(case, structure=structure))
            plan = compiled.choice.chosen.best
            row[key] = {**counts(plan), "candidate": compiled.choice.chosen.name, "planning": seconds}
            row[key]["milliseconds"] = plan.work.milliseconds
        found.append(row)
    return found


def print_structures(rows: list[dict[str, Any]]) -> None:
    """The table of both."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="the same expression, with structure looked for and without")
    for title in ("case", "found", "rotations", "without", "ct*pt", "without", "levels", "without", "ms", "without"):
        table.add_column(title, justify="left" if title in ("case", "found") else "right")
    for row in rows:
        one, other = row["with"], row["without"]
        pairs = [str(each[name]) for name in ("rotations", "plain_products", "levels") for each in (one, other)]
        times = [f"{each['milliseconds']:.1f}" for each in (one, other)]
        table.add_row(row["name"], one["candidate"], *pairs, *times)
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def write(results: dict[str, Any], path: Path | None) -> None:
    """Keep what is known so far."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=1))


def main(arguments: list[str] | None = None) -> int:
    """Run, print, and say whether all is well."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the quick cases only, and no TenSEAL")
    parser.add_argument("--only", action="append", default=[], help="cases whose name has these words; repeatable")
    parser.add_argument("--group", action="append", choices=dict.fromkeys(c.group for c in CASES), help="repeatable")
    parser.add_argument(
        "--repeats", type=int, default=3, help="runs of each case, with new keys: least time, worst error"
    )
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    options = parser.parse_args(arguments)
    cases = [c for c in CASES if not options.quick or c.quick or c.group != "linear"]
    cases = [c for c in cases if not options.only or any(words in c.name for words in options.only)]
    cases = [c for c in cases if not options.group or c.group in options.group]
    results: dict[str, Any] = {"rows": [], "tenseal": {}, "structure": []}
    rows = []
    for number, case in enumerate(cases):
        print(f"\r\033[K{number + 1}/{len(cases)} {case.name}", end="", file=sys.stderr, flush=True)
        rows.append(measure(case, options.repeats, bool(options.only)))
        results["rows"].append(asdict(rows[-1]))
        write(results, options.json)
    print("\r\033[K", end="", file=sys.stderr)
    print_rows(rows)
    if not (options.quick or options.only or options.group):
        results["tenseal"] = print_tenseal(rows)
        results["structure"] = structures()
        print_structures(results["structure"])
        write(results, options.json)
    return 1 if any(row.problems for row in rows) else 0


if __name__ == "__main__":
    restart_clean()
    sys.exit(main())
