"""Offsets inside of a tile: fused kernels whose operands are spread so far that 32 bits do not hold them.

After a plan is made, before it runs. Positions of blocks are counted in 64 bits in any kernel; inside of a block,
addresses have 32 bits, which is faster, unless a kernel is `wide`. Kernels of single equations are wide as soon as an
operand spans more (`choose`); plans of fused ones say nothing of it, and are looked at here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from .choose import WIDE_SPAN, Chosen
from .frame import Frame
from .launch import block_of
from .nodes import Kernel, Number, Slot, Tensor

LONGER = 4  # times the block, and
BLOCK = 1024  # positions, are what a block counts as: another configuration of the kernel may have longer ones


def addressed(chosen: Chosen) -> Chosen:
    """The same kernel with arguments, `wide` if it has to be.

    >>> from ...ir.types import F16
    >>> from .nodes import Map, Outer
    >>> x, y = Tensor("x", ("i", "j"), F16, ("s", 1)), Tensor("y", ("i", "j"), F16)
    >>> kernel = Kernel((x, y), (("i", 64), ("j", 64)), Outer((("i", 32),), Map("y", "x")))
    >>> chosen = Chosen(kernel, (), (("s", 1 << 24),), 2, F16)
    >>> addressed(chosen).kernel.wide, addressed(replace(chosen, numbers=(("s", 1 << 26),))).kernel.wide
    (False, True)
    """
    kernel, numbers = chosen.kernel, dict(chosen.numbers)
    if kernel.wide or all(reach(kernel, t, numbers) <= WIDE_SPAN for t in kernel.tensors):
        return chosen
    return replace(chosen, kernel=replace(kernel, wide=True))


def reach(kernel: Kernel, tensor: Tensor, numbers: Mapping[str, int]) -> int:
    """How far apart two elements of one tile of a tensor may lie, in elements, for arguments by name."""
    frame = Frame.of(kernel)
    strides = frame.strides(tensor)
    found = 0
    for axis, block in zip(tensor.axes, block_of(kernel, tensor), strict=True):
        if block > 1:
            positions = min(_known(frame.sizes[axis], numbers), max(LONGER * block, BLOCK))
            found += (positions - 1) * abs(_known(strides[axis], numbers))
    return found + sum(_of_slot(slot, frame, numbers) for slot in tensor.slots)


def _of_slot(slot: Slot, frame: Frame, numbers: Mapping[str, int]) -> int:
    if slot.table:  # the positions that it holds have 64 bits
        return 0
    bound = slot.extent if slot.extent is not None else slot.modulus
    if bound is None:
        terms = sum(abs(_known(f, numbers)) * _known(frame.sizes[a], numbers) for a, f in slot.terms)
        bound = abs(_known(slot.offset, numbers)) + terms
    return _known(bound, numbers) * abs(_known(slot.stride, numbers))


def _known(number: Number, numbers: Mapping[str, int]) -> int:
    return numbers[number] if isinstance(number, str) else number
