"""Tests of `target="cuda"` that `test_called` runs in a process with Triton's interpreter, on tensors of the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import stein
from stein.tests.gpu.interpreter import repair  # first: it asks for the interpreter

assert repair


def compiled(text: str, dtype: str = "float32", **options: object) -> stein.Compiled:
    found: stein.Compiled = stein.compile(text, dtype=dtype, target="cuda", **options)
    return found


def test_tensors_in_tensors_out() -> None:
    f = compiled("y[i,k] = exp(0.1 * (sum[j] A[i,j] * B[j,k]))")
    a, b = torch.randn(33, 40), torch.randn(40, 50)
    y = f(A=a, B=b)
    assert isinstance(y, torch.Tensor) and y.shape == (33, 50)
    torch.testing.assert_close(y, torch.exp(0.1 * (a @ b)))
    torch.testing.assert_close(f(a[:5], b), torch.exp(0.1 * (a[:5] @ b)))  # in order of mention, other sizes


def test_arrays_run_on_the_cpu() -> None:
    f = compiled("y[i] = x[i] + 1")
    y = f(np.ones(3, "f4"))
    assert isinstance(y, np.ndarray) and y.tolist() == [2, 2, 2]


def test_several_results_and_out() -> None:
    f = compiled("y[i] = 2*x[i]; z = sum[i] x[i]\nreturn y, z")
    x = torch.randn(100)
    found = f(x=x)
    torch.testing.assert_close(found["y"], 2 * x)
    torch.testing.assert_close(found["z"], x.sum())
    g = compiled("y[i] = 2*x[i]")
    out = torch.full((100,), float("nan"))
    assert g(x=x, out=out) is out
    torch.testing.assert_close(out, 2 * x)


@pytest.mark.parametrize(
    "view",
    [
        lambda t: t.t().contiguous().t(),
        lambda t: torch.stack([t, t], -1)[..., 1],
        lambda t: t[:1].expand(t.shape),
        lambda t: torch.cat([t, t])[3:-30],
    ],
    ids=["transposed", "with gaps", "repeated", "offset"],
)
def test_operands_lie_as_they_like(view: object) -> None:
    f = compiled("y[k,i] = sum[j] A[i,j] * B[j,k]")
    a, b = view(torch.randn(33, 40)), torch.randn(40, 18)  # type: ignore[operator]
    torch.testing.assert_close(f(a, b), (a @ b).t())


def test_constants_travel_once() -> None:
    w = np.random.default_rng(0).standard_normal((20, 30)).astype("f4")
    f = compiled("y[b,i] = W[i,j] * x[b,j]", W=stein.constant(w))
    x = torch.randn(7, 30)
    torch.testing.assert_close(f(x=x), x @ torch.from_numpy(w).t())
    assert f.stats["constants"] == w.nbytes


def test_types_are_those_of_the_call() -> None:
    f = stein.compile("y[i,k] = A[i,j] * B[j,k]", target="cuda")
    for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.complex64):
        a, b = torch.ones(20, 30, dtype=dtype), torch.ones(30, 20, dtype=dtype)
        y = f(a, b)
        assert y.dtype == dtype and (y == 30).all()


def test_conjugates_that_were_put_off() -> None:
    f = compiled("y[i] = x[i] * x[i]", "complex64")
    x = torch.randn(10, dtype=torch.complex64)
    torch.testing.assert_close(f(x.conj()), (x.conj() * x.conj()).resolve_conj())


def test_mistakes_are_told() -> None:
    f = compiled("y[i,k] = A[i,j] * B[j,k]")
    with pytest.raises(stein.ShapeError):
        f(torch.ones(3, 4), torch.ones(5, 6))
    with pytest.raises(stein.DTypeError):
        f(torch.ones(3, 4, dtype=torch.float64), torch.ones(4, 6))
    with pytest.raises(stein.DTypeError, match="precision"):
        compiled("y[i] = x[i]", precision="exact")
    with pytest.raises(stein.BackendError, match="GPU"):
        compiled("y = inv(A)", A=(3, 3))(torch.eye(3))


def test_no_step_waits_or_repeats_itself() -> None:
    """The second call of a kind binds nothing anew."""
    f = compiled("y[i] = exp(x[i])")
    x = torch.randn(50)
    f(x)
    expression, sizes = f._last  # type: ignore[misc]
    plan = f.gpu(expression).gpu_plan(sizes)  # type: ignore[attr-defined]
    assert len(plan.steps) == 1
    f(x + 1)
    assert f.gpu(expression).gpu_plan(sizes) is plan and len(plan.steps) == 1  # type: ignore[attr-defined]


def test_a_fused_chain_runs_as_one_kernel() -> None:
    f = compiled("y[b,i,j] = A[i,k] * B[j,l] * x[b,k,l]", "float16", A=(32, 32), B=(64, 64), x=("b", 32, 64))
    a, b, x = (torch.randn(*s).half() / 8 for s in ((32, 32), (64, 64), (5, 32, 64)))
    y = f(a, b, x)
    torch.testing.assert_close(y, torch.einsum("ik,jl,bkl->bij", a, b, x), rtol=2e-2, atol=2e-3)
    assert f.stats["launches"] == 1 and "fused" in str(f.explain())


def test_structures_are_chosen_by_prices_of_the_gpu() -> None:
    f = compiled("y[i] = W[i,j] * x[j]", W=stein.tensor((64, 64), "float32", structure="diag"))
    w, x = torch.diag(torch.randn(64)), torch.randn(64)
    torch.testing.assert_close(f(W=w, x=x), w @ x)
    assert "cuda" in str(f.explain()) and f.findings


def test_blocks_by_tensor_descriptors() -> None:
    """The same product with host descriptors in place of pointers."""
    from stein.backends.gpu.launch import launch
    from stein.backends.gpu.nodes import Kernel, Loop, Outer, Tensor, Tile
    from stein.ir.types import F16

    tensors = tuple(Tensor(n, tuple(a), F16, descriptor=True) for n, a in (("x", "ik"), ("w", "kj"), ("y", "ij")))
    nest = Outer((("i", 32), ("j", 32)), Loop("k", 16, Tile("y", ("x", "w"), ("i", "j"), ("k",)), reduced=True))
    kernel = Kernel(tensors, (("i", 64), ("j", 32), ("k", 48)), nest)
    x, w, y = torch.randn(64, 48).half(), torch.randn(48, 32).half(), torch.full((64, 32), float("nan")).half()
    launch(kernel, {"x": x, "w": w, "y": y}, {})
    torch.testing.assert_close(y.float(), x.float() @ w.float(), rtol=1e-2, atol=1e-2)
