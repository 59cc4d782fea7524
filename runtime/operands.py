"""Operands: arrays of every library in, NumPy views inside, arrays of the same library out.

NumPy arrays pass as they are; torch CPU tensors and JAX arrays are viewed without a copy (DLPack or their array
interface); lists, numbers and objects with `__array__` become arrays. Nothing is imported that the caller has not
imported already.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..ir.errors import DTypeError
from ..ir.types import BF16

Array = np.ndarray[Any, Any]


def as_array(operand: object, name: str) -> Array:
    """A NumPy view of an operand (a copy only for lists, numbers and the like).

    Raises `DTypeError` for what is no array: None, strings, tensors on another device or that need a gradient.

    >>> as_array([1.5, 2], "operand 0").dtype
    dtype('float64')
    """
    kind = type(operand)
    if kind is np.ndarray:
        return _native(operand)  # type: ignore[arg-type]
    module = kind.__module__.partition(".")[0]
    if module == "torch" and _is_tensor(operand):
        return _from_torch(operand, name)
    if module in ("jax", "jaxlib"):
        return _from_jax(operand, name)
    if operand is None or isinstance(operand, (str, bytes, dict, set)) or callable(operand):
        raise DTypeError(f"{name} is {_describe(operand)}, not an array", code="not-an-array")
    try:
        array = np.asarray(operand)
    except (ValueError, TypeError, RuntimeError) as error:
        raise DTypeError(f"{name} cannot be read as an array: {error}", code="not-an-array") from error
    return _native(array)


def _native(array: Array) -> Array:
    """The array in this machine's byte order."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def library_of(operands: Sequence[object]) -> str:
    """Whose arrays a call gets back: "torch" or "jax" if any operand is one of theirs, else "numpy".

    Tensors of both in one call raise `DTypeError`.
    """
    found = set()
    for operand in operands:
        if type(operand) is not np.ndarray:
            module = type(operand).__module__.partition(".")[0]
            if module == "torch" and _is_tensor(operand):
                found.add("torch")
            elif module in ("jax", "jaxlib"):
                found.add("jax")
    if len(found) > 1:
        raise DTypeError("torch tensors and JAX arrays in one call", code="mixed-libraries", help="convert one of them")
    return found.pop() if found else "numpy"


def wrapper(library: str) -> Callable[[Array], Any]:
    """The function that turns a result into an array of `library`, without a copy."""
    return {"torch": _to_torch, "jax": _to_jax}.get(library, _to_numpy)


def _describe(operand: object) -> str:
    return "None" if operand is None else f"a {type(operand).__name__}"


def _is_tensor(operand: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(operand, torch.Tensor)


def _from_torch(tensor: Any, name: str) -> Array:
    import torch

    if tensor.device.type != "cpu":
        raise DTypeError(
            f"{name} is a tensor on {tensor.device}; this kernel runs on the CPU",
            code="wrong-device",
            help="compile with target='cuda', or move the tensor with .cpu()",
        )
    if tensor.requires_grad and torch.is_grad_enabled():
        raise DTypeError(
            f"{name} requires a gradient, which this kernel does not record",
            code="needs-gradient",
            help="pass tensor.detach(), or call under torch.no_grad()",
        )
    tensor = tensor.detach()
    if tensor.layout != torch.strided:
        raise DTypeError(f"{name} is a {tensor.layout} tensor", code="not-strided", help="pass tensor.to_dense()")
    if tensor.is_conj() or tensor.is_neg():
        tensor = tensor.resolve_conj().resolve_neg()
    if tensor.dtype == torch.bfloat16:
        return np.asarray(tensor.view(torch.int16).numpy()).view(BF16.numpy)
    try:
        return np.asarray(tensor.numpy())
    except TypeError as error:
        raise DTypeError(f"{name} has elements of type {tensor.dtype}: {error}", code="unsupported-type") from error


def _to_torch(array: Array) -> Any:
    import torch

    if array.dtype == BF16.numpy:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _from_jax(array: Any, name: str) -> Array:
    jax = sys.modules["jax"]
    if isinstance(array, jax.core.Tracer):
        raise DTypeError(
            f"{name} is a traced JAX value; stein computes on arrays",
            code="traced-value",
            help="call it outside jax.jit, or through jax.pure_callback",
        )
    try:
        return np.from_dlpack(array)
    except (TypeError, ValueError, BufferError, RuntimeError):
        return np.asarray(array)  # bool and bfloat16 do not travel by DLPack everywhere


def _to_jax(array: Array) -> Any:
    import jax

    try:
        return jax.dlpack.from_dlpack(array)
    except (TypeError, ValueError, BufferError, RuntimeError):
        return jax.numpy.asarray(array)


def _to_numpy(array: Array) -> Any:
    return array if array.ndim else array[()]
