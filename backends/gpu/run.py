"""Running the steps of a bound program on torch tensors, on their device and its current stream.

The one module, beside `launch`, that touches torch. It neither waits for the GPU nor copies between devices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import cache, lru_cache
from typing import Any

from ...ir.types import DType
from .launch import launch
from .program import Bound
from .steps import Constant, Copy, Drop, Fill, Launch, Make, Matrix, Part, Product

_NAMES = {
    "bool": "bool", "f16": "float16", "bf16": "bfloat16", "f32": "float32", "f64": "float64", "c64": "complex64",
    "c128": "complex128", **{f"i{b}": f"int{b}" for b in (8, 16, 32, 64)}, "u8": "uint8",
    **{f"u{b}": f"uint{b}" for b in (16, 32, 64)},
}  # fmt: skip


@cache
def torch_type(dtype: DType) -> Any:
    """The torch dtype of an element type."""
    import torch

    return getattr(torch, _NAMES[dtype.name])


def run(bound: Bound, operands: Mapping[str, Any], device: Any, empty: Callable[..., Any] | None = None) -> list[Any]:
    """The results of a program for its inputs by name, all of them tensors on `device`.

    Buffers come from `empty(shape, dtype=, device=)`, torch.empty by default.
    """
    import torch

    empty = empty or torch.empty
    values: dict[str, Any] = dict(operands)
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        for step in bound.steps:
            match step:
                case Make(name, layout, fill):
                    kind = torch_type(layout.dtype)
                    if fill is None:
                        values[name] = empty(layout.shape, dtype=kind, device=device)
                    else:
                        values[name] = torch.full(layout.shape, fill, dtype=kind, device=device)
                case Constant(name):
                    values[name] = _uploaded(step, device)
                case Part(name, source, part):
                    values[name] = torch.view_as_real(values[source])[..., part]
                case Fill(name, value):
                    values[name].fill_(value)
                case Copy(name, source):
                    values[name].copy_(values[source])
                case Launch(chosen=chosen):
                    arguments = {parameter: values[tensor] for parameter, tensor in chosen.tensors}
                    launch(chosen.kernel, arguments | dict(chosen.numbers), chosen.programs)
                case Product(out, left, right):
                    torch.matmul(_matrix(values, left), _matrix(values, right), out=_matrix(values, out))
                case Drop(names):
                    for name in names:
                        del values[name]
    return [values[n] for n in bound.outputs]


@lru_cache(maxsize=256)
def _uploaded(constant: Constant, device: Any) -> Any:
    """The array on a device, in its type."""
    import torch

    return torch.from_numpy(constant.values).to(device=device, dtype=torch_type(constant.layout.dtype))


def _matrix(values: Mapping[str, Any], matrix: Matrix) -> Any:
    tensor = values[matrix.tensor]
    return tensor.as_strided(matrix.shape, matrix.strides, tensor.storage_offset() + matrix.offset)
