"""Launches every program of the tests against the stand-in of the driver, and prints a line for each.

    python -m stein.tests.gpu.driver.every [--variants] [name ...]

With `--variants`, the configurations that the tuner assembles are launched, too. It starts itself again in the
environment that the stand-in needs. The exit status says whether all went well.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from stein.tests.gpu.driver.stand_in import build, environment, missing

if TYPE_CHECKING:
    from stein.ir.expr import Program

INSIDE = "STEIN_STAND_IN"  # set in the process that has the stand-in
BATCHES = (1, 17)  # beside the full one


def programs(names: list[str]) -> Iterator[tuple[str, Program, bool]]:
    """The cases by name, type and batch, planned; whether they are to be fused."""
    import stein
    from stein.tests.gpu import cases, fused_cases
    from stein.tests.gpu.driver.record import planned

    for case in fused_cases.CASES:
        if names and case.name not in names:
            continue
        for dtype in case.dtypes:
            yield f"{case.name}, {dtype}", fused_cases.program_of(case, dtype, case.full), True
        batched = next((n for n in "xu" if n in case.full), None)
        for batch in BATCHES if batched else ():
            shapes = case.full | {batched: (batch, *case.full[batched][1:])}
            name = f"{case.name}, {case.dtypes[-1]}, batch of {batch}"
            yield name, fused_cases.program_of(case, case.dtypes[-1], shapes), True
    for general in cases.CASES:
        for dtype in general.dtypes if not names or general.name in names else ():
            declared = {n: stein.tensor(s, general.texts.get(n, dtype)) for n, s in general.shapes.items()}
            yield f"{general.name}, {dtype}", planned(general.text, dtype, **declared), False


def main(names: list[str], with_variants: bool) -> int:
    """Run them all in this process; the number of those that failed."""
    from triton.runtime.errors import OutOfResources, PTXASError

    from stein.backends.gpu.roofline import H200, rate
    from stein.backends.gpu.source import grid
    from stein.backends.gpu.steps import Launch
    from stein.backends.gpu.tune import Job, shortlist
    from stein.tests.gpu.driver.record import Recorder, bound_to, operands_of
    from stein.tests.gpu.fused_cases import goal_of

    recorder, failed = Recorder(), 0
    for name, program, fused in programs(names):
        began, wrong, forms, unfit = time.monotonic(), "", 0, 0
        try:
            operands = operands_of(program)
            bound = bound_to(program, operands, goal=goal_of("sm_90") if fused else None)
            run = recorder.run(bound, operands)
            steps = [s for s in bound.steps if isinstance(s, Launch) and s.chosen.programs]
            for (kernel, values, _), step in zip(run.given, steps, strict=True) if with_variants else ():
                kind = rate(H200, kernel.tensors[0].dtype, kernel.precision)
                job = Job(dict(step.chosen.numbers), step.bytes, step.flops, kind)
                for candidate in shortlist(kernel, job, H200)[1:]:
                    form = candidate.kernel
                    try:
                        recorder.launch(form, values, grid(form, values)[0])
                        forms += 1
                    except (OutOfResources, PTXASError):  # configurations that the tuner leaves out
                        recorder.given.pop()
                        unfit += 1
            recorder.compared([])
            found = f"{len(run.launched)} launches, {len(run.maps)} tensor maps"
            found += f"; {forms} other configurations, {unfit} unfit" if with_variants else ""
        except Exception as error:  # whatever it is, it is what this looks for
            wrong, found = f"{type(error).__name__}: {error}", "FAILED"
            failed += 1
            recorder.forget()
        print(f"{name}: {found} ({time.monotonic() - began:.1f} s) {wrong[:300]}", flush=True)
    return failed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", action="store_true", help="launch the configurations of the tuner")
    parser.add_argument("names", nargs="*", help="of cases (all)")
    asked = parser.parse_args()
    if missing():
        sys.exit(missing())
    if INSIDE in os.environ:
        sys.exit(main(asked.names, asked.variants) > 0)
    with tempfile.TemporaryDirectory(prefix="stein-driver-") as folder:
        build(Path(folder))
        again = [sys.executable, "-m", "stein.tests.gpu.driver.every", *sys.argv[1:]]
        sys.exit(subprocess.run(again, env=environment(Path(folder)) | {INSIDE: "1"}, check=False).returncode)
