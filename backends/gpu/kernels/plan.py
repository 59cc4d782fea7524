"""What a fused plan is: the kernels that compute a run of equations, and where their intermediates live.

The first file of `kernels/`; the others make plans, one structure each. A plan says by itself what it moves:
`moved_bytes` counts what has to cross to and from device memory at least, and placements say for each intermediate
whether it costs any of that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from ....ir.types import F32, DType
from ..ahead import shared_limit
from ..choose import Chosen
from ..nodes import (
    Kernel,
    Local,
    Loop,
    Number,
    Outer,
    Tensor,
)
from ..nodes import walk as _nodes
from ..roofline import Device
from ..source import arguments, grid
from ..steps import ORDERING, BlockRows, Constant, Launch, Make, Step
from ..views import Layout

REGISTERS = "registers"
CACHE = "cache"
MEMORY = "memory"

# Accumulators that a thread can keep beside operands and addresses: 255 registers at most, 128 where 16 warps share
# the register file.
ACCUMULATORS = 128
ACCUMULATORS_WIDE = 64
WARP = 32


@dataclass(frozen=True)
class Placement:
    """Where an intermediate lives between two products, and the bytes that this moves through device memory.

    In `registers` (which Triton may pass through shared memory within a block) nothing is moved; in the second-level
    `cache`, a chunk of the batch at a time, nothing leaves the chip if the chunks are small; `memory` is written once
    and read once.

    >>> str(Placement("u", "registers", 0))
    'u in registers'
    """

    value: str
    where: str
    bytes: int

    def __str__(self) -> str:
        return f"{self.value} in {self.where}" + (f" ({self.bytes / 1e6:.1f} MB)" if self.bytes else "")


@dataclass(frozen=True)
class FusedPlan:
    """`launches`, one after the other, compute `equations`; those of them in `stored` are written to memory, so.

    The first `formed` launches only prepare operands (a product of two small factors, a transform of a generator).
    `buffers` are what launches hand on, `constants` are arrays that they read; both have names that no tensor of the
    program has. `lists` are lists of blocks that are brought in order before. Operands that are `resident` stay in the
    second-level cache from one launch to the next. `flops` are what it computes; `alone` and `alone_flops` are the
    bytes and operations of the equations, each in a kernel of its own.
    """

    structure: str
    equations: tuple[str, ...]
    stored: tuple[tuple[str, Layout], ...]
    launches: tuple[Chosen, ...]
    placements: tuple[Placement, ...] = ()
    buffers: tuple[tuple[str, Layout], ...] = ()
    constants: tuple[Constant, ...] = ()
    lists: tuple[BlockRows, ...] = ()
    formed: int = 0
    resident: tuple[str, ...] = ()
    flops: int = 0
    alone: int = 0
    alone_flops: int = 0

    @property
    def pays(self) -> bool:
        """Whether the plan moves fewer bytes than its equations alone, or computes less."""
        return self.moved_bytes < self.alone or self.flops < self.alone_flops

    def starves(self, goal: Goal) -> bool:
        """Whether its kernels have so few programs that its equations alone take less time.

        Half of the processors keep memory busy; a kernel of fewer programs has that share of its rate only, while
        equations alone are cut into as many programs as it takes.
        """
        idle = sum(
            sum(touched(c.kernel, dict(c.numbers)).values()) * max(0.0, goal.processors / (2 * c.programs) - 1)
            for c in self.launches
            if c.programs
        )
        together = self.moved_bytes + idle + goal.launch_bytes * len(self.launches)
        return together > self.alone + goal.launch_bytes * len(self.equations)

    @property
    def started(self) -> int:
        """Kernels that a call starts, those that bring lists in order included."""
        return len(self.launches) + ORDERING * sum(not made.constant for made in self.lists)

    @property
    def product_type(self) -> DType:
        """The type that the products of the main kernel are taken in."""
        return self.launches[-1].kernel.tensors[0].dtype

    @property
    def rounded(self) -> tuple[DType, ...]:
        """The types of fewer than 32 bits that values inside of the kernels are rounded to."""
        found = (n.dtype for k in self.kernels for n in _nodes(k.nest) if isinstance(n, Local))
        return tuple(dict.fromkeys(t for t in found if t.bits < 32))

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """The different kernels that it launches, in order."""
        return tuple(dict.fromkeys(c.kernel for c in self.launches))

    @property
    def moved_bytes(self) -> int:
        """Bytes through device memory at least: what each launch reaches, without buffers that stay in the cache;
        operands that stay there once.
        """
        cached = {p.value for p in self.placements if p.where == CACHE}
        found: dict[str, int] = {}
        for chosen in self.launches:
            names = dict(chosen.tensors)
            for parameter, n in touched(chosen.kernel, dict(chosen.numbers)).items():
                name = names[parameter]
                if name in self.resident:
                    found[name] = max(found.get(name, 0), n)
                elif name not in cached:
                    found[name] = found.get(name, 0) + n
        return sum(found.values()) + sum(made.bytes for made in self.lists)

    def text(self) -> str:
        """One line for `explain`."""
        main = len(self.kernels) - self.formed
        line = f"{self.structure}: {', '.join(self.equations)} in {main} kernel" + ("s" if main > 1 else "")
        if self.formed:
            line += f" after {self.formed} that prepare operands"
        if self.lists:
            line += " after the blocks are brought in order"
        if self.placements:
            line += f"; {', '.join(map(str, self.placements))}"
        if self.rounded:
            line += f", rounded to {' and '.join(t.name for t in self.rounded)}"
        return line + f"; {self.moved_bytes / 1e6:.1f} MB moved in place of {self.alone / 1e6:.1f} MB"


@dataclass(frozen=True)
class Goal:
    """What plans are made for: an architecture, its processors and cache, and the precision of products of f32.

    Starting a kernel takes as long as moving `launch_bytes`. Inputs that are `fixed` have the same values in every
    call, without being known: lists of blocks, say.
    """

    architecture: str = "sm_90"
    processors: int = 132
    cache_bytes: int = 50 << 20
    precision: str = "ieee"
    fixed: tuple[str, ...] = ()
    launch_bytes: int = 12_900_000

    @staticmethod
    def of(device: Device, precision: str = "ieee", fixed: tuple[str, ...] = ()) -> Goal:
        """The goal for a device."""
        launch = round(device.launch * device.bandwidth)
        return Goal(device.architecture, device.multiprocessors, device.cache_bytes, precision, fixed, launch)

    @property
    def narrow(self) -> bool:
        """Whether accumulators and operands of matrix units all are registers of the warps, as before Hopper."""
        return self.architecture in ("sm_80", "sm_86", "sm_89")

    @property
    def exact(self) -> bool:
        """Whether products of f32 are taken exactly, by ordinary multiply-adds."""
        return self.precision == "ieee"

    @property
    def shared(self) -> int:
        """Bytes of shared memory that a block may use."""
        return shared_limit(self.architecture)


def steps_of(plan: FusedPlan) -> tuple[Step, ...]:
    """The plan as steps of a bound program: constants, buffers and results, then launches.

    The last launch counts the operations of all of them.
    """
    made: list[Step] = [*plan.lists, *plan.constants]
    made += [Make(name, layout) for name, layout in (*plan.buffers, *plan.stored)]
    for n, chosen in enumerate(plan.launches):
        moved = sum(touched(chosen.kernel, dict(chosen.numbers)).values())
        last = n == len(plan.launches) - 1
        made.append(Launch(chosen, plan.equations[-1], moved, plan.flops if last else 0))
    return tuple(made)


def launched(kernel: Kernel, tensors: Mapping[str, str], numbers: Mapping[str, int], work: DType) -> Chosen:
    """A kernel with its arguments: `tensors` names the tensor of each parameter, `numbers` has what is not in the code.

    Both may have more than the kernel needs.
    """
    needed = arguments(kernel)
    own = {n: v for n, v in numbers.items() if n in needed}
    (programs,) = grid(kernel, own)
    outer = next(n for n in _nodes(kernel.nest) if isinstance(n, Outer))
    loops = tuple((n.axis, n.block) for n in _nodes(kernel.nest) if isinstance(n, Loop))
    pairs = tuple((p, tensors[p]) for p in needed if p in tensors and p not in own)
    return Chosen(kernel, pairs, tuple(own.items()), programs, work, None, (*outer.axes, *loops))


def accumulators(elements: int, warps: int) -> float:
    """The accumulators of each thread for a tile of that many elements.

    >>> accumulators(64 * 64, 4)
    32.0
    """
    return elements / (warps * WARP)


def warps_for(elements: int, most: int = 8) -> int:
    """The fewest warps (4 or more) that hold a tile within the budget of a thread; `most` if none does.

    >>> [warps_for(n * n) for n in (64, 128, 256)]
    [4, 4, 8]
    """
    warps = 4
    while warps < most and accumulators(elements, warps) > ACCUMULATORS:
        warps *= 2
    return warps


def fits_registers(elements: int, warps: int) -> bool:
    """Whether a tile stays within the budget of a thread.

    >>> fits_registers(128 * 128, 8), fits_registers(256 * 256, 8)
    (True, False)
    """
    return accumulators(elements, warps) <= (ACCUMULATORS_WIDE if warps > 8 else ACCUMULATORS)


def touched(kernel: Kernel, sizes: Mapping[str, int]) -> dict[str, int]:
    """Bytes of each argument that a kernel reaches, each element once: several views of one count as the largest."""
    extents = {a: _known(n, sizes) for a, n in kernel.sizes}
    found: dict[str, int] = {}
    for tensor in kernel.tensors:
        found[tensor.argument] = max(found.get(tensor.argument, 0), _reach(tensor, extents, sizes))
    return found


def _reach(tensor: Tensor, extents: Mapping[str, int], sizes: Mapping[str, int]) -> int:
    """Bytes that the positions of a tensor cover: an axis of stride 0 is one position, a slot has its own extent."""
    strides = tensor.strides or (1,) * len(tensor.axes)
    elements = prod(extents[a] for a, s in zip(tensor.axes, strides, strict=True) if s != 0)
    for slot in tensor.slots:
        points = 1 + sum(abs(_known(f, sizes)) * (extents[a] - 1) for a, f in slot.terms)
        elements *= points if slot.extent is None else min(points, _known(slot.extent, sizes))
    return elements * tensor.dtype.itemsize


def _known(size: Number, sizes: Mapping[str, int]) -> int:
    return size if isinstance(size, int) else sizes[size]


def product_type(*dtypes: DType) -> DType:
    """The type that an intermediate between two products is kept in: that of the operands if they have 16 bits, so
    that matrix units take it from registers; else f32.

    >>> from ....ir.types import BF16
    >>> product_type(BF16, BF16).name, product_type(BF16, F32).name
    ('bf16', 'f32')
    """
    first = dtypes[0]
    return first if all(t == first for t in dtypes) and first.kind == "f" and first.bits == 16 else F32
