"""How long one launch of a kernel takes, by its tree alone: what configurations are sorted by before any is assembled.

Part of tuning, between `work` and `tune`. Five times that overlap: bytes through device memory, bytes through the
second-level cache (operands are asked for again by each block that needs them), arithmetic at the rate of the unit that
the tiles suit, and the wait for memory, in rounds of loops and turns of programs. Nothing in it was fitted to
measurements: it tells hopeless configurations from others, of which `tune` measures a few.

`expected` guesses what the compiler will make of a kernel; where that is known, `microseconds` takes what is known.
"""

from __future__ import annotations

from math import ceil

from .ahead import Facts
from .nodes import Kernel, Loop, Outer, walk
from .roofline import Device
from .work import Work

WARP = 32
REGISTERS = 65_536  # of a processor
THREADS = 2_048  # that a processor holds
PROGRAMS = 32  # that a processor holds
OTHER_REGISTERS = 40  # of a thread, beside sums: addresses, masks, counters
LATENCY = 0.8e-6  # seconds from a load to its value
START = 0.7e-6  # seconds of a program before its first value and after its last one
CACHE_LATENCY = 0.4e-6  # seconds from a load to its value, where the cache has it
UNHIDDEN = 1 / 8  # of the times that the longest one hides
BARRIER = 0.01e-6  # seconds, so that of equal configurations the one with fewer barriers comes first


def stages_of(kernel: Kernel) -> int:
    """The depth of the software pipeline."""
    outer = kernel.nest
    return (outer.stages if isinstance(outer, Outer) and outer.share else 0) or kernel.stages


def sums_a_thread(kernel: Kernel, work: Work) -> float:
    """The sums that each thread holds in registers."""
    return work.held / (WARP * kernel.warps)


def expected(kernel: Kernel, work: Work, device: Device) -> Facts:
    """What the compiler is expected to make of a kernel: registers for its sums, shared memory for the operands of
    products, those in loops once for each stage, and instructions of warp groups where all products suit them.

    Instructions of warp groups read what one stage holds while the next ones are filled; others have read it before. So
    has a loop over a list, which looks the position up one stage ahead.
    """
    registers = min(255, OTHER_REGISTERS + ceil(sums_a_thread(kernel, work)))
    units = {p.unit for p in work.products} - {""}
    unit = min(units, key=len, default="")  # the slower one, where there are both
    listed = any(isinstance(n, Loop) and n.rows is not None for n in walk(kernel.nest))
    stages = stages_of(kernel) - (unit != "HGMMA" or listed)
    persistent = isinstance(kernel.nest, Outer) and kernel.nest.share
    shared = max(1, stages) * (work.step + (work.once if persistent else 0)) + (work.kept if persistent else work.once)
    shared = shared if work.products else 0
    found = ((unit, 1),) if unit else ()
    return Facts(device.architecture, kernel.warps, registers, shared, 0, 0, 0, 0, found)


def microseconds(kernel: Kernel, work: Work, facts: Facts, device: Device, moved: int = 0, least: float = 0.0) -> float:
    """The time of one launch of a kernel that became `facts`. `moved` are the bytes that go through device memory,
    `least` the seconds of all operations at the full rate.

    Little's law gives the rate of memory: the bytes that programs have asked for and wait for, by its latency. Matrix
    instructions of a warp group count twice those of a warp.
    """
    together = resident(facts)
    share = kernel.nest.share if isinstance(kernel.nest, Outer) else 0
    started = max(1, min(share, work.blocks) if share else work.blocks)
    turns = ceil(work.blocks / started)
    looped = bool(share or (work.rounds and work.products))
    depth = max(1, stages_of(kernel) - 1) if looped else 1
    waiting = max(work.step * depth, work.once * (depth if share else 1))
    slots = together * device.multiprocessors
    flying = min(slots, started) * max(1, waiting)
    memory = moved / min(device.bandwidth, flying / LATENCY)
    cache = work.asked / min(device.cache, flying / CACHE_LATENCY)
    slow = 2.0 if facts.architecture == "sm_90" and facts.count("HMMA") and not facts.count("HGMMA") else 1.0
    busiest = turns * ceil(started / device.multiprocessors) * device.multiprocessors / max(1, work.blocks)
    arithmetic = max(busiest * (slow * work.matrix + work.vector), slow * least)
    chain = ceil(started / slots) * (START + turns * max(1, work.rounds) * LATENCY / depth)
    times = (memory, cache, arithmetic, chain)
    return 1e6 * (max(times) + UNHIDDEN * (sum(times) - max(times)) + BARRIER * facts.barriers)


def resident(facts: Facts) -> int:
    """The programs that a processor holds at a time.

    >>> resident(Facts("sm_90", 8, 106, 98304, 0, 3, 0, 0, ()))
    2
    """
    threads = WARP * facts.warps
    found = min(PROGRAMS, THREADS // threads, REGISTERS // max(1, facts.registers * threads))
    if facts.shared:
        found = min(found, facts.limit // facts.shared)
    return max(1, found)
