"""`make structures`: the long random tests of the recogniser, with progress.

    python tests/structures/run.py --networks 20000 --variants 10000

Part 1 judges every finding in random networks by the numbers. Part 2 makes random variants (names, order, storage,
nesting) of the programs of each structure, and compares labels, and findings for one in four. Item k of a seed is the
same on every machine: `--networks-from 5000` goes on where an earlier run ended, `--only monarch` takes one structure.
One line for each part at the end; exits 0 if nothing was false and nothing changed.
"""

from __future__ import annotations

import argparse
import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from stein.tests.structures import judge, randoms, variants

SHOWN = 5  # false findings that are printed in full


def _progress(console: Console) -> Progress:
    columns = TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn()
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)


def run_networks(options: argparse.Namespace, progress: Progress) -> judge.Tally:
    """Part 1."""
    task = progress.add_task("networks", total=options.networks)
    tally = judge.Tally()
    for k in range(options.networks_from, options.networks_from + options.networks):
        before = len(tally.wrong)
        try:
            judge.judge_network(randoms.numbered_network(options.seed, k), tally)
        except KeyboardInterrupt:
            progress.console.print(f"stopped: go on with --networks-from {k}")
            options.variants = 0
            break
        for text in tally.wrong[before:][: SHOWN - before]:
            progress.console.print(f"network {k}: {text}", markup=False, highlight=False)
        progress.advance(task)
    return tally


def run_variants(options: argparse.Namespace, progress: Progress) -> tuple[int, int, int]:
    """Part 2: how many structures, variants, and variants that changed."""
    todo = {n: s for n, s in variants.structures().items() if options.only in ("", n)}
    task = progress.add_task("variants", total=options.variants * len(todo))
    done = bad = 0
    for structure, subjects in sorted(todo.items()):
        progress.update(task, description=structure)
        for k in range(options.variants_from, options.variants_from + options.variants):
            subject = subjects[k % len(subjects)]
            try:
                different = variants.changed(subject, options.seed, k)
            except KeyboardInterrupt:
                progress.console.print(f"stopped: go on with --networks 0 --only {structure} --variants-from {k}")
                return len(todo), done, bad
            done += 1
            if different:
                bad += 1
                if bad <= SHOWN:
                    progress.console.print(f"{structure}: variant {k} ({subject.name}) changed", highlight=False)
            progress.advance(task)
    progress.update(task, description="variants")
    return len(todo), done, bad


def main(arguments: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="random networks and variants, at length")
    parser.add_argument("--networks", type=int, default=20_000)
    parser.add_argument("--networks-from", type=int, default=0)
    parser.add_argument("--variants", type=int, default=10_000, help="for each structure")
    parser.add_argument("--variants-from", type=int, default=0)
    parser.add_argument("--only", default="", help="one structure")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    console, start = Console(), time.monotonic()
    with _progress(console) as progress:
        tally = run_networks(options, progress)
        middle = time.monotonic()
        count, done, bad = run_variants(options, progress)
    end = time.monotonic()
    kinds = ", ".join(f"{k} {n}" for k, n in tally.found.most_common())
    judged = f"{sum(tally.found.values())} findings ({sum(tally.judged.values())} by the numbers of their kind too)"
    last = options.networks_from + tally.networks
    console.print(
        f"networks {options.networks_from}..{last} of seed {options.seed}: {judged}, {len(tally.wrong)} false, "
        f"{middle - start:.0f} s; {kinds}", highlight=False,
    )  # fmt: skip
    console.print(
        f"variants {options.variants_from}..{options.variants_from + options.variants} of seed {options.seed}: "
        f"{done} of {count} structures, {bad} with another label or other findings, {end - middle:.0f} s",
        highlight=False,
    )
    return 1 if tally.wrong or bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
