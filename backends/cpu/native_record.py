"""Executables: what the planner hands to the executor, and their encoding as one block of words that machine code
reads.

`Executable` is the planner's value: calls of kernels over numbered buffers. `encode` writes it as the bytes that
`native_execute.py` walks (the layout is in `native_words.py`), with the addresses of constants folded into the
argument blocks.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ...ir.types import DType, dtype_of
from .launch import Call
from .native_words import CALL_HEAD, MAX_WORKERS, PAGE, RECHECK, RECORD_HEAD, STACK_ARGS

RELEASE_WORK = 20_000.0  # nanoseconds from which the interpreter lock is given up
SHARE_WORK = 20_000.0  # nanoseconds from which a call is shared among threads
LEAST_SHARE = 10_000.0  # nanoseconds that a share should last at least


@dataclass(frozen=True)
class Layout:
    """How one array lies in memory: element type, extents, and strides in bytes.

    >>> from stein.ir.types import F32
    >>> Layout.dense(F32, (2, 3))
    Layout(dtype=DType(name='f32', kind='f', bits=32), shape=(2, 3), strides=(12, 4))
    """

    dtype: DType
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def of(cls, array: np.ndarray[Any, Any]) -> Layout:
        """The layout of `array`; `TypeError` for an element type that stein does not have."""
        return cls(dtype_of(array.dtype), array.shape, array.strides)

    @classmethod
    def dense(cls, dtype: DType, shape: tuple[int, ...], order: tuple[int, ...] | None = None) -> Layout:
        """Without gaps, axis `order[0]` outermost (the order of the axes, C order, by default)."""
        strides = [0] * len(shape)
        step = dtype.itemsize
        for axis in reversed(order if order is not None else range(len(shape))):
            strides[axis] = step
            step *= max(1, shape[axis])
        return cls(dtype, shape, tuple(strides))

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def is_dense(self) -> bool:
        """Whether the elements fill their memory exactly, in some order of the axes, each with a positive stride."""
        if 0 in self.shape:
            return True
        step = self.dtype.itemsize
        for stride, extent in sorted((s, n) for s, n in zip(self.strides, self.shape, strict=True) if n != 1):
            if stride != step:
                return False
            step *= extent
        return True

    def fits(self, array: np.ndarray[Any, Any]) -> bool:
        """Whether `array` has this dtype, shape and strides (an axis of extent 1 may have any stride)."""
        return (
            array.dtype == self.dtype.numpy
            and array.shape == self.shape
            and all(n == 1 or s == t for n, s, t in zip(self.shape, self.strides, array.strides, strict=True))
        )


@dataclass(frozen=True, eq=False)
class Executable:
    """Calls of kernels on buffers, for operands and outputs of fixed layout.

    The buffers that `Call.pointers` number are the operands, then the outputs (fresh dense arrays, in any order of
    axes), then the temporaries (`temporaries` are their bytes; page-aligned if larger than a page, else to 64 bytes),
    then the constants. Compared by identity.
    """

    calls: tuple[Call, ...]
    operands: tuple[Layout, ...]
    outputs: tuple[Layout, ...]
    temporaries: tuple[int, ...] = ()
    constants: tuple[np.ndarray[Any, Any], ...] = ()

    def __post_init__(self) -> None:
        # No more than this: an executable is made for each new size of a known expression, in microseconds.
        assert self.outputs, "an executable has an output"

    @property
    def work(self) -> float:
        """Nanoseconds of all calls on one core, as estimated."""
        return sum(call.work for call in self.calls)

    @cached_property
    def record(self) -> Record:
        """The record for `execute`."""
        return Record(self)


class Record:
    """What machine code holds of an executable: its block, what is called on the outputs, and what must stay alive.

    The native entry reads `block` and `finish` by their offsets in the object, so the slots and their (sorted) order
    matter.
    """

    __slots__ = ("block", "finish", "keep", "scalars")

    block: bytes
    finish: Callable[[Any], Any] | None
    keep: tuple[object, ...]
    scalars: bool

    def __init__(
        self,
        executable: Executable,
        finish: Callable[[Any], Any] | None = None,
        *,
        scalars: bool = False,
        recheck: int = 0,
    ) -> None:
        dtypes = tuple(layout.dtype.numpy for layout in (*executable.operands, *executable.outputs))
        self.block = encode(executable, scalars=scalars, recheck=recheck)
        self.finish = finish
        self.keep = (executable, dtypes, recheck)
        self.scalars = scalars

    @property
    def expired(self) -> bool:
        """Whether the dispatcher has counted the calls after which it asks the slow path once more."""
        (left,) = struct.unpack_from("<Q", self.block, 8 * RECHECK)
        return bool(self.keep[2]) and left == 0

    @property
    def executable(self) -> Executable:
        """The executable that was encoded."""
        executable = self.keep[0]
        assert isinstance(executable, Executable)
        return executable


def place(sizes: tuple[int, ...], start: int = 0) -> tuple[list[int], int]:
    """Offsets for pieces of these sizes, aligned to 64 bytes or, above a page, to a page; and the end of the last.

    >>> place((10, 5000, 8))
    ([0, 4096, 9152], 9160)
    """
    offsets = []
    for size in sizes:
        unit = PAGE if size > PAGE else 64
        start = (start + unit - 1) & -unit
        offsets.append(start)
        start += size
    return offsets, start


def encode(executable: Executable, *, scalars: bool = False, recheck: int = 0) -> bytes:
    """The block of an executable. With `scalars`, a single output without axes is returned as a NumPy scalar.

    After `recheck` calls (if not 0) the dispatcher asks the slow path once more, which may have something better by
    then.
    """
    offsets, temporary_bytes = place(executable.temporaries)
    layouts = [_encode_layout(layout, False) for layout in executable.operands]
    layouts += [_encode_layout(layout, layout.strides != _dense_strides(layout)) for layout in executable.outputs]
    calls = [_encode_call(call, executable, offsets) for call in executable.calls]
    operand_words = sum(map(len, layouts[: len(executable.operands)]))
    workspace = temporary_bytes > 0 or any(words[6] for words in calls)
    head = [
        int(executable.work >= RELEASE_WORK),
        len(executable.operands),
        len(executable.outputs),
        len(calls),
        temporary_bytes,
        int(workspace),
        8 * (RECORD_HEAD + operand_words),
        8 * (RECORD_HEAD + sum(map(len, layouts))),
        int(scalars and len(executable.outputs) == 1 and not executable.outputs[0].shape),
        recheck,
    ]
    assert len(head) == RECORD_HEAD
    words = [word for part in (head, *layouts, *calls) for word in part]
    return struct.pack(f"<{len(words)}q", *words)


def _dense_strides(layout: Layout) -> tuple[int, ...]:
    """The strides that C order would have."""
    strides, step = [], layout.dtype.itemsize
    for extent in reversed(layout.shape):
        strides.append(step)
        step *= max(1, extent)
    return tuple(reversed(strides))


def _encode_layout(layout: Layout, strided: bool) -> list[int]:
    # The identity of the dtype object stands for the type: NumPy has one for each, and the Record keeps it alive.
    return [id(layout.dtype.numpy), len(layout.shape), int(strided), *layout.shape, *layout.strides]


def _encode_call(call: Call, executable: Executable, temporaries: list[int]) -> list[int]:
    """The words of one call; pointers to constants become plain argument words."""
    arrays = len(executable.operands) + len(executable.outputs)
    args = list(call.args)
    pointers: list[int] = []
    for word, buffer, offset in call.pointers:
        if buffer < arrays:
            pointers += [8 * word, 8 * buffer, offset]
        elif buffer < arrays + len(temporaries):
            pointers += [8 * word, 8 * arrays, temporaries[buffer - arrays] + offset]
        else:
            constant = executable.constants[buffer - arrays - len(temporaries)]
            args[word] = constant.__array_interface__["data"][0] + offset
    offsets, scratch_bytes = place(tuple(size for _, size in call.scratch))
    args_at = 0
    if len(args) > STACK_ARGS:
        (args_at,), scratch_bytes = place((8 * len(args),), scratch_bytes)
    scratch = [word for (index, _), offset in zip(call.scratch, offsets, strict=True) for word in (8 * index, offset)]
    shares = min(call.count, int(call.work // LEAST_SHARE), MAX_WORKERS + 1) if call.work >= SHARE_WORK else 1
    head = [call.address, call.count, shares, len(args), len(pointers) // 3, len(call.scratch), scratch_bytes, args_at]
    assert len(head) == CALL_HEAD
    return [*head, *args, *pointers, *scratch]
