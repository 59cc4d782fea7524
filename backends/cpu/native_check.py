"""Is this interpreter one that the native entry knows? Looks before anything is called, and fills `env` with what it
found.

The machine code reads fields of Python and NumPy objects at fixed offsets (`native_words.py`) and calls two entries
of NumPy's C table by number. Both have been stable for years, but they are facts about another program: each is
compared with sample objects here, and any surprise means that the pure Python entry is used instead.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
import sysconfig
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np

from . import native_words as words

_ARRAY_TYPE_ENTRY, _RETURN_ENTRY, _NEW_ENTRY = 2, 76, 94  # PyArray_Type, PyArray_Return, PyArray_NewFromDescr
_VECTORCALL, _FUNCTION_VECTORCALL = "PyObject_Vectorcall", "_PyFunction_Vectorcall"


def callable_by_machine_code(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, or a Python function that calls it where only those can be called natively (before Python 3.11)."""
    if hasattr(ctypes.pythonapi, _VECTORCALL) or isinstance(function, FunctionType):
        return function

    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call


def why_unsuitable(slots: tuple[type, ...]) -> str:
    """Why the native entry cannot be used here, or "". `slots` are the classes whose first three slots it reads."""
    if sys.implementation.name != "cpython":
        return f"the interpreter is {sys.implementation.name}, not CPython"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "this build of Python has no global lock"
    if os.name != "posix" or ctypes.sizeof(ctypes.c_void_p) != 8 or sys.byteorder != "little":
        return "the platform is not a little-endian 64-bit POSIX system"
    for check in (_check_objects, _check_slots, _check_arrays, _check_entries):
        problem = check(slots)
        if problem:
            return problem
    return ""


def _word(address: int) -> int:
    return ctypes.c_int64.from_address(address).value


def _check_objects(slots: tuple[type, ...]) -> str:
    """Headers of objects, and the variable parts of str, bytes, list and tuple."""
    if object.__basicsize__ != words.FIRST_SLOT or _word(id("") + words.OBJECT_TYPE) != id(str):
        return "objects have another header"
    text, things = b"stein", [object(), object()]
    pair = tuple(things)
    if ctypes.string_at(id(text) + words.BYTES_DATA, 5) != text or _word(id(text) + words.VARIABLE_SIZE) != 5:
        return "bytes have another layout"
    items = _word(id(things) + words.LIST_ITEMS)
    if _word(id(things) + words.VARIABLE_SIZE) != 2 or [_word(items), _word(items + 8)] != [id(x) for x in things]:
        return "lists have another layout"
    if _word(id(pair) + words.VARIABLE_SIZE) != 2 or _word(id(pair) + tuple.__basicsize__ + 8) != id(pair[1]):
        return "tuples have another layout"
    return ""


def _check_slots(slots: tuple[type, ...]) -> str:
    """The first three slots of the classes that the machine code reads."""
    for cls in slots:
        names: list[str] = sorted(cls.__slots__)[:3]  # type: ignore[attr-defined]
        sample: object = object.__new__(cls)
        values = [object() for _ in names]
        for name, value in zip(names, values, strict=True):
            setattr(sample, name, value)
        if [_word(id(sample) + words.FIRST_SLOT + 8 * k) for k in range(len(names))] != [id(v) for v in values]:
            return f"the slots of {cls.__name__} lie elsewhere"
    return ""


def _check_arrays(slots: tuple[type, ...]) -> str:
    """The fields of arrays."""
    sample = np.zeros((3, 4, 5), np.float32)[::2, 1:, ::-1]
    at = id(sample)
    found = (
        _word(at + words.OBJECT_TYPE) == id(np.ndarray)
        and _word(at + words.ARRAY_DATA) == sample.__array_interface__["data"][0]
        and ctypes.c_int32.from_address(at + words.ARRAY_AXES).value == 3
        and _word(at + words.ARRAY_DTYPE) == id(sample.dtype) == id(np.dtype(np.float32))
        and ctypes.c_int32.from_address(at + words.ARRAY_FLAGS).value & 0xFFFF == sample.flags.num & 0xFFFF
        and sample.flags.num & words.WRITEABLE
    )
    if not found:
        return "arrays have another layout"
    shape, strides = _word(at + words.ARRAY_SHAPE), _word(at + words.ARRAY_STRIDES)
    if tuple(_word(shape + 8 * k) for k in range(3)) != sample.shape:
        return "arrays keep their shape elsewhere"
    if tuple(_word(strides + 8 * k) for k in range(3)) != sample.strides:
        return "arrays keep their strides elsewhere"
    return ""


def _numpy_entries() -> dict[int, int]:
    """The addresses in NumPy's C table that are used; empty if the table is not found."""
    core = importlib.import_module("numpy._core._multiarray_umath")
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    table = get(core._ARRAY_API, None)
    return {k: _word(table + 8 * k) for k in (_ARRAY_TYPE_ENTRY, _RETURN_ENTRY, _NEW_ENTRY)}


def _check_entries(slots: tuple[type, ...]) -> str:
    """NumPy's C table: the type must be in its place before the functions are tried."""
    try:
        entries = _numpy_entries()
    except (ImportError, AttributeError, ValueError):
        return "NumPy's C table is not where it was"
    if entries[_ARRAY_TYPE_ENTRY] != id(np.ndarray):
        return "NumPy's C table is ordered differently"
    thing, number, pointer = ctypes.py_object, ctypes.c_int, ctypes.c_void_p
    signature = ctypes.PYFUNCTYPE(thing, thing, thing, number, pointer, pointer, pointer, number, pointer)
    new = signature(entries[_NEW_ENTRY])
    dtype = np.dtype(np.float32)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(dtype))  # PyArray_NewFromDescr takes a reference
    shape, strides = (ctypes.c_int64 * 2)(2, 3), (ctypes.c_int64 * 2)(4, 8)
    made: Any = new(np.ndarray, dtype, 2, shape, strides, None, 0, None)
    if type(made) is not np.ndarray or made.dtype is not dtype or (made.shape, made.strides) != ((2, 3), (4, 8)):
        return "PyArray_NewFromDescr is not where it was"
    back = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(entries[_RETURN_ENTRY])
    scalar = np.zeros((), np.float32)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(scalar))  # PyArray_Return takes a reference
    if type(back(scalar)) is not np.float32:
        return "PyArray_Return is not where it was"
    return ""


def fill(table: ctypes.Array[ctypes.c_int64], thread_key: int) -> None:
    """Write the addresses of what the machine code calls and compares with to `env`. To be called after the check."""

    def address(library: ctypes.CDLL, name: str) -> int:
        found = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
        assert found is not None
        return found

    libc, python = ctypes.CDLL(None), ctypes.pythonapi
    for index, name in (
        (words.FREE, "free"),
        (words.CALLOC, "calloc"),
        (words.ALIGNED, "posix_memalign"),
        (words.GET_SPECIFIC, "pthread_getspecific"),
        (words.SET_SPECIFIC, "pthread_setspecific"),
    ):
        table[index] = address(libc, name)
    table[words.MADVISE] = address(libc, "madvise") if sys.platform == "linux" else 0
    table[words.SPECIFIC_KEY] = thread_key
    for index, name in (
        (words.SAVE_THREAD, "PyEval_SaveThread"),
        (words.RESTORE_THREAD, "PyEval_RestoreThread"),
        (words.INCREF, "Py_IncRef"),
        (words.DECREF, "Py_DecRef"),
        (words.DICT_GET, "PyDict_GetItemWithError"),
        (words.VECTORCALL, _VECTORCALL if hasattr(python, _VECTORCALL) else _FUNCTION_VECTORCALL),
        (words.NEW_TUPLE, "PyTuple_New"),
        (words.SET_TUPLE, "PyTuple_SetItem"),
        (words.NO_MEMORY, "PyErr_NoMemory"),
    ):
        table[index] = address(python, name)
    entries = _numpy_entries()
    table[words.NEW_ARRAY], table[words.TO_SCALAR] = entries[_NEW_ENTRY], entries[_RETURN_ENTRY]
    table[words.ARRAY_TYPE], table[words.STRING_TYPE] = id(np.ndarray), id(str)
    table[words.NONE], table[words.NOT_IMPLEMENTED] = id(None), id(NotImplemented)
    table[words.TUPLE_ITEMS] = tuple.__basicsize__
