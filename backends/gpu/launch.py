"""Printed kernels as callables: `function` makes one of a source, `launch` runs it on torch tensors.

Triton is imported here, on first use. Where the environment says TRITON_INTERPRET=1 before that, Triton runs kernels in
its interpreter, on tensors of the CPU; nothing here is different then.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ...ir.errors import BackendError
from .frame import Frame
from .nodes import Index, Kernel, Loop, Number, Outer, Tensor, walk
from .source import NAME, arguments, grid, source

ALIGNED = 128  # bytes: compilers ask for no more
REMEMBERED = 256  # compiled kernels, by their arguments, of one source


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
    that it follows from. Without programs there is nothing to run.

    Outside of `tl.dot`, a product and a sum are contracted into one operation where the kernel says so, and nowhere
    else: in all other kernels every operation of the text is rounded by itself.

    Triton assembles a kernel anew for what it knows of its arguments (numbers that are 1 or multiples of 16, addresses
    that are), and takes longer to find the one to launch than to launch it; for arguments that were there before, the
    one that it found is launched.
    """
    count = programs if isinstance(programs, int) else grid(kernel, programs)[0]
    if not count:
        return
    prepared = _prepared(kernel)
    given = [values[n] for n in prepared.names]
    key = _key(given)
    for bulk in prepared.bulk:
        given[bulk.place] = bulk.descriptor(values)
    compiled = prepared.compiled.get(key)
    if compiled is not None:
        compiled[count, 1, 1](*given)
        return
    compiled = prepared.function[(count,)](
        *given,
        num_warps=kernel.warps,
        num_stages=kernel.stages,
        enable_fp_fusion=kernel.fuse_multiply_add,
    )
    if compiled is not None:  # as it is in the interpreter
        if len(prepared.compiled) >= REMEMBERED:
            prepared.compiled.clear()
        prepared.compiled[key] = compiled


def _key(given: list[Any]) -> tuple[object, ...]:
    """All that a compiled kernel may depend on, of the arguments of one kernel: the device, numbers, how addresses
    are aligned. The types of tensors are those of the kernel.
    """
    return given[0].device, *[n if isinstance(n, int) else n.data_ptr() % ALIGNED for n in given]


@dataclass(frozen=True)
class Bulk:
    """An argument that is a host tensor descriptor: its place, and shape, strides and block of the tensor as the kernel
    sees it, for the bulk copies of Hopper (Triton 3.4 and later).

    The host makes it, not `tl.make_tensor_descriptor` in the kernel: that writes one into memory which Triton takes
    from an allocator set for the whole process, and every program would wait for it.
    """

    place: int
    argument: str
    shape: tuple[Number, ...]
    strides: tuple[Number, ...]
    block: tuple[int, ...]

    @staticmethod
    def of(kernel: Kernel, tensor: Tensor) -> Bulk:
        """The descriptor of a tensor of a kernel."""
        frame = Frame.of(kernel)
        strides = frame.strides(tensor)
        return Bulk(
            arguments(kernel).index(tensor.argument),
            tensor.argument,
            tuple(frame.sizes[a] for a in tensor.axes),
            tuple(strides[a] for a in tensor.axes),
            tuple(block_of(kernel, tensor)),
        )

    def descriptor(self, values: Mapping[str, Any]) -> Any:
        """What Triton takes for the arguments `values`."""
        shape = [values[n] if isinstance(n, str) else n for n in self.shape]
        strides = [values[n] if isinstance(n, str) else n for n in self.strides]
        return _descriptor_type()(values[self.argument], shape, strides, list(self.block))


@cache
def _descriptor_type() -> Any:
    """The class of host tensor descriptors; `BackendError` where Triton has none."""
    try:
        from triton.tools.tensor_descriptor import TensorDescriptor
    except ImportError as error:
        raise BackendError(
            "this version of Triton has no host tensor descriptors",
            code="old-triton",
            help="pip install 'triton>=3.4'",
        ) from error
    return TensorDescriptor


@dataclass(frozen=True)
class Prepared:
    """What every launch of a kernel needs: its function, the names of its arguments, and those that are descriptors.
    `compiled` has what Triton made of it so far, by `_key`.
    """

    function: Any
    names: tuple[str, ...]
    bulk: tuple[Bulk, ...]
    compiled: dict[tuple[object, ...], Any] = field(default_factory=dict, compare=False)


@lru_cache(maxsize=1024)
def _prepared(kernel: Kernel) -> Prepared:
    bulk = tuple(Bulk.of(kernel, t) for t in kernel.tensors if t.descriptor)
    return Prepared(function(source(kernel, kernel.name), kernel.name), arguments(kernel), bulk)


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
