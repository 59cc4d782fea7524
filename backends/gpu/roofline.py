"""The roofline: what a GPU can do at best, and the least time that a program can take on it.

Beside the pipeline: prices, tuning, checks and benchmarks all read the one table of devices here. A floor reads each
input of a program once and writes each output once; intermediates cost nothing, so a fused kernel can reach it and a
chain of kernels cannot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from ...ir.count import count
from ...ir.errors import BackendError
from ...ir.expr import Einsum, Equation, Input, Program, reads, walk
from ...ir.types import DType


@dataclass(frozen=True)
class Device:
    """One GPU: rates are what kernels attain, in bytes or floating-point operations per second.

    `half` is the rate of the matrix units on 16-bit numbers, `tf32` theirs on 32-bit numbers rounded to 10 bits of
    mantissa, `single` and `double` those of exact products. `launch` is the time to start a kernel, in seconds.
    """

    name: str
    architecture: str
    multiprocessors: int
    bandwidth: float
    cache: float
    cache_bytes: int
    half: float
    tf32: float
    single: float
    double: float
    launch: float = 3e-6


# The H200 was measured: it attains 0.9 of the bandwidth and 0.8 of the matrix rate of its data sheet. The others are
# their data sheets times these shares. The rate of the second-level cache is an estimate for all of them.
H200 = Device("H200", "sm_90", 132, 4.3e12, 5.5e12, 50 << 20, 790e12, 395e12, 60e12, 30e12)
H100 = Device("H100", "sm_90", 132, 3.0e12, 5.5e12, 50 << 20, 790e12, 395e12, 60e12, 30e12)
A100 = Device("A100", "sm_80", 108, 1.8e12, 4.0e12, 40 << 20, 250e12, 125e12, 17e12, 8.7e12)
MI300X = Device("MI300X", "gfx942", 304, 4.7e12, 10e12, 256 << 20, 1040e12, 520e12, 120e12, 60e12)
DEVICES: tuple[Device, ...] = (H200, H100, A100, MI300X)


@dataclass(frozen=True)
class Floor:
    """The least that a program moves and computes, and the least time on one device, in microseconds."""

    bytes: int
    flops: int
    memory: float
    compute: float

    @property
    def microseconds(self) -> float:
        """Traffic and arithmetic overlap: the longer of both."""
        return max(self.memory, self.compute)

    @property
    def bound(self) -> str:
        """What the time goes to: `memory` or `compute`."""
        return "memory" if self.memory >= self.compute else "compute"


def device_named(name: str) -> Device:
    """The device whose name is part of what a driver reports.

    >>> device_named("NVIDIA H200").bandwidth
    4300000000000.0
    """
    found = next((d for d in DEVICES if d.name.lower() in name.lower()), None)
    if found is None:
        known = ", ".join(d.name for d in DEVICES)
        raise BackendError(
            f"there are no rates for the GPU `{name}`", code="unknown-device", help=f"the table has {known}"
        )
    return found


def rate(device: Device, dtype: DType, precision: str = "ieee", product: bool = True) -> float:
    """Operations per second on elements of one type; `product` says whether they are sums of products of two factors,
    which the matrix units do. Integers and booleans go at the rate of `single`.

    >>> from ...ir.types import BF16, F32
    >>> rate(H200, BF16) / 1e12, rate(H200, F32) / 1e12, rate(H200, F32, "tf32") / 1e12
    (790.0, 60.0, 395.0)
    """
    if dtype.name in ("f64", "c128"):
        return device.double
    if dtype.kind == "f" and product:
        if dtype.bits == 16:
            return device.half
        if precision == "tf32":
            return device.tf32
        if precision == "tf32x3":
            return device.tf32 / 3
    return device.single


def floor(program: Program, sizes: Mapping[str, int], device: Device = H200, precision: str = "ieee") -> Floor:
    """The least time of a planned program: its inputs and outputs once through memory, its operations at full rate.

    >>> from ...ir.text import parse_ir
    >>> text = "input W: bf16[n, n]\\ninput x: bf16[b, n]\\n"
    >>> text += "y[b, i]: bf16[b, n] = einsum[plustimes, f32](j; W[i, j], x[b, j]) over b<b, i<n, j<n\\nreturn y"
    >>> dense = floor(parse_ir(text), {"n": 4096, "b": 16384})
    >>> round(dense.microseconds), dense.bound, dense.bytes
    (696, 'compute', 301989888)
    """
    touched = moved_bytes(program, sizes)
    flops, seconds = 0, 0.0
    for equation in program.equations:
        done = count(equation, sizes).flops
        flops += done
        seconds += done / rate(device, *_kind(equation, precision))
    return Floor(touched, flops, 1e6 * touched / device.bandwidth, 1e6 * seconds)


def moved_bytes(program: Program, sizes: Mapping[str, int]) -> int:
    """Bytes of every input that is read and of every output, each once."""
    read = {r.tensor for e in program.equations for r in reads(e.expr)}
    ends: list[Input | Equation] = [i for i in program.inputs if i.name in read]
    ends += [e for e in program.equations if e.name in program.outputs]
    return sum(prod(s.evaluate(sizes) for s in t.shape) * t.dtype.itemsize for t in ends)


def _kind(equation: Equation, precision: str) -> tuple[DType, str, bool]:
    """The type that an equation multiplies in, and whether matrix units can do it."""
    sums = [e for e in walk(equation.expr) if isinstance(e, Einsum) and e.bound and len(e.factors) >= 2]
    if not sums:
        return equation.dtype, precision, False
    widest = max((f.dtype for e in sums for f in e.factors), key=lambda t: t.bits)
    return widest, precision, all(e.semiring.name == "plustimes" for e in sums)
