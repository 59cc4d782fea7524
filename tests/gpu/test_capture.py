"""A second call does nothing that a CUDA graph cannot record: the operations of torch that it makes are looked at.

Kernels are not run (`launch` has a stand-in), so tensors of the CPU serve.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import stein
from stein.backends.gpu import run as running
from stein.backends.gpu.nodes import Kernel
from stein.ir.expr import Program
from stein.runtime.gpu import GpuExpression

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'stein[gpu]'")

# What is recorded as it is: memory from torch's allocator, views, fills, copies on the device, products of matrices.
# Not among them: reads of values (`_local_scalar_dense`, `nonzero`) and copies between devices (`_to_copy`).
RECORDED = {
    "aten.empty.memory_format", "aten.full.default", "aten.fill_.Scalar", "aten.copy_.default", "aten.detach.default",
    "aten.view_as_real.default", "aten.select.int", "aten.as_strided.default", "aten.view.default",
    "aten.expand.default", "aten.mm.out", "aten.bmm.out",
}  # fmt: skip


def operations(call: Any) -> tuple[Any, list[tuple[str, dict[str, Any]]]]:
    """What a call gives, and the operations of torch that it makes, with their keywords."""
    from torch.utils._python_dispatch import TorchDispatchMode

    seen: list[tuple[str, dict[str, Any]]] = []

    class Recorder(TorchDispatchMode):  # type: ignore[misc, unused-ignore]
        """Writes down each operation."""

        def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
            seen.append((str(func), kwargs or {}))
            return func(*args, **(kwargs or {}))

    with Recorder():
        found = call()
    return found, seen


@pytest.mark.parametrize(
    ("text", "dtype", "shapes", "needed"),
    [
        ("u[i,k] = A[i,j] * B[j,k]; y[i,k] = relu(u[i,k] + u[i,i])", "float32", {"A": (20, 20), "B": (20, 20)}, "mm"),
        ("y[b,i,k] = A[b,i,j] * B[b,j,k]", "float16", {"A": (3, 9, 20), "B": (3, 20, 20)}, "bmm"),
        ("y[i+j] = x[i] * z[j]", "float16", {"x": (20,), "z": (9,)}, "full"),
        ("y[i+j] = x[i] * z[j]", "complex64", {"x": (20,), "z": (9,)}, "view_as_real"),
        ("y[2*i] += x[i]", "float32", {"x": (20,), "y": (40,)}, "copy_"),
        ("y[b,i] = t[i-j+511] * x[b,j]", "float16", {"t": (1023,), "x": (300, 512)}, "empty"),
        ("y = sum[i] x[i]", "float32", {"x": (10**6,)}, "empty"),
        ("y[b,i,j] = A[i,k] * B[j,l] * x[b,k,l]", "float16", {"A": (64, 64), "B": (64, 64), "x": (9, 64, 64)}, "empty"),
    ],
)
def test_a_second_call_can_be_captured(
    text: str, dtype: str, shapes: dict[str, tuple[int, ...]], needed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched: list[tuple[Kernel, dict[str, Any]]] = []
    monkeypatch.setattr(running, "launch", lambda kernel, values, programs: launched.append((kernel, dict(values))))
    program: Program = stein.compile(text, dtype=dtype, target="reference", **shapes).program
    expression = GpuExpression(program)
    tensors = [torch.ones(shapes[i.name], dtype=getattr(torch, dtype)) for i in expression.arguments]
    expression.call(tensors)
    first = [kernel for kernel, _ in launched]
    launched.clear()
    _, seen = operations(lambda: expression.call(tensors))
    names = {name for name, _ in seen}
    assert names <= RECORDED, names - RECORDED
    assert any(f".{needed}." in name for name in names), names
    assert all(options.get("device") in (None, torch.device("cpu")) for _, options in seen)
    assert [kernel for kernel, _ in launched] == first, "nothing is tuned or planned anew"
    assert all(isinstance(v, int | torch.Tensor) for _, values in launched for v in values.values())


def test_constants_are_uploaded_once_and_live_as_long_as_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """A captured graph knows their addresses only."""
    places: list[int] = []
    w = np.ones((20, 30), "f4")

    def launch(kernel: Kernel, values: dict[str, Any], programs: int) -> None:
        places.append(values["W"].data_ptr())

    monkeypatch.setattr(running, "launch", launch)
    shapes: dict[str, Any] = {"W": stein.constant(w), "x": (7, 30)}
    compiled = stein.compile("y[b,i] = relu(sum[j] W[i,j] * x[b,j])", dtype="float32", target="reference", **shapes)
    expression = GpuExpression(compiled.program, constants={"W": w})
    for _ in range(3):
        expression.call([torch.ones(7, 30)])
    assert len(places) == 3 and len(set(places)) == 1


def test_memory_of_the_plan_s_own_arrays_is_made_once() -> None:
    from stein.backends.gpu.program import Bound
    from stein.backends.gpu.steps import Constant
    from stein.backends.gpu.views import Layout
    from stein.ir.types import F32

    values = np.arange(6, dtype="f4")
    bound = Bound((Constant("c", Layout.dense((6,), F32), values),), ("c",), {})
    (one,), (other,) = (running.run(bound, {}, torch.device("cpu")) for _ in range(2))
    assert one is other and one.tolist() == values.tolist()
