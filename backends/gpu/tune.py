"""Tuning: a few configurations of one kernel, of which the fastest is found once and kept.

Of all that a kernel may be launched as (`configurations`: blocks, warps, stages, persistent programs, descriptors),
`shortlist` leaves those that a model of their time puts first, before anything is assembled; `prune` holds these to
what the compiler makes of them (no spills, shared memory within the limit) and estimates them again; at most eight are
left. `Tuner` measures those where it is given something that can, once for each kernel, range of sizes and device, and
keeps the winner (`winners`). Otherwise the plan's own configuration runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b

from ...ir.errors import BackendError
from .ahead import Facts, violations
from .configurations import variants
from .nodes import Kernel, Outer
from .predict import WARP, expected, microseconds, sums_a_thread
from .reblock import blocks_of, differing
from .roofline import Device
from .source import source
from .steps import Origin
from .winners import Winners
from .work import Work, work_of

MOST = 8  # configurations that are measured
ASSEMBLED = 16  # configurations that are assembled
HOPELESS = 2.0  # times the least estimate: what is slower is of no kind that has to be there
ALIKE = 0.04  # by which an estimate must be better for each configuration that is alike
SUMS = 128  # that a thread can hold in registers
EXACT = 2048  # multiply-adds of a thread in one step of an exact product, each an instruction of its own
SUMS_LESS = 64  # where more than 8 warps share the registers, or operands of ordinary multiply-adds take them too

Timer = Callable[[Kernel], float]  # microseconds of one launch, infinity where it cannot be launched
Inspect = Callable[[Kernel], Facts]
Shown = Callable[[str, int, int], None]  # what is done, its number, and how many there are


@dataclass(frozen=True)
class Job:
    """What a kernel has to do: the numbers that it is launched with, the bytes that go through device memory, its
    operations, and the rate of the device for these.
    """

    numbers: Mapping[str, int]
    moved: int
    flops: int
    rate: float


@dataclass(frozen=True)
class Candidate:
    """A configuration with what the compiler made of it, or is expected to, and its estimated time in microseconds."""

    kernel: Kernel
    work: Work
    facts: Facts
    estimate: float

    @cached_property
    def blocks(self) -> tuple[tuple[str, int], ...]:
        """The blocks of its axes."""
        return tuple(blocks_of(self.kernel).items())

    @property
    def share(self) -> int:
        """Its persistent programs, 0 where there are none."""
        return self.kernel.nest.share if isinstance(self.kernel.nest, Outer) else 0

    @property
    def bulk(self) -> bool:
        """Whether it has descriptors."""
        return any(t.descriptor for t in self.kernel.tensors)

    @cached_property
    def kinds(self) -> tuple[object, ...]:
        """What it shares with others that are alike: its blocks, and all but its stages and descriptors."""
        return self.blocks, (self.blocks, self.kernel.warps, self.share)


def shortlist(kernel: Kernel, job: Job, device: Device) -> tuple[Candidate, ...]:
    """At most `ASSEMBLED` configurations of a kernel, itself first, the others by the time that is expected of them, of
    all kinds.

    Sums that overflow the registers and operands that overflow shared memory are known without the compiler.
    """
    found = []
    known: dict[Kernel, Work] = {}  # the depth of a pipeline is nothing to it
    for configuration in variants(kernel, job.numbers, device):
        shallow = replace(configuration, stages=1)
        work = known.get(shallow) or work_of(configuration, job.numbers, device)
        known[shallow] = work
        facts = expected(configuration, work, device)
        if configuration == kernel or _fits(configuration, work, facts):
            found.append(_estimated(Candidate(configuration, work, facts, 0.0), job, device))
    return _of_all_kinds(found, kernel, ASSEMBLED)


def _fits(kernel: Kernel, work: Work, facts: Facts) -> bool:
    """Whether a configuration can be expected to be fit to run, and to be assembled in seconds."""
    exact = [p.rows * p.columns * p.summed for p in work.products if not p.unit]
    sums = SUMS_LESS if exact or kernel.warps > 8 else SUMS
    short = max(exact, default=0) <= EXACT * WARP * kernel.warps
    return sums_a_thread(kernel, work) <= sums and facts.shared <= facts.limit and short


def prune(
    candidates: Sequence[Candidate],
    inspect: Inspect,
    job: Job,
    device: Device,
    shown: Shown | None = None,
    workers: int = 1,
) -> tuple[Candidate, ...]:
    """At most `MOST` of the candidates, the first one first, the others by their estimated time, of all kinds.

    Those that spill, need too much shared memory or cannot be assembled are left out. If the first one is among these,
    so it is here. So many `workers` assemble at a time.
    """
    kept: list[Candidate] = []
    seen: set[tuple[object, ...]] = set()
    for candidate, facts in zip(candidates, _assembled(candidates, inspect, shown, workers), strict=True):
        if facts is None or violations(facts):
            continue
        # Where the number of stages makes no difference to the code, one of them is enough.
        key = (facts, candidate.share, candidate.blocks)
        if key not in seen:
            seen.add(key)
            kept.append(_estimated(replace(candidate, facts=facts), job, device))
    return _of_all_kinds(kept, candidates[0].kernel, MOST) if kept else ()


def _assembled(
    candidates: Sequence[Candidate], inspect: Inspect, shown: Shown | None, workers: int
) -> Iterator[Facts | None]:
    """What the compiler makes of each candidate, None where it gives up."""

    def assemble(candidate: Candidate) -> Facts | None:
        try:
            return inspect(candidate.kernel)
        except BackendError:
            return None

    if workers < 2:
        yield from _told(map(assemble, candidates), len(candidates), shown)
        return
    with ThreadPoolExecutor(workers, "stein-assemble") as pool:
        yield from _told(pool.map(assemble, candidates), len(candidates), shown)


def _told(results: Iterable[Facts | None], count: int, shown: Shown | None) -> Iterator[Facts | None]:
    """The results, each told when it is waited for."""
    iterator = iter(results)
    for number in range(count):
        if shown is not None:
            shown("assembling", number + 1, count)
        yield next(iterator)


def _estimated(candidate: Candidate, job: Job, device: Device) -> Candidate:
    least = job.flops / job.rate
    time = microseconds(candidate.kernel, candidate.work, candidate.facts, device, job.moved, least)
    return replace(candidate, estimate=time)


def _of_all_kinds(candidates: Sequence[Candidate], first: Kernel, most: int) -> tuple[Candidate, ...]:
    """At most so many of the candidates, `first` first if it is there, the others by their estimated time.

    The best with each number of warps and of persistent programs, with and without descriptors, in the blocks of the
    first and in others has its place, unless the estimate says that it is hopeless. The other places go to one after
    the other; what is like others that are there must be estimated better, by `ALIKE` for each.
    """
    order = sorted(candidates, key=lambda c: (c.kernel != first, c.estimate))
    bound = HOPELESS * min((c.estimate for c in candidates), default=0.0)
    own = tuple(blocks_of(first).items())
    places: dict[object, int] = {}
    for number, candidate in enumerate(order):
        if candidate.kernel == first:
            places["first"] = number
        elif candidate.estimate <= bound:
            features = candidate.kernel.warps, candidate.share, candidate.bulk, candidate.blocks == own
            for feature in enumerate(features):
                places.setdefault(feature, number)
    held = list(dict.fromkeys(places.values()))
    alike = Counter(kind for number in held for kind in order[number].kinds)
    rest = [n for n in range(len(order)) if n not in held]
    while rest and len(held) < most:
        best = min(rest, key=lambda n: order[n].estimate * (1 + ALIKE * sum(alike[k] for k in order[n].kinds)))
        rest.remove(best)
        held.append(best)
        alike.update(order[best].kinds)
    return tuple(order[n] for n in sorted(held[:most]))


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
    has its rates. `inspect` assembles a kernel, `workers` times at once. `shown` is told what is done, its number, and
    how many there are.
    """

    winners: Winners
    device: Device
    name: str
    inspect: Inspect
    shown: Shown | None = None
    workers: int = 1

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
        job = Job(numbers, moved, flops, kind_rate)
        every = shortlist(kernel, job, self.device)
        left = prune(every, self.inspect, job, self.device, self.shown, self.workers)
        if not left:
            return kernel, Origin()
        if len(left) == 1:
            found, origin = left[0].kernel, Origin("alone", 1)
        else:
            found, origin = self._fastest([c.kernel for c in left], timer)
        origin = replace(origin, blocks=differing(kernel, found))
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
