"""Triton's interpreter as an oracle: programs of ours on CPU tensors, in a process that was started for it.

Import this before Triton: it asks for the interpreter, and repairs four things in it (seen in Triton 3.6 and 3.9).
Numbers of type bfloat16 are held as 16-bit integers, which `tl.dot` multiplies as such; f32 is cut off to bfloat16
where a GPU rounds to the nearest, ties to even; the condition of a scalar is no condition any more once it is
widened to a tile; and numbers in arrays of one element are no bounds of loops (Triton 3.6 with NumPy 2.4).
"""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"

from typing import Any

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter

from stein.backends.gpu.choose import Settings
from stein.backends.gpu.program import Bound, bind
from stein.backends.gpu.run import run, torch_type
from stein.backends.gpu.views import Layout
from stein.ir.expr import Program
from stein.ir.types import BF16, dtype_of
from stein.passes.base import Context
from stein.passes.candidates import BEST, Draft, plan


def _widened(bits: Any) -> Any:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _rounded(value: Any) -> Any:
    bits = np.ascontiguousarray(value, dtype=np.float32).view(np.uint32)
    nearest = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(value), np.uint16(0x7FC0), nearest)


def repair() -> None:
    """Make `tl.dot`, the rounding of bfloat16, scalar conditions and bounds of loops what they are on a GPU."""
    builder = interpreter.InterpreterBuilder
    dot, truncate, splat = builder.create_dot, builder.create_fp_trunc, builder.create_splat

    def create_dot(self: Any, a: Any, b: Any, d: Any, *rest: Any) -> Any:
        def up(handle: Any) -> Any:
            if handle.dtype.scalar == tl.bfloat16:
                return interpreter.TensorHandle(_widened(handle.data), tl.float32)
            return handle

        return dot(self, up(a), up(b), d, *rest)

    def create_fp_trunc(self: Any, source: Any, kind: Any) -> Any:
        if source.dtype.scalar == tl.float32 and kind.scalar == tl.bfloat16:
            return interpreter.TensorHandle(_rounded(source.data), tl.bfloat16)
        return truncate(self, source, kind)

    def create_splat(self: Any, kind: Any, value: Any) -> Any:
        if value.data.dtype == np.bool_ and value.dtype != tl.int1:
            value = interpreter.TensorHandle(value.data, tl.int1)
        return splat(self, kind, value)

    patch = interpreter._patch_lang_tensor

    def patch_tensor(tensor: Any, *scope: Any) -> None:
        patch(tensor, *scope)
        tensor.__index__ = lambda self: self.handle.data.item()

    interpreter._patch_lang_tensor = patch_tensor
    builder.create_splat = create_splat
    builder.create_dot, builder.create_fp_trunc = create_dot, create_fp_trunc


def tensor_of(array: np.ndarray[Any, Any]) -> torch.Tensor:
    """A torch tensor with the values and the strides of an array, where torch can have them."""
    if array.dtype == BF16.numpy:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    try:
        return torch.from_numpy(array)
    except ValueError:  # strides below 0
        return torch.from_numpy(array.copy())


def array_of(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """The values of a tensor as an array."""
    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.int16).numpy().view(BF16.numpy)
    found: np.ndarray[Any, Any] = tensor.numpy()
    return found


def layout_of(tensor: torch.Tensor) -> Layout:
    """Where the elements of a tensor lie."""
    return Layout(
        tuple(tensor.shape),
        tuple(tensor.stride()),
        dtype_of(np.dtype(array_of(tensor[:0] if tensor.ndim else tensor).dtype)),
    )


def poisoned(shape: tuple[int, ...], dtype: Any = None, device: Any = None) -> torch.Tensor:
    """Memory of which every element that is read before it is written shows in the result."""
    if dtype.is_floating_point:
        return torch.full(shape, float("nan"), dtype=dtype, device=device)
    if dtype == torch.bool:
        return torch.ones(shape, dtype=dtype, device=device)
    return torch.full(shape, 77, dtype=dtype, device=device)


def computed(
    program: Program,
    arrays: dict[str, np.ndarray[Any, Any]],
    sizes: dict[str, int],
    settings: Settings = Settings(),
    library: bool = False,
) -> tuple[dict[str, np.ndarray[Any, Any]], Bound]:
    """The outputs of a program by kernels of ours (torch.matmul stays out of it), and the steps that ran."""
    candidate = plan(Draft(BEST, program), Context(sizes=sizes))
    tensors = {n: tensor_of(a) for n, a in arrays.items()}
    bound = bind(candidate.program, sizes, {n: layout_of(t) for n, t in tensors.items()}, settings, library)
    found = run(bound, tensors, torch.device("cpu"), poisoned)
    assert all(f.dtype == torch_type(program.tensors[n].dtype) for n, f in zip(program.outputs, found, strict=True))
    return {n: array_of(f) for n, f in zip(program.outputs, found, strict=True)}, bound


repair()
