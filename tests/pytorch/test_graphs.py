"""stein inside of torch.compile(fullgraph=True) and torch.export, without a word from the user."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stein

torch = pytest.importorskip("torch")

several = stein.compile("y[i] = sum[j] A[i,j] * x[j]\nz[j] = x[j] * x[j]", target="reference")
single = stein.compile("y[i] = A[i,j] * x[j]", target="reference")
constant = stein.compile("y[i] = A[i,j] * x[j]", A=stein.constant(np.arange(12.0).reshape(3, 4)), target="reference")
deferred = stein.compile("y = A @ x", target="reference")
Own = stein.Semiring("highest", "maximum", "add", "-inf", 0, idempotent=True)


def normal(*shape: int, seed: int = 0, grad: bool = False) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_(grad)


def close(found: Any, wanted: Any) -> None:
    # Sums of at most 5 products of numbers near 1
    torch.testing.assert_close(found, wanted, rtol=1e-13, atol=1e-13)


def lowered(a: Any, x: Any) -> Any:
    with torch.autocast("cpu", torch.bfloat16):
        return stein.einsum("ij,j->i", a.float(), x.float())


FUNCTIONS: tuple[tuple[str, Callable[[Any, Any], Any]], ...] = (
    ("einsum", lambda a, x: stein.einsum("ij,j->i", a, x).relu() + 1),
    ("lists", lambda a, x: stein.einsum(a, [0, 1], x, [1], [0])),
    ("a semiring of one's own", lambda a, x: stein.einsum("ij,j->i", a, x, semiring=Own)),
    ("options", lambda a, x: stein.einsum("ij,j->i", a, x, dtype=np.complex128, optimize=((0, 1),)).real),
    ("mixed with NumPy", lambda a, x: stein.einsum("ij,j->i", a, np.ones(4))),
    ("tensordot", lambda a, x: stein.transpose(stein.tensordot(a, x, 1)) * 2),
    ("program", lambda a, x: single(A=a, x=x) * 2),
    ("several results", lambda a, x: several(a, x)["y"].sum() * several(A=a, x=x)["z"]),
    ("constants", lambda a, x: constant(x)),
    ("unknown rank", lambda a, x: deferred(a, x)),
    ("autocast", lowered),
    ("vmap", lambda a, x: torch.func.vmap(lambda row: stein.einsum("j,j->", row, x))(a)),
    ("grad", lambda a, x: torch.func.grad(lambda x: single(a, x).pow(2).sum())(x)),
)


@pytest.mark.parametrize("function", [f for _, f in FUNCTIONS], ids=[n for n, _ in FUNCTIONS])
def test_calls_are_written_into_the_graph(function: Callable[[Any, Any], Any]) -> None:
    a, x = normal(3, 4), normal(4, seed=1)
    compiled = torch.compile(function, fullgraph=True, backend="eager")
    close(compiled(a, x), function(a, x))


def lowering() -> Iterator[tuple[str, Any, Any]]:
    yield "einsum", lambda a, x: stein.einsum("ij,j->i", a, x).relu(), lambda a, x: (a @ x).relu()
    yield "program", lambda a, x: several(a, x)["y"] * 2, lambda a, x: a @ x * 2


@pytest.mark.parametrize(("function", "wanted"), [p[1:] for p in lowering()], ids=[p[0] for p in lowering()])
@pytest.mark.parametrize("dynamic", [False, True])
def test_the_graph_is_lowered_to_the_operator(function: Any, wanted: Any, dynamic: bool) -> None:
    seen: list[str] = []

    def backend(graph: Any, inputs: Any) -> Any:
        seen.extend(str(n.target) for n in graph.graph.nodes if n.op == "call_function")
        return graph.forward

    from torch._dynamo.backends.common import aot_autograd

    compiled = torch.compile(function, fullgraph=True, backend=aot_autograd(fw_compiler=backend), dynamic=dynamic)
    for rows in (3, 5):
        a, x = normal(rows, 4, grad=True), normal(4, seed=1, grad=True)
        close(compiled(a, x), wanted(a, x))
        close(torch.autograd.grad(compiled(a, x).sum(), (a, x)), torch.autograd.grad(wanted(a, x).sum(), (a, x)))
    assert seen.count("stein.run.default") >= 2  # forward and backward


def test_arrays_stay_arrays() -> None:
    compiled = torch.compile(lambda a: np.sin(stein.einsum("ij,ij->i", a, a)), fullgraph=True, backend="eager")
    found = compiled(np.arange(6.0).reshape(2, 3))
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, np.sin([5.0, 50.0]), rtol=1e-13)


def test_sizes_may_change_without_a_new_graph() -> None:
    from torch._dynamo.testing import CompileCounter

    counter = CompileCounter()
    compiled = torch.compile(lambda a: stein.einsum("ij,kj->ik", a, a), fullgraph=True, backend=counter, dynamic=True)
    for rows in (3, 5, 8):
        a = normal(rows, 4)
        close(compiled(a), a @ a.T)
    assert counter.frame_count == 1


def test_export() -> None:
    class Model(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(normal(4, 5))

        def forward(self, x: Any) -> Any:
            return several(A=stein.einsum("ij,jk->ik", x, self.weight), x=self.weight[0])

    model, rows = Model(), torch.export.Dim("rows", min=2)
    exported = torch.export.export(model, (normal(3, 4),), dynamic_shapes=({0: rows},), strict=True)
    assert [str(n.target) for n in exported.graph.nodes].count("stein.run.default") == 2
    x = normal(7, 4, seed=2)
    found, wanted = exported.module()(x), model(x)
    assert found.keys() == wanted.keys()
    for name in found:
        close(found[name], wanted[name])


def test_jit_trace_records_the_operator() -> None:
    """An older tracer sees operators of PyTorch only: a value that went past it would be a constant of the trace."""
    traced = torch.jit.trace(lambda a: stein.einsum("ij->i", a), (normal(3, 4),), check_trace=False)
    a = normal(3, 4, seed=5)
    close(traced(a), a.sum(1))


# --- when the tracer is loaded ----------------------------------------------------------------------------------------


@pytest.fixture
def tracer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that takes the part of PyTorch's tracer, not yet imported."""
    (tmp_path / "stein_tracer.py").write_text(
        "known = []\nallow_in_graph = known.append\ndef substitute_in_graph(f, **options):\n    return known.append\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("stein.runtime.torch_graphs.TRACER", "stein_tracer")
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    return "stein_tracer"


def test_callables_are_made_known_when_the_tracer_is_loaded(tracer: str) -> None:
    from importlib import import_module

    from stein.runtime.torch_graphs import _Admitted

    before = list(sys.meta_path)
    admitted, functions = _Admitted(), [lambda: 1, lambda: 2, lambda: 3]
    admitted.add(functions[0], False)
    admitted.add(functions[1], False)
    assert tracer not in sys.modules and len(sys.meta_path) == len(before) + 1
    forgotten = functions.pop(1)
    del forgotten  # what is gone is not made known, nor kept
    try:
        module = import_module(tracer)
        assert module.known == [functions[0]] and sys.meta_path == before
        admitted.add(functions[1], False)
        assert module.known == functions
    finally:
        sys.modules.pop(tracer, None)
