"""Launches, as the driver of the GPU sees them: run by `test_driver` in a process with a stand-in of that driver.

Triton assembles the kernels for sm_90, specialises them for their arguments, and launches them as on a GPU; the
operands are tensors of the CPU, which nothing reads. Everything that the driver is told is compared with what was given
(`record`). `every` does the same for all programs of the tests.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import stein
from stein.backends.gpu.configurations import variants
from stein.backends.gpu.nodes import Kernel
from stein.backends.gpu.roofline import H200
from stein.backends.gpu.run import run
from stein.backends.gpu.source import grid
from stein.ir.types import BF16
from stein.runtime.gpu_tuning import microseconds
from stein.tests.gpu import cases, fused_cases
from stein.tests.gpu.driver.record import CPU, Recorder, bound_to, compare, operands_of, planned
from stein.tests.gpu.fused_cases import goal_of
from stein.tests.gpu.fused_kernels import DIRECT

HALF = torch.float16
RECORDER = Recorder()
FUSED = (
    "kronecker, bias, relu", "kronecker 16x16x16", "low rank", "monarch 32", "block sparse", "gated block sparse",
    "causal convolution", "attention, causal",
)  # fmt: skip
GENERAL = (
    ("matrix", "float32"), ("batch_inside", "float16"), ("complex_matrix", "complex64"), ("long_sum", "float32"),
    ("fold", "bfloat16"), ("scatter", "float16"), ("gather_product", "float16"), ("block_list", "float32"),
    ("update_part", "float32"), ("reachable", "bool"), ("int_matrix", "int8"), ("positions", "float32"),
)  # fmt: skip
RELU = "y[i,k] = relu(sum[j] A[i,j] * B[j,k])"
KRONECKER = "y[b,i,j] = A[i,k] * B[j,l] * x[b,k,l]"
LISTED = "rows, columns: i64[S]\ny[b,i,a] = (rows[s] == i) * W[s,a,c] * (columns[s] == j) * x[b,j,c] for i in 0..4"


@pytest.fixture
def recorder() -> Recorder:
    """The recorder of this process, with nothing to compare."""
    RECORDER.forget()
    return RECORDER


def memory(*shape: int, dtype: torch.dtype = HALF) -> torch.Tensor:
    """Memory that nobody touches."""
    return torch.empty(shape, dtype=dtype)


def program(text: str, **operands: torch.Tensor) -> Any:
    """The planned program of a text for these operands."""
    declared = {n: stein.tensor(tuple(t.shape), str(t.dtype).removeprefix("torch.")) for n, t in operands.items()}
    return planned(text, "float16", **declared)


# --- programs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FUSED)
def test_fused_programs_at_full_size(recorder: Recorder, name: str) -> None:
    case = next(c for c in fused_cases.CASES if c.name == name)
    found = fused_cases.program_of(case, case.dtypes[-1], case.full)
    operands = operands_of(found)
    bound = bound_to(found, operands, goal=goal_of("sm_90"))
    ran = recorder.run(bound, operands)
    assert [p.structure for p in bound.plans] == [case.structure]
    assert [n.programs for n in ran.launched] == [c.programs for c in bound.kernels]


@pytest.mark.parametrize(("name", "dtype"), GENERAL)
def test_general_programs(recorder: Recorder, name: str, dtype: str) -> None:
    case = next(c for c in cases.CASES if c.name == name)
    declared = {n: stein.tensor(s, case.texts.get(n, dtype)) for n, s in case.shapes.items()}
    found = planned(case.text, dtype, **declared)
    operands = operands_of(found)
    assert recorder.run(bound_to(found, operands), operands).launched


@pytest.mark.parametrize("batch", [1, 2])
def test_a_size_of_one_is_part_of_the_code(recorder: Recorder, batch: int) -> None:
    """Triton takes a number that is 1 for a constant, and calls it no parameter."""
    case = next(c for c in fused_cases.CASES if c.name == "low rank")
    shapes = {"U": (256, 64), "V": (64, 256), "x": (batch, 256)}
    low_rank = fused_cases.program_of(case, "bfloat16", shapes)
    operands = operands_of(low_rank)
    assert recorder.run(bound_to(low_rank, operands, goal=goal_of("sm_90")), operands).launched
    kronecker = next(k for k in DIRECT if k.name == "kronecker, descriptors").full(BF16)
    tensors = {n: memory(batch, 64, 64, dtype=torch.bfloat16) for n in "xy"}
    tensors |= {n: memory(64, 64, dtype=torch.bfloat16) for n in "AC"}
    recorder.launch(kronecker, tensors | {"n_b": batch}, {"n_b": batch})
    (found,) = recorder.compared([]).launched
    assert sum(size == 4 and value == batch for size, value in found.parameters) == (2 if batch == 1 else 3)


# --- operands as they lie ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "bulk"),
    [
        (memory(33, 64), "A B y"),
        (memory(33, 72)[:, :64], "A B y"),
        (memory(33 * 64 + 8)[8:].view(33, 64), "A B y"),
        (memory(33 * 64 + 1)[1:].view(33, 64), "B y"),
        (memory(33, 65)[:, :64], "B y"),
        (memory(33, 64, 2)[..., 0], "B y"),
        (memory(64, 40)[:, :33].t(), "A B y"),
        (memory(33, 1).expand(33, 64), ""),  # no product for matrix units
    ],
    ids=["dense", "padded", "moved", "unaligned", "odd rows", "gaps", "transposed", "repeated"],
)
def test_operands_that_do_not_lie_so_are_read_by_pointers(recorder: Recorder, a: torch.Tensor, bulk: str) -> None:
    operands = {"A": a, "B": memory(64, 48)}
    bound = bound_to(program(RELU, **operands), operands)
    ran = recorder.run(bound, operands)
    (kernel,) = (c.kernel for c in bound.kernels)
    assert " ".join(t.name for t in kernel.tensors if t.descriptor) == bulk
    assert len(ran.maps) == len(bulk.split())


def test_a_map_has_the_boxes_of_its_block(recorder: Recorder) -> None:
    """Rows of a box are as long as what the matrix units read of shared memory at a time, at most."""
    operands = {"A": memory(1000, 512), "B": memory(512, 1024)}
    bound = bound_to(program(RELU, **operands), operands)
    blocks = dict(bound.kernels[0].blocks)
    first, *_ = recorder.run(bound, operands).maps
    (rows, row, high), (columns, element, wide) = first.axes
    assert (rows, row, columns, element) == (1000, 1024, 512, 2)
    assert blocks["i"] % high == blocks["j"] % wide == 0 and wide * element <= 128


FAR = 1 << 31  # elements that 32 bits cannot count


def far_rows(stride: int) -> torch.Tensor:
    """Two rows that are so far apart."""
    return memory(stride + 100, dtype=torch.int8).as_strided((2, 100), (stride, 1))


@pytest.mark.parametrize(
    ("text", "x", "number"),
    [
        ("y[i,j] = x[i,j] + x[i,j]", lambda: memory(1, 40000, dtype=torch.int8).expand(1 << 16, 40000), 40000),
        (
            "y[i,j] = x[i,j] + x[i,j]",
            lambda: memory(FAR + 108, dtype=torch.int8).as_strided((2, 100), (FAR + 8, 1)),
            FAR + 8,
        ),
        ("y = sum[i] x[i]", lambda: memory(1, dtype=torch.int8).expand(2 * FAR + 64), 2 * FAR + 64),
        ("y[i] = x[i] + x[i]", lambda: memory(1, dtype=torch.int8).expand(FAR + 64), FAR + 64),
    ],
    ids=["large result", "far rows", "long sum", "long"],
)
def test_more_than_32_bits_count(recorder: Recorder, text: str, x: Callable[[], torch.Tensor], number: int) -> None:
    """Large numbers are parameters of 64 bits, and kernels with large offsets compute with 64."""
    operands = {"x": x()}
    bound = bound_to(program(text, **operands), operands)
    ran = recorder.run(bound, operands)
    assert bound.kernels[0].kernel.wide
    size = 8 if number >= FAR else 4
    assert (size, number) in ran.launched[0].parameters


def test_fused_kernels_of_wide_tiles_count_with_64_bits(recorder: Recorder) -> None:
    """The rows of one tile are 2^26 elements apart; those of another one are near, whatever its batch is."""
    factors = {"A": memory(64, 64), "B": memory(64, 64)}
    spread = memory(63 * (1 << 26) + 128).as_strided((2, 64, 64), (64, 1 << 26, 1))
    for x, wide in ((spread, True), (memory(1, 64, 64).expand(1 << 19, 64, 64), False)):
        operands = factors | {"x": x}
        bound = bound_to(program(KRONECKER, **operands), operands, goal=goal_of("sm_90"))
        assert [p.structure for p in bound.plans] == ["kronecker"]
        assert [c.kernel.wide for c in bound.kernels] == [wide]
        assert recorder.run(bound, operands).launched


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        (RELU, {"A": (0, 64), "B": (64, 48)}),
        (RELU, {"A": (64, 64), "B": (64, 0)}),
        (KRONECKER, {"A": (64, 64), "B": (64, 64), "x": (0, 64, 64)}),
        (LISTED, {"rows": (0,), "columns": (0,), "W": (0, 32, 32), "x": (5, 4, 32)}),
        (LISTED, {"rows": (3,), "columns": (3,), "W": (3, 32, 32), "x": (0, 4, 32)}),
    ],
    ids=["no rows", "no columns", "no batch", "no blocks", "no batch for blocks"],
)
def test_nothing_to_do_is_not_launched(recorder: Recorder, text: str, shapes: dict[str, tuple[int, ...]]) -> None:
    types = {"rows": torch.int64, "columns": torch.int64}
    operands = {n: torch.zeros(s, dtype=types.get(n, HALF)) for n, s in shapes.items()}
    (result,) = run(bound_to(program(text, **operands), operands, goal=goal_of("sm_90")), operands, CPU)
    assert not recorder.driver.take() and not recorder.driver.loaded
    assert not result.any(), "a sum of nothing is 0"


def test_a_sum_over_nothing_is_launched(recorder: Recorder) -> None:
    operands = {"A": memory(64, 0), "B": memory(0, 48)}
    (found,) = recorder.run(bound_to(program(RELU, **operands), operands), operands).launched
    assert found.parameters[:2] == ((8, 0), (8, 0)), "tensors without elements have no address"


# --- configurations, and calls ----------------------------------------------------------------------------------------


def test_configurations_of_the_tuner(recorder: Recorder) -> None:
    """Warps, stages, persistent programs, pointers: the launches of some of all configurations of a kernel."""
    direct = next(k for k in DIRECT if k.name == "kronecker, descriptors").full(BF16)
    tensors = {n: memory(4096, 64, 64, dtype=torch.bfloat16) for n in "xy"}
    tensors |= {n: memory(64, 64, dtype=torch.bfloat16) for n in "AC"}
    values = tensors | {"n_b": 4096}
    chosen: dict[tuple[str, object], Kernel] = {}  # the first one of each kind
    for form in variants(direct, {"n_b": 4096}, H200):
        bulk = any(t.descriptor for t in form.tensors)
        for kind in (("warps", form.warps), ("programs", grid(form, values)), ("bulk", bulk)):
            chosen.setdefault(kind, form)
    for form in dict.fromkeys(chosen.values()):
        recorder.launch(form, values, values)
    ran = recorder.compared([])
    assert {n.threads for n in ran.launched} == {128, 256}
    assert len({n.programs for n in ran.launched}) > 2
    assert {bool(n.parameters[0][0] == 128) for n in ran.launched} == {True, False}


def test_the_second_run_assembles_nothing(recorder: Recorder) -> None:
    """Other operands that lie alike are launched with the same kernel; others, in another place, need no new one."""
    operands = {"A": memory(130, 72), "B": memory(72, 136)}
    bound = bound_to(program(RELU, **operands), operands)
    first = recorder.run(bound, operands)
    assert recorder.driver.loaded > 0
    before = recorder.driver.loaded
    second = recorder.run(bound, {"A": memory(130, 72), "B": memory(72, 136)})
    assert recorder.driver.loaded == before
    assert [n.programs for n in first.launched] == [n.programs for n in second.launched]


def test_calls_with_constants(recorder: Recorder) -> None:
    """From `stein.compile` on: a constant is uploaded once, and its list of blocks is brought in order."""
    w = np.kron(np.eye(4, 3), np.ones((32, 32))).astype("f4")
    f: Any = stein.compile(
        "W: const f32[128,96] bsr(block=32)\ny[b,i] = relu(sum[j] W[i,j] * x[b,j])",
        dtype="float32",
        target="cuda",
        W=stein.constant(w),
        x=("b", 96),
    )
    expression = f.gpu(f._shown()[0])
    addresses = []
    for batch in (9, 9, 33):
        x = memory(batch, 96, dtype=torch.float32)
        ran = recorder.compared(expression.call([x]))
        assert [tuple(r.shape) for r in ran.results] == [(batch, 128)]
        (found,) = ran.launched
        assert (8, x.data_ptr()) in found.parameters and (8, ran.results[0].data_ptr()) in found.parameters
        addresses.append({v for size, v in found.parameters if size == 8} - {x.data_ptr(), ran.results[0].data_ptr()})
    assert addresses[0] == addresses[1] and len(addresses[0]) > 2


def test_arguments_of_another_kind_have_a_kernel_of_their_own(recorder: Recorder) -> None:
    """An address that is no multiple of 16 bytes, a number that is none of 16: loads of 16 bytes would fail there."""
    room, y = memory(4100, dtype=torch.float32), memory(4100, dtype=torch.float32)
    bound = bound_to(program("y[i] = x[i] + 7.25", x=room), {"x": room})
    ((kernel, _, _),) = recorder.run(bound, {"x": room}).given
    loaded = []
    for offset, count in ((0, 4096), (1, 4096), (1, 4080), (0, 4095), (2, 4095), (0, 4096), (0, 1), (0, 1)):
        values = {"x": room[offset:], "y": y, "n_i": count}
        recorder.launch(kernel, values, values)
        recorder.compared([])
        loaded.append(recorder.driver.loaded)
    assert loaded == [2, 3, 3, 3, 4, 4, 5, 5], "one for 4100 before"


def test_the_clock_launches_and_knows_what_does_not_fit(recorder: Recorder) -> None:
    """On events that say one millisecond; a pipeline that overflows shared memory is told by the limit of the GPU."""
    operands = {"A": memory(1000, 4096), "B": memory(4096, 1024)}
    ran = recorder.run(bound_to(program(RELU, **operands), operands), operands)
    ((kernel, values, programs),) = ran.given
    assert microseconds(lambda: recorder.launch(kernel, values, programs)) == 1000.0
    assert len(recorder.compared([]).launched) > 50
    deep = replace(kernel, stages=16)
    assert microseconds(lambda: recorder.launch(deep, values, programs)) == float("inf")
    assert not recorder.driver.take()


# --- the stand-in itself ----------------------------------------------------------------------------------------------

DENSE = {"address": 1 << 20, "rank": 2, "dims": (64, 32), "strides": (128,), "box": (64, 16), "type": 6, "swizzle": 3}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({}, ""),
        ({"address": (1 << 20) + 8}, "no multiple of 16"),
        ({"strides": (136,)}, "no multiple of 16 below"),
        ({"strides": (1 << 40,)}, "no multiple of 16 below"),
        ({"box": (64, 257)}, "the box has 257"),
        ({"box": (4, 16)}, "a row of the box has 8 bytes"),
        ({"box": (128, 16)}, "more than the 128 of its swizzle"),
        ({"dims": (64, 0)}, "axis 1 has 0 positions"),
        ({"rank": 6}, "6 axes"),
        ({"type": 13}, "no type"),
    ],
)
def test_the_driver_refuses_maps(recorder: Recorder, change: dict[str, Any], sentence: str) -> None:
    told = DENSE | change

    def numbers(name: str, kind: Any) -> Any:
        values = tuple(told[name])
        return (kind * 8)(*values, *(0,) * (8 - len(values)))

    room = (ctypes.c_uint64 * 32)()
    place = ctypes.addressof(room) + -ctypes.addressof(room) % 64
    dims, strides = numbers("dims", ctypes.c_uint64), numbers("strides", ctypes.c_uint64)
    box, steps = numbers("box", ctypes.c_uint32), (ctypes.c_uint32 * 8)(*(1,) * 8)
    status = recorder.driver.library.cuTensorMapEncodeTiled(
        ctypes.c_void_p(place), told["type"], told["rank"], ctypes.c_void_p(told["address"]), dims, strides, box, steps,
        0, told["swizzle"], 2, 0,
    )  # fmt: skip
    assert (status == 0) is not bool(sentence)
    if sentence:
        with pytest.raises(AssertionError, match=sentence):
            recorder.driver.take()


def test_wrong_launches_are_seen(recorder: Recorder) -> None:
    """A number, an address, a grid or a block that is not what was given."""
    operands = {"A": memory(33, 64), "B": memory(64, 48)}
    ran = recorder.run(bound_to(program(RELU, **operands), operands), operands)
    ((kernel, values, programs),) = ran.given
    (found,) = ran.launched
    compare(kernel, values, programs, found)
    for name, other in (("A", memory(33, 64)), ("n_i", 34), ("B", memory(64, 48))):
        with pytest.raises(AssertionError):
            compare(kernel, values | {name: other}, programs, found)
    with pytest.raises(AssertionError):
        compare(kernel, values, 7, found)
    with pytest.raises(AssertionError):
        compare(replace(kernel, warps=16), values, programs, found)
