"""The translator from the native subset of Python to LLVM IR: each construct is compiled and run."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np
import pytest

from stein.backends.cpu.native_ir import translate

PROGRAM = '''
LIMIT = 3 * 4 - 2
SHIFTED = 1 << 5

def arithmetic(a, b):
    """Docstrings are skipped."""
    return (a + b) * 3 - a // b + a % b + (a << 2) + (a >> 1) + (a & b) + (a | b) + (a ^ b) - -a + LIMIT + SHIFTED

def choose(a, b):
    if a < b and (a == 1 or not b > 5):
        result = 1
    elif a >= b or a != 7:
        result = 2 if a == 9 else 3
    else:
        result = 4
    return result

def loop(a, b):
    total = 0
    while 1:
        a += 1
        if a > b:
            break
        if a % 2 == 0:
            continue
        total += a
    return total

def calls(a, b):
    return loop(a, b) + low32(call(address_of(arithmetic), a, b))

def no_result(a, b):
    pass

def memory(at, value):
    there = stack(2)
    store64(there + 8, value)
    store64(at, load64(there + 8) + load32(at + 8) + low32(value))
    atomic_store64(at + 16, atomic_load64(at + 16) + 1)
    before = atomic_add64(at + 16, 5)
    pause()
    return before * 10 + swap64(at + 24, 1, 2) * 2 + swap64(at + 24, 1, 3)
'''
NAMES = ("arithmetic", "choose", "loop", "calls", "no_result", "memory")


@pytest.fixture(scope="module")
def functions() -> dict[str, Callable[[int, int], int]]:
    llvm = pytest.importorskip("llvmlite.binding")
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(translate([PROGRAM], NAMES))
    module.verify()
    engine = llvm.create_mcjit_compiler(module, llvm.Target.from_default_triple().create_target_machine(opt=0))
    engine.finalize_object()
    signature = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
    made = {name: signature(engine.get_function_address(name)) for name in NAMES}
    made["arithmetic"].engine = engine  # type: ignore[attr-defined]
    return made  # type: ignore[return-value]


def test_expressions_and_statements_mean_what_python_means(functions: dict[str, Callable[[int, int], int]]) -> None:
    names: dict[str, Callable[..., int]] = {
        "load64": int, "low32": int, "address_of": lambda f: f, "call": lambda f, *args: f(*args)
    }  # fmt: skip
    python: dict[str, Callable[[int, int], int]] = dict(names)
    exec(PROGRAM, python)  # our own text, the constant above
    for a in range(1, 12):
        for b in range(1, 12):
            for name in ("arithmetic", "choose", "loop", "calls"):
                assert functions[name](a, b) == python[name](a, b), (name, a, b)
    assert functions["no_result"](1, 2) == 0


def test_memory_and_atomics(functions: dict[str, Callable[[int, int], int]]) -> None:
    data = np.array([0, -5 & 0xFFFFFFFF | 77 << 32, 40, 1], np.int64)
    at = data.ctypes.data
    # The value is 2**32 + 3, of which low32 sees 3; the exchange succeeds once.
    assert functions["memory"](at, (1 << 32) + 3) == 41 * 10 + 2
    assert data.tolist()[0] == (1 << 32) + 3 - 5 + 3
    assert data.tolist()[2:] == [46, 2]


@pytest.mark.parametrize("body", ["x = [a]", "return a.b", "for i in a: pass", "return unknown(a)", "return a / 2"])
def test_text_outside_the_subset_is_refused(body: str) -> None:
    with pytest.raises((SyntaxError, KeyError)):
        translate([f"def f(a, b):\n    {body}"], ["f"])
