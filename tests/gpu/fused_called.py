"""Block-sparse products through `stein.compile`: `test_fused` runs these in a process with Triton's interpreter."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import stein
from stein.backends.gpu import run
from stein.backends.gpu.block_rows import ordered
from stein.runtime import autograd, gpu
from stein.tests.gpu.interpreter import repair  # first: it asks for the interpreter

assert repair

LISTED = "rows, columns: i64[S]\ny[b,i,a] = (rows[s] == i) * W[s,a,c] * (columns[s] == j) * x[b,j,c] for i in 0..4"
LAYER = """
    W: const f32[96,128] bsr(block={0})
    V: const f32[96,128] bsr(block={0})
    Z: const f32[128,96] bsr(block={0})
    g[b,i] = W[i,j] * x[b,j]
    h[b,i] = V[i,j] * x[b,j]
    u[b,i] = silu(g[b,i]) * h[b,i]
    y[b,i] = Z[i,j] * u[b,j]
"""


def structures(f: stein.Compiled) -> list[str]:
    """The structures of the fused plans of a program, in order."""
    expression, sizes = f._shown()
    return [p.structure for p in f.gpu(expression).dense_steps(sizes).plans]  # type: ignore[attr-defined]


def blocky(seed: int, grid: tuple[int, int], side: int) -> np.ndarray:
    """A matrix with half of its blocks full."""
    rng = np.random.default_rng(seed)
    kept = np.kron(rng.random(grid) < 0.5, np.ones((side, side)))
    return (kept * rng.standard_normal(kept.shape) / 8).astype("f4")


@pytest.mark.parametrize("side", [16, 24, 40])
def test_a_list_of_blocks_at_run_time(side: int) -> None:
    shapes = {"rows": (7,), "columns": (7,), "W": (7, side, side), "x": ("b", 5, side)}
    types = {"rows": "int64", "columns": "int64"}
    declared = {n: stein.tensor(s, types.get(n, "float32")) for n, s in shapes.items()}
    f: stein.Compiled = stein.compile(LISTED, dtype="float32", target="cuda", **declared)
    rows, columns = torch.tensor([3, 0, 3, 1, 0, 0, 3]), torch.tensor([4, 2, 0, 1, 0, 4, 4])
    w, x = torch.randn(7, side, side), torch.randn(9, 5, side)
    dense = torch.zeros(4, 5, side, side)
    for r, c, block in zip(rows, columns, w, strict=True):
        dense[r, c] += block
    y = f(rows=rows, columns=columns, W=w, x=x)
    torch.testing.assert_close(y, torch.einsum("ijac,bjc->bia", dense, x), rtol=1e-5, atol=1e-4)
    assert structures(f) == ["block_sparse"] and "tl.atomic" not in f.source()


def test_the_lists_of_a_layer_are_brought_in_order_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.Tensor] = []

    def counted(rows: torch.Tensor, columns: torch.Tensor, extents: tuple[int, int]) -> object:
        made.append(rows)
        return ordered(rows, columns, extents)

    monkeypatch.setattr(run, "ordered", counted)
    places = [[(3, 4), (0, 2), (1, 0)], [(2, 1), (2, 3), (0, 0)]]
    layers = [stein.nn.BlockSparse(80, 64, 16, places=p, bias=False) for p in places]
    x = torch.randn(9, 5, 16)

    def agrees(layer: stein.nn.BlockSparse) -> None:
        names, text, options = layer._texts[torch.float32]
        given = {"W": layer.W.detach(), "rows": layer.rows, "columns": layer.columns, "x": x}
        program = autograd.program_of(text, options)
        (y,) = gpu.run_program(program, options, [given[n].detach() for n in names])
        with torch.no_grad():
            torch.testing.assert_close(y.reshape(9, 64), layer(x.reshape(9, 80)), rtol=1e-5, atol=1e-5)

    for layer in layers * 2:
        agrees(layer)
    assert len(made) == 2
    layers[0].load_state_dict(layers[1].state_dict())
    agrees(layers[0])
    agrees(layers[1])
    assert len(made) == 3
    rows = layers[0].rows
    with torch.no_grad():
        layers[0].rows = torch.tensor([3, 3, 1])  # another tensor, which may lie anywhere
    del rows
    agrees(layers[0])
    assert len(made) == 4


@pytest.mark.parametrize(
    ("text", "exact"),
    [
        ("y[b,i] = W[i,j] * x[b,j]", lambda w, x: x @ w.t()),
        ("y[b,i] = relu((sum[j] W[i,j] * x[b,j]) + 1)", lambda w, x: torch.relu(x @ w.t() + 1)),
        ("y[i,b] = W[i,j] * x[b,j]", lambda w, x: w @ x.t()),
        ("y[b,j] = W[j,i] * x[b,i]", lambda w, x: x @ w.t()),
        ("y[b,t,i] = W[i,j] * x[b,t,j]", lambda w, x: x @ w.t()),
    ],
)
def test_a_declared_constant(text: str, exact: object) -> None:
    w = blocky(0, (4, 3), 32)
    f: stein.Compiled = stein.compile(
        f"W: const f32[128,96] bsr(block=32)\n{text}", dtype="float32", target="cuda", W=stein.constant(w)
    )
    x = torch.randn(*((3, 9, 96) if ",t," in text else (9, 96)))
    torch.testing.assert_close(f(x=x), exact(torch.from_numpy(w), x), rtol=1e-5, atol=1e-4)  # type: ignore[operator]
    assert structures(f) == ["block_sparse"]


@pytest.mark.parametrize("density", [0.0, 0.01])
def test_rows_without_blocks_are_zeros(density: float) -> None:
    w = np.zeros((128, 96), "f4")
    w[70, 40] = 8 * density
    f: stein.Compiled = stein.compile(
        "W: const f32[128,96] bsr(block=32)\ny[b,i] = W[i,j] * x[b,j]",
        dtype="float32",
        target="cuda",
        W=stein.constant(w),
    )
    x = torch.randn(9, 96)
    torch.testing.assert_close(f(x=x), x @ torch.from_numpy(w).t(), rtol=1e-5, atol=1e-6)


def test_the_list_of_a_constant_is_brought_in_order_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def counted(rows: object, columns: object, extents: tuple[int, int]) -> object:
        made.append(extents)
        return ordered(rows, columns, extents)

    monkeypatch.setattr(run, "ordered", counted)
    w = blocky(1, (4, 3), 32)
    f: stein.Compiled = stein.compile(
        "W: const f32[128,96] bsr(block=32)\ny[b,i] = W[i,j] * x[b,j]",
        dtype="float32",
        target="cuda",
        W=stein.constant(w),
        x=("b", 96),
    )
    for _ in range(3):
        x = torch.randn(9, 96)
        torch.testing.assert_close(f(x=x), x @ torch.from_numpy(w).t(), rtol=1e-5, atol=1e-4)
    assert len(made) == 1


@pytest.mark.parametrize("side", [16, 32])
def test_a_gated_layer_is_two_kernels(side: int) -> None:
    """y = (silu(x W) * (x V)) Z with sparse matrices: the pair with its gate, and what comes after."""
    grids = {"W": (96, 128), "V": (96, 128), "Z": (128, 96)}
    values = {n: blocky(k, (h // side, w // side), side) for k, (n, (h, w)) in enumerate(grids.items())}
    constants = {n: stein.constant(v) for n, v in values.items()}
    f: stein.Compiled = stein.compile(LAYER.format(side), dtype="float32", target="cuda", **constants)
    x = torch.randn(9, 128)
    w, v, z = (torch.from_numpy(values[n]) for n in "WVZ")
    exact = (torch.nn.functional.silu(x @ w.t()) * (x @ v.t())) @ z.t()
    torch.testing.assert_close(f(x=x), exact, rtol=1e-5, atol=1e-4)
    assert structures(f) == ["gated_block_sparse", "block_sparse"]
    assert f.source().count("@triton.jit\ndef kernel") == 2
