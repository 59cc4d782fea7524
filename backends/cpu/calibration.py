"""What this machine achieves: the constants of the CPU's prices, measured once and kept.

`Rates` holds a handful of numbers: how fast the families of kernels take the scheduler's vector steps, how fast bytes
come through each cache level, what a launch costs. `rates()` gives those of this machine: from the cache folder, else
measured now (well under a second), else the defaults, which say of themselves that nothing was measured.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from ...ir.loops import Axis, Contraction, Load
from ...ir.types import C64, C128, F32, F64, DType
from ..kept import replace_file
from .choose import Choice
from .launch import Call
from .machine import Machine, host
from .objects import default_store
from .problem import problem_of
from .rearrange import parts_of

FORMAT = 2  # of the file; another number means measuring again
PATIENCE = 3_000_000  # nanoseconds that are spent on each figure
ODD = 8.0  # times the built-in figure from which on a measurement is not believed
LEVELS = ("level1", "level2", "level3", "memory")
FAMILIES = {
    "direct f32": (F32, "direct", 160),
    "direct f64": (F64, "direct", 128),
    "direct c64": (C64, "direct", 96),
    "direct c128": (C128, "direct", 64),
    "packed f32": (F32, "packed", 384),
}


@dataclass(frozen=True)
class Rates:
    """The constants of a machine. `steps` are nanoseconds for one priced vector step by family and element type,
    `bandwidth` bytes per nanosecond of one thread that works out of a cache level (`LEVELS`), `together` those of all
    threads out of memory, `launch` nanoseconds of a kernel call, `region` those of sharing one among threads, `fresh`
    bytes per nanosecond of memory touched for the first time. `level3` is the size of the last cache. `measured` says
    whether this is a measurement.
    """

    steps: Mapping[str, float] = field(default_factory=lambda: {f: 0.5 if " c" in f else 0.15 for f in FAMILIES})
    bandwidth: Mapping[str, float] = field(
        default_factory=lambda: dict(zip(LEVELS, (150.0, 80.0, 40.0, 15.0), strict=True))
    )
    together: float = 25.0
    launch: float = 60.0
    region: float = 1500.0
    fresh: float = 3.0
    level3: int = 16 << 20
    measured: bool = False

    def step(self, family: str, dtype: DType) -> float:
        """Nanoseconds of one vector step; types that were not measured count as the one of their width.

        What packing adds is known of f32, and taken to be the same share for all types.
        """
        wide = dtype.bits > (64 if dtype.kind == "c" else 32)
        name = {"c": ("c64", "c128")}.get(dtype.kind, ("f32", "f64"))[wide]
        ratio = self.steps["packed f32"] / self.steps["direct f32"] if family == "packed" else 1.0
        return self.steps[f"direct {name}"] * ratio


DEFAULTS = Rates()


class _Kept:
    """The rates of this process, once they are known."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.rates: Rates | None = None

    def get(self) -> Rates:
        with self.lock:
            if self.rates is None:
                self.rates = _found()
            return self.rates


_KEPT = _Kept()


def rates() -> Rates:
    """The rates of this machine. `STEIN_CALIBRATION=off` stands for the built-in defaults."""
    return _KEPT.get()


def _found() -> Rates:
    if os.environ.get("STEIN_CALIBRATION", "").strip().lower() == "off":
        return DEFAULTS
    machine, store = host(), default_store()
    path = store.folder.parent / f"rates-{machine_key(machine)}.json" if store is not None else None
    known = load(path) if path is not None else None
    if known is None:
        known = measure(machine)
        if not plausible(known):
            return DEFAULTS
        if path is not None:
            save(path, known)
    return known


def plausible(found: Rates) -> bool:
    """Whether a measurement may be that of a processor at work: on an overloaded machine a figure can be off by 60
    times, and would then be kept.
    """
    pairs = [(found.steps[f], DEFAULTS.steps[f]) for f in FAMILIES]
    pairs += [(found.bandwidth[v], DEFAULTS.bandwidth[v]) for v in LEVELS]
    return all(usual / ODD <= figure <= usual * ODD for figure, usual in pairs)


def machine_key(machine: Machine) -> str:
    """A short text that tells processors apart."""
    parts = (machine.cpu, machine.features, machine.level1, machine.level2, last_cache())
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def load(path: Path) -> Rates | None:
    """The rates in a file; None if there is none, or what it holds is damaged or of another format."""
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        if given.pop("format") != FORMAT or set(given) != set(asdict(DEFAULTS)):
            return None
        numbers = [*given["steps"].values(), *given["bandwidth"].values(), given["together"], given["launch"]]
        numbers += [given["region"], given["fresh"], given["level3"]]
        whole = set(given["steps"]) == set(FAMILIES) and set(given["bandwidth"]) == set(LEVELS)
        if not whole or not all(isinstance(n, (int, float)) and 0 < n < float("inf") for n in numbers):
            return None
        known = Rates(**given)
        return known if plausible(known) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def save(path: Path, found: Rates) -> None:
    """Write the rates, whole or not at all. A folder that cannot be written means measuring again next time."""
    text = json.dumps({"format": FORMAT, **asdict(found)}, indent=1)
    with suppress(OSError):
        replace_file(path, text.encode())


def last_cache(default: int = 16 << 20) -> int:
    """Bytes of the last cache of the first core, as Linux tells; `default` where it does not."""
    try:
        text = Path("/sys/devices/system/cpu/cpu0/cache/index3/size").read_text(encoding="ascii").strip()
    except OSError:
        return default
    factor = {"K": 1 << 10, "M": 1 << 20}.get(text[-1:], 0)
    return int(text[:-1]) * factor if factor and text[:-1].isdigit() else default


# --- measuring --------------------------------------------------------------------------------------------------------


def measure(machine: Machine) -> Rates:
    """Run a few kernels, and take the best time of each: other processes can only slow one down."""
    steps = {name: _step_time(dtype, family, size, machine) for name, (dtype, family, size) in FAMILIES.items()}
    level3 = last_cache()
    sizes = (machine.level1 // 2, machine.level2 // 2, level3 // 4, min(3 * level3, 96 << 20))
    bandwidth = {level: _stream(size, machine) for level, size in zip(LEVELS, sizes, strict=True)}
    for below, above in zip(LEVELS[1:], LEVELS, strict=False):
        bandwidth[below] = min(bandwidth[below], bandwidth[above])
    return Rates(
        steps,
        bandwidth,
        max(_stream(sizes[-1], machine, shared=True), bandwidth["memory"]),
        _launch_time(machine),
        level3=level3,
        fresh=_fresh(),
        measured=True,
    )


def _product(dtype: DType, n: int) -> Contraction:
    size = dtype.itemsize
    row = n * size
    axes = (Axis(n, (row, row, 0)), Axis(n, (size, 0, size)), Axis(n, (0, size, row), True))
    return Contraction(axes, (dtype,) * 3, (Load(0), Load(1)), dtype)


def _step_time(dtype: DType, family: str, size: int, machine: Machine) -> float:
    """Nanoseconds of one vector step in a product of this size."""
    calls, choice = _calls(_product(dtype, size), machine, family)
    arrays = [np.ones((size, size), dtype.numpy) for _ in range(3)]
    return _best(calls, arrays) / choice.cycles


def _stream(nbytes: int, machine: Machine, shared: bool = False) -> float:
    """Bytes per nanosecond of y = x * x, where x and y together have this many bytes."""
    count = max(64, nbytes // 8)
    calls, _ = _calls(Contraction((Axis(count, (4, 4)),), (F32, F32), (Load(0), Load(0)), F32), machine, None)
    arrays = [np.ones(count, np.float32) for _ in range(2)]
    rounds = max(1, min(100, (1 << 21) // nbytes))
    return 8 * count * rounds / _best(calls * rounds, arrays, shared)


def _launch_time(machine: Machine) -> float:
    """Nanoseconds that one more call of a kernel that does nothing to speak of takes."""
    calls, _ = _calls(Contraction((Axis(8, (4, 4)),), (F32, F32), (Load(0),), F32), machine, None)
    arrays = [np.ones(8, np.float32) for _ in range(2)]
    few, many = (_best(calls * n, arrays) for n in (1, 101))
    return max(5.0, (many - few) / 100)


def _calls(contraction: Contraction, machine: Machine, family: str | None) -> tuple[list[Call], Choice]:
    from .schedule import launch, schedule

    problem = problem_of(contraction)
    assert problem is not None, "there is something to measure"
    parts, _ = parts_of(problem, machine, False, family)
    return list(launch(schedule(contraction, machine=machine, family=family), machine)), parts[-1].choice


def _best(calls: list[Call], arrays: list[np.ndarray[Any, Any]], shared: bool = False) -> float:
    """The least nanoseconds of these calls, run by the executor, on one thread unless they are to be shared.

    Buffer 0 is the output. The first run warms up; the others, three at least, go on for a few milliseconds.
    """
    from .native import execute
    from .native_record import Executable, Layout

    last = len(arrays) - 1

    def renumbered(c: Call) -> Call:
        pointers = tuple((w, (b - 1) % (last + 1), o) for w, b, o in c.pointers)
        return Call(c.address, c.args, pointers, c.scratch, c.count, c.work if shared else 0.0, keep=c.keep)

    layouts = [Layout.of(a) for a in arrays]
    executable = Executable(tuple(map(renumbered, calls)), tuple(layouts[1:]), (layouts[0],))
    clock = time.perf_counter_ns if shared else time.thread_time_ns  # what other processes take is not counted
    execute(executable, arrays[1:], arrays[:1])
    runs: list[int] = []
    spent = 0
    while len(runs) < 3 or spent < PATIENCE:
        began = clock()
        execute(executable, arrays[1:], arrays[:1])
        runs.append(clock() - began)
        spent += max(runs[-1], 1000)
    return max(1.0, float(min(runs)))


def _fresh(nbytes: int = 8 << 20) -> float:
    """Bytes per nanosecond of writing to memory that the process has not had before."""
    area = mmap.mmap(-1, nbytes)
    array = np.frombuffer(area, np.uint8)
    began = time.thread_time_ns()
    array[::4096] = 1
    return nbytes / max(1, time.thread_time_ns() - began)
