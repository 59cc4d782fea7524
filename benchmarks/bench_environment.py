"""The environment in which libraries are timed side by side; it is set before any of them is loaded.

Outside the compiler. Some environments export OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE, which halve NumPy's speed: both
are removed. Idle threads of OpenBLAS spin for some 130 ms here, and of OpenMP for longer than a pause, on the core that
the next library needs: the variables that bound this are set. So are those that keep freed memory in the process:
whether a result of 256 KB costs 60 page faults is otherwise a matter of what else was allocated before, for every
library alike.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

HANDICAPS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
THREADS = int(os.environ.get("STEIN_BENCH_THREADS", "2"))


def clean_environment() -> dict[str, str]:
    """The environment of this process, with every library free to use `THREADS` threads and all of the CPU."""
    environment = {k: v for k, v in os.environ.items() if k not in HANDICAPS}
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "STEIN_NUM_THREADS"):
        environment[name] = str(THREADS)
    environment |= {"OPENBLAS_THREAD_TIMEOUT": "22", "GOMP_SPINCOUNT": "100000"}  # 2^22 cycles; turns of a loop
    environment |= {"MALLOC_TRIM_THRESHOLD_": str(1 << 28), "MALLOC_MMAP_THRESHOLD_": str(1 << 28)}
    root = Path(__file__).resolve().parents[1]
    path = [str(root / ".typing"), environment.get("PYTHONPATH", "")]
    return environment | {"STEIN_BENCH_CLEAN": "1", "PYTHONPATH": os.pathsep.join(p for p in path if p)}


def restart_clean() -> None:
    """Run this script again in a clean environment, on as many processors as there are threads."""
    if os.environ.get("STEIN_BENCH_CLEAN") == "1":
        return
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *sys.argv], clean_environment())
