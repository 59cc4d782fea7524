"""Kernels that no program is matched to, or that are another choice for one: four-bit results, tensor descriptors. At
small sizes for the interpreter, at real ones for the compiler's facts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from stein.backends.gpu.kernels import kronecker, quantise
from stein.backends.gpu.nodes import Kernel, Tensor
from stein.ir.types import BF16, F32, I8, DType

Arrays = dict[str, np.ndarray[Any, Any]]
STRIDES = ("n_b",)


@dataclass(frozen=True)
class Direct:
    """A kernel with operands and exact results at its small size; `full` is the same at a real one.

    `results` maps names to the exact values in double precision and the error allowed, both of `operands`.
    """

    name: str
    small: Callable[[DType], Kernel]
    full: Callable[[DType], Kernel]
    operands: Callable[[], Arrays]
    results: Callable[[Arrays, float], dict[str, tuple[Any, Any]]]
    sizes: dict[str, int]
    tensor_core: str = "HGMMA"


def dense(name: str, axes: str, sizes: dict[str, Any], dtype: DType, **more: Any) -> Tensor:
    """A row-major tensor, the first axis of any size."""
    strides, step = [], 1
    for axis in reversed(axes):
        strides.append(step)
        step *= sizes[axis] if isinstance(sizes[axis], int) else 1
    return Tensor(name, tuple(axes), dtype, tuple(reversed(strides)), **more)


def _nibbles(batch: int | str) -> Callable[[DType], Kernel]:
    def make(dtype: DType) -> Kernel:
        sizes: dict[str, Any] = {"b": batch, "p": 64, "q": 64, "r": 64, "s": 32}
        x, a = dense("x", "bpq", sizes, dtype), dense("A", "rp", sizes, dtype)
        even = Tensor("C", ("s", "q"), dtype, (128, 1))
        y, g = dense("y", "brs", sizes, I8), dense("g", "b", sizes, F32)
        return quantise.kronecker_int4(x, a, even, y, g, sizes)

    return make


def _nibble_operands() -> Arrays:
    values = np.random.default_rng(5)
    factors = {n: values.standard_normal((64, 64)) / 8 for n in "AC"}
    return factors | {"x": values.standard_normal((5, 64, 64))}


def _nibble_results(o: Arrays, unit: float) -> dict[str, tuple[Any, Any]]:
    z = np.einsum("rp,sq,bpq->brs", o["A"], o["C"], o["x"])
    most = (2 * 66 * 2.0**-24 + unit) * np.einsum("rp,sq,bpq->brs", *(np.abs(o[n]) for n in "ACx"))
    g = np.abs(z).max((1, 2)) / 7
    off = most.max((1, 2)) / 7 + 4 * 2.0**-24 * g
    steps = z / g[:, None, None]
    of_steps = 0.5 + (most + np.abs(z) * (off / g)[:, None, None]) / (g - off)[:, None, None]
    return {"g": (g, off), "y": (steps, of_steps)}


def _with_descriptors(dtype: DType) -> Kernel:
    sizes: dict[str, Any] = {"b": "n_b", "p": 64, "q": 64, "r": 64, "s": 64}
    ends = (dense(n, a, sizes, dtype, descriptor=True) for n, a in (("x", "bpq"), ("y", "brs")))
    x, y = ends
    a, c = dense("A", "rp", sizes, dtype), dense("C", "sq", sizes, dtype)
    return kronecker.kronecker(x, a, c, y, sizes, share=528)


def _kron_operands() -> Arrays:
    return _nibble_operands()


def _kron_results(o: Arrays, unit: float) -> dict[str, tuple[Any, Any]]:
    z = np.einsum("rp,sq,bpq->brs", o["A"], o["C"], o["x"])
    most = np.einsum("rp,sq,bpq->brs", *(np.abs(o[n]) for n in "ACx"))
    return {"y": (z, (2 * 66 * 2.0**-24 + 2.02 * unit) * most)}


DIRECT: tuple[Direct, ...] = (
    Direct("kronecker, int4", _nibbles("n_b"), _nibbles("n_b"), _nibble_operands, _nibble_results, {"n_b": 5}),
    Direct("kronecker, descriptors", _with_descriptors, _with_descriptors, _kron_operands, _kron_results, {"n_b": 5}),
)  # fmt: skip
TYPES = {"float32": F32, "bfloat16": BF16}
