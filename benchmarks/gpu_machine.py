"""What touches the GPU in `gpu.py`: clocks, CUDA graphs, streams, memory; and a stand-in for machines without one.

Outside the compiler. `Cuda` is a GPU. `StandIn` runs the same script on the CPU, with kernels in Triton's interpreter
(TRITON_INTERPRET=1): results are checked, times mean nothing and are held against no goal. `machine_here` chooses.
"""

from __future__ import annotations

import os
import platform
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

from stein.backends.gpu.roofline import DEVICES, H200, Device
from stein.runtime.gpu_tuning import device_here

Thunk = Callable[[], Any]


@dataclass(frozen=True)
class Captured:
    """A call that was recorded: `replay` does it again, into the memory of `result`."""

    replay: Thunk
    result: Any


class Machine(Protocol):
    """Where rows run. `judged` says whether its times mean anything, `rates` are what floors are computed with."""

    torch: Any
    device: Any
    rates: Device
    judged: bool
    compiler: str  # the backend of torch.compile
    rounds: int  # how often each contestant is measured, in turn with the others

    def facts(self) -> dict[str, Any]:
        """What stands in the file of results: the device and the versions."""

    def measure(self, thunk: Thunk) -> float:
        """The median time of a call in microseconds, over many of them with a cold second-level cache."""

    def captured(self, thunk: Thunk) -> Captured:
        """The call, recorded in a CUDA graph; it has been made before."""

    def elsewhere(self) -> Any:
        """The context of another stream, on which what is asked for first takes a while."""

    def wait(self) -> None:
        """Until all is done that was asked for; raises what went wrong there."""

    def alive(self) -> bool:
        """Whether the device still answers this process: after some errors it does not."""

    def tidy(self) -> None:
        """Give back the memory of the last row."""


class Cuda:
    """The current CUDA device."""

    judged, compiler, rounds = True, "inductor", 3

    def __init__(self, torch: Any) -> None:
        self.torch = torch
        self.device = torch.device("cuda", torch.cuda.current_device())
        self.rates = device_here(self.device)

    def facts(self) -> dict[str, Any]:
        """See `Machine`."""
        torch, properties = self.torch, self.torch.cuda.get_device_properties(self.device)
        known = any(self.rates == d for d in DEVICES)
        return {
            "device": properties.name,
            "rates": self.rates.name if known else f"not in the table: those of an {H200.name}",
            "multiprocessors": properties.multi_processor_count,
            "memory": properties.total_memory,
            "driver": driver(),
            "cuda": torch.version.cuda or torch.version.hip,
            **versions(torch),
        }

    def measure(self, thunk: Thunk) -> float:
        """See `Machine`; by CUDA events around each call."""
        from triton.testing import do_bench

        return 1e3 * float(do_bench(thunk, warmup=10, rep=50, return_mode="median"))

    def captured(self, thunk: Thunk) -> Captured:
        """See `Machine`. Where recording fails, the stream that was current is so again."""
        torch = self.torch
        torch.cuda.synchronize()
        current, graph = torch.cuda.current_stream(), torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                result = thunk()
        finally:
            torch.cuda.set_stream(current)
        return Captured(graph.replay, result)

    @contextmanager
    def elsewhere(self) -> Iterator[None]:
        """See `Machine`."""
        torch = self.torch
        side, current = torch.cuda.Stream(), torch.cuda.current_stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            torch.cuda._sleep(20_000_000)  # about 10 ms: what did not wait for it would be early
            yield
        current.wait_stream(side)

    def wait(self) -> None:
        """See `Machine`."""
        self.torch.cuda.synchronize()

    def alive(self) -> bool:
        """See `Machine`."""
        try:
            self.torch.cuda.synchronize()
            self.torch.zeros(1, device=self.device).item()
        except RuntimeError:
            return False
        return True

    def tidy(self) -> None:
        """See `Machine`; whether the GPU still answers is asked by others."""
        with suppress(RuntimeError):
            self.torch.cuda.empty_cache()


class StandIn:
    """The CPU in place of a GPU: a call is timed once, a recorded call is made again."""

    judged, compiler, rounds = False, "eager", 1

    def __init__(self, torch: Any) -> None:
        self.torch = torch
        self.device = torch.device("cpu")
        self.rates = H200

    def facts(self) -> dict[str, Any]:
        """See `Machine`."""
        return {"device": "Triton's interpreter: times mean nothing", "rates": self.rates.name, **versions(self.torch)}

    def measure(self, thunk: Thunk) -> float:
        """See `Machine`; one call, by the wall clock."""
        began = time.perf_counter()
        thunk()
        return 1e6 * (time.perf_counter() - began)

    def captured(self, thunk: Thunk) -> Captured:
        """See `Machine`."""
        result = thunk()

        def replay() -> None:
            for name, tensor in named(thunk()).items():
                named(result)[name].copy_(tensor)

        return Captured(replay, result)

    @contextmanager
    def elsewhere(self) -> Iterator[None]:
        """See `Machine`."""
        yield

    def wait(self) -> None:
        """See `Machine`."""

    def alive(self) -> bool:
        """See `Machine`."""
        return True

    def tidy(self) -> None:
        """See `Machine`."""


def machine_here() -> Machine | None:
    """The GPU that is here, the stand-in where the environment asks for Triton's interpreter, else None."""
    import torch

    if os.environ.get("TRITON_INTERPRET", "") == "1":
        return StandIn(torch)
    return Cuda(torch) if torch.cuda.is_available() else None


def named(found: Any) -> dict[str, Any]:
    """Results by name, whether there are one, several in order or several by name."""
    if isinstance(found, dict):
        return found
    return {str(n): t for n, t in enumerate(found)} if isinstance(found, tuple) else {"y": found}


@contextmanager
def poisoned(torch: Any) -> Iterator[None]:
    """Memory from PyTorch is full of NaN and of the largest integers: what is read before it is written shows."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cuBLAS would like another workspace: nothing of that is asked for here
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = True
        try:
            yield
        finally:
            torch.utils.deterministic.fill_uninitialized_memory = filled
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])


@contextmanager
def untuned() -> Iterator[None]:
    """Kernels run in the configuration of the model: nothing is timed for them."""
    before = os.environ.get("STEIN_TUNE")
    os.environ["STEIN_TUNE"] = "off"
    try:
        yield
    finally:
        if before is None:
            del os.environ["STEIN_TUNE"]
        else:
            os.environ["STEIN_TUNE"] = before


def versions(torch: Any) -> dict[str, str]:
    """Of what was run."""
    found = {"stein": "", "triton": ""}
    for name in found:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return {"python": platform.python_version(), "torch": torch.__version__, **found}


def driver() -> str:
    """The version of the driver, as its own tool tells it; empty where there is none."""
    import subprocess

    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.split("\n")[0].strip()
