"""Machine code from kernels: compile once, keep in memory, keep on disk, link into the process.

`compile_kernel` is the only way in. It looks in memory (a bounded table keyed by the `Kernel` value), then on disk
(`objects`), then emits and compiles. However many threads ask for a kernel, one compiles it. A `CompiledKernel` owns
its code: the memory is freed when the last reference goes, so a `Call` keeps one.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from ...ir.errors import BackendError
from ...ir.loops import Kernel
from .lower import emit_kernel
from .machine import Machine, host
from .objects import default_store, object_key

MAX_KERNELS = 2048
_COMPILE = threading.Lock()
_TABLE_LOCK = threading.Lock()
_TABLE: OrderedDict[tuple[Kernel, Machine], _Entry] = OrderedDict()
_SERIAL = itertools.count()


@dataclass(eq=False)
class CompiledKernel:
    """Machine code of one kernel in this process: `address` of `void (int64 *args, int64 lo, int64 hi)`.

    `origin` says where the object came from: "compiled" or "disk".
    """

    kernel: Kernel
    machine: Machine
    symbol: str
    address: int
    origin: str
    _tracker: object = field(repr=False, default=None)

    def source(self, kind: str = "llvm") -> str:
        """The LLVM text ("llvm") or the assembly ("asm") of the kernel; both are made again, not stored."""
        text = emit_kernel(self.kernel, self.symbol, self.machine)
        if kind == "llvm":
            return text
        if kind == "asm":
            target = target_machine(self.machine)
            with _COMPILE:
                return str(target.emit_assembly(_parse(text, target)))
        raise BackendError(
            f"there is no source of kind {kind!r}", code="no-such-source", help='ask for "llvm" or "asm"'
        )


class _Entry:
    """A place in the table: whoever holds the lock first fills it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.compiled: CompiledKernel | None = None


def compile_kernel(kernel: Kernel, machine: Machine | None = None) -> CompiledKernel:
    """The machine code of a kernel, from memory, disk or the compiler."""
    target = machine or host()
    key = (kernel, target)
    with _TABLE_LOCK:
        entry = _TABLE.get(key)
        if entry is None:
            entry = _TABLE[key] = _Entry()
            while len(_TABLE) > MAX_KERNELS:
                _TABLE.popitem(last=False)
        else:
            _TABLE.move_to_end(key)
    if entry.compiled is None:
        with entry.lock:
            if entry.compiled is None:
                entry.compiled = _make(kernel, target)
    return entry.compiled


def is_compiled(kernel: Kernel, machine: Machine | None = None) -> bool:
    """Whether the machine code of a kernel is in memory."""
    entry = _TABLE.get((kernel, machine or host()))
    return entry is not None and entry.compiled is not None


def clear() -> None:
    """Forget the kernels in memory (calls that are alive keep theirs)."""
    with _TABLE_LOCK:
        _TABLE.clear()


def emit_object(kernel: Kernel, symbol: str, machine: Machine) -> bytes:
    """The object file of a kernel, compiled now."""
    text = emit_kernel(kernel, symbol, machine)
    target = target_machine(machine)
    with _COMPILE:
        return bytes(target.emit_object(_parse(text, target)))


def _make(kernel: Kernel, machine: Machine) -> CompiledKernel:
    import llvmlite.binding as llvm

    key = object_key(repr(kernel), repr(machine), ".".join(map(str, llvm.llvm_version_info)))
    symbol = f"stein_{key[:24]}"
    store = default_store()
    body = store.load(key) if store is not None else None
    if body is not None:
        try:
            return CompiledKernel(kernel, machine, symbol, *_link(body, symbol, "disk"))
        except RuntimeError:  # intact by its digest, but not linkable here: make it again
            pass
    body = emit_object(kernel, symbol, machine)
    if store is not None:
        store.save(key, body)
    return CompiledKernel(kernel, machine, symbol, *_link(body, symbol, "compiled"))


def _link(body: bytes, symbol: str, origin: str) -> tuple[int, str, object]:
    import llvmlite.binding as llvm

    engine = _engine()
    with _COMPILE:
        builder = llvm.JITLibraryBuilder().add_object_img(body).add_current_process().export_symbol(symbol)
        tracker = builder.link(engine, f"{symbol}_{next(_SERIAL)}")
    return int(tracker[symbol]), origin, tracker


def _parse(text: str, target: Any) -> Any:
    """A module in a context of its own (so that its memory goes with it), with small helper functions inlined."""
    import llvmlite.binding as llvm

    module = llvm.parse_assembly(text, llvm.create_context())
    module.triple = llvm.get_process_triple()
    module.data_layout = str(target.target_data)
    if "alwaysinline" in text:
        manager = llvm.create_new_module_pass_manager()
        manager.add_always_inliner_pass()
        manager.run(module, llvm.create_pass_builder(target, llvm.create_pipeline_tuning_options()))
    return module


@cache
def target_machine(machine: Machine) -> Any:
    """LLVM's code generator for a machine. Explicit vectors need no optimisation passes before it."""
    import llvmlite.binding as llvm

    _initialise()
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(
        cpu=machine.cpu, features=machine.features, opt=2, codemodel="jitdefault", reloc="default"
    )


@cache
def _initialise() -> None:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


@cache
def _engine() -> Any:
    """The process's linker; it lives as long as the process."""
    import llvmlite.binding as llvm

    return llvm.create_lljit_compiler(target_machine(host()))
