"""Tensor descriptors: which operands get them, and what the compiler makes of both forms. `bulk` runs them."""

from __future__ import annotations

from dataclasses import replace

import pytest

import stein
from stein.backends.gpu.ahead import inspect_printed, violations
from stein.backends.gpu.choose import Settings
from stein.backends.gpu.configurations import with_pointers
from stein.backends.gpu.nodes import Kernel
from stein.backends.gpu.program import bind
from stein.backends.gpu.views import Layout
from stein.ir.expr import Program
from stein.passes.base import Context
from stein.passes.candidates import BEST, Draft, plan
from stein.runtime import gpu

TEXT = "y[i,k] = relu(sum[j] A[i,j] * B[j,k])"


def kernel(
    precision: str = "ieee", dtype: str = "float16", odd: dict[str, dict[str, object]] | None = None, **shapes: object
) -> Kernel:
    """The kernel of the product; `odd` says what is unusual of the layout of an operand."""
    shapes = shapes or {"A": (2048, 2048), "B": (2048, 2048)}
    program: Program = stein.compile(TEXT, dtype=dtype, target="reference", **shapes).program
    planned = plan(Draft(BEST, program), Context(sizes={})).program
    layouts = {i.name: Layout.dense(tuple(n.evaluate({}) for n in i.shape), i.dtype) for i in planned.inputs}
    for name, change in (odd or {}).items():
        layouts[name] = replace(layouts[name], **change)  # type: ignore[arg-type]
    (chosen,) = bind(planned, {}, layouts, Settings(precision, descriptors=True), library=False).kernels
    return chosen.kernel


def moved(found: Kernel) -> str:
    return " ".join(t.name for t in found.tensors if t.descriptor)


def test_who_gets_a_descriptor() -> None:
    assert moved(kernel()) == moved(kernel("tf32", "float32")) == moved(kernel(dtype="bfloat16")) == "A B y"
    assert moved(kernel("ieee", "float32")) == "", "exact products read registers"
    assert moved(kernel(dtype="float64")) == "", "no product for matrix units"


@pytest.mark.parametrize(
    "change",
    [{"aligned": False}, {"strides": (2049, 1)}, {"strides": (4096, 2)}, {"strides": (0, 1)}, {"strides": (2**31, 1)}],
)
def test_who_gets_none(change: dict[str, object]) -> None:
    assert "A" not in moved(kernel(odd={"A": change})).split()


def test_names_of_the_old_triton_are_told_from_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    for version, known in (("3.3.1", False), ("3.4.0", True), ("3.10.0", True), ("none", True)):
        monkeypatch.setattr(gpu, "triton_version", lambda found=version: found)
        gpu.has_descriptors.cache_clear()
        assert gpu.has_descriptors() is known
    gpu.has_descriptors.cache_clear()


def test_descriptors_save_registers_and_instructions() -> None:
    """Why they are the first choice: what the compiler makes of one kernel in both forms."""
    pytest.importorskip("triton", reason="needs Triton: pip install 'stein[gpu]'")
    if not gpu.has_descriptors():
        pytest.skip("needs Triton 3.4, for tensor descriptors")
    found = kernel()
    bulk, plain = (inspect_printed(k, "sm_90") for k in (found, with_pointers(found)))
    assert violations(bulk, "HGMMA") == violations(plain, "HGMMA") == ()
    assert bulk.count("UTMALDG") and bulk.count("UTMASTG") and not bulk.count("LDGSTS")
    assert plain.count("LDGSTS") > bulk.count("UTMALDG") and bulk.registers < plain.registers
