"""The entry and executor in plain Python, with the meaning of the native ones, for interpreters that
`native_check.py` declines.

Also the oracle of the tests. Kernels are called through ctypes, which gives up the interpreter lock, and a large call
is shared among the threads of a `ThreadPoolExecutor`.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np

from .launch import Call
from .native_record import LEAST_SHARE, SHARE_WORK, Executable, Layout, Record, place
from .native_words import PAGE
from .pool import get_threads

Array: TypeAlias = "np.ndarray[Any, Any]"
_KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)


class _Workers:
    """The executor of this process, made on first use and again after a fork or a change of the number of threads."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.key = (0, 0)
        self.executor: ThreadPoolExecutor | None = None

    def get(self, threads: int) -> ThreadPoolExecutor:
        with self.lock:
            if self.executor is None or self.key != (os.getpid(), threads):
                self.executor = ThreadPoolExecutor(threads, thread_name_prefix="stein")
                self.key = (os.getpid(), threads)
            return self.executor

    def renew(self) -> None:
        self.lock = threading.Lock()


_workers = _Workers()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_workers.renew)


def new_array(layout: Layout) -> Array:
    """A fresh array of a dense layout."""
    return np.ndarray(layout.shape, layout.dtype.numpy, strides=layout.strides)


def _aligned(size: int) -> tuple[int, Array]:
    """The page-aligned address of `size` bytes, and the array that owns them."""
    owner = np.empty(size + PAGE, np.uint8)
    return (int(owner.__array_interface__["data"][0]) + PAGE - 1) & -PAGE, owner


def _run_share(call: Call, addresses: Sequence[int], lo: int, hi: int) -> None:
    args = (ctypes.c_int64 * max(1, len(call.args)))(*call.args)
    for word, buffer, offset in call.pointers:
        args[word] = addresses[buffer] + offset
    offsets, size = place(tuple(size for _, size in call.scratch))
    base, owner = _aligned(size)
    for (word, _), offset in zip(call.scratch, offsets, strict=True):
        args[word] = base + offset
    _KERNEL(call.address)(ctypes.addressof(args), lo, hi)
    del owner


def _run_call(call: Call, addresses: Sequence[int]) -> None:
    shares = min(get_threads(), call.count, int(call.work // LEAST_SHARE)) if call.work >= SHARE_WORK else 1
    if call.count <= 0:
        return
    if shares < 2:
        _run_share(call, addresses, 0, call.count)
        return
    cuts = [call.count * k // shares for k in range(shares + 1)]
    executor = _workers.get(get_threads())
    futures = [executor.submit(_run_share, call, addresses, cuts[k], cuts[k + 1]) for k in range(1, shares)]
    _run_share(call, addresses, 0, cuts[1])
    for future in futures:
        future.result()


def run(executable: Executable, operands: Sequence[Array], outputs: Sequence[Array]) -> None:
    """Run an executable on arrays whose layouts are known to fit."""
    offsets, size = place(executable.temporaries)
    base, owner = _aligned(size)
    arrays = [int(a.__array_interface__["data"][0]) for a in (*operands, *outputs)]
    constants = [int(a.__array_interface__["data"][0]) for a in executable.constants]
    addresses = [*arrays, *(base + offset for offset in offsets), *constants]
    for call in executable.calls:
        _run_call(call, addresses)
    del owner


def launch(record: Record, operands: Sequence[Array], *, scalars: bool) -> Any:
    """What the native entry returns for matching operands."""
    executable = record.executable
    outputs = [new_array(layout) for layout in executable.outputs]
    run(executable, operands, outputs)
    result: Any = outputs[0] if len(outputs) == 1 else tuple(outputs)
    if scalars and len(outputs) == 1 and not outputs[0].shape:
        result = outputs[0][()]
    return result if record.finish is None else record.finish(result)


def matches(executable: Executable, arrays: Sequence[Any]) -> bool:
    """Whether the arguments are plain arrays of exactly the operands' layouts."""
    return len(arrays) == len(executable.operands) and all(
        type(array) is np.ndarray and layout.fits(array)
        for layout, array in zip(executable.operands, arrays, strict=True)
    )


def bring_forward(records: list[Record], record: Record) -> None:
    """Put `record` first, if it is still there."""
    if records and records[0] is not record and record in records:
        records[:] = [record, *(r for r in records if r is not record)]


def dispatcher(
    slow_path: Callable[..., Any], table: dict[str, list[Record]], names: tuple[str, ...], *, spec_first: bool
) -> Callable[..., Any]:
    """The dispatcher over `table` (by spec; under "" if there is no spec) as a Python function."""

    def dispatch(*args: Any, **kwargs: Any) -> Any:
        operands: tuple[Any, ...] | None = args
        records = table.get("", [])
        if spec_first:
            known = bool(args) and type(args[0]) is str and not kwargs
            records, operands = (table.get(args[0], []), args[1:]) if known else ([], None)
        elif kwargs:
            rest = names[len(args) :]
            named = len(args) <= len(names) and set(rest) == set(kwargs)
            operands = (*args, *(kwargs[n] for n in rest)) if named else None
        if operands is not None:
            for record in tuple(records):  # a copy: other threads may register
                if matches(record.executable, operands):
                    bring_forward(records, record)
                    return launch(record, operands, scalars=record.scalars)
        return slow_path(*args, **kwargs)

    dispatch.__doc__ = slow_path.__doc__
    return dispatch
