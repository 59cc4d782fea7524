"""Tuning: a few configurations of one kernel, of which the fastest is found once and kept.

Warps, stages, persistent programs and descriptors change nothing of what a kernel computes (sums inside of a program
may be taken in another order). `prune` holds configurations to what the compiler makes of them (no spills, shared
memory within the limit) and orders them by an estimate of their time; at most eight are left. `Tuner` measures those
where it is given something that can, once for each kernel, range of sizes and device, and keeps the winner (`winners`).
Otherwise the plan's own configuration runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

from ...ir.errors import BackendError
from .ahead import Facts, violations
from .nodes import Kernel, Load, Loop, Outer, walk
from .roofline import Device
from .source import source
from .steps import Origin
from .winners import Winners

MOST = 8  # configurations that are measured
REGISTERS = 65_536  # of a processor
THREADS = 2_048  # that a processor holds

Timer = Callable[[Kernel], float]  # microseconds of one launch, infinity where it cannot be launched
Inspect = Callable[[Kernel], Facts]
Shown = Callable[[str, int, int], None]  # what is done, its number, and how many there are


@dataclass(frozen=True)
class Candidate:
    """A configuration with what the compiler made of it, and its estimated time in microseconds."""

    kernel: Kernel
    facts: Facts
    estimate: float


def variants(kernel: Kernel, processors: int = 132) -> tuple[Kernel, ...]:
    """The kernel as it is, then with other warps, other stages of its loops, another number of persistent programs, and
    with pointers in place of descriptors.

    >>> from ...ir.types import F32
    >>> from .nodes import Map, Tensor
    >>> x, y = (Tensor(n, ("i",), F32, (1,)) for n in "xy")
    >>> [(k.warps, k.stages) for k in variants(Kernel((x, y), (("i", 64),), Outer((("i", 64),), Map("y", "x"))))]
    [(4, 3), (8, 3)]
    """
    found: list[Kernel] = []
    outer = kernel.nest
    looped = any(isinstance(n, Loop) or (isinstance(n, Outer) and n.share and not n.stages) for n in walk(outer))
    for warps in dict.fromkeys((kernel.warps, 4, 8)):
        for stages in dict.fromkeys((kernel.stages, 2, 3, 4) if looped else (kernel.stages,)):
            found.append(replace(kernel, warps=warps, stages=stages))
    if isinstance(outer, Outer) and isinstance(outer.body, Load):  # loads that persistent programs make once
        for programs in (2, 4, 8):
            for stages in (2, 3, 4):
                found.append(replace(kernel, nest=replace(outer, share=programs * processors, stages=stages)))
    return tuple(dict.fromkeys(form for k in found for form in (k, with_pointers(k))))


def with_pointers(kernel: Kernel) -> Kernel:
    """The same kernel without descriptors."""
    return replace(kernel, tensors=tuple(replace(t, descriptor=False) for t in kernel.tensors))


def prune(
    candidates: Iterable[Kernel],
    inspect: Inspect,
    device: Device,
    moved: int,
    flops: int,
    kind_rate: float,
    shown: Shown | None = None,
) -> tuple[Candidate, ...]:
    """At most `MOST` configurations, the first one first, the others by their estimated time, of all kinds.

    Configurations that spill, need too much shared memory or cannot be assembled are left out. If the first one is
    among these, so it is here. `kind_rate` is the device's rate for the type of the products.
    """
    kept: list[Candidate] = []
    seen: set[tuple[object, ...]] = set()
    order = list(candidates)
    for number, kernel in enumerate(order):
        if shown is not None:
            shown("assembling", number + 1, len(order))
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
    return tuple((first + _spread([c for c in kept if c not in first]))[:MOST])


def _spread(candidates: Iterable[Candidate]) -> list[Candidate]:
    """By estimated time; among those that the estimate hardly tells apart, one of each kind comes before a second one.

    A kind is the number of warps and of persistent programs, and whether there are descriptors: these change more than
    the stages do.
    """
    seen = Counter[object]()
    ranked = []
    for candidate in candidates:
        kernel = candidate.kernel
        share = kernel.nest.share if isinstance(kernel.nest, Outer) else 0
        kind = kernel.warps, share, any(t.descriptor for t in kernel.tensors)
        ranked.append(((float(f"{candidate.estimate:.2g}"), seen[kind]), candidate))
        seen[kind] += 1
    return [candidate for _, candidate in sorted(ranked, key=lambda pair: pair[0])]


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


def key_of(kernel: Kernel, device: str, numbers: Mapping[str, int] | None = None) -> str:
    """The name under which the winner for a kernel on a device is kept: the text decides, and the number of binary
    digits of each size that is an argument.

    >>> from ...ir.types import F32
    >>> from .nodes import Map, Tensor
    >>> x, y = (Tensor(n, ("i",), F32, (1,)) for n in "xy")
    >>> kernel = Kernel((x, y), (("i", "n_i"),), Outer((("i", 64),), Map("y", "x")))
    >>> key_of(kernel, "H200", {"n_i": 1000})[:5]
    'H200-'
    >>> key_of(kernel, "H200", {"n_i": 1000}) == key_of(kernel, "H200", {"n_i": 600})
    True
    """
    sizes = sorted((n, v.bit_length()) for n, v in (numbers or {}).items())
    text = f"{source(kernel)}\n{kernel.warps} {kernel.stages} {kernel.fuse_multiply_add} {sizes}"
    return f"{device}-{blake2b(text.encode(), digest_size=12).hexdigest()}"


@dataclass
class Tuner:
    """Finds the fastest configuration of a kernel on one device, and remembers it.

    `name` is what winners are kept under: the device as its driver calls it, with the version of the compiler; `device`
    has its rates. `shown` is told what is done, its number, and how many there are.
    """

    winners: Winners
    device: Device
    name: str
    inspect: Inspect
    shown: Shown | None = None

    def kept(self, kernel: Kernel, numbers: Mapping[str, int]) -> tuple[Kernel, Origin] | None:
        """The configuration that was found earlier, None where there is none."""
        return self.winners.find(key_of(kernel, self.name, numbers), kernel)

    def best(
        self, kernel: Kernel, numbers: Mapping[str, int], moved: int, flops: int, kind_rate: float, timer: Timer
    ) -> tuple[Kernel, Origin]:
        """The configuration to run, and where it comes from: the one kept, else the fastest of those that are left.

        Where there is one configuration only, nothing is timed; where none can be launched, the kernel is as it was.
        """
        known = self.kept(kernel, numbers)
        if known is not None:
            return known
        every = variants(kernel, self.device.multiprocessors)
        left = prune(every, self.inspect, self.device, moved, flops, kind_rate, self.shown)
        if not left:
            return kernel, Origin()
        if len(left) == 1:
            found, origin = left[0].kernel, Origin("alone", 1)
        else:
            found, origin = self._fastest([c.kernel for c in left], timer)
        if origin.how != "model":
            self.winners.keep(key_of(kernel, self.name, numbers), found, origin)
        return found, origin

    def _fastest(self, kernels: Sequence[Kernel], timer: Timer) -> tuple[Kernel, Origin]:
        times = []
        for number, kernel in enumerate(kernels):
            if self.shown is not None:
                self.shown("timing", number + 1, len(kernels))
            times.append(timer(kernel))
        least = min(times)
        if least == float("inf"):
            return kernels[0], Origin()
        first = 0.0 if times[0] == float("inf") else times[0]
        return kernels[times.index(least)], Origin("timed", len(kernels), least, first)
