"""What a `Contraction` means, in plain NumPy, and how tests run one: shared by the tests of the code generator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from stein.backends.cpu.run import run_calls
from stein.backends.cpu.schedule import Plan, launch, schedule
from stein.ir.functions import CAST, FUNCTIONS
from stein.ir.loops import Apply, Axis, Contraction, Leaf, Literal, Load, Total
from stein.ir.semiring import Semiring
from stein.ir.types import F64, DType, promote

Array = np.ndarray[Any, Any]


def view(memory: Array, start: int, dtype: DType, extents: list[int], strides: list[int]) -> Array:
    """Elements of a byte array at any byte strides (also unaligned ones)."""
    return np.ndarray(extents, dtype.numpy, memory.data, start, strides)


def value_of(leaf: Leaf, loads: list[Array], total: Array | None = None) -> Array:
    """A leaf tree on arrays that broadcast."""
    with np.errstate(all="ignore"):
        match leaf:
            case Load(operand):
                return loads[operand]
            case Literal(value, dtype):
                return np.asarray(value, dtype.numpy)
            case Total():
                assert total is not None
                return total
            case Apply(name, args, dtype):
                values = [value_of(a, loads, total) for a in args]
                if name == CAST:
                    return converted(values[0], dtype)
                function = FUNCTIONS[name]
                types = [_dtype(v) for v in values]
                select = function.rule == "select"
                joint = promote(*(types[1:] if select else types))
                if function.rule == "float" and joint.kind in "biu":
                    joint = F64
                values = [converted(v, joint) if i or not select else v.astype(bool) for i, v in enumerate(values)]
                return converted(np.asarray(function.numpy(*values)), dtype)
    raise AssertionError(leaf)


def _dtype(array: Array) -> DType:
    from stein.ir.types import dtype_of

    return dtype_of(array.dtype)


def converted(array: Array, dtype: DType) -> Array:
    """astype, quietly."""
    with np.errstate(all="ignore"):
        if array.dtype.kind == "c" and dtype.kind not in "cb":
            array = array.real
        return array.astype(dtype.numpy)


def oracle(problem: Contraction, memory: list[Array], starts: list[int], semiring: Semiring | None = None) -> Array:
    """The output's values (a dense array over the axes that are not reduced) by brute force."""
    semiring = semiring or problem.semiring
    axes = problem.axes
    extents = [a.extent for a in axes]
    loads = [
        view(memory[t], starts[t], problem.dtypes[t], extents, [a.strides[t] for a in axes])
        for t in range(1, len(problem.dtypes))
    ]
    free = [i for i, a in enumerate(axes) if not a.reduced]
    reduced = tuple(i for i, a in enumerate(axes) if a.reduced)
    shape = [extents[i] for i in free]
    accumulate = problem.accumulate
    with np.errstate(all="ignore"):
        product: Array | None = None
        for factor in problem.factors:
            value = np.broadcast_to(converted(value_of(factor, loads), accumulate), extents)
            product = value if product is None else _product(semiring, product, value, accumulate)
        assert product is not None
        flat = product.transpose([*free, *reduced]).reshape([*shape, -1])
        total = np.full(shape, semiring.zero_of(accumulate), accumulate.numpy)
        if semiring.add == "add" and accumulate.kind in "fciu":
            total = flat.sum(-1, dtype=accumulate.numpy)
        elif reduced:
            for k in range(flat.shape[-1]):
                total = _apply(semiring.add, total, flat[..., k], accumulate)
        else:
            total = product
        if not any(a.extent == 0 for a in axes if a.reduced):  # what the epilogue loads lacks the reduced axes
            loads = [load[tuple(0 if a.reduced else slice(None) for a in axes)] for load in loads]
        return value_of(problem.epilogue, loads, total)


def _product(semiring: Semiring, a: Array, b: Array, dtype: DType) -> Array:
    """a times b; an integer that stands for an infinity stays one."""
    product = _apply(semiring.mul, a, b, dtype)
    if semiring.mul == "add" and semiring.zero in ("inf", "-inf") and dtype.kind in "iu":
        zero = np.asarray(semiring.zero_of(dtype), dtype.numpy)
        return np.where((a == zero) | (b == zero), zero, product)
    return product


def _apply(name: str, a: Array, b: Array, dtype: DType) -> Array:
    return converted(np.asarray(FUNCTIONS[name].numpy(a, b)), dtype)


def execute(plan: Plan, memory: list[Array], starts: list[int], shares: int = 1) -> None:
    """Run a plan on buffers that start somewhere in byte arrays."""
    temporaries = [np.full(size + 64, 0xAB, np.uint8) for size in plan.temporaries]
    addresses = [m.ctypes.data + s for m, s in zip(memory, starts, strict=True)]
    run_calls(launch(plan), addresses + [t.ctypes.data for t in temporaries], shares)


def magnitude(problem: Contraction) -> Contraction:
    """The same problem in double precision with absolute values: what error bounds are multiples of."""
    return replace(problem, accumulate=F64)


__all__ = ["Axis", "execute", "magnitude", "oracle", "schedule", "view"]
