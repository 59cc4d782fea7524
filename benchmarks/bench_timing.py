"""Timing for the benchmarks: interleaved rounds, medians, and the peaks of the machine.

Outside the compiler. Libraries are timed in turn within each round, so that a slow second of the machine hits all of
them; a ratio is the median of the ratios of the rounds, not the ratio of two best times.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from bench_rows import Array

Thunk = Callable[[], Any]

# Seconds between contestants: more than idle worker threads of other libraries spin (see `bench_environment`), as on
# two cores they would take time from the next library.
PAUSE = 0.03


@dataclass(frozen=True)
class Timing:
    """Seconds per call of one contestant: one entry per round."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median round."""
        return statistics.median(self.rounds)


def repetitions(thunk: Thunk, target: float) -> int:
    """How many calls take about `target` seconds (after warming up)."""
    thunk()
    time.sleep(PAUSE)
    thunk()
    began = time.perf_counter()
    thunk()
    once = time.perf_counter() - began
    count = max(1, int(target / max(once, 1e-7)))
    if count > 50:  # a very short call: measure it again, many at once
        began = time.perf_counter()
        for _ in range(50):
            thunk()
        once = (time.perf_counter() - began) / 50
        count = max(1, int(target / max(once, 1e-9)))
    return min(count, 200_000)


def race(thunks: dict[str, Thunk], rounds: int, seconds: float) -> dict[str, Timing]:
    """Time all contestants in `rounds` interleaved rounds of about `seconds` each per contestant."""
    counts = {name: repetitions(thunk, seconds) for name, thunk in thunks.items()}
    times: dict[str, list[float]] = {name: [] for name in thunks}
    for _ in range(rounds):
        for name, thunk in thunks.items():
            count = counts[name]
            loop = range(count)
            time.sleep(PAUSE)
            thunk()  # not timed: wakes this library's threads, brings its data into cache
            began = time.perf_counter()
            for _ in loop:
                thunk()
            times[name].append((time.perf_counter() - began) / count)
    return {name: Timing(tuple(values)) for name, values in times.items()}


def ratio(left: Timing, right: Timing) -> float:
    """How many times faster `left` is than `right`: the median over rounds of right / left."""
    return statistics.median(r / x for x, r in zip(left.rounds, right.rounds, strict=True))


@dataclass(frozen=True)
class Machine:
    """The roofline, measured: operations per second, and (size, bytes per second) of copies of growing size."""

    flops32: float
    flops64: float
    copies: tuple[tuple[int, float], ...]

    def fraction(self, flops: int, bytes_: int, seconds: float, dtype: str) -> float:
        """The share of the roofline that a call of `seconds` reaches.

        Data is held against a copy of its own size or the next larger one that was measured; a kernel that mostly reads
        may pass 100 %, since a copy writes as much as it reads.
        """
        peak = self.flops64 if dtype == "float64" else self.flops32
        bandwidth = next((rate for size, rate in self.copies if bytes_ <= 2 * size), self.copies[-1][1])
        return max(flops / peak, bytes_ / bandwidth) / seconds


COPY_SIZES = (1 << 16, 1 << 19, 1 << 22, 1 << 26)


def probe(threads: int, matmuls: list[Callable[[Array, Array], Thunk]]) -> Machine:
    """Measure the peaks: the best product of two 1024 x 1024 matrices, and copies within cache and memory."""
    copies = tuple((size, _copy_peak(threads, size)) for size in COPY_SIZES)
    return Machine(_matmul_peak("float32", matmuls), _matmul_peak("float64", matmuls), copies)


def _matmul_peak(dtype: str, matmuls: list[Callable[[Array, Array], Thunk]]) -> float:
    n = 1024
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((n, n)).astype(dtype), rng.standard_normal((n, n)).astype(dtype)
    return 2 * n**3 / min(_best(make(a, b), 8) for make in matmuls)


def _copy_peak(threads: int, size: int) -> float:
    """Bytes read and written per second by the fastest copy: by one thread, or split where that is faster."""
    source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    repeat = max(1, (1 << 24) // size)

    def copies() -> None:
        for _ in range(repeat):
            np.copyto(target, source)

    best = _best(copies, 4) / repeat
    if size >= 1 << 22:
        bounds = [size * k // threads for k in range(threads + 1)]
        parts = [slice(lo, hi) for lo, hi in pairwise(bounds)]
        with ThreadPoolExecutor(threads) as pool:
            best = min(best, _best(lambda: list(pool.map(lambda p: np.copyto(target[p], source[p]), parts)), 8))
    return 2 * size / best


def _best(thunk: Thunk, times: int) -> float:
    thunk()
    best = float("inf")
    for _ in range(times):
        began = time.perf_counter()
        thunk()
        best = min(best, time.perf_counter() - began)
    return best
