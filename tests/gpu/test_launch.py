"""What a kernel is launched with: its options are part of the plan. Nothing is compiled here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from stein.backends.gpu import launch as launching
from stein.backends.gpu.nodes import Kernel, Map, Outer, Tensor
from stein.ir.types import F32

X, Y = (Tensor(n, ("i",), F32, (1,)) for n in "xy")
KERNEL = Kernel((X, Y), (("i", "n_i"),), Outer((("i", 64),), Map("y", "x")))


class Recorder:
    """A function of Triton that writes down how it is called."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []

    def __getitem__(self, shape: Any) -> Any:
        return lambda *given, **options: self.calls.append((shape, given, options))


@pytest.mark.parametrize("fused", [False, True])
def test_options_are_those_of_the_kernel(fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    monkeypatch.setattr(launching, "_prepared", lambda kernel: (recorder, ("x", "y", "n_i"), []))
    kernel = replace(KERNEL, warps=8, stages=2, fuse_multiply_add=fused)
    launching.launch(kernel, {"y": "Y", "x": "X", "n_i": 1000}, {"n_i": 1000})
    ((shape, given, options),) = recorder.calls
    assert shape == (16,) and given == ("X", "Y", 1000)
    assert options == {"num_warps": 8, "num_stages": 2, "enable_fp_fusion": fused}


def test_a_descriptor_is_that_of_the_view() -> None:
    """Shape and strides are those that the kernel sees: axes may be merged, and in another order than the tensor's."""
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'stein[gpu]'")
    pytest.importorskip("triton.tools.tensor_descriptor", reason="needs Triton 3.4, for tensor descriptors")
    x = replace(X, axes=("k", "i"), strides=("s_x_k", 1), descriptor=True)
    kernel = replace(KERNEL, tensors=(x, Y), sizes=(("i", "n_i"), ("k", 48)))
    memory = torch.zeros(64, 48, 2)
    found = launching._descriptor(kernel, x, [16, 32], {"x": memory, "n_i": 96, "s_x_k": 128})
    assert found.base is memory and (found.shape, found.strides) == ([48, 96], [128, 1])
    assert found.block_shape == [16, 32]
