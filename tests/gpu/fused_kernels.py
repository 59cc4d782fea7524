"""Kernels that no program is matched to yet, or that are another choice for one: block lists, four-bit results, tensor
descriptors. At small sizes for the interpreter, at real ones for the compiler's facts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from stein.backends.gpu.kernels import block_sparse, kronecker, quantise
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


def _sparse(n: int, side: int, rows: int, gated: int = 0) -> Callable[[DType], Kernel]:
    """A block-sparse product, or (`gated` lists) two of them with a gate between."""

    def make(dtype: DType) -> Kernel:
        sizes: dict[str, Any] = {"b": "n_b", "J": n // side, "I": n // side, "c": side, "a": side, "s": "n_s"}
        sizes |= {"K": n // side, "t": "n_t"}
        x, y = dense("x", "bJc", sizes, dtype), dense("y", "bIa", sizes, dtype)
        w = dense("W", "sac", sizes, dtype)
        first = block_sparse.BlockList("I", "J", "s", "pointers", "columns")
        if not gated:
            return block_sparse.block_sparse(x, w, y, first, sizes, rows=rows)
        if gated == 1:
            return block_sparse.gated(x, w, dense("V", "sac", sizes, dtype), y, (first, first), sizes, rows=rows)
        second = block_sparse.BlockList("I", "K", "t", "pointers_2", "columns_2")
        other = Tensor("x_2", ("b", "K", "c"), dtype, x.strides, memory="x")
        up = dense("V", "tac", sizes, dtype)
        return block_sparse.gated(x, w, up, y, (first, second), sizes, rows=rows, second=other)

    return make


def _lists(seed: int, rows: int, columns: int, count: int) -> tuple[Any, Any]:
    values = np.random.default_rng(seed)
    taken = np.sort(values.choice(rows * columns, count, replace=False))
    pointers = np.searchsorted(taken // columns, np.arange(rows + 1)).astype(np.int32)
    return pointers, (taken % columns).astype(np.int32)


def _sparse_operands(lists: int) -> Callable[[], Arrays]:
    def make() -> Arrays:
        values = np.random.default_rng(lists)
        found: Arrays = {"x": values.standard_normal((37, 4, 32))}
        found["pointers"], found["columns"] = _lists(3, 4, 4, 7)
        found["W"] = values.standard_normal((7, 32, 32)) / 8
        if lists:
            found["V"] = values.standard_normal((7 if lists == 1 else 5, 32, 32)) / 8
        if lists == 2:
            found["pointers_2"], found["columns_2"] = _lists(4, 4, 4, 5)
        return found

    return make


def _spread(w: Any, pointers: Any, columns: Any) -> Any:
    out = np.zeros((4, 4, *w.shape[1:]))
    for row in range(4):
        for s in range(pointers[row], pointers[row + 1]):
            out[row, columns[s]] = w[s]
    return out


def _sparse_results(lists: int) -> Callable[[Arrays, float], dict[str, tuple[Any, Any]]]:
    def results(o: Arrays, unit: float) -> dict[str, tuple[Any, Any]]:
        def apply(w: Any, x: Any) -> Any:
            return np.einsum("IJac,bJc->bIa", w, x)

        g = _spread(o["W"], o["pointers"], o["columns"])
        sums = 4 * 32 * 2.0**-24
        g_exact, g_most = apply(g, o["x"]), sums * apply(np.abs(g), np.abs(o["x"]))
        if not lists:
            return {"y": (g_exact, g_most + unit * np.abs(g_exact))}
        tables = ("pointers", "columns") if lists == 1 else ("pointers_2", "columns_2")
        h = _spread(o["V"], *(o[t] for t in tables))
        h_exact, h_most = apply(h, o["x"]), sums * apply(np.abs(h), np.abs(o["x"]))
        gate = g_exact / (1 + np.exp(-g_exact))
        exact = gate * h_exact
        # The slope of silu is below 1.1; exp and the quotient have some units of f32 of their own.
        off = 1.1 * g_most + 16 * 2.0**-24 * np.abs(gate)
        return {
            "y": (exact, np.abs(h_exact) * off + (np.abs(gate) + off) * h_most + 1.01 * unit * np.abs(exact) + 1e-7)
        }

    return results


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
    Direct("block sparse", _sparse(128, 32, 16), _sparse(4096, 128, 128), _sparse_operands(0), _sparse_results(0),
           {"n_b": 37, "n_s": 7}),
    Direct("gated, one list", _sparse(128, 32, 16, 1), _sparse(4096, 64, 128, 1), _sparse_operands(1),
           _sparse_results(1), {"n_b": 37, "n_s": 7}),
    Direct("gated, two lists", _sparse(128, 32, 16, 2), _sparse(4096, 64, 128, 2), _sparse_operands(2),
           _sparse_results(2), {"n_b": 37, "n_s": 7, "n_t": 5}),
    Direct("kronecker, int4", _nibbles("n_b"), _nibbles("n_b"), _nibble_operands, _nibble_results, {"n_b": 5}),
    Direct("kronecker, descriptors", _with_descriptors, _with_descriptors, _kron_operands, _kron_results, {"n_b": 5}),
)  # fmt: skip
TYPES = {"float32": F32, "bfloat16": BF16}
