"""Timing for the examples: contestants take turns within each round, so that a slow second of the machine hits all.

No part of the compiler, and not shipped. `benchmarks/` holds the careful version of the same idea.
"""

import statistics
import time
from collections.abc import Callable, Mapping

Thunk = Callable[[], object]

# Seconds between contestants: idle worker threads of OpenBLAS and OpenMP spin for a while before they sleep, and would
# take time from the next one.
PAUSE = 0.02


def race(contestants: Mapping[str, Thunk], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Seconds per call of each contestant, one entry per round of about `seconds` for each.

    >>> sorted(race({"a": int, "b": float}, rounds=3, seconds=1e-4))
    ['a', 'b']
    """
    counts = {name: _repetitions(thunk, seconds) for name, thunk in contestants.items()}
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, thunk in contestants.items():
            time.sleep(PAUSE)
            thunk()  # not timed: wakes this library's threads, brings its data into cache
            began = time.perf_counter()
            for _ in range(counts[name]):
                thunk()
            times[name].append((time.perf_counter() - began) / counts[name])
    return times


def ratios(times: Mapping[str, list[float]], base: str) -> dict[str, float]:
    """How many times faster `base` is than each other contestant: the median over rounds.

    >>> ratios({"stein": [1.0, 2.0, 1.0], "numpy": [3.0, 6.0, 4.0]}, "stein")
    {'numpy': 3.0}
    """
    found = {}
    for name, values in times.items():
        if name != base:
            found[name] = statistics.median(v / b for v, b in zip(values, times[base], strict=True))
    return found


def _repetitions(thunk: Thunk, seconds: float) -> int:
    thunk()
    began = time.perf_counter()
    thunk()
    once = max(time.perf_counter() - began, 1e-7)
    return max(1, min(int(seconds / once), 1000))
