"""`python benchmarks/compile_times.py`: what the first call costs.

Outside the compiler. Four figures that no steady-state benchmark shows: `import stein` in a fresh process; the first
call of a new expression (small kernel, packed kernel, network); a known expression with new sizes; and the first call
in a fresh process when the code is already on disk. Every figure is the median over fresh processes with an empty or
a filled cache folder (`XDG_CACHE_HOME` and `STEIN_CACHE_DIR` point to a temporary one).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent

CASES: dict[str, tuple[str, list[tuple[int, ...]], list[tuple[int, ...]]]] = {
    "8^3, direct": ("ij,jk->ik", [(8, 8), (8, 8)], [(9, 7), (7, 11)]),
    "64^3, direct": ("ij,jk->ik", [(64, 64), (64, 64)], [(65, 63), (63, 60)]),
    "512^3, packed": ("ij,jk->ik", [(512, 512), (512, 512)], [(500, 300), (300, 400)]),
    "1024^3 NT, packed": ("ij,kj->ik", [(1024, 1024), (1024, 1024)], [(1000, 900), (800, 900)]),
    "row sums": ("ij->i", [(100, 100)], [(37, 90)]),
    "transpose": ("ij->ji", [(100, 100)], [(37, 90)]),
    "4-axis contraction": ("aibj,jcid->abcd", [(8, 8, 8, 8), (8, 8, 8, 8)], [(7, 5, 6, 9), (9, 4, 5, 3)]),
    "MTTKRP": ("ijk,jr,kr->ir", [(16, 16, 16), (16, 8), (16, 8)], [(15, 14, 13), (14, 9), (13, 9)]),
    "chain of 4": ("ij,jk,kl,lm->im", [(16, 16)] * 4, [(15, 14), (14, 13), (13, 12), (12, 11)]),
}

# Runs in a fresh process; prints one JSON object. `spec`, `shapes` and `others` come as JSON in argv[2].
PROBE = """
import json, sys, time
module, attribute = sys.argv[1].split(":")
spec, shapes, others = json.loads(sys.argv[2])
import numpy as np
began = time.perf_counter()
target = getattr(__import__(module), attribute)
times = {"import": time.perf_counter() - began}
rng = np.random.default_rng(0)
def call(shapes):
    operands = [rng.standard_normal(s).astype("float32") for s in shapes]
    began = time.perf_counter()
    target(spec, *operands)
    return time.perf_counter() - began
warm = np.ones(3, "float32")
target("z,z->", warm, warm)
times["first"] = call(shapes)
times["second"] = min(call(shapes) for _ in range(5))
times["new sizes"] = call(others)
times["new sizes, second"] = min(call(others) for _ in range(5))
print(json.dumps(times))
"""


def environment(cache: Path) -> dict[str, str]:
    """A clean environment whose caches lie in `cache`."""
    kept = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
    path = os.pathsep.join(p for p in (str(REPOSITORY / ".typing"), kept.get("PYTHONPATH", "")) if p)
    return kept | {"PYTHONPATH": path, "XDG_CACHE_HOME": str(cache), "STEIN_CACHE_DIR": str(cache / "stein")}


def probe(target: str, case: str, cache: Path) -> dict[str, float]:
    """One fresh process for one case; raises `RuntimeError` with its output if it fails."""
    command = [sys.executable, "-c", PROBE, target, json.dumps(CASES[case])]
    done = subprocess.run(command, env=environment(cache), capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError(f"{case}: {done.stderr.strip().splitlines()[-1]}")
    times: dict[str, float] = json.loads(done.stdout)
    return times


def medians(samples: list[dict[str, float]]) -> dict[str, float]:
    """The median of each figure."""
    return {key: statistics.median(s[key] for s in samples) for key in samples[0]}


def import_time(target: str, cache: Path, repeat: int) -> tuple[float, float]:
    """Seconds to import NumPy alone, and to import the target's module (with NumPy), both in fresh processes."""
    template = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
    found = []
    for module in ("numpy", target.split(":")[0]):
        command = [sys.executable, "-c", template.format(module)]
        runs = [
            float(subprocess.run(command, env=environment(cache), capture_output=True, text=True, check=True).stdout)
            for _ in range(repeat)
        ]
        found.append(statistics.median(runs))
    return found[0], found[1]


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; 1 if a case fails."""
    parser = argparse.ArgumentParser(description="latency of first calls")
    parser.add_argument("--repeat", type=int, default=3, help="fresh processes per figure")
    parser.add_argument("--only", action="append", choices=list(CASES))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    target = os.environ.get("STEIN_BENCH_TARGET", "stein:einsum")
    results: dict[str, Any] = {}
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        numpy_alone, whole = import_time(target, Path(folder) / "import", options.repeat)
        results["import"] = {"numpy": numpy_alone, "target": whole}
        print(f"{target}: import {1e3 * whole:.0f} ms, of which NumPy {1e3 * numpy_alone:.0f} ms")
        print(f"{'milliseconds':<22}{'cold':>10}{'from disk':>11}{'again':>10}{'new sizes':>11}{'again':>10}")
        for case in options.only or CASES:
            try:
                cold = medians([probe(target, case, Path(folder) / f"{case}{k}") for k in range(options.repeat)])
                disk = medians([probe(target, case, Path(folder) / f"{case}{k}") for k in range(options.repeat)])
            except RuntimeError as error:
                print(error)
                failed = True
                continue
            results[case] = {"cold": cold, "disk": disk}
            figures = (cold["first"], disk["first"], cold["second"], cold["new sizes"], cold["new sizes, second"])
            widths = (10, 11, 10, 11, 10)
            print(f"{case:<22}" + "".join(f"{1e3 * f:>{w}.3f}" for f, w in zip(figures, widths, strict=True)))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(results, indent=1))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
