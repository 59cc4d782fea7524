"""Tensor descriptors: which operands of a product a kernel may move by the bulk copies of Hopper, and where they pay.

Part of choosing a kernel. A descriptor says shape, strides and block once; a copy is then one instruction of one
thread, which computes addresses, masks the ends and writes shared memory as the matrix units read it, in place of an
address and a mask for every 16 bytes. It needs a first element at a multiple of 16 bytes, one axis of stride 1, and
all other strides at multiples of 16 bytes (CUDA programming guide, tensor maps).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ...ir.types import BF16, F16, F32, I8, DType
from .nodes import Tensor
from .views import View, Views

ALIGNED = 16  # bytes: of addresses and strides, and the least that a row of a block has
LONGEST = 256  # positions of a block along an axis
MOST_AXES = 5
SCALAR = 1


def with_descriptors(
    tensors: tuple[Tensor, ...], views: Views, precision: str, blocks: Mapping[str, int]
) -> tuple[Tensor, ...]:
    """The tensors of a product for matrix units, those that may be moved in bulk as descriptors.

    `blocks` has the block of each axis. Products of exact f32 are left alone: their operands go to registers anyway.
    """
    shared = [t.argument for t in tensors]
    found = []
    for tensor in tensors:
        view = views.views[tensor.name]
        alone = shared.count(tensor.argument) == 1 and views.layouts[view.tensor].aligned
        plain = not (tensor.slots or tensor.added or view.offset)
        pays = is_fed(tensor.dtype, precision)
        order = bulk_order(view, tensor.axes, views.extents, blocks) if alone and plain and pays else None
        found.append(tensor if order is None else _reordered(tensor, order))
    return tuple(found)


def is_fed(dtype: DType, precision: str) -> bool:
    """Whether matrix units read operands of this type from shared memory."""
    return dtype in (F16, BF16, I8) or (dtype == F32 and precision in ("tf32", "tf32x3"))


def bulk_order(
    view: View, axes: tuple[str, ...], extents: Mapping[str, int], blocks: Mapping[str, int]
) -> tuple[str, ...] | None:
    """The axes in order of memory where a descriptor can say how they lie, else None.

    Two axes have blocks of more than one position, and they are the last two in memory: otherwise the block would have
    to be regrouped in registers.

    >>> from ...ir.types import F16
    >>> view = View("x", "x", F16, {"k": 1, "i": 64})
    >>> bulk_order(view, ("k", "i"), {"i": 500, "k": 64}, {"i": 128, "k": 64})
    ('i', 'k')
    >>> bulk_order(View("x", "x", F16, {"k": 1, "i": 63}), ("k", "i"), {"i": 500, "k": 63}, {"i": 128, "k": 64})
    """
    order = tuple(sorted(axes, key=lambda a: -view.strides[a]))
    size = view.dtype.itemsize
    wide = tuple(a for a in order if blocks.get(a, SCALAR) > SCALAR)
    if not 2 <= len(order) <= MOST_AXES or wide != order[-2:] or view.strides[order[-1]] != 1:
        return None
    if any(view.strides[a] <= 0 or view.strides[a] * size % ALIGNED for a in order[:-1]):
        return None
    if any(blocks.get(a, SCALAR) > LONGEST or extents[a] >= 1 << 31 for a in order):
        return None
    return order if blocks.get(order[-1], SCALAR) * size >= ALIGNED else None


def _reordered(tensor: Tensor, order: tuple[str, ...]) -> Tensor:
    """The tensor as a descriptor, its axes in another order."""
    strides = dict(zip(tensor.axes, tensor.strides, strict=True))
    return replace(tensor, axes=order, strides=tuple(strides[a] for a in order), descriptor=True)
