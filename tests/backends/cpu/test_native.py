"""The native entry and executor: layouts, buffers, dispatch, references, memory. Each test runs both entries."""

from __future__ import annotations

import ctypes
import gc
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from stein.backends.cpu import native
from stein.backends.cpu.launch import Call
from stein.backends.cpu.native import Executable, Layout, execute, make_dispatcher
from stein.backends.cpu.native_ir import translate
from stein.ir.errors import ShapeError
from stein.ir.types import BF16, F32, I64

# Kernels on 64-bit integers, in the subset of Python that the native entry itself is written in.
KERNELS = """
def add(args, lo, hi):
    while lo < hi:
        store64(load64(args + 16) + 8 * lo, load64(load64(args) + 8 * lo) + load64(load64(args + 8) + 8 * lo))
        lo += 1

def twice_through_scratch(args, lo, hi):
    k = 0
    while k < hi - lo:
        store64(load64(args + 16) + 8 * k, load64(load64(args) + 8 * (lo + k)))
        k += 1
    store64(load64(args + 24), lo)
    k = 0
    while k < hi - lo:
        store64(load64(args + 8) + 8 * (lo + k), 2 * load64(load64(args + 16) + 8 * k))
        k += 1

def tell_words(args, lo, hi):
    k = 0
    while k < hi:
        store64(load64(args) + 8 * k, load64(args + 8 * k))
        k += 1
"""
NAMES = ("add", "twice_through_scratch", "tell_words")


@cache
def kernel(name: str) -> int:
    """The address of a kernel."""
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


def adding(shape: tuple[int, ...], **changes: Any) -> Executable:
    """out = a + b."""
    layout = Layout.dense(I64, shape)
    count = int(np.prod(shape))
    pointers = ((0, 0, 0), (1, 1, 0), (2, 2, 0))
    call = Call(kernel("add"), (0, 0, 0), pointers, (), count, 10.0)
    return Executable((call,), (layout, layout), (changes.get("output", layout),))


def numbers(*shape: int, start: int = 1) -> np.ndarray[Any, Any]:
    return np.arange(start, start + int(np.prod(shape)), dtype=np.int64).reshape(shape)


@pytest.fixture(params=["native", "python"], autouse=True)
def entry(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run every test with both entries, which must behave alike."""
    if request.param == "python":
        monkeypatch.setattr(native, "available", lambda: False)
    elif not native.available():
        pytest.skip(native.why_unavailable())
    return str(request.param)


class Slow:
    """A slow path that remembers its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def __call__(self, *args: Any, **kwargs: Any) -> str:
        self.calls.append((args, kwargs))
        return "slow"


def spec_dispatcher() -> tuple[Callable[..., Any], native.Register]:
    return make_dispatcher(Slow(), spec_first=True, name="einsum")


# Execution


def test_the_native_entry_is_available_on_cpython_and_linux() -> None:
    if sys.platform == "linux" and sys.implementation.name == "cpython":
        assert native.why_unavailable() == ""


def test_fresh_and_given_outputs() -> None:
    a, b = numbers(3, 4), numbers(3, 4, start=100)
    (fresh,) = execute(adding((3, 4)), (a, b))
    assert np.array_equal(fresh, a + b) and fresh.flags.owndata and fresh.flags.c_contiguous
    out = np.zeros((3, 4), np.int64)
    (same,) = execute(adding((3, 4)), (a, b), (out,))
    assert same is out and np.array_equal(out, a + b)


def test_arrays_that_do_not_fit_are_refused() -> None:
    executable, a = adding((3, 4)), numbers(3, 4)
    for operands in ((a, a[:2]), (a, a.astype(np.float64)), (a, numbers(4, 3).T), (a,), (a, a, a)):
        with pytest.raises(ShapeError):
            execute(executable, operands)
    frozen = np.zeros((3, 4), np.int64)
    frozen.flags.writeable = False
    for outs in ((frozen,), (np.zeros((4, 3), np.int64).T,), (), (a, a)):
        if outs:
            with pytest.raises(ShapeError):
                execute(executable, (a, a), outs)


def test_subclasses_and_other_dtype_objects_are_taken_for_what_they_hold() -> None:
    class Sub(np.ndarray[Any, Any]):
        pass

    a = numbers(3, 4)
    other = np.dtype(np.int64).newbyteorder("S").newbyteorder("S")
    same = np.ndarray((3, 4), other, a.copy())
    (out,) = execute(adding((3, 4)), (a.view(Sub), same))
    assert type(out) is np.ndarray and np.array_equal(out, 2 * a)


def test_two_calls_through_temporaries_and_a_constant_with_offset() -> None:
    layout = Layout.dense(I64, (600,))
    add = kernel("add")
    constant = numbers(601, start=1000)
    # Buffers: 0, 1 operands, 2 output, 3 and 4 temporaries, 5 constant.
    calls = (
        Call(add, (0, 0, 0), ((0, 0, 0), (1, 1, 0), (2, 3, 0)), (), 600, 1.0),
        Call(add, (0, 0, 0), ((0, 3, 0), (1, 5, 8), (2, 4, 16)), (), 600, 1.0),
        Call(add, (0, 0, 0), ((0, 4, 16), (1, 3, 0), (2, 2, 0)), (), 600, 1.0),
    )
    executable = Executable(calls, (layout, layout), (layout,), (4800, 4816), (constant,))
    a, b = numbers(600), numbers(600, start=7)
    (out,) = execute(executable, (a, b))
    assert np.array_equal(out, 2 * (a + b) + constant[1:])


def test_scratch_is_private_aligned_and_apart() -> None:
    n = 1000
    layout = Layout.dense(I64, (n,))
    call = Call(
        kernel("twice_through_scratch"), (0, 0, 0, 0), ((0, 0, 0), (1, 1, 0)), ((2, 8 * n), (3, 8)), n, 1e6
    )  # fmt: skip
    a = numbers(n)
    (out,) = execute(Executable((call,), (layout,), (layout,)), (a,))
    assert np.array_equal(out, 2 * a)
    words = Layout.dense(I64, (4,))
    tell = Call(kernel("tell_words"), (0, 0, 0, 9), ((0, 0, 0),), ((1, 8), (2, 5000)), 4, 1.0)
    (told,) = execute(Executable((tell,), (), (words,)), ())
    assert told[1] % 64 == 0 and told[2] % 4096 == 0 and told[2] >= told[1] + 8 and told[3] == 9
    assert told[0] == told.ctypes.data


def test_scratch_and_temporaries_are_apart() -> None:
    call = Call(
        kernel("tell_words"), (0, 0, 0, 0), ((0, 0, 0), (1, 1, 0), (2, 2, 0)), ((3, 3000),), 4, 1.0
    )  # fmt: skip
    executable = Executable((call,), (), (Layout.dense(I64, (4,)),), (3000, 3000))
    told = execute(executable, ())[0].tolist()
    places = sorted(told[1:])
    assert all(right - left >= 3000 for left, right in pairwise(places))


@pytest.mark.parametrize("count", [256, 257, 5000])
def test_long_argument_blocks(count: int) -> None:
    layout = Layout.dense(I64, (count,))
    args = tuple(range(-5, count - 5))
    call = Call(kernel("tell_words"), args, ((0, 0, 0),), ((1, 100),), count, 1.0)
    (told,) = execute(Executable((call,), (), (layout,)), ())
    assert told[2:].tolist() == list(args[2:]) and told[0] == told.ctypes.data


def test_more_buffers_than_the_stack_table_holds() -> None:
    layout = Layout.dense(I64, (2,))
    add, count = kernel("add"), 70
    calls = [Call(add, (0, 0, 0), ((0, 0, 0), (1, 1, 0), (2, count, 0)), (), 2, 1.0)]
    calls += [Call(add, (0, 0, 0), ((0, count, 0), (1, k, 0), (2, count, 0)), (), 2, 1.0) for k in range(2, count)]
    executable = Executable(tuple(calls), (layout,) * count, (layout,))
    arrays = [numbers(2, start=k * k) for k in range(count)]
    assert np.array_equal(execute(executable, arrays)[0], sum(arrays))
    f, register = spec_dispatcher()
    register(executable, "long")
    assert np.array_equal(f("long", *arrays), sum(arrays))


def test_outputs_in_another_order_without_axes_and_empty() -> None:
    turned = Layout.dense(I64, (3, 4), (1, 0))
    (out,) = execute(adding((3, 4), output=turned), (numbers(3, 4), numbers(3, 4)))
    assert out.shape == (3, 4) and out.strides == (8, 24) and out.flags.f_contiguous and out.flags.owndata
    assert np.array_equal(out.ravel("K"), 2 * numbers(12))
    f, register = spec_dispatcher()
    register(adding(()), "zero", scalars=True)
    register(adding(()), "array")
    one = np.array(20, np.int64)
    scalar, array = f("zero", one, one), f("array", one, one)
    assert type(scalar) is np.int64 and scalar == 40
    assert type(array) is np.ndarray and array.shape == () and array == 40
    (empty,) = execute(adding((0, 3)), (numbers(0, 3), numbers(0, 3)))
    assert empty.shape == (0, 3)


def test_dense_layouts() -> None:
    assert Layout.dense(F32, (2, 3, 4), (2, 0, 1)).strides == (12, 4, 24)
    assert Layout.dense(F32, (2, 3, 4), (2, 0, 1)).is_dense
    assert not Layout(F32, (2, 3), (16, 4)).is_dense and not Layout(F32, (2,), (-4,)).is_dense
    assert Layout(F32, (1, 3), (999, 4)).is_dense and Layout(F32, (0, 3), (5, 5)).is_dense


# Dispatch


def test_only_exact_layouts_reach_the_record() -> None:
    slow = Slow()
    f, register = make_dispatcher(slow, spec_first=True)
    a, b = numbers(3, 4), numbers(3, 4, start=50)
    assert f("ab,ab->ab", a, b) == "slow"
    register(adding((3, 4)), "ab,ab->ab")
    assert np.array_equal(f("ab,ab->ab", a, b), a + b)
    assert np.array_equal(f("".join(["ab,", "ab->ab"]), a, b), a + b), "equal strings need not be identical"
    before = len(slow.calls)

    class Sub(np.ndarray[Any, Any]):
        pass

    class Text(str):
        pass

    calls: list[tuple[Any, ...]] = [
        ("ab,ab", a, b), (Text("ab,ab->ab"), a, b), (b"ab,ab->ab", a, b), (), ("ab,ab->ab",), (a, b),
        ("ab,ab->ab", a), ("ab,ab->ab", a, b, b), ("ab,ab->ab", a, b.tolist()), ("ab,ab->ab", a, 3),
        ("ab,ab->ab", a, b.view(Sub)), ("ab,ab->ab", a, b.astype(np.uint64)), ("ab,ab->ab", a, b.astype(">i8")),
        ("ab,ab->ab", a, b[:2]), ("ab,ab->ab", a, b.reshape(4, 3)), ("ab,ab->ab", a, np.asfortranarray(b)),
        ("ab,ab->ab", a, b[::-1]), ("ab,ab->ab", a, b.reshape(3, 4, 1)), ("ab,ab->ab", a, np.ma.array(b)),
    ]  # fmt: skip
    for args in calls:
        assert isinstance(f(*args), str), args
    assert f("ab,ab->ab", a, b, optimize=True) == "slow"
    assert slow.calls[-1][1] == {"optimize": True} and slow.calls[-1][0][0] == "ab,ab->ab"
    assert len(slow.calls) == before + len(calls) + 1
    for seen, given in zip(slow.calls[before:], calls, strict=False):
        assert len(seen[0]) == len(given) and all(x is y for x, y in zip(seen[0], given, strict=True))


def test_strides_of_axes_of_extent_one_are_free() -> None:
    f, register = spec_dispatcher()
    register(adding((1, 4)), "x")
    odd = numbers(3, 4)[::2][:1]
    assert np.array_equal(f("x", odd, numbers(1, 4)), 2 * numbers(1, 4))


def test_bfloat16_is_matched_by_its_dtype() -> None:
    layout = Layout.dense(BF16, (2,))
    call = Call(kernel("tell_words"), (7,), (), (), 0, 1.0)
    f, register = spec_dispatcher()
    register(Executable((call,), (layout,), (layout,)), "x")
    assert f("x", np.zeros(2, BF16.numpy)).dtype == BF16.numpy
    assert f("x", np.zeros(2, np.float16)) == "slow"


def test_several_outputs_and_finish() -> None:
    layout = Layout.dense(I64, (2,))
    add = kernel("add")
    calls = (
        Call(add, (0, 0, 0), ((0, 0, 0), (1, 1, 0), (2, 2, 0)), (), 2, 1.0),
        Call(add, (0, 0, 0), ((0, 2, 0), (1, 2, 0), (2, 3, 0)), (), 2, 1.0),
    )
    executable = Executable(calls, (layout, layout), (layout, layout))
    a = numbers(2)
    f, register = make_dispatcher(Slow(), spec_first=False)
    register(executable)
    plain = f(a, a)
    assert type(plain) is tuple and [x.tolist() for x in plain] == [[2, 4], [4, 8]]
    register(executable, finish=lambda outputs: dict(zip("pq", outputs, strict=True)))
    assert {k: v.tolist() for k, v in f(a, a).items()} == {"p": [2, 4], "q": [4, 8]}
    outs = (np.zeros(2, np.int64), np.zeros(2, np.int64))
    assert execute(executable, (a, a), outs)[1] is outs[1] and outs[1].tolist() == [4, 8]

    def broken(outputs: object) -> object:
        raise KeyError("finish")

    register(executable, finish=broken)
    with pytest.raises(KeyError, match="finish"):
        f(a, a)


def test_keywords_in_any_order() -> None:
    slow = Slow()
    f, register = make_dispatcher(slow, spec_first=False, names=("A", "B"))
    layout = Layout.dense(I64, (2,))
    call = Call(kernel("add"), (0, 0, 0), ((0, 0, 0), (1, 1, 8), (2, 2, 0)), (), 1, 1.0)
    register(Executable((call,), (layout, Layout.dense(I64, (3,))), (layout,)))
    a, b = numbers(2), numbers(3, start=10)
    for result in (f(a, b), f(A=a, B=b), f(B=b, A=a), f(a, B=b)):
        assert result[0] == 12
    assert not slow.calls
    for args, kwargs in (((a,), {"A": b}), ((a,), {"C": b}), ((a, b), {"B": b}), ((), {"A": a}), ((a,), {})):
        assert f(*args, **kwargs) == "slow"
        assert slow.calls[-1] == (args, kwargs) or slow.calls[-1][1].keys() == kwargs.keys()
    unnamed, _ = make_dispatcher(slow, spec_first=False)
    assert unnamed(A=a) == "slow"


def test_errors_of_the_slow_path_pass_through() -> None:
    def broken(*args: object) -> object:
        """What it does."""
        raise ZeroDivisionError

    f, _ = make_dispatcher(broken, spec_first=True)
    assert f.__doc__ == "What it does."
    with pytest.raises(ZeroDivisionError):
        f("x", 1)


def test_tables_are_bounded_and_the_last_hit_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    f, register = spec_dispatcher()
    for n in range(1, native.MAX_RECORDS + 1):
        register(adding((n,)), "x")
    assert f("x", numbers(1), numbers(1)) == [2], "this moves the oldest to the front"
    register(adding((1000,)), "x")
    register(adding((1001,)), "x")
    assert f("x", numbers(1), numbers(1)) != "slow"
    assert f("x", numbers(1000), numbers(1000))[0] == 2
    hits = [n for n in range(1, native.MAX_RECORDS + 1) if not isinstance(f("x", numbers(n), numbers(n)), str)]
    assert len(hits) == native.MAX_RECORDS - 2
    monkeypatch.setattr(native, "MAX_SPECS", 3)
    for spec in "abcd":
        register(adding((1,)), spec)
    assert isinstance(f("a", numbers(1), numbers(1)), str) and f("d", numbers(1), numbers(1)) == [2]


def test_a_new_record_replaces_that_of_the_same_layouts() -> None:
    f, register = spec_dispatcher()
    register(adding((2,)), "x", finish=lambda out: "old")
    register(adding((2,)), "x", finish=lambda out: "new")
    assert f("x", numbers(2), numbers(2)) == "new"


# References and memory


def test_references_balance() -> None:
    def slow(*args: object, **kwargs: object) -> str:
        return "slow"

    f, register = make_dispatcher(slow, spec_first=True)
    g, register_g = make_dispatcher(slow, spec_first=False, names=("A", "B"))
    executable = adding((3, 4))
    register(executable, "x")
    register_g(executable, finish=lambda out: out)
    register(adding(()), "s", scalars=True)
    a, b, one = numbers(3, 4), numbers(3, 4), np.array(1, np.int64)
    spec = "".join(["x"])
    watched = [a, b, one, spec, a.dtype, np.ndarray, executable.record, slow, f, None, NotImplemented]
    out = np.zeros((3, 4), np.int64)

    def work() -> None:
        for _ in range(1000):
            f(spec, a, b)
            f(spec, a)
            f("s", one, one)
            g(a, b)
            g(B=b, A=a)
            g(A=a)
            execute(executable, (a, b))
            execute(executable, (a, b), (out,))

    work()
    counts, blocks = [sys.getrefcount(x) for x in watched], sys.getallocatedblocks()
    work()
    after = [sys.getrefcount(x) for x in watched]
    # A leak of one reference or block in any of the eight calls would show as 1000; the rest is noise.
    assert [abs(x - y) < 100 for x, y in zip(after, counts, strict=True)] == [True] * len(watched)
    assert abs(sys.getallocatedblocks() - blocks) < 500


def test_a_dispatcher_in_a_cycle_is_collected() -> None:
    class Owner:
        def slow(self, *args: object) -> object:
            return self

    def make() -> weakref.ref[Owner]:
        owner = Owner()
        owner.call, register = make_dispatcher(owner.slow, spec_first=False)  # type: ignore[attr-defined]
        register(adding((2,)), finish=lambda out: owner)
        assert owner.call() is owner  # type: ignore[attr-defined]
        assert owner.call(numbers(2), numbers(2)) is owner
        return weakref.ref(owner)

    gone = make()
    gc.collect()
    assert gone() is None


def test_memory_errors() -> None:
    layout = Layout.dense(I64, (2,))
    call = Call(kernel("add"), (0, 0, 0), ((0, 0, 0), (1, 0, 0), (2, 1, 0)), (), 2, 1.0)
    a = numbers(2)
    f, register = spec_dispatcher()
    greedy = Executable((call,), (layout,), (layout,), (1 << 60,))
    scratchy = Call(call.address, (0, 0, 0, 0), call.pointers, ((3, 1 << 60),), 2, 1.0)
    vast = Executable((call,), (layout,), (Layout.dense(I64, (1 << 57,)),))
    for executable in (greedy, Executable((scratchy,), (layout,), (layout,)), vast):
        register(executable, "x")
        for _ in range(3):
            with pytest.raises(MemoryError):
                f("x", a)
            with pytest.raises(MemoryError):
                execute(executable, (a,))
    register(greedy, "x")

    def fail() -> None:
        for _ in range(500):
            with suppress(MemoryError):
                f("x", a)

    fail()
    before = sys.getallocatedblocks()
    fail()
    assert abs(sys.getallocatedblocks() - before) < 200, "the outputs made before the failure are freed"
    register(Executable((call,), (layout,), (layout,), (64,)), "x")
    assert f("x", a).tolist() == [2, 4]


def test_operands_need_not_be_aligned() -> None:
    raw = np.zeros(8 * 3 + 1, np.uint8)
    odd = raw[1:].view(np.int64)
    odd[:] = (1, 2, 3)
    assert odd.ctypes.data % 8 and not odd.flags.aligned
    f, register = spec_dispatcher()
    register(adding((3,)), "x")
    copy = ctypes.string_at(odd.ctypes.data, 24)
    assert f("x", odd, numbers(3)).tolist() == [2, 4, 6] and len(copy) == 24
