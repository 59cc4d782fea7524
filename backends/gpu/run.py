"""Running the steps of a bound program on torch tensors, on their device and its current stream.

The one module, beside `launch`, that touches torch. It neither waits for the GPU nor copies between devices, reads no
value of a tensor, and takes memory from torch alone: from the second run on (the first one uploads constants and
compiles kernels), a run can be captured in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from typing import Any

from ...ir.types import DType
from .block_rows import ordered
from .launch import launch
from .program import Bound
from .steps import BlockRows, Constant, Copy, Drop, Fill, Launch, Make, Matrix, Part, Product, Step

_NAMES = {
    "bool": "bool", "f16": "float16", "bf16": "bfloat16", "f32": "float32", "f64": "float64", "c64": "complex64",
    "c128": "complex128", **{f"i{b}": f"int{b}" for b in (8, 16, 32, 64)}, "u8": "uint8",
    **{f"u{b}": f"uint{b}" for b in (16, 32, 64)},
}  # fmt: skip

LISTS = 64  # of blocks, whose tables a program keeps: layers of the same shapes share it
Pick = Callable[[Launch, Mapping[str, Any]], Launch]  # another configuration, given the arguments by name


@cache
def torch_type(dtype: DType) -> Any:
    """The torch dtype of an element type."""
    import torch

    return getattr(torch, _NAMES[dtype.name])


def run(bound: Bound, operands: Mapping[str, Any], device: Any, empty: Callable[..., Any] | None = None) -> list[Any]:
    """The results of a program for its inputs by name, all of them tensors on `device`.

    Buffers come from `empty(shape, dtype=, device=)`, torch.empty by default.
    """
    values = dict(operands)
    with _on(device):
        for step in bound.steps:
            _do(step, values, device, empty, bound.held)
    return [values[n] for n in bound.outputs]


def run_tuned(
    bound: Bound, operands: Mapping[str, Any], device: Any, pick: Pick, empty: Callable[..., Any] | None = None
) -> tuple[list[Any], Bound]:
    """The results, and the program with the configuration that `pick` says for each kernel.

    Each kernel is asked for when its operands are there, just before it runs.
    """
    values, steps = dict(operands), list[Step]()
    with _on(device):
        for step in bound.steps:
            if isinstance(step, Launch):
                step = pick(step, _arguments(step, values))
            _do(step, values, device, empty, bound.held)
            steps.append(step)
    return [values[n] for n in bound.outputs], replace(bound, steps=tuple(steps), settled=True)


def _on(device: Any) -> Any:
    """The context in which kernels are launched on a device."""
    import torch

    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _arguments(step: Launch, values: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a kernel by name."""
    chosen = step.chosen
    return {parameter: values[tensor] for parameter, tensor in chosen.tensors} | dict(chosen.numbers)


def _do(
    step: Step,
    values: dict[str, Any],
    device: Any,
    empty: Callable[..., Any] | None,
    held: dict[tuple[str, str], Any],
) -> None:
    """Run one step."""
    import torch

    match step:
        case Make(name, layout, fill):
            kind = torch_type(layout.dtype)
            if fill is None:
                values[name] = (empty or torch.empty)(layout.shape, dtype=kind, device=device)
            else:
                values[name] = torch.full(layout.shape, fill, dtype=kind, device=device)
        case Constant(name):
            values[name] = _uploaded(step, device, held)
        case BlockRows():
            values |= zip(step.names, _ordered(step, values, device, held), strict=True)
        case Part(name, source, part):
            values[name] = torch.view_as_real(values[source])[..., part]
        case Fill(name, value):
            values[name].fill_(value)
        case Copy(name, source):
            values[name].copy_(values[source])
        case Launch(chosen=chosen):
            launch(chosen.kernel, _arguments(step, values), chosen.programs)
        case Product(out, left, right):
            torch.matmul(_matrix(values, left), _matrix(values, right), out=_matrix(values, out))
        case Drop(names):
            for name in names:
                del values[name]


def _uploaded(constant: Constant, device: Any, held: dict[tuple[str, str], Any]) -> Any:
    """The array on a device, in its type: there as long as the plan that brings it."""
    import torch

    key = constant.name, str(device)
    if key not in held:
        array = torch.from_numpy(constant.values)
        held[key] = array.to(device=device, dtype=torch_type(constant.layout.dtype))
    return held[key]


def _ordered(step: BlockRows, values: Mapping[str, Any], device: Any, held: dict[tuple[str, str], Any]) -> Any:
    """The tables of a list of blocks. Those of a list that never changes are made once, and again if PyTorch wrote to
    it (loaded a state, say); while a CUDA graph is captured they are made in the graph, which may outlive them.
    """
    rows, columns = values[step.rows_of], values[step.columns_of]
    watched = not (rows.is_inference() or columns.is_inference())  # whether PyTorch counts what is written
    if not step.constant or not watched or (device.type == "cuda" and _capturing()):
        return ordered(rows, columns, step.extents)
    # The lists are kept with their tables, so that no other list can come to lie where they are.
    place = f"{step.pointers} {rows.data_ptr()} {columns.data_ptr()} {rows.stride()} {columns.stride()} {len(rows)}"
    key, state = (place, str(device)), (rows._version, columns._version)
    known = held.pop(key, None)
    if known is None or known[0] != state:
        known = state, rows.detach(), columns.detach(), ordered(rows, columns, step.extents)
    held[key] = known
    lists = [k for k in held if k[0].startswith(step.pointers + " ")]
    for oldest in lists[:-LISTS]:
        del held[oldest]
    return known[-1]


def _capturing() -> bool:
    """Whether launches are being recorded into a CUDA graph."""
    import torch

    return bool(torch.cuda.is_current_stream_capturing())


def _matrix(values: Mapping[str, Any], matrix: Matrix) -> Any:
    tensor = values[matrix.tensor]
    return tensor.as_strided(matrix.shape, matrix.strides, tensor.storage_offset() + matrix.offset)
