"""The thread pool and concurrency of the executor: shares, the interpreter lock, forks, the end of the process."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest

import stein
from stein.backends.cpu import native, native_fallback, pool
from stein.backends.cpu.launch import Call
from stein.backends.cpu.native import Executable, Layout, execute, make_dispatcher
from stein.backends.cpu.native_ir import translate
from stein.ir.errors import BackendError
from stein.ir.types import I64

# `wait_for` gives up after about ten seconds, so that a broken executor fails a test instead of hanging it.
KERNELS = """
def rest(args):
    call(load64(args + 16), 200)

def wait_for(at, least, args):
    turns = 0
    while atomic_load64(at) < least:
        rest(args)
        turns += 1
        if turns > 40000:
            return 0
    return 1

def tell_share(args, lo, hi):
    while lo < hi:
        store64(load64(args) + 8 * lo, hi)
        lo += 1

def meet(args, lo, hi):
    atomic_add64(load64(args + 8), 1)
    met = wait_for(load64(args + 8), load64(args + 24), args)
    while lo < hi:
        store64(load64(args) + 8 * lo, met)
        lo += 1

def keep_mark(args, lo, hi):
    store64(load64(args + 32), lo)
    atomic_add64(load64(args + 8), 1)
    wait_for(load64(args + 8), load64(args + 24), args)
    mark = load64(load64(args + 32))
    while lo < hi:
        store64(load64(args) + 8 * lo, mark)
        lo += 1

def wait_for_python(args, lo, hi):
    atomic_add64(load64(args + 8) + 8, 1)
    met = wait_for(load64(args + 8), 1, args)
    while lo < hi:
        store64(load64(args) + 8 * lo, met)
        lo += 1

def sum_in_scratch(args, lo, hi):
    scratch = load64(args + 16)
    k = lo
    while k < hi:
        store64(scratch + 8 * (k - lo), load64(load64(args) + 8 * k) + load64(load64(args + 8) + 8 * k))
        k += 1
    k = lo
    while k < hi:
        store64(load64(args + 24) + 8 * k, load64(scratch + 8 * (k - lo)))
        k += 1
"""
NAMES = ("tell_share", "meet", "keep_mark", "wait_for_python", "sum_in_scratch")


@cache
def kernel(name: str) -> int:
    """The address of a kernel, or of libc's usleep."""
    import ctypes

    if name == "usleep":
        return ctypes.cast(ctypes.CDLL(None).usleep, ctypes.c_void_p).value or 0
    return _engine().get_function_address(name)  # type: ignore[no-any-return]


@cache
def _engine() -> Any:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(translate([KERNELS], NAMES))
    engine = llvm.create_mcjit_compiler(module, llvm.Target.from_default_triple().create_target_machine(opt=1))
    engine.finalize_object()
    return engine


@pytest.fixture(params=["native", "python"])
def entry(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both entries, which must behave alike."""
    if request.param == "python":
        monkeypatch.setattr(native, "available", lambda: False)
    elif not native.available():
        pytest.skip(native.why_unavailable())
    return str(request.param)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Leave the number of threads as it was."""
    before = pool.get_threads()
    yield
    pool.set_threads(before)


LARGE = 1e9  # nanoseconds of work: shared, and without the interpreter lock


def telling(count: int, work: float) -> Executable:
    """out[k] = end of the share that k lay in."""
    call = Call(kernel("tell_share"), (0,), ((0, 0, 0),), (), count, work)
    return Executable((call,), (), (Layout.dense(I64, (count,)),))


def meeting(count: int, least: int) -> Executable:
    """Every share counts itself in the operand and waits until `least` of them did; out[k] = 1 if they met."""
    call = Call(kernel("meet"), (0, 0, kernel("usleep"), least), ((0, 1, 0), (1, 0, 0)), (), count, LARGE)
    return Executable((call,), (Layout.dense(I64, (1,)),), (Layout.dense(I64, (count,)),))


def waiting(count: int = 1) -> Executable:
    """Counts itself in operand[1] and waits until Python has set operand[0]; out[k] = 1 if it did."""
    call = Call(kernel("wait_for_python"), (0, 0, kernel("usleep")), ((0, 1, 0), (1, 0, 0)), (), count, LARGE)
    return Executable((call,), (Layout.dense(I64, (2,)),), (Layout.dense(I64, (count,)),))


def summing(count: int, work: float) -> Executable:
    """out = (a + b) + b, through a temporary and scratch."""
    layout = Layout.dense(I64, (count,))
    scratch = ((2, 8 * count),)
    address = kernel("sum_in_scratch")
    first = Call(address, (0, 0, 0, 0), ((0, 0, 0), (1, 1, 0), (3, 3, 0)), scratch, count, work)
    second = Call(address, (0, 0, 0, 0), ((0, 3, 0), (1, 1, 0), (3, 2, 0)), scratch, count, work)
    return Executable((first, second), (layout, layout), (layout,), (8 * count,))


def test_shares_cover_the_range_once(entry: str) -> None:
    for threads, count in ((1, 10), (2, 10), (3, 10), (3, 2), (4, 1), (3, 1001)):
        pool.set_threads(threads)
        shares = min(threads, count)
        ends = [count * (k + 1) // shares for k in range(shares)]
        (told,) = execute(telling(count, LARGE), ())
        assert told.tolist() == [end for k, end in enumerate(ends) for _ in range(([0, *ends])[k], end)]


def test_small_work_is_not_shared(entry: str) -> None:
    pool.set_threads(3)
    assert set(execute(telling(1000, 19_000.0), ())[0].tolist()) == {1000}
    assert len(set(execute(telling(1000, 25_000.0), ())[0].tolist())) == 2, "no share is shorter than ten microseconds"
    assert len(set(execute(telling(1000, 35_000.0), ())[0].tolist())) == 3


@pytest.mark.parametrize("number", [2, 3, 7])
def test_shares_run_at_the_same_time(entry: str, number: int) -> None:
    pool.set_threads(number)
    for _ in range(3):
        (met,) = execute(meeting(number, number), (np.zeros(1, np.int64),))
        assert met.tolist() == [1] * number


def test_shares_have_scratch_of_their_own(entry: str) -> None:
    pool.set_threads(3)
    address = kernel("keep_mark")
    call = Call(address, (0, 0, kernel("usleep"), 3, 0), ((0, 1, 0), (1, 0, 0)), ((4, 8),), 3, LARGE)
    executable = Executable((call,), (Layout.dense(I64, (1,)),), (Layout.dense(I64, (3,)),))
    assert execute(executable, (np.zeros(1, np.int64),))[0].tolist() == [0, 1, 2]


def await_kernel(state: np.ndarray[Any, Any]) -> None:
    """Return once the kernel of `waiting` runs on `state`."""
    pause = threading.Event()
    for _ in range(5000):
        if state[1] > 0:
            return
        pause.wait(0.002)
    raise AssertionError("the kernel did not start")


def run_in_thread(executable: Executable, state: np.ndarray[Any, Any]) -> tuple[threading.Thread, list[Any]]:
    """Start a Python thread that executes; returns once its kernel runs (so the interpreter lock was given up)."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(execute(executable, (state,))[0].tolist()))
    thread.start()
    await_kernel(state)
    return thread, results


def test_large_work_gives_up_the_interpreter_lock(entry: str) -> None:
    pool.set_threads(1)
    state = np.zeros(2, np.int64)
    thread, results = run_in_thread(waiting(), state)
    state[0] = 1
    thread.join()
    assert results == [[1]]


def test_a_busy_pool_makes_nobody_wait() -> None:
    if not native.available():
        pytest.skip(native.why_unavailable())
    pool.set_threads(2)
    state = np.zeros(2, np.int64)
    thread, results = run_in_thread(waiting(2), state)
    assert set(execute(telling(1000, LARGE), ())[0].tolist()) == {1000}, "run alone, in one share"
    state[0] = 1
    thread.join()
    assert results == [[1, 1]]
    assert len(set(execute(telling(1000, LARGE), ())[0].tolist())) == 2


def test_a_record_dropped_while_it_runs_lives_to_the_end(entry: str) -> None:
    pool.set_threads(1)
    f, register = make_dispatcher(lambda *args: "slow", spec_first=True)
    state, results = np.zeros(2, np.int64), list[Any]()
    register(waiting(), "x", finish=lambda out: ("finished", out.tolist()))
    thread = threading.Thread(target=lambda: results.append(f("x", state)))
    thread.start()
    await_kernel(state)
    register(waiting(), "x", finish=lambda out: "another")
    gc.collect()
    filler = [bytes(400) for _ in range(1000)]  # would take the place of the record's block
    state[0] = 1
    thread.join()
    assert results == [("finished", [1])] and len(filler) == 1000


def test_hammer(entry: str) -> None:
    """Many Python threads, shared records, growing workspaces, a changing number of threads: always the right sums."""
    f, register = make_dispatcher(lambda *args: "slow", spec_first=False)
    sizes = (1, 7, 100, 3000, 40_000)
    for k, size in enumerate(sizes):
        register(summing(size, 100.0 if k % 2 else LARGE))
    wrong: list[int] = []
    rounds = 60 if entry == "native" else 10

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        for _ in range(rounds):
            size = sizes[int(random.integers(len(sizes)))]
            a, b = random.integers(0, 1 << 40, size), random.integers(0, 1 << 40, size)
            if not np.array_equal(f(a, b), a + 2 * b):
                wrong.append(size)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in workers:
        thread.start()
    for k in range(30):
        pool.set_threads(1 + k % 4)
    for thread in workers:
        thread.join()
    assert wrong == []


def test_workspaces_end_with_their_threads() -> None:
    if not native.available() or not os.path.exists("/proc/self/statm"):
        pytest.skip("needs the native entry and /proc")
    pool.set_threads(1)
    executable = summing(500_000, 100.0)  # 4 MB of temporaries and 4 MB of scratch, all touched
    a = np.ones(500_000, np.int64)

    def resident() -> int:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def one_thread() -> None:
        thread = threading.Thread(target=lambda: execute(executable, (a, a)))
        thread.start()
        thread.join()

    one_thread()
    before = resident()
    for _ in range(20):
        one_thread()
    assert resident() - before < 80 << 20, "twenty threads touched 160 MB"


def test_numbers_of_threads() -> None:
    pool.set_threads(5)
    assert pool.get_threads() == 5
    for wrong in (0, -1, 257, 1.0, True, "2", None):
        with pytest.raises(BackendError):
            pool.set_threads(wrong)  # type: ignore[arg-type]


def test_the_environment_sets_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "cpus", lambda: 8)
    monkeypatch.delenv("STEIN_NUM_THREADS", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert pool.default_threads() == 8
    for omp, threads in (("3", 3), ("4,2", 4), ("99", 8), ("0", 8), ("many", 8), ("", 8)):
        monkeypatch.setenv("OMP_NUM_THREADS", omp)
        assert pool.default_threads() == threads
    monkeypatch.setenv("STEIN_NUM_THREADS", "2")
    assert pool.default_threads() == 2
    for wrong in ("0", "-1", "two", "1.5"):
        monkeypatch.setenv("STEIN_NUM_THREADS", wrong)
        with pytest.raises(BackendError):
            pool.default_threads()


def in_new_process(script: str, **environment: str) -> str:
    """Run a script that may use the names of this file; its output. Fails on a bad exit status or after a minute."""
    here = os.path.abspath(__file__)
    prelude = f"""
        import importlib.util, os, sys, threading, time
        import numpy as np
        loader = importlib.util.spec_from_file_location("tested", {here!r})
        T = importlib.util.module_from_spec(loader)
        loader.loader.exec_module(T)
        from stein.backends.cpu import native, pool
    """
    text = textwrap.dedent(prelude) + textwrap.dedent(script)
    folder = os.path.dirname(os.path.dirname(os.path.abspath(stein.__file__ or "")))
    path = os.pathsep.join(p for p in (*sys.path, folder) if p)
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", text],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


needs_native = pytest.mark.skipif(not native.available(), reason=native.why_unavailable())


@needs_native
def test_a_forked_child_starts_its_own_workers() -> None:
    out = in_new_process(
        """
        pool.set_threads(3)
        def meet():
            return T.execute(T.meeting(3, 3), (np.zeros(1, np.int64),))[0].tolist()
        assert meet() == [1, 1, 1]
        # Fork while another thread holds a region: the child must not see the pool as busy for ever.
        state = np.zeros(2, np.int64)
        thread, results = T.run_in_thread(T.waiting(3), state)
        child = os.fork()
        if child == 0:
            os._exit(0 if meet() == [1, 1, 1] and meet() == [1, 1, 1] else 1)
        status = os.waitpid(child, 0)[1]
        state[0] = 1
        thread.join()
        print(status, results, meet())
        """
    )
    assert out.split() == ["0", "[[1,", "1,", "1]]", "[1,", "1,", "1]"]


@needs_native
def test_sleeping_on_a_condition_variable_instead_of_a_futex() -> None:
    out = in_new_process(
        """
        from stein.backends.cpu import native_load, native_words
        table = native_load.native().table
        pool.attach(table, futex=False)
        assert table[native_words.SYSCALL] == 0
        pool.set_threads(4)
        for turn in range(6):
            assert T.execute(T.meeting(4, 4), (np.zeros(1, np.int64),))[0].tolist() == [1] * 4
            time.sleep(0.01)  # long enough for the workers to fall asleep
        a = np.arange(5000)
        for turn in range(300):
            assert np.array_equal(T.execute(T.summing(5000, 1e9), (a, a))[0], 3 * a)
        print("done")
        """
    )
    assert out == "done\n"


@needs_native
@pytest.mark.parametrize("how", ["sleeping workers", "spinning workers", "a daemon thread in a kernel"])
def test_the_process_ends_cleanly(how: str) -> None:
    script = """
        pool.set_threads(2)
        T.execute(T.meeting(2, 2), (np.zeros(1, np.int64),))
        how = os.environ["HOW"]
        if how == "sleeping workers":
            time.sleep(0.01)
        if how == "a daemon thread in a kernel":
            state = np.zeros(2, np.int64)
            def run():
                T.execute(T.waiting(2), (state,))
            thread = threading.Thread(target=run, daemon=True)
            thread.start()
            while state[1] == 0:
                time.sleep(0.001)
            # The kernel ends while the interpreter shuts down, and the thread then asks for the lock.
            import atexit
            atexit.register(lambda: state.__setitem__(0, 1))
        print("last line")
    """
    for _ in range(3):
        assert in_new_process(script, HOW=how) == "last line\n"


@needs_native
def test_the_object_is_kept_on_disk(tmp_path: Any) -> None:
    script = """
        import llvmlite.binding as llvm
        parsed = []
        from stein.backends.cpu import native_load
        original = native_load.compile_program
        native_load.compile_program = lambda text: parsed.append(1) or original(text)
        assert T.execute(T.telling(2, 1.0), ())[0].tolist() == [2, 2]
        print(len(parsed))
    """
    assert in_new_process(script, STEIN_CACHE_DIR=str(tmp_path)) == "1\n"
    assert in_new_process(script, STEIN_CACHE_DIR=str(tmp_path)) == "0\n"
    assert in_new_process(script, STEIN_CACHE_DIR="off") == "1\n"


def test_the_python_entry_survives_a_fork_and_a_change_of_threads() -> None:
    pool.set_threads(2)
    native_fallback.run(meeting(2, 2), (np.zeros(1, np.int64),), (np.zeros(2, np.int64),))
    first = native_fallback._workers.get(2)
    assert native_fallback._workers.get(2) is first and native_fallback._workers.get(3) is not first


@needs_native
def test_interpreters_that_call_only_functions_natively() -> None:
    """Before Python 3.11 the general call is no function of the C library of Python; there, others are wrapped."""
    import ctypes

    if not hasattr(ctypes.pythonapi, "_PyFunction_Vectorcall"):
        pytest.skip("this Python always has the general call")
    out = in_new_process(
        """
        from stein.backends.cpu import native_check
        native_check._VECTORCALL = "no_such_function"
        class Slow:
            def __call__(self, *args, **kwargs):
                return args, kwargs
        f, register = T.make_dispatcher(Slow(), spec_first=True)
        register(T.telling(2, 1.0), "tell", finish=len)
        print(f("x", 1, k=2), f(), f.__self__.records["tell"][0].finish(()))
        g, register = T.make_dispatcher(Slow().__call__, spec_first=False)
        register(T.meeting(1, 1), finish=len)
        print(g(np.zeros(1, np.int64)), g(3))
        """
    )
    assert out.splitlines() == ["(('x', 1), {'k': 2}) ((), {}) 0", "1 ((3,), {})"]
