"""The entry to compiled code: dispatchers that turn a Python call into a run of a record in about a hundred
nanoseconds.

`runtime` makes one dispatcher for `stein.einsum` and one for each compiled callable, and registers an `Executable`
for every combination of operand layouts that its slow path has compiled. The work is done by machine code
(`native_dispatch.py`, `native_execute.py`, `pool_program.py`), translated and loaded on first use; where
`native_check.py` finds an interpreter that it does not know, `native_fallback.py` does the same in Python. Prior art
for the native entry: Numba's dispatcher.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Protocol, TypeAlias

import numpy as np

from ...ir.errors import ShapeError
from . import native_check, native_fallback
from .native_load import builtin, native
from .native_record import Executable, Layout, Record

__all__ = ["Executable", "Layout", "Register", "available", "execute", "make_dispatcher", "why_unavailable"]

Array: TypeAlias = "np.ndarray[Any, Any]"
MAX_RECORDS = 64  # of one spec, or of one compiled callable
MAX_SPECS = 4096


class State:
    """The `self` of a dispatcher. The native entry reads the first three slots by their offsets, in sorted order."""

    __slots__ = ("names", "records", "slow", "statics")

    names: tuple[str, ...]
    records: dict[str, list[Record]] | list[Record]
    slow: Callable[..., Any]
    statics: tuple[object, ...]


class Register(Protocol):
    """How a slow path tells its dispatcher what to do the next time."""

    def __call__(
        self,
        executable: Executable,
        spec: str | None = None,
        *,
        finish: Callable[[Any], Any] | None = None,
        scalars: bool = False,
        recheck: int = 0,
        replaces: Record | None = None,
    ) -> Record:
        """Run `executable` whenever plain arrays of its operands' layouts come (after `spec`, if the dispatcher takes
        one).

        `finish` makes the result of the call from the output array, or from the tuple of several outputs. With
        `scalars`, a single output without axes becomes a NumPy scalar, as from `numpy.einsum`. After `recheck` calls
        the slow path is asked once more, so that it can register something better for what has turned out to be hot,
        which `replaces` the first record.
        """


@cache
def why_unavailable() -> str:
    """Why the Python entry is used here instead of the native one; "" if it is not."""
    return native_check.why_unsuitable((Record, State))


def available() -> bool:
    """Whether calls are dispatched by machine code here."""
    return not why_unavailable()


def execute(executable: Executable, arrays: Sequence[Array], outs: Sequence[Array] | None = None) -> tuple[Array, ...]:
    """Run an executable on arrays of its layouts; the outputs, fresh ones or `outs`.

    The caller sees to it that `outs` overlap no operand. Raises `ShapeError` if an array does not have its layout or
    an output is read-only, and `MemoryError`.
    """
    outs = None if outs is None else tuple(outs)
    if not available():
        operands = _conformed(executable.operands, arrays)
        targets = [native_fallback.new_array(layout) for layout in executable.outputs]
        if outs is not None:
            targets = _conformed(executable.outputs, outs, writeable=True)
        native_fallback.run(executable, operands, targets)
        return tuple(targets) if outs is None else outs
    run = native().execute_record
    counts = len(arrays), len(executable.outputs if outs is None else outs)
    result = NotImplemented
    if counts == (len(executable.operands), len(executable.outputs)):
        result = run(executable.record, *arrays, *(outs or ()))
    if result is NotImplemented:  # a subclass, another dtype object of the same meaning, or a mistake
        operands = _conformed(executable.operands, arrays)
        targets = [] if outs is None else _conformed(executable.outputs, outs, writeable=True)
        result = run(executable.record, *operands, *targets)
        assert result is not NotImplemented
    if outs is not None:
        return outs
    return result if type(result) is tuple else (result,)


def run_record(record: Record, arrays: Sequence[Array]) -> Any:
    """What a dispatcher returns for a registered record, on arrays of its layouts."""
    if available():
        result = native().execute_record(record, *arrays)
        if result is not NotImplemented:
            return result
    operands = _conformed(record.executable.operands, arrays)
    return native_fallback.launch(record, operands, scalars=record.scalars)


def _conformed(layouts: Sequence[Layout], arrays: Sequence[Array], *, writeable: bool = False) -> list[Array]:
    """The arrays as plain ones with NumPy's own dtype objects, on the same memory; `ShapeError` if a layout differs."""
    if len(layouts) != len(arrays):
        raise ShapeError(f"{len(arrays)} arrays were given for {len(layouts)}", code="wrong-count")
    plain = []
    for layout, array in zip(layouts, arrays, strict=True):
        if not layout.fits(array):
            found = f"{array.dtype} {array.shape} with strides {array.strides}"
            wanted = f"{layout.dtype.numpy} {layout.shape} with strides {layout.strides}"
            raise ShapeError(f"an array is {found}, but the code was made for {wanted}", code="wrong-layout")
        if writeable and not array.flags.writeable:
            raise ShapeError("an output array is read-only", code="read-only")
        plain.append(np.asarray(array).view(layout.dtype.numpy))
    return plain


def make_dispatcher(
    slow_path: Callable[..., Any],
    *,
    spec_first: bool,
    names: Sequence[str] = (),
    name: str = "call",
    doc: str | None = None,
) -> tuple[Callable[..., Any], Register]:
    """A callable that runs registered executables, and the function that registers them.

    With `spec_first` the first argument is a string and registrations are by that string; otherwise all arguments are
    operands, and if `names` are given they may also be passed by these names. A call whose arguments are exactly
    `numpy.ndarray`s of registered layouts never reaches Python code; every other call becomes `slow_path(*args,
    **kwargs)`.

    >>> einsum, register = make_dispatcher(lambda spec, *operands: f"slow {spec}", spec_first=True)
    >>> einsum("ij->ji", [[1]])
    'slow ij->ji'
    """
    table: dict[str, list[Record]] = {} if spec_first else {"": []}
    ordered = tuple(sys.intern(n) for n in names)
    lock = threading.Lock()

    def register(
        executable: Executable,
        spec: str | None = None,
        *,
        finish: Callable[[Any], Any] | None = None,
        scalars: bool = False,
        recheck: int = 0,
        replaces: Record | None = None,
    ) -> Record:
        assert (spec is not None) == spec_first, "a spec is given where the dispatcher takes one"
        made_by = None if finish is None else native_check.callable_by_machine_code(finish)
        record = Record(executable, made_by, scalars=scalars, recheck=recheck)
        with lock:
            records = table.get(spec or "")
            if records is None:
                while len(table) >= MAX_SPECS:
                    del table[next(iter(table))]
                records = table[spec or ""] = []
            if replaces in records:
                records.remove(replaces)
            records.insert(0, record)
            del records[MAX_RECORDS:]
        return record

    if not available():
        return native_fallback.dispatcher(slow_path, table, ordered, spec_first=spec_first), register
    state = State()
    state.names, state.slow = ordered, native_check.callable_by_machine_code(slow_path)
    state.records = table if spec_first else table[""]
    function = native().functions["dispatch_spec" if spec_first else "dispatch"]
    text = doc if doc is not None else slow_path.__doc__ or ""
    made, entry = builtin(function, name, text, state)
    state.statics = (entry,)
    return made, register
