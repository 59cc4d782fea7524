"""The kernel cache in memory, the object cache on disk, and the life of compiled code."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stein.backends.cpu import jit
from stein.backends.cpu.emit import Code, split_definitions
from stein.backends.cpu.machine import Machine, host, machine_of
from stein.backends.cpu.objects import ObjectStore, default_store, object_key
from stein.backends.cpu.run import run_calls
from stein.backends.cpu.schedule import Plan, launch, schedule
from stein.ir.errors import BackendError
from stein.ir.loops import RUN_TIME, Axis, Contraction, Kernel, Load, Local, Loop, Seq, Tile
from stein.ir.types import F32


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("STEIN_CACHE_DIR", str(tmp_path))
    jit.clear()
    yield
    jit.clear()


def double_plan() -> Plan:
    return schedule(Contraction((Axis(50, (4, 4)),), (F32, F32), (Load(0),), F32))


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.o"))


def runs(plan: Plan) -> bool:
    x, y = np.arange(50, dtype="f4"), np.zeros(50, "f4")
    run_calls(launch(plan), [y.ctypes.data, x.ctypes.data])
    return np.array_equal(x, y)


def test_memory_then_disk_then_compiler(tmp_path: Path) -> None:
    plan = double_plan()
    kernel = plan.kernels[0]
    first = jit.compile_kernel(kernel)
    assert first.origin == "compiled" and jit.compile_kernel(kernel) is first
    assert len(files(tmp_path)) == 1
    jit.clear()
    again = jit.compile_kernel(kernel)
    assert again.origin == "disk" and again.symbol == first.symbol and again.address != first.address
    assert runs(plan)


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "head"])
def test_damaged_objects_are_made_again(tmp_path: Path, damage: str) -> None:
    plan = double_plan()
    jit.compile_kernel(plan.kernels[0])
    (path,) = files(tmp_path)
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[-40] ^= 255
    damaged = {"truncate": data[: len(data) // 2], "flip": data, "empty": bytearray(), "head": b"x" + data[1:]}
    path.write_bytes(bytes(damaged[damage]))
    jit.clear()
    assert jit.compile_kernel(plan.kernels[0]).origin == "compiled"
    jit.clear()
    assert jit.compile_kernel(plan.kernels[0]).origin == "disk" and runs(plan)


@pytest.mark.parametrize("setting", ["", "off", "OFF"])
def test_cache_can_be_turned_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    monkeypatch.setenv("STEIN_CACHE_DIR", setting)
    assert default_store() is None
    assert jit.compile_kernel(double_plan().kernels[0]).origin == "compiled"
    assert not files(tmp_path)


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("STEIN_CACHE_DIR", str(blocked))
    assert jit.compile_kernel(double_plan().kernels[0]).origin == "compiled"
    assert runs(double_plan())


def test_store_is_bounded_and_drops_what_was_used_longest_ago(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path / "s", limit=4000)
    for i in range(10):
        store.save(f"k{i}", bytes([i]) * 1000)
        os.utime(tmp_path / "s" / f"k{i}.o", (i, i))
    assert store.load("k0") is not None  # used now
    store.sweep()
    assert store.load("k0") == bytes(1000) and store.load("k9") is not None and store.load("k1") is None
    assert sum(p.stat().st_size for p in files(tmp_path)) <= 4000


def test_store_tells_damaged_entries(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path / "s")
    for at in (0, 16, 30, 60, -1):
        store.save("k", bytes(range(100)))
        path = tmp_path / "s" / "k.o"
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.write_bytes(data)
        assert store.load("k") is None and not path.exists()


def test_keys_depend_on_every_part() -> None:
    assert object_key("a", "b") != object_key("ab", "") != object_key("a", "c")


def test_no_temporary_files_are_left(tmp_path: Path) -> None:
    jit.compile_kernel(double_plan().kernels[0])
    assert not list(tmp_path.rglob("*.tmp"))


def test_many_threads_compile_a_kernel_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    original = jit.emit_object

    def counted(kernel: Kernel, symbol: str, machine: Machine) -> bytes:
        made.append(1)
        return original(kernel, symbol, machine)

    monkeypatch.setattr(jit, "emit_object", counted)
    kernel = double_plan().kernels[0]
    found: list[jit.CompiledKernel] = []
    threads = [threading.Thread(target=lambda: found.append(jit.compile_kernel(kernel))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and len({id(f) for f in found}) == 1


def test_calls_keep_their_code_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "MAX_KERNELS", 1)
    x, y = np.arange(50, dtype="f4"), np.zeros(50, "f4")
    calls = launch(double_plan())
    for n in range(3, 6):  # pushes the kernel out of the table
        jit.compile_kernel(
            schedule(Contraction((Axis(n, (4, 4)),), (F32, F32), (Load(0),), F32), constants=True).kernels[0]
        )
    assert len(jit._TABLE) == 1
    gc.collect()
    run_calls(calls, [y.ctypes.data, x.ctypes.data])
    assert np.array_equal(x, y)


def test_loading_is_quick() -> None:
    kernel = double_plan().kernels[0]
    jit.compile_kernel(kernel)
    times = []
    for _ in range(5):
        jit.clear()
        start = time.thread_time()
        assert jit.compile_kernel(kernel).origin == "disk"
        times.append(time.thread_time() - start)
    assert min(times) < 5e-3  # about 0.5 ms on a quiet machine


def test_source() -> None:
    compiled = jit.compile_kernel(double_plan().kernels[0])
    assert f"define void @{compiled.symbol}(" in compiled.source("llvm")
    assert compiled.symbol + ":" in compiled.source("asm")
    with pytest.raises(BackendError):
        compiled.source("fortran")


def test_machines() -> None:
    assert host().vector_bytes in (16, 32, 64)
    assert machine_of("x", "+avx2,+fma").vector_bytes == 32 and machine_of("x", "+avx2").registers == 16
    assert machine_of("x", "+avx512f").registers == 32 and machine_of("x", "+neon").vector_bytes == 16


def test_folding_leaves_no_text() -> None:
    code = Code()
    assert code.add(3, 4) == 7 and code.mul(0, "%x") == 0 and code.floor(17, 8) == 16 and code.minimum(3, 9) == 3
    assert code.loop(0, 0, 1, [("i64", "%a")], lambda i, v: ["%b"]) == ["%a"]
    assert code.lines == []


def test_shared_helpers_are_written_once() -> None:
    text = "@t = internal constant float 1.0\ndefine internal float @f(float %x) {\n  ret float %x\n}\n"
    assert set(split_definitions(text)) == {"t", "f"}


def test_hand_made_chain_through_a_scratch_tensor() -> None:
    """Y[i,k] = sum_j A[i,j] (sum_l B[j,l] C[l,k]) with the inner product in a scratch area: `Local` and `Seq`."""
    i, j, k, n = 5, 6, 20, 7
    lanes = 4
    inner = Loop(
        "k", (lanes,), Loop("j", (1,), Tile((Load(1), Load(2)), ("j", "k"), ("l",), "k", lanes, F32, out=4)), cut=True
    )
    outer = Loop(
        "k", (lanes,), Loop("i", (1,), Tile((Load(0), Load(3)), ("i", "k"), ("j",), "k", lanes, F32)), cut=True
    )
    kernel = Kernel(
        (F32,) * 4, ("i", "j", "k", "l"), (None,) * 4,
        ((RUN_TIME, 0, 4, 0), (RUN_TIME, 4, 0, 0), (0, RUN_TIME, 0, 4), (0, 0, 4, RUN_TIME)),
        Local(4, ("j", "k"), F32, 0, Seq((inner, outer))), slots=1,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    a, b, c = (rng.random(s, "f4") for s in ((i, j), (j, n), (n, k)))
    y, scratch = np.zeros((i, k), "f4"), np.zeros((j, k), "f4")
    words = np.array(
        [*(x.ctypes.data for x in (y, a, b, c, scratch)), i, j, k, n, 4 * k, 4 * j, 4 * n, 4 * k], np.int64
    )
    from stein.backends.cpu.run import _FUNCTION

    compiled = jit.compile_kernel(kernel)
    _FUNCTION(compiled.address)(words.ctypes.data, 0, 1)
    assert np.allclose(y, a @ (b @ c), rtol=1e-5)
