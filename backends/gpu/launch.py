"""Printed kernels as callables: `function` makes one of a source, `launch` runs it on torch tensors.

Triton is imported here, on first use. Where the environment says TRITON_INTERPRET=1 before that, Triton runs kernels in
its interpreter, on tensors of the CPU; nothing here is different then.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from functools import cache, lru_cache
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ...ir.errors import BackendError
from .frame import Frame
from .nodes import Index, Kernel, Loop, Number, Outer, Tensor, walk
from .source import NAME, arguments, grid, source


@cache
def _folder() -> TemporaryDirectory[str]:
    """Where the sources of this process lie: Triton and profilers look for the lines of a function in a file."""
    return TemporaryDirectory(prefix="stein-triton-")


@cache
def function(text: str, name: str = NAME) -> Any:
    """The `triton.jit` function that a printed source defines; the same text gives the same function.

    Raises `BackendError` where Triton is not installed.
    """
    if importlib.util.find_spec("triton") is None:
        raise BackendError(
            "target 'cuda' needs Triton, which is not installed",
            code="missing-backend",
            help="pip install 'stein[gpu]'",
        )
    digest = blake2b(text.encode(), digest_size=8).hexdigest()
    path = Path(_folder().name) / f"{name}_{digest}.py"
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(f"stein_triton_{digest}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def launch(kernel: Kernel, values: Mapping[str, Any], programs: int | Mapping[str, int]) -> None:
    """Run a kernel on the current stream: `values` are its arguments by name; `programs` is their number, or the sizes
    that it follows from.

    Outside of `tl.dot`, a product and a sum are contracted into one operation where the kernel says so, and nowhere
    else: in all other kernels every operation of the text is rounded by itself.
    """
    shape = (programs,) if isinstance(programs, int) else grid(kernel, programs)
    made, names, blocks = _prepared(kernel)
    given = {n: values[n] for n in names}
    for tensor, block in blocks:
        given[tensor.argument] = _descriptor(kernel, tensor, block, values)
    made[shape](
        *given.values(),
        num_warps=kernel.warps,
        num_stages=kernel.stages,
        enable_fp_fusion=kernel.fuse_multiply_add,
    )


@lru_cache(maxsize=1024)
def _prepared(kernel: Kernel) -> tuple[Any, tuple[str, ...], list[tuple[Tensor, list[int]]]]:
    """The function of a kernel, the names of its arguments, and the tensors that are descriptors with their blocks."""
    blocks = [(t, block_of(kernel, t)) for t in kernel.tensors if t.descriptor]
    return function(source(kernel, kernel.name), kernel.name), arguments(kernel), blocks


def block_of(kernel: Kernel, tensor: Tensor) -> list[int]:
    """The block of a tensor that a kernel moves at a time, an extent an axis.

    >>> from ...ir.types import F16
    >>> from .nodes import Loop, Outer, Tile
    >>> x, y = Tensor("x", ("i", "k"), F16, descriptor=True), Tensor("y", ("i",), F16)
    >>> nest = Outer((("i", 64),), Loop("k", 32, Tile("y", ("x",), ("i",), ("k",)), reduced=True))
    >>> block_of(Kernel((x, y), (("i", 256), ("k", 128)), nest), x)
    [64, 32]
    """
    found: dict[str, int] = {}
    for node in walk(kernel.nest):
        if isinstance(node, Outer):
            found.update(node.axes)
        elif isinstance(node, Loop):
            found[node.axis] = node.block
        elif isinstance(node, Index):
            found[node.axis] = 1
    frame = Frame.of(kernel)
    return [found[a] if a in found else frame.place(a).width for a in tensor.axes]


def _descriptor(kernel: Kernel, tensor: Tensor, block: list[int], values: Mapping[str, Any]) -> Any:
    """A host tensor descriptor of a tensor as the kernel sees it, for the bulk copies of Hopper (Triton 3.4 and later).

    The host makes it, not `tl.make_tensor_descriptor` in the kernel: that writes one into memory which Triton takes
    from an allocator set for the whole process, and every program would wait for it.
    """
    try:
        from triton.tools.tensor_descriptor import TensorDescriptor
    except ImportError as error:
        raise BackendError(
            "this version of Triton has no host tensor descriptors",
            code="old-triton",
            help="pip install 'triton>=3.4'",
        ) from error
    frame = Frame.of(kernel)
    strides = frame.strides(tensor)
    shape = [_number(frame.sizes[a], values) for a in tensor.axes]
    return TensorDescriptor(values[tensor.argument], shape, [_number(strides[a], values) for a in tensor.axes], block)


def _number(number: Number, values: Mapping[str, Any]) -> int:
    return values[number] if isinstance(number, str) else number
