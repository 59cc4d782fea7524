"""`make fuzz`: seeded random calls of stein, each checked, in worker processes that may crash.

Outside the compiler. The parent starts a worker (this file with `--worker`), reads one JSON line per scenario, and when
the worker dies or hangs it blames the scenario that was running, and starts another worker behind it. Scenario k of
seed s is the same on every machine: a failure is repeated by `--seed s --case k`.

    python tests/fuzz/run.py --seed 0 --calls 10000
    python tests/fuzz/run.py --only strides --calls 500
    python tests/fuzz/run.py --seed 0 --case 1234
    STEIN_FUZZ_TARGET=numpy:einsum python tests/fuzz/run.py --calls 1000        # the harness itself

Exits 0 if nothing was wrong, crashed, or hung.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
TIMEOUT = 120.0  # seconds for one scenario, compilation included


@dataclass
class Tally:
    """What happened in one class."""

    calls: int = 0
    wrong: int = 0
    crashes: int = 0
    ratio: float = 0.0
    seconds: float = 0.0


@dataclass
class Campaign:
    """The parent's state: tallies per class and the failures to print."""

    tallies: dict[str, Tally] = field(default_factory=dict)
    failures: list[dict[str, Any]] = field(default_factory=list)
    calls: int = 0
    position: int = 0

    def note(self, record: dict[str, Any]) -> None:
        """Add the record of one finished scenario."""
        tally = self.tallies.setdefault(record["name"], Tally())
        tally.calls += record["calls"]
        tally.wrong += len(record["failures"])
        tally.ratio = max(tally.ratio, record["ratio"])
        tally.seconds += record["seconds"]
        self.calls += record["calls"]
        self.position = record["case"] + 1
        self.failures += [{**f, "case": record["case"], "class": record["name"]} for f in record["failures"]]

    def crash(self, started: dict[str, Any], how: str) -> None:
        """Add a scenario in which the worker died."""
        tally = self.tallies.setdefault(started["name"], Tally())
        tally.crashes += 1
        tally.calls += started["calls"]
        self.calls += started["calls"]
        self.position = started["case"] + 1
        self.failures.append(
            {"case": started["case"], "class": started["name"], "message": how, "code": started["code"]}
        )


def worker_command(options: argparse.Namespace, start: int, calls: int) -> list[str]:
    """The command line of a worker that runs scenarios from `start` until `calls` calls are made."""
    command = [sys.executable, "-X", "faulthandler", str(HERE / "fuzz_worker.py"), "--seed", str(options.seed)]
    command += ["--start", str(start), "--calls", str(calls)]
    for name in options.only or ():
        command += ["--only", name]
    return command


def run_worker(options: argparse.Namespace, campaign: Campaign, calls: int) -> bool:
    """Run one worker to its end; False if it could not even start."""
    environment = dict(os.environ)
    parts = (str(REPOSITORY / ".typing"), str(HERE), environment.get("PYTHONPATH", ""))
    environment["PYTHONPATH"] = os.pathsep.join(p for p in parts if p)
    process = subprocess.Popen(
        worker_command(options, campaign.position, calls), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment,
    )  # fmt: skip
    lines: queue.Queue[str | None] = queue.Queue()
    errors: list[str] = []
    threading.Thread(target=_pump, args=(process.stdout, lines), daemon=True).start()
    threading.Thread(target=lambda: errors.extend(process.stderr or ()), daemon=True).start()
    started: dict[str, Any] | None = None
    while True:
        try:
            line = lines.get(timeout=TIMEOUT)
        except queue.Empty:
            process.kill()
            process.wait()
            if started is None:
                print("the worker hung before its first scenario")
                return False
            campaign.crash(started, f"no answer within {TIMEOUT:.0f} s")
            return True
        if line is None:
            break
        record = json.loads(line)
        if "ratio" in record:
            campaign.note(record)
            started = None
            _progress(campaign, options.calls)
        else:
            started = record
    status = process.wait()
    if status == 0:
        return True
    how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    tail = "".join(errors[-30:])
    if started is None:
        print(f"the worker ended with {how} outside any scenario:\n{tail}")
        return False
    campaign.crash(started, f"the process died: {how}\n{tail}")
    return True


def _pump(stream: Any, lines: queue.Queue[str | None]) -> None:
    for line in stream:
        if line.startswith("{"):
            lines.put(line)
    lines.put(None)


def _progress(campaign: Campaign, calls: int) -> None:
    if sys.stderr.isatty():
        wrong = len(campaign.failures)
        print(f"\r{campaign.calls}/{calls} calls, {wrong} failures", end="", file=sys.stderr, flush=True)


def print_table(campaign: Campaign) -> None:
    """Calls, wrong answers, crashes, the worst error in units of the bound, and seconds, per class."""
    print(f"{'class':<22}{'calls':>8}{'wrong':>8}{'crashes':>9}{'error/bound':>13}{'seconds':>9}")
    total = Tally()
    for name, tally in sorted(campaign.tallies.items()):
        _print_row(name, tally)
        total.calls += tally.calls
        total.wrong += tally.wrong
        total.crashes += tally.crashes
        total.ratio = max(total.ratio, tally.ratio)
        total.seconds += tally.seconds
    _print_row("total", total)


def _print_row(name: str, t: Tally) -> None:
    print(f"{name:<22}{t.calls:>8}{t.wrong:>8}{t.crashes:>9}{t.ratio:>13.3g}{t.seconds:>9.1f}")


def print_failures(campaign: Campaign, seed: int, limit: int) -> None:
    """The first `limit` failures, each with a snippet that runs from the root of the repository."""
    for failure in campaign.failures[:limit]:
        print(f"\n--- {failure['class']}, --seed {seed} --case {failure['case']}: {failure['message']}")
        print(failure["code"])
    if len(campaign.failures) > limit:
        print(f"\n... and {len(campaign.failures) - limit} more failures (--show N)")


def main(arguments: list[str] | None = None) -> int:
    """Run the campaign; 0 if all is well, 1 if something is wrong, 2 if no worker can run."""
    parser = argparse.ArgumentParser(description="seeded fuzz of stein.einsum and stein.compile")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--only", action="append", metavar="CLASS", help="only this class (may be given again)")
    parser.add_argument("--case", type=int, help="run one scenario only")
    parser.add_argument("--show", type=int, default=10, metavar="N", help="failures printed in full")
    options = parser.parse_args(arguments)

    campaign = Campaign()
    began = time.perf_counter()
    if options.case is not None:
        campaign.position, options.calls = options.case, 1
    while campaign.calls < options.calls:
        before = campaign.position
        if not run_worker(options, campaign, options.calls - campaign.calls):
            return 2
        if campaign.position == before:
            print("the worker made no call")
            return 2
    if sys.stderr.isatty():
        print(file=sys.stderr)
    print_table(campaign)
    print(f"seed {options.seed}, {time.perf_counter() - began:.0f} s")
    print_failures(campaign, options.seed, options.show)
    return 1 if campaign.failures else 0


if __name__ == "__main__":
    sys.exit(main())
