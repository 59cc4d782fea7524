"""What `gpu.py` finds, as tables and as a file that is rewritten after each row.

Outside the compiler. The file always holds whole rows: it is written beside, and put in place in one step.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from gpu_check import Outcome
from gpu_rows import Row
from rich.console import Console
from rich.markup import escape
from rich.table import Table

REACHED, MISSED, FAILED, MEASURED = "reached", "missed", "failed", "measured"
OURS, COPY, DENSE, COMPILED = "stein", "copy", "dense", "torch.compile"


@dataclass
class Times:
    """Microseconds of one contestant, a median a round: as it is called, and replayed from a CUDA graph."""

    called: list[float] = field(default_factory=list)
    replayed: list[float] = field(default_factory=list)

    @property
    def best(self) -> float:
        """The median round, of the faster way to start it: goals are about kernels, not about who starts them."""
        return min(median(ways) for ways in (self.called, self.replayed) if ways)

    @property
    def spread(self) -> float:
        """The distance of the slowest round from the fastest, as a share of the median."""
        rounds = min((w for w in (self.called, self.replayed) if w), key=median)
        return (max(rounds) - min(rounds)) / median(rounds)


@dataclass(frozen=True)
class Verdict:
    """One goal: the least (or for microseconds and the copy the most) that it may be, what was found, and whether."""

    what: str
    wanted: float
    found: float | None
    reached: bool

    @property
    def text(self) -> str:
        """What the table shows of a goal that was missed."""
        return f"{self.what} {self.wanted:g}: " + ("not measured" if self.found is None else f"{self.found:.3g}")


@dataclass
class Result:
    """One row of a run. `item` and `element` are errors as shares of what is allowed; `floor` is in microseconds."""

    name: str
    status: str = MEASURED
    sentence: str = ""
    item: float = 0.0
    element: float = 0.0
    floor: float = 0.0
    bound: str = ""
    bytes: int = 0
    flops: int = 0
    times: dict[str, Times] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    goals: list[Verdict] = field(default_factory=list)
    plans: list[str] = field(default_factory=list)
    configurations: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def failed(self, sentence: str) -> None:
        """This row has no result."""
        self.status, self.sentence = FAILED, sentence

    @staticmethod
    def of(stored: dict[str, Any]) -> Result:
        """A row that was read from a file."""
        times = {n: Times(**t) for n, t in stored["times"].items()}
        return Result(**stored | {"times": times, "goals": [Verdict(**v) for v in stored["goals"]]})


def judge(row: Row, result: Result, microseconds: bool) -> None:
    """Hold a result against the goals of its row, those in microseconds only where that is wanted."""
    ours = result.times[OURS].best

    def against(what: str, name: str, wanted: float | None, least: bool = True) -> None:
        if wanted is None:
            return
        other = result.times.get(name)
        if other is None or not (other.called or other.replayed):
            result.goals.append(Verdict(what, wanted, None, False))
            return
        found = other.best / ours if least else ours / other.best
        result.goals.append(Verdict(what, wanted, found, found >= wanted if least else found <= wanted))

    if row.microseconds is not None and microseconds:
        result.goals.append(Verdict("us <=", row.microseconds, ours, ours <= row.microseconds))
    against("x dense >=", DENSE, row.against_dense)
    against("of a copy <=", COPY, row.against_copy, least=False)
    for rival in row.rivals:
        against(f"x {rival.name} >=", rival.name, rival.goal)
    if result.goals:
        result.status = REACHED if all(v.reached for v in result.goals) else MISSED


def write(
    path: Path, header: dict[str, Any], results: Sequence[Result], outcomes: Sequence[Outcome], left_out: Sequence[str]
) -> None:
    """Put the file of results in place, whole."""
    found = {"rows": [asdict(r) for r in results], "checks": [asdict(o) for o in outcomes]}
    text = json.dumps(header | {"left_out": list(left_out)} | {n: f for n, f in found.items() if f}, indent=1)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text + "\n", encoding="utf-8")
    os.replace(beside, path)


def read(path: Path) -> tuple[list[Result], list[Outcome], float]:
    """The rows and the checks of a file of results, and the seconds that they took."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    outcomes = [Outcome(**o) for o in stored.get("checks", [])]
    return [Result.of(r) for r in stored.get("rows", [])], outcomes, float(stored["seconds"])


def line(result: Result) -> str:
    """One row while others still run."""
    if result.status == FAILED:
        return f"{result.name}: FAILED, {result.sentence}"
    took = sum(result.seconds.values())
    text = f"{result.name}: {result.times[OURS].best:.1f} us, floor {result.floor:.1f}"
    missed = "; ".join(v.text for v in result.goals if not v.reached)
    return f"{text}; {result.status}" + (f" ({missed})" if missed else "") + f" [{took:.0f} s]"


def show_bench(console: Console, results: Sequence[Result], header: dict[str, Any], left_out: Sequence[str]) -> None:
    """The table of a run, then what was not measured, and where the time went."""
    title = f"{header['device']['device']}, N {header['n']}, batch {header['batch']}, {header['dtype']}; microseconds"
    columns = ("row", "stein", "called", "+-", "of floor", "copy", "dense", "others", "x dense", "goals")
    table = Table(*columns, title=title)
    for r in results:
        if r.status == FAILED:
            table.add_row(r.name, "", "", "", "", "", "", "", "", f"FAILED: {escape(r.sentence)}", style="red")
            continue
        ours = r.times[OURS]
        rivals = [n for n in r.times if n not in (OURS, COPY, DENSE) and n not in r.problems]
        others = [f"{n} {r.times[n].best:.0f} ({r.times[n].best / ours.best:.2f}x)" for n in rivals]
        others += [escape(f"{n}: {sentence}") for n, sentence in r.problems.items()]
        beside = [f"{r.times[n].best:.0f}" if n in r.times else "" for n in (COPY, DENSE)]
        dense = f"{r.times[DENSE].best / ours.best:.2f}" if DENSE in r.times else ""
        goals = "\n".join(v.text for v in r.goals if not v.reached) or r.status
        style = "yellow" if r.status == MISSED else ""
        cells = [f"{ours.best:.1f}", f"{median(ours.called):.1f}", f"{ours.spread:.1%}", f"{r.floor / ours.best:.0%}"]
        table.add_row(r.name, *cells, *beside, "\n".join(others), dense, goals, style=style)
    console.print(table)
    console.print("times are the lesser of as called and as replayed from a CUDA graph; +-: of the rounds of stein")
    for r in results:
        for text in r.configurations:
            console.print(f"{r.name}: {text}", highlight=False, markup=False)
    if left_out:
        console.print(f"[red]left out, as the time was over:[/] {', '.join(left_out)}")


def show_checks(console: Console, outcomes: Iterable[Outcome]) -> None:
    """The table of checks: errors of the worst item and of the worst element, as shares of what is allowed."""
    rows: dict[str, list[Outcome]] = {}
    for o in outcomes:
        rows.setdefault(o.row, []).append(o)
    table = Table("row", "checks", "worst item", "worst element", "wrong", title="errors, as shares of what is allowed")
    for name, found in rows.items():
        wrong = "\n".join(wrong_of(found))
        item, element = (max(getattr(o, n) for o in found) for n in ("item", "element"))
        table.add_row(
            name, str(len(found)), f"{item:.2f}", f"{element:.2f}", escape(wrong), style="red" if wrong else ""
        )
    console.print(table)


def wrong_of(outcomes: Sequence[Outcome]) -> list[str]:
    """What went wrong, each sentence once, with the checks that it belongs to."""
    told: dict[str, list[str]] = {}
    for o in outcomes:
        if not o.right:
            told.setdefault(o.text, []).append(o.what)
    return [f"{', '.join(names)}: {text}" for text, names in told.items()]


def show_seconds(console: Console, spent_on: dict[str, float], spent: float, minutes: float) -> None:
    """Where the time of a run went."""
    parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in spent_on.items())
    console.print(f"{spent:.1f} s of {60 * minutes:.0f} s" + (f": {parts}" if parts else ""), highlight=False)
