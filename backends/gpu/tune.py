"""Tuning: a few configurations of one kernel, of which the fastest is found once and kept.

Blocks, warps and stages change nothing of what a kernel computes. `prune` holds configurations to what the compiler
makes of them (no spills, shared memory within the limit) and orders them by an estimate of their time; at most eight
are left. `Tuner` measures those where a GPU is present, once for each kernel and device, and keeps the winner on disk.
Until then, and where there is no GPU, the first configuration runs: the plan's own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ...ir.errors import BackendError
from ..kept import replace_file
from .ahead import Facts, violations
from .nodes import Kernel, Load, Outer, walk
from .roofline import Device
from .source import source

MOST = 8  # configurations that are measured
FORMAT = 1  # of the file; another one is started where this differs
REGISTERS = 65_536  # of a processor
THREADS = 2_048  # that a processor holds

Timer = Callable[[Kernel], float]  # microseconds of one launch
Inspect = Callable[[Kernel], Facts]


@dataclass(frozen=True)
class Candidate:
    """A configuration with what the compiler made of it, and its estimated time in microseconds."""

    kernel: Kernel
    facts: Facts
    estimate: float


def variants(kernel: Kernel, processors: int = 132) -> tuple[Kernel, ...]:
    """The kernel as it is, then with other warps, other stages, and another number of persistent programs.

    >>> from ...ir.types import F32
    >>> from .nodes import Map, Tensor
    >>> x, y = (Tensor(n, ("i",), F32, (1,)) for n in "xy")
    >>> [(k.warps, k.stages) for k in variants(Kernel((x, y), (("i", 64),), Outer((("i", 64),), Map("y", "x"))))][:3]
    [(4, 3), (4, 2), (4, 4)]
    """
    found: list[Kernel] = []
    for warps in dict.fromkeys((kernel.warps, 4, 8)):
        for stages in dict.fromkeys((kernel.stages, 2, 3, 4)):
            found.append(replace(kernel, warps=warps, stages=stages))
    outer = kernel.nest
    if isinstance(outer, Outer) and isinstance(outer.body, Load):  # loads that persistent programs make once
        for programs in (2, 4, 6, 8):
            for stages in (2, 3, 4):
                found.append(replace(kernel, nest=replace(outer, share=programs * processors, stages=stages)))
    return tuple(dict.fromkeys(found))


def prune(
    candidates: Iterable[Kernel], inspect: Inspect, device: Device, moved: int, flops: int, kind_rate: float
) -> tuple[Candidate, ...]:
    """At most `MOST` configurations, the first one first, the others by their estimated time.

    Configurations that spill, need too much shared memory or cannot be assembled are left out. If the first one is
    among these, so it is here. `kind_rate` is the device's rate for the type of the products.
    """
    kept: list[Candidate] = []
    seen: set[tuple[object, ...]] = set()
    order = list(candidates)
    for kernel in order:
        try:
            facts = inspect(kernel)
        except BackendError:
            continue
        # Where the number of stages makes no difference to the code, one of them is enough.
        persistent = kernel.nest.share if isinstance(kernel.nest, Outer) else 0
        key = (facts, persistent)
        if violations(facts) or key in seen:
            continue
        seen.add(key)
        kept.append(Candidate(kernel, facts, estimate(facts, device, moved, flops, kind_rate)))
    first = [c for c in kept if order and c.kernel == order[0]]
    rest = sorted((c for c in kept if c not in first), key=lambda c: c.estimate)
    return tuple((first + rest)[:MOST])


def estimate(facts: Facts, device: Device, moved: int, flops: int, kind_rate: float) -> float:
    """Microseconds of one launch: the roofline, where enough of a processor is in use to keep its memory busy.

    A processor hides the latency of memory by other blocks; with fewer than two of them, half of the bandwidth is
    assumed. Matrix instructions of a warp group count twice those of a warp.
    """
    threads = 32 * facts.warps
    blocks = min(THREADS // threads, REGISTERS // max(1, facts.registers * threads))
    if facts.shared:
        blocks = min(blocks, facts.limit // facts.shared)
    memory = moved / device.bandwidth * (1.0 if blocks >= 2 else 2.0)
    slow = 2.0 if facts.count("HMMA") and not facts.count("HGMMA") and facts.architecture == "sm_90" else 1.0
    return 1e6 * max(memory, slow * flops / kind_rate) + 0.01 * facts.barriers


def key_of(kernel: Kernel, device: str) -> str:
    """The name under which the winner for a kernel on a device is kept: the text decides.

    >>> from ...ir.types import F32
    >>> from .nodes import Map, Tensor
    >>> x, y = (Tensor(n, ("i",), F32, (1,)) for n in "xy")
    >>> key_of(Kernel((x, y), (("i", 64),), Outer((("i", 64),), Map("y", "x"))), "H200")[:5]
    'H200-'
    """
    return f"{device}-{blake2b(source(kernel).encode(), digest_size=12).hexdigest()}"


@dataclass
class Winners:
    """What was found fastest, by kernel and device, in a JSON file. A file that cannot be read counts as empty."""

    path: Path
    known: dict[str, dict[str, int]] = field(default_factory=dict)

    @staticmethod
    def at(path: Path) -> Winners:
        """The winners in a file."""
        return Winners(path, _read(path))

    def find(self, key: str, kernel: Kernel) -> Kernel | None:
        """The configuration kept for a kernel."""
        found = self.known.get(key)
        if found is None:
            return None
        tuned = replace(kernel, warps=found["warps"], stages=found["stages"])
        if isinstance(tuned.nest, Outer) and found["share"]:
            tuned = replace(tuned, nest=replace(tuned.nest, share=found["share"], stages=found["loop_stages"]))
        return tuned

    def keep(self, key: str, kernel: Kernel) -> None:
        """Keep a configuration, beside what other processes kept meanwhile; the file is replaced in one step."""
        outer = next((n for n in walk(kernel.nest) if isinstance(n, Outer)), None)
        self.known = _read(self.path) | self.known
        self.known[key] = {
            "warps": kernel.warps,
            "stages": kernel.stages,
            "share": outer.share if outer is not None else 0,
            "loop_stages": outer.stages if outer is not None else 0,
        }
        text = json.dumps({"format": FORMAT, "winners": self.known}, indent=1, sort_keys=True)
        replace_file(self.path, text.encode())


FIELDS = {"warps", "stages", "share", "loop_stages"}


def _read(path: Path) -> dict[str, dict[str, int]]:
    """The winners of a file; none where it is not there, cut short, or of another format."""
    try:
        held: Any = json.loads(path.read_text(encoding="utf-8"))
        if held["format"] != FORMAT:
            return {}
        pairs = held["winners"].items()
        return {str(k): {n: int(v[n]) for n in FIELDS} for k, v in pairs}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


@dataclass
class Tuner:
    """Finds the fastest configuration of a kernel on one device, and remembers it.

    `timer` gives the microseconds of one launch, None where nothing can be timed. `shown` is told the number of the
    candidate, how many there are, and its time.
    """

    winners: Winners
    device: Device
    inspect: Inspect
    timer: Timer | None = None
    shown: Callable[[int, int, float], None] | None = None

    def best(self, kernel: Kernel, moved: int, flops: int, kind_rate: float) -> Kernel:
        """The configuration to run: the one kept, else the fastest of those that are left, else the kernel as it is.

        Where there is one configuration only, nothing is timed.
        """
        key = key_of(kernel, self.device.name)
        known = self.winners.find(key, kernel)
        if known is not None:
            return known
        if self.timer is None:
            return kernel
        every = variants(kernel, self.device.multiprocessors)
        left = prune(every, self.inspect, self.device, moved, flops, kind_rate)
        if not left:
            return kernel
        found = left[0].kernel if len(left) == 1 else self._fastest([c.kernel for c in left], self.timer)
        self.winners.keep(key, found)
        return found

    def _fastest(self, kernels: Sequence[Kernel], timer: Timer) -> Kernel:
        times = []
        for number, kernel in enumerate(kernels):
            times.append(timer(kernel))
            if self.shown is not None:
                self.shown(number + 1, len(kernels), times[-1])
        return kernels[times.index(min(times))]
