"""Products whose blocks come by tensor descriptors, beside the same with pointers: run by `test_called` in a process
with Triton's interpreter. Operands lie in memory full of NaN: nothing but zeros may come from beyond their ends.
"""

from __future__ import annotations

import pytest
import torch

import stein
from stein.backends.gpu.choose import Settings
from stein.backends.gpu.configurations import with_pointers
from stein.backends.gpu.program import bind
from stein.backends.gpu.run import run
from stein.ir.expr import Program
from stein.passes.base import Context
from stein.passes.candidates import BEST, Draft, plan
from stein.runtime.gpu import has_descriptors
from stein.tests.gpu.interpreter import layout_of, poisoned  # first: it asks for the interpreter

pytestmark = pytest.mark.skipif(not has_descriptors(), reason="needs Triton 3.4, for tensor descriptors")
TYPES = {"float16": torch.float16, "float32": torch.float32}


def within(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """A tensor in a larger one, whose other elements are NaN; strides are multiples of 16 elements."""
    room = poisoned(tuple(-(-(n + 1) // 16) * 16 for n in shape), dtype)
    found = room[tuple(slice(n) for n in shape)]
    found.copy_(torch.randn(shape))
    return found


@pytest.mark.parametrize(
    ("text", "shapes", "bulk"),
    [
        ("y[i,k] = relu(sum[j] A[i,j] * B[j,k])", {"A": (70, 41), "B": (41, 56)}, "A B y"),
        ("y[i,k] = relu(sum[j] A[i,j] * B[k,j])", {"A": (70, 41), "B": (56, 41)}, "A B y"),
        ("y[i,k] = relu(sum[j] A[j,i] * B[j,k])", {"A": (41, 70), "B": (41, 56)}, "A B y"),
        ("y[k,i] = relu(sum[j] A[i,j] * B[j,k])", {"A": (64, 41), "B": (41, 57)}, "A B y"),
        ("y[b,i,k] = relu(sum[j] A[b,i,j] * B[b,j,k])", {"A": (3, 33, 41), "B": (3, 41, 48)}, "A B y"),
        ("y[i,b,k] = relu(sum[j] A[i,b,j] * B[b,j,k])", {"A": (33, 3, 41), "B": (3, 41, 48)}, "B"),  # b lies between
        ("y[i,k] = A[j,i] * B[j,k]", {"A": (2100, 16), "B": (2100, 16)}, "A B y_chunks"),  # in chunks
        ("y[i,k] = relu(sum[j] A[i,j] * A[k,j])", {"A": (40, 41)}, "y"),  # two views of one operand
    ],
)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_descriptors_and_pointers_move_the_same(
    text: str, shapes: dict[str, tuple[int, ...]], bulk: str, dtype: str
) -> None:
    program: Program = stein.compile(text, dtype=dtype, target="reference", **shapes).program
    planned = plan(Draft(BEST, program), Context(sizes={})).program
    torch.manual_seed(0)
    operands = {n: within(s, TYPES[dtype]) for n, s in shapes.items()}
    layouts = {n: layout_of(t) for n, t in operands.items()}
    settings = Settings("tf32", descriptors=True)
    found, plain = (bind(planned, {}, layouts, s, library=False) for s in (settings, Settings("tf32")))
    moved = {t.name for t in found.kernels[0].kernel.tensors if t.descriptor}
    assert moved == set(bulk.split())
    assert with_pointers(found.kernels[0].kernel).warps == plain.kernels[0].kernel.warps
    (one,), (other,) = (run(b, operands, torch.device("cpu"), poisoned) for b in (found, plain))
    assert torch.equal(one, other)
    assert torch.isfinite(one).all()


def test_operands_that_do_not_lie_so_are_read_by_pointers() -> None:
    """The same callable: a first element at an odd address, rows at odd ones, gaps between elements."""
    f = stein.compile("y[i,k] = relu(sum[j] A[i,j] * B[j,k])", dtype="float16", target="cuda")
    a, b = torch.randn(33, 64).half(), torch.randn(64, 48).half()
    want = torch.relu(a.float() @ b.float()).half()
    torch.testing.assert_close(f(a, b), want, rtol=1e-2, atol=1e-2)
    assert "A.load(" in f.source("triton")
    for view in (
        torch.cat([a.new_zeros(1), a.flatten()])[1:].view(33, 64),
        torch.cat([a, a[:, :1]], 1)[:, :64],
        torch.stack([a, a], -1)[..., 0],
    ):
        torch.testing.assert_close(f(view, b), want, rtol=1e-2, atol=1e-2)
