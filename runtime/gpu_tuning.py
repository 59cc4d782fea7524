"""Tuning where there is a GPU: which kernels of a program are timed, when, and where the winners are kept.

The first call of a program with operands of a layout times a few configurations of each of its kernels
(`backends.gpu.tune`: other blocks, warps, stages) on the operands of the call, and keeps the fastest, in this process
and in the user's cache folder. `STEIN_TUNE=off` leaves every kernel in the configuration of the model, so that all
processes run the same. In Triton's interpreter, and while a CUDA graph is captured, nothing is timed.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any, TypeAlias

from ..backends.gpu.ahead import SHARED_LIMIT, Facts, inspect_printed
from ..backends.gpu.launch import function
from ..backends.gpu.nodes import Kernel, Map, Stream, Tile, walk
from ..backends.gpu.program import Bound
from ..backends.gpu.reblock import blocks_of
from ..backends.gpu.roofline import H200, Device, device_named, rate
from ..backends.gpu.source import grid, source
from ..backends.gpu.steps import Launch, Origin
from ..backends.gpu.tune import Tuner
from ..backends.gpu.winners import Winners
from ..ir.errors import BackendError
from ..ir.semiring import PLUS_TIMES

Tensor: TypeAlias = Any  # torch.Tensor
Clock = Callable[[Callable[[], None]], float]  # microseconds of a thunk, infinity where it cannot be run

MOST_ASSEMBLERS = 8  # threads
WARMUP, REPEATED = 10, 50  # milliseconds that a candidate runs, before it is timed and while it is


@dataclass
class Tuning:
    """A tuner with a clock: settles the kernels of bound programs."""

    tuner: Tuner
    clock: Clock
    report: Report | None = None

    def known(self, bound: Bound) -> Bound:
        """The program with the configurations that were kept; it is settled if all were."""
        steps = tuple(self._kept(s) if isinstance(s, Launch) else s for s in bound.steps)
        open_ones = any(isinstance(s, Launch) and s.origin.how == "model" for s in steps)
        return replace(bound, steps=steps, settled=not open_ones)

    def _kept(self, step: Launch) -> Launch:
        found = self.tuner.kept(step.chosen.kernel, dict(step.chosen.numbers))
        return step if found is None else configured(step, *found)

    def pick(self, step: Launch, arguments: Mapping[str, Any]) -> Launch:
        """A launch in its best configuration, timed on these arguments; what it writes goes elsewhere meanwhile.

        Where there is no memory for that, the launch stays as it is.
        """
        import torch

        if step.origin.how != "model":
            return step
        kernel, numbers = step.chosen.kernel, dict(step.chosen.numbers)
        kind = rate(self.tuner.device, kernel.tensors[0].dtype, kernel.precision, multiplies(kernel))
        try:
            with self.report or nullcontext():
                spare = spared(kernel, arguments)
                timer = self._timer(numbers, spare)
                return configured(step, *self.tuner.best(kernel, numbers, step.bytes, step.flops, kind, timer))
        except torch.OutOfMemoryError:
            return step

    def _timer(self, numbers: Mapping[str, int], arguments: Mapping[str, Any]) -> Callable[[Kernel], float]:
        from ..backends.gpu.launch import launch

        def timer(kernel: Kernel) -> float:
            (programs,) = grid(kernel, numbers)
            return self.clock(lambda: launch(kernel, arguments, programs))

        return timer


def configured(step: Launch, kernel: Kernel, origin: Origin) -> Launch:
    """A launch with another configuration of its kernel: its programs and blocks follow from that."""
    (programs,) = grid(kernel, dict(step.chosen.numbers))
    now = blocks_of(kernel)
    blocks = tuple((a, now[a]) for a, _ in step.chosen.blocks)
    chosen = replace(step.chosen, kernel=kernel, programs=programs, blocks=blocks)
    return replace(step, chosen=chosen, origin=origin)


def multiplies(kernel: Kernel) -> bool:
    """Whether a kernel sums products of two factors, which matrix units can do."""
    tiles = (n for n in walk(kernel.nest) if isinstance(n, Tile))
    return any(len(t.factors) == 2 and t.semiring == PLUS_TIMES for t in tiles)


def written(kernel: Kernel) -> frozenset[str]:
    """The arguments that a kernel writes.

    >>> from ..backends.gpu.nodes import Outer, Tensor
    >>> from ..ir.types import F32
    >>> x, y = Tensor("x", ("i",), F32), Tensor("y_2", ("i",), F32, memory="y")
    >>> sorted(written(Kernel((x, y), (("i", 64),), Outer((("i", 64),), Map("y_2", "x")))))
    ['y']
    """
    made = {n.out for n in walk(kernel.nest) if isinstance(n, Tile | Map | Stream)}
    return frozenset(t.argument for t in kernel.tensors if t.name in made)


def spared(kernel: Kernel, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments, with memory of its own for each that the kernel writes, laid out in the same way."""
    import torch

    def spare(tensor: Tensor) -> Tensor:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device)

    own = written(kernel)
    return {n: spare(a) if n in own else a for n, a in arguments.items()}


# --- the GPU that is here ---------------------------------------------------------------------------------------------


def enabled() -> bool:
    """Whether kernels are to be timed: `STEIN_TUNE=off` says no."""
    return os.environ.get("STEIN_TUNE", "").strip().lower() != "off"


def tuning_of(device: Any) -> Tuning | None:
    """What tunes kernels for a device of torch; None where nothing is timed."""
    if device is None or device.type != "cuda" or os.environ.get("TRITON_INTERPRET", "") == "1" or not enabled():
        return None
    return _tuning(device)


@cache
def _tuning(device: Any) -> Tuning:
    import torch

    found, name = device_here(device), torch.cuda.get_device_name(device)
    report = Report()
    label = f"{re.sub(r'[^A-Za-z0-9]+', '_', name)}-{found.architecture}-triton_{triton_version()}"
    tuner = Tuner(winners(), found, label, assembler(found.architecture), report, assemblers())
    return Tuning(tuner, microseconds, report)


def assembler(architecture: str) -> Callable[[Kernel], Facts]:
    """What assembles a kernel for an architecture, from any thread.

    Triton's passes, LLVM and the assembler run without the lock of the interpreter, so that threads do go side by side
    (Triton 3.9: of 9 s of assembling, another thread stood still for 0.05 s).
    """
    printing = Lock()

    def assemble(kernel: Kernel) -> Facts:
        with printing:  # the same text is written to the same file
            function(source(kernel))
        return inspect_printed(kernel, architecture)

    return assemble


def assemblers() -> int:
    """How many threads assemble kernels at a time: one for each core, up to eight; one alone where Triton is of a
    version that does not compile from several threads itself.
    """
    if find_spec("triton") is None or find_spec("triton.runtime._async_compile") is None:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MOST_ASSEMBLERS, cores)


@cache
def winners() -> Winners:
    """The winners of this user, on disk where caching is on (`STEIN_CACHE_DIR`)."""
    folder = os.environ.get("STEIN_CACHE_DIR")
    if folder is None:
        import platformdirs

        folder = platformdirs.user_cache_dir("stein")
    return Winners.at(None if folder.strip().lower() in ("", "off") else Path(folder) / "gpu-kernels.json")


def triton_version() -> str:
    """The version of Triton, "none" where it is not installed."""
    try:
        return version("triton")
    except PackageNotFoundError:
        return "none"


def device_here(device: Any = None) -> Device:
    """The rates of a GPU that is here (the current one, without `device`), those of an H200 where there is none.

    A GPU that the table lacks has the rates of an H200 (only their ratios matter for what is chosen), with its own
    number of processors and the architecture that kernels can be assembled for.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or (device is not None and device.type != "cuda"):
        return H200
    name = torch.cuda.get_device_name(device)
    try:
        return device_named(name)
    except BackendError:
        major, minor = torch.cuda.get_device_capability(device)
        processors = torch.cuda.get_device_properties(device).multi_processor_count
        architecture = "gfx942" if torch.version.hip else nearest(major, minor)
        return replace(H200, name=name, architecture=architecture, multiprocessors=processors)


def nearest(major: int, minor: int) -> str:
    """The architecture of the table whose limits hold for a compute capability.

    >>> nearest(9, 0), nearest(12, 0), nearest(8, 7), nearest(7, 5)
    ('sm_90', 'sm_89', 'sm_86', 'sm_86')
    """
    exact = f"sm_{major}{minor}"
    if exact in SHARED_LIMIT:
        return exact
    return {9: "sm_90", 10: "sm_100", 11: "sm_100", 12: "sm_89"}.get(major, "sm_86")


def capturing(device: Any) -> bool:
    """Whether launches on a device are being recorded into a CUDA graph."""
    import torch

    return bool(device.type == "cuda" and torch.cuda.is_current_stream_capturing())


def microseconds(thunk: Callable[[], None]) -> float:
    """The median time of a launch with a cold second-level cache; infinity where the GPU has too little for it."""
    from triton.runtime.errors import OutOfResources, PTXASError
    from triton.testing import do_bench

    try:
        return 1e3 * float(do_bench(thunk, warmup=WARMUP, rep=REPEATED, return_mode="median"))
    except (OutOfResources, PTXASError, BackendError):
        return float("inf")


@dataclass
class Report:
    """Tells on the terminal (on nothing else) what the tuner does. A context: what it shows goes when it ends."""

    _line: Any = field(default=None, repr=False)

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *error: object) -> None:
        if self._line is not None:
            self._line.stop()
            self._line = None

    def __call__(self, what: str, number: int, count: int) -> None:
        """Tell what is done, its number, and how many there are."""
        if not sys.stderr.isatty():
            return
        if self._line is None:
            from rich.console import Console

            self._line = Console(stderr=True).status("")
            self._line.start()
        self._line.update(f"stein tunes a kernel for this GPU, once: {what} {number} of {count}")
