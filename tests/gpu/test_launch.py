"""What a kernel is launched with: its options are part of the plan. Nothing is compiled here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from stein.backends.gpu import launch as launching
from stein.backends.gpu.nodes import Kernel, Map, Outer, Tensor
from stein.ir.types import F32

X, Y = (Tensor(n, ("i",), F32, (1,)) for n in "xy")
KERNEL = Kernel((X, Y), (("i", "n_i"),), Outer((("i", 64),), Map("y", "x")))


class Recorder:
    """A function of Triton that writes down how it is called, and gives itself for what it compiles."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []

    def __getitem__(self, shape: Any) -> Any:
        def call(*given: Any, **options: Any) -> Recorder:
            self.calls.append((shape, given, options))
            return self

        return call


@dataclass(frozen=True)
class Memory:
    """As much of a tensor as a launch asks for."""

    address: int = 0
    device: str = "cuda:0"

    def data_ptr(self) -> int:
        """The address of the first element."""
        return self.address


def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """What stands in the place of the function of every kernel."""
    recorder = Recorder()
    prepared = launching.Prepared(recorder, ("x", "y", "n_i"), ())
    monkeypatch.setattr(launching, "_prepared", lambda kernel: prepared)
    return recorder


@pytest.mark.parametrize("fused", [False, True])
def test_options_are_those_of_the_kernel(fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = recorded(monkeypatch)
    kernel = replace(KERNEL, warps=8, stages=2, fuse_multiply_add=fused)
    x, y = Memory(16), Memory(32)
    launching.launch(kernel, {"y": y, "x": x, "n_i": 1000}, {"n_i": 1000})
    ((shape, given, options),) = recorder.calls
    assert shape == (16,) and given == (x, y, 1000)
    assert options == {"num_warps": 8, "num_stages": 2, "enable_fp_fusion": fused}


def test_what_was_compiled_is_launched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the same numbers and alignments on the same device; for all else Triton is asked (with options)."""
    recorder = recorded(monkeypatch)
    first = {"x": Memory(128), "y": Memory(256), "n_i": 64}
    for change in (
        {},
        {"x": Memory(384)},
        {"x": Memory(132)},
        {"n_i": 65},
        {"x": Memory(128, "cuda:1")},
        {"y": Memory()},
    ):
        values = first | change
        launching.launch(KERNEL, values, values)
    shapes, _, options = zip(*recorder.calls, strict=True)
    assert [bool(o) for o in options] == [True, False, True, True, True, False]
    assert shapes == ((1,), (1, 1, 1), (1,), (2,), (1,), (1, 1, 1))


def test_a_descriptor_is_that_of_the_view() -> None:
    """Shape and strides are those that the kernel sees: axes may be merged, and in another order than the tensor's."""
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'stein[gpu]'")
    pytest.importorskip("triton.tools.tensor_descriptor", reason="needs Triton 3.4, for tensor descriptors")
    x = replace(X, axes=("k", "i"), strides=("s_x_k", 1), descriptor=True)
    kernel = replace(KERNEL, tensors=(x, Y), sizes=(("i", "n_i"), ("k", 48)))
    memory = torch.zeros(64, 48, 2)
    kernel = replace(kernel, nest=Outer((("k", 16), ("i", 32)), Map("y", "x")))
    bulk = launching.Bulk.of(kernel, x)
    found = bulk.descriptor({"x": memory, "n_i": 96, "s_x_k": 128})
    assert found.base is memory and (found.shape, found.strides) == ([48, 96], [128, 1])
    assert found.block_shape == [16, 32]


def test_no_programs_no_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grid of nothing is an error of CUDA: empty tensors launch nothing, and nothing is compiled for them."""
    monkeypatch.setattr(launching, "_prepared", lambda kernel: pytest.fail("asked for a function"))
    values = {"x": Memory(), "y": Memory(), "n_i": 0}
    launching.launch(KERNEL, values, values)
    launching.launch(KERNEL, values, 0)
