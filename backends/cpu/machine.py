"""The processor that code is generated for: what the generator and the scheduler need to know of it, and nothing else.

`host()` asks LLVM once. Tests make other values to force AVX2 or plain SSE2 code.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Machine:
    """A processor: LLVM's name and feature string, bytes of a vector, number of vector registers.

    `half` says that it converts between half and single precision; elsewhere that is done with integers.
    Cache sizes are bytes of one core; `frequency` is a rough number of cycles per nanosecond, used for estimates only.
    """

    cpu: str
    features: str
    vector_bytes: int
    registers: int
    half: bool
    level1: int = 32 << 10
    level2: int = 1 << 20
    frequency: float = 3.0


def machine_of(cpu: str, features: str, level1: int = 32 << 10, level2: int = 1 << 20) -> Machine:
    """The machine that an LLVM feature string ("+avx2,+fma,...") describes.

    >>> machine_of("haswell", "+avx2,+fma,+f16c").vector_bytes
    32
    """
    has = set(features.split(","))
    wide = "+avx512f" in has
    if "+neon" in has:
        return Machine(cpu, features, 16, 32, True, level1, level2)
    size = 64 if wide else 32 if "+avx2" in has else 16
    return Machine(cpu, features, size, 32 if wide else 16, wide or "+f16c" in has, level1, level2)


@cache
def host() -> Machine:
    """The processor that this process runs on."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features().flatten()
    return machine_of(llvm.get_host_cpu_name(), features, _cache_bytes(0, 32 << 10), _cache_bytes(2, 1 << 20))


def _cache_bytes(index: int, default: int) -> int:
    """Bytes of one cache of the first core as Linux tells; `default` where it does not."""
    try:
        with open(f"/sys/devices/system/cpu/cpu0/cache/index{index}/size", encoding="ascii") as file:
            text = file.read().strip()
    except OSError:
        return default
    return (
        int(text[:-1]) << {"K": 10, "M": 20}[text[-1]] if text[-1:] in {"K", "M"} and text[:-1].isdigit() else default
    )
