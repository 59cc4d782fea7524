"""A stand-in of the CUDA driver for Triton: built from `libcuda.c`, given to a process, and asked what was launched.

`build` and `environment` are for the parent, the rest for the process itself, which launches kernels on CPU tensors as
on the GPU of that driver. Nothing is computed: the library holds what it is told to the documentation of the driver,
and hands over a record of it.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from math import prod
from pathlib import Path

LIBRARY = "libcuda.so.1"


def missing() -> str:
    """What is not there that the stand-in needs, "" if all is."""
    for library in ("torch", "triton"):
        if importlib.util.find_spec(library) is None:
            return f"needs {library}: pip install 'stein[gpu]'"
    return "" if _compiler() else "needs a C compiler"


def _compiler() -> str | None:
    return os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")


def build(folder: Path) -> None:
    """Compile the library into a folder."""
    found = importlib.util.find_spec("triton")
    compiler = _compiler()
    assert found is not None and found.origin is not None and compiler is not None, missing()
    headers = Path(found.origin).parent / "backends" / "nvidia" / "include"
    flags = ["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-I{headers}"]
    source = Path(__file__).parent / "libcuda.c"
    subprocess.run([compiler, *flags, "-o", str(folder / LIBRARY), str(source)], check=True)


def environment(folder: Path) -> dict[str, str]:
    """The environment of a process that takes the library in `folder` for the driver, and keeps all that is compiled
    there.
    """
    found = {n: v for n, v in os.environ.items() if n not in ("TRITON_INTERPRET", "STEIN_TUNE")}
    paths = [str(folder), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    caches = {"TRITON_CACHE_DIR": str(folder / "triton"), "STEIN_CACHE_DIR": str(folder / "winners")}
    return found | caches | {"TRITON_LIBCUDA_PATH": str(folder), "LD_LIBRARY_PATH": ":".join(paths)}


@dataclass(frozen=True)
class Map:
    """A tensor map: bytes of an element, address, and (positions, stride in bytes, positions of the box) by axis."""

    bytes: int
    address: int
    axes: tuple[tuple[int, int, int], ...]

    @property
    def elements(self) -> int:
        """How many positions it describes."""
        return prod(n for n, _, _ in self.axes)

    @property
    def end(self) -> int:
        """The address after the last element."""
        return self.address + sum((n - 1) * stride for n, stride, _ in self.axes) + self.bytes


@dataclass(frozen=True)
class Launched:
    """A launch: the kernel's name, programs, threads of a block, and parameters as (bytes, value), a map for 128 bytes.

    Values are unsigned, as they lie in memory.
    """

    name: str
    programs: int
    threads: int
    shared: int
    parameters: tuple[tuple[int, int | Map], ...]


class Events:
    """The part of `torch.cuda` that times kernels: every interval is a millisecond."""

    class Event:
        """A point in time."""

        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            """Nothing runs, so there is nothing to note."""

        def elapsed_time(self, other: object) -> float:
            """Milliseconds."""
            return 1.0

    @staticmethod
    def synchronize() -> None:
        """Nothing runs."""


class StandIn:
    """The driver of Triton in this process, with one GPU, number 0, and its default stream."""

    def __init__(self) -> None:
        import torch
        from triton import runtime
        from triton.backends.nvidia import driver

        class Here(driver.CudaDriver):  # type: ignore[misc]
            """Triton's own driver, but for what it asks of the CUDA build of PyTorch."""

            def __init__(self) -> None:
                self.utils = driver.CudaUtils()
                self.launcher_cls = driver.CudaLauncher
                self.get_device_capability = lambda device: (9, 0)
                self.get_current_device = lambda: 0
                self.get_current_stream = lambda device: 0

            def get_device_interface(self) -> type[Events]:
                return Events

            def get_empty_cache_for_benchmark(self) -> torch.Tensor:
                return torch.empty(1)

        self.library = ctypes.CDLL(LIBRARY)
        self.library.stand_in_take.restype = ctypes.c_char_p
        self.library.cuInit(0)
        self.loaded = 0  # kernels, since the last `forget`
        self._maps: dict[int, Map] = {}
        runtime.driver.set_active(Here())

    def take(self) -> list[Launched]:
        """The launches since the last call; AssertionError says what was wrong with a call of the driver."""
        found = []
        lines = [json.loads(line) for line in self.library.stand_in_take().decode().splitlines()]
        for read in lines:
            assert "wrong" not in read, read["wrong"]
            if "loaded" in read:
                self.loaded += 1
                continue
            if "map" in read:
                axes = tuple((n, stride, box) for n, stride, box in read["axes"])
                self._maps[read["map"]] = Map(read["bytes"], read["address"], axes)
                continue
            across, down, deep = read["grid"]
            assert (down, deep, read["stream"]) == (1, 1, 0)
            values = tuple((n, self._maps[v] if n == 128 else v) for n, v in read["parameters"])
            found.append(Launched(read["launch"], across, read["threads"], read["shared"], values))
        return found

    def forget(self) -> None:
        """Drop what was told since the last call."""
        self.library.stand_in_take()
        self.loaded = 0
