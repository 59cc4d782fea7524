"""Loading of the native entry: translate the programs, compile them or take the object from the disk cache, link.

Happens once in a process, on first use: some milliseconds with a cached object, a third of a second without. The code
is never unloaded, as workers may be running it while the interpreter shuts down.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib.abc import InspectLoader
from typing import Any

from . import native_check, pool
from .native_ir import ENV_WORDS, translate
from .objects import default_store, object_key

PROGRAM = ("native_words", "native_workspace", "pool_program", "native_execute", "native_dispatch")
EXPORTS = ("dispatch", "dispatch_spec", "execute_record", "cells_destructor", "table_address")
_FAST_CALL_WITH_KEYWORDS = 0x80 | 0x02


class _MethodDef(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


@dataclass(frozen=True)
class Native:
    """The loaded machine code: addresses of its functions, and the words of its `env`."""

    functions: dict[str, int]
    table: ctypes.Array[ctypes.c_int64]
    execute_record: Callable[..., Any]


def program_text() -> str:
    """The LLVM IR of the whole program. `ImportError` where the package is installed without its source."""
    sources = []
    for module in PROGRAM:
        spec = importlib.util.find_spec(f"{__package__}.{module}")
        loader = spec.loader if spec else None
        source = loader.get_source(spec.name) if spec and isinstance(loader, InspectLoader) else None
        if source is None:
            raise ImportError(f"the source of {module} is not installed")
        sources.append(source)
    return translate(sources, EXPORTS)


def compile_program(text: str) -> bytes:
    """The object code of an LLVM module, for any processor of this architecture."""
    import llvmlite.binding as llvm

    module = llvm.parse_assembly(text)
    module.verify()
    machine = llvm.Target.from_default_triple().create_target_machine(opt=2, codemodel="jitdefault", reloc="default")
    # The whole pipeline takes 0.2 s, once for each cache folder, and saves a tenth of every small call.
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
    builder.getModulePassManager().run(module, builder)
    code: bytes = machine.emit_object(module)
    return code


def _object() -> bytes:
    """The object code, from the disk cache if it is there."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    store = default_store()
    key = object_key("native-entry", llvm.get_process_triple(), ".".join(map(str, llvm.llvm_version_info)))
    code = store.load(key) if store else None
    if code is None:
        code = compile_program(program_text())
        if store:
            store.save(key, code)
    return code


def _link(code: bytes) -> dict[str, int]:
    """Addresses of the exported functions of an object, which stays in memory for the life of the process."""
    import llvmlite.binding as llvm

    jit = llvm.create_lljit_compiler()
    library = llvm.JITLibraryBuilder().add_object_img(code)
    for name in EXPORTS:
        library.export_symbol(name)
    tracker = library.link(jit, "stein-native-entry")
    for lasting in (jit, tracker):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(lasting))
    return {name: int(tracker[name]) for name in EXPORTS}


def builtin(function: int, name: str, doc: str, owner: object) -> tuple[Callable[..., Any], object]:
    """A builtin function object whose `self` is `owner`, and its method table entry, which `owner` must keep alive."""
    entry = _MethodDef(name.encode(), function, _FAST_CALL_WITH_KEYWORDS, doc.encode())
    new = ctypes.pythonapi.PyCFunction_NewEx
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.py_object, ctypes.py_object]
    made: Callable[..., Any] = new(ctypes.addressof(entry), owner, "stein")
    return made, entry


def _load() -> Native:
    functions = _link(_object())
    word = ctypes.CFUNCTYPE(ctypes.c_int64)
    table = (ctypes.c_int64 * ENV_WORDS).from_address(word(functions["table_address"])())
    key = ctypes.c_uint64(0)
    destructor = ctypes.c_void_p(word(functions["cells_destructor"])())
    if ctypes.CDLL(None).pthread_key_create(ctypes.byref(key), destructor):
        raise MemoryError("no key for thread-local workspaces")
    native_check.fill(table, key.value)
    pool.attach(table)
    keeper: list[object] = []
    execute_record, entry = builtin(functions["execute_record"], "execute_record", "", keeper)
    keeper.append(entry)
    return Native(functions, table, execute_record)


class _Loader:
    """Loads once, whichever thread comes first; a child of a fork is not left with a lock that nobody holds."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.loaded: Native | None = None
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        self.lock = threading.Lock()

    def get(self) -> Native:
        if self.loaded is None:
            with self.lock:
                if self.loaded is None:
                    self.loaded = _load()
        return self.loaded


_loader = _Loader()


def native() -> Native:
    """The machine code, loaded on first use. Only where `native_check.why_unsuitable` finds nothing to say."""
    return _loader.get()
