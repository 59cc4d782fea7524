"""Every layer of `stein.nn`: its matrix, its gradients, its start, and what a PyTorch module must be able to do."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import stein

torch = pytest.importorskip("torch")


@dataclass(frozen=True)
class Case:
    """A layer, its weight by its definition, and a larger one whose products must cost less than the dense one."""

    name: str
    make: Callable[..., Any]
    dense: Callable[[dict[str, Any]], Any]
    large: Callable[..., Any]


def block_sparse(p: dict[str, Any]) -> Any:
    W = np.zeros((8, 12))
    for block, r, c in zip(p["W"], p["rows"], p["columns"], strict=True):
        W[4 * r : 4 * r + 4, 4 * c : 4 * c + 4] += block
    return W


def toeplitz(p: dict[str, Any]) -> Any:
    return np.array([[p["t"][i - j + 11] for j in range(12)] for i in range(8)])


CASES = (
    Case("Kronecker", lambda **k: stein.nn.Kronecker(12, 8, shapes=((2, 3), (4, 4)), **k),
         lambda p: np.kron(p["A0"], p["A1"]), lambda: stein.nn.Kronecker(256, 256)),
    Case("Kronecker of three", lambda **k: stein.nn.Kronecker(12, 8, shapes=((2, 3), (2, 2), (2, 2)), **k),
         lambda p: np.kron(np.kron(p["A0"], p["A1"]), p["A2"]), lambda: stein.nn.Kronecker(256, 256)),
    Case("sum of Kronecker", lambda **k: stein.nn.Kronecker(12, 8, terms=3, **k),
         lambda p: sum(np.kron(a, b) for a, b in zip(p["A0"], p["A1"], strict=True)),
         lambda: stein.nn.Kronecker(256, 256, terms=2)),
    Case("Monarch", lambda **k: stein.nn.Monarch(12, 8, **k),
         lambda p: np.einsum("jlk,kji->ljki", p["L"], p["R"]).reshape(8, 12), lambda: stein.nn.Monarch(256, 256)),
    Case("BlockTensorTrain", lambda **k: stein.nn.BlockTensorTrain(12, 8, 2, blocks=(4, 2), **k),
         lambda p: np.einsum("jlkr,kjir->ljki", p["L"], p["R"]).reshape(8, 12),
         lambda: stein.nn.BlockTensorTrain(256, 256, 2)),
    Case("BlockDiagonal", lambda **k: stein.nn.BlockDiagonal(12, 8, 4, **k),
         lambda p: np.einsum("goi,gh->gohi", p["W"], np.eye(4)).reshape(8, 12),
         lambda: stein.nn.BlockDiagonal(256, 256, 8)),
    Case("BlockSparse", lambda **k: stein.nn.BlockSparse(12, 8, 4, places=[(0, 2), (1, 0), (0, 0)], **k),
         block_sparse, lambda: stein.nn.BlockSparse(256, 256, 16, 0.1)),
    Case("Blast", lambda **k: stein.nn.Blast(12, 8, 3, 4, **k),
         lambda p: np.einsum("iar,ijr,jcr->iajc", p["U"], p["S"], p["V"]).reshape(8, 12),
         lambda: stein.nn.Blast(256, 256, 16)),
    Case("LowRank", lambda **k: stein.nn.LowRank(12, 8, 3, **k), lambda p: p["U"] @ p["V"],
         lambda: stein.nn.LowRank(256, 256, 16)),
    Case("LoRA", lambda **k: stein.nn.LoRA(12, 8, 3, alpha=6, **k), lambda p: p["W"] + 2 * p["U"] @ p["V"],
         lambda: None),
    Case("TensorTrain", lambda **k: stein.nn.TensorTrain(12, 8, 2, shapes=((2, 3), (2, 2), (2, 2)), **k),
         lambda p: np.einsum("adr,rbes,scf->abcdef", p["G0"], p["G1"], p["G2"]).reshape(8, 12),
         lambda: stein.nn.TensorTrain(256, 256, 2)),
    Case("Toeplitz", lambda **k: stein.nn.Toeplitz(12, 8, **k), toeplitz, lambda: None),
    Case("Circulant", lambda **k: stein.nn.Circulant(6, **k),
         lambda p: np.array([[p["c"][(i - j) % 6] for j in range(6)] for i in range(6)]), lambda: None),
)  # fmt: skip
every = pytest.mark.parametrize("case", CASES, ids=[c.name for c in CASES])


def made(case: Case, **options: Any) -> Any:
    torch.manual_seed(0)
    layer = case.make(**{"dtype": torch.float64, **options})
    if case.name == "LoRA":
        torch.nn.init.normal_(layer.U)
    return layer


def applied(layer: Any) -> tuple[Any, list[Any]]:
    """The layer as a function of its argument and its trained parameters, and values of them."""
    names = [n for n, p in layer.named_parameters() if p.requires_grad]
    x = torch.randn(2, layer.in_features, dtype=torch.float64, requires_grad=True)

    def function(x: Any, *parameters: Any) -> Any:
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    return function, [x, *(p.detach().clone().requires_grad_() for p in layer.parameters() if p.requires_grad)]


@every
def test_the_weight_is_what_the_definition_says(case: Case) -> None:
    layer = made(case)
    given = {n: p.detach().numpy() for n, p in layer.tensors().items()}
    wanted = case.dense(given)
    # sums of at most 12 products of numbers below 2
    np.testing.assert_allclose(layer.dense_weight().detach().numpy(), wanted, rtol=1e-13, atol=1e-14)
    x = torch.randn(2, 3, layer.in_features, dtype=torch.float64)
    y = torch.nn.functional.linear(x, torch.from_numpy(wanted), layer.bias)
    torch.testing.assert_close(layer(x), y, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(layer(x[0, 0]), y[0, 0], rtol=1e-12, atol=1e-13)  # no leading axis
    assert layer(x[:0]).shape == (0, 3, layer.out_features)


@every
def test_gradients(case: Case) -> None:
    function, args = applied(made(case))
    assert torch.autograd.gradcheck(function, args, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, args, fast_mode=True)


@every
def test_a_module_like_others(case: Case) -> None:
    layer = made(case, dtype=torch.float32)
    x = torch.randn(2, layer.in_features)
    y = layer(x)
    buffer = io.BytesIO()
    torch.save(layer.state_dict(), buffer)
    buffer.seek(0)
    other = made(case, dtype=torch.float32)
    for parameter in other.parameters():
        torch.nn.init.zeros_(parameter)
    other.load_state_dict(torch.load(buffer))
    assert torch.equal(other(x), y) and torch.equal(copy.deepcopy(layer)(x), y)
    assert repr(layer).startswith(type(layer).__name__ + "(in_features=") and "bias=True" in repr(layer)
    assert sum(p.numel() for p in layer.parameters()) > layer.bias.numel()
    bare = case.make(bias=False)
    assert bare.bias is None and "b" not in dict(bare.named_parameters())


def test_half_precision_and_autocast() -> None:
    layer = stein.nn.Monarch(16, 16)
    x = torch.randn(4, 16)
    y = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = layer(x)
    assert low.dtype == torch.bfloat16
    # three roundings to 8 bits (operands, the middle vector, the result) of sums of 4 products twice
    torch.testing.assert_close(low.float(), y, rtol=0.1, atol=0.1)
    low.sum().backward()
    assert layer.L.grad.dtype == torch.float32
    half = layer.half()(x.half())
    assert half.dtype == torch.float16
    with pytest.raises(stein.DTypeError, match="the parameters are"):
        layer(x)


@pytest.mark.parametrize("name", [c.name for c in CASES if c.name not in ("LoRA", "Toeplitz", "Circulant")])
def test_products_cost_less_than_the_dense_one(name: str) -> None:
    layer = next(c for c in CASES if c.name == name).large()
    assert layer.flops(32) < 32 * 2 * layer.in_features * layer.out_features / 2
    assert layer.flops(64) > layer.flops(32)


@pytest.mark.parametrize("name", [c.name for c in CASES])
def test_outputs_start_with_the_variance_of_a_dense_layer(name: str) -> None:
    """Of 200 starts, the mean of |W|^2 / rows is 1/3 up to five standard errors, which the sample itself tells."""
    case = next(c for c in CASES if c.name == name)
    torch.manual_seed(1)
    layer = case.make(dtype=torch.float64)
    names, sizes = list(layer.tensors()), []
    for _ in range(200):
        layer.reset_parameters()
        given = {n: layer.tensors()[n].detach().numpy() for n in names}
        sizes.append(float((case.dense(given) ** 2).sum()) / layer.out_features)
    error = float(np.std(sizes)) / math.sqrt(len(sizes))
    assert abs(np.mean(sizes) - 1 / 3) < 5 * error < 1 / 6
    assert layer.bias.abs().max() <= 1 / math.sqrt(layer.in_features)


def test_lora_starts_as_the_layer_that_it_adapts() -> None:
    linear = torch.nn.Linear(6, 4)
    layer = stein.nn.LoRA.beside(linear, rank=2)
    x = torch.randn(3, 6)
    torch.testing.assert_close(layer(x), linear(x))
    layer(x).sum().backward()
    assert layer.W.grad is None and layer.bias.grad is None and layer.U.grad is not None


def test_layers_train_together() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(stein.nn.Monarch(8, 8), torch.nn.ReLU(), stein.nn.LowRank(8, 2, 2))
    x = torch.randn(32, 8)
    target = torch.stack([x[:, 0] * 0.5, x[:, 1] - x[:, 2]], 1)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.03)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = (model(x) - target).pow(2).mean()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 4


def test_compiled_and_exported() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        stein.nn.Monarch(16, 16), torch.nn.ReLU(), stein.nn.BlockSparse(16, 8, 4, 0.5), stein.nn.LoRA(8, 8, 2)
    )
    x = torch.randn(5, 16)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), model(x))
    parameters = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(compiled(x).sum(), parameters, allow_unused=True)
    wanted = torch.autograd.grad(model(x).sum(), parameters, allow_unused=True)
    torch.testing.assert_close(found, wanted)
    exported = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("n", min=2)},))
    buffer = io.BytesIO()
    torch.export.save(exported, buffer)
    buffer.seek(0)
    again = torch.export.load(buffer).module()
    more = torch.randn(9, 16)
    torch.testing.assert_close(again(more), model(more))


@pytest.mark.parametrize(
    "make",
    [
        lambda: stein.nn.Monarch(12, 8, blocks=(5, 2)),
        lambda: stein.nn.BlockDiagonal(12, 8, 3),
        lambda: stein.nn.Kronecker(12, 8, shapes=((2, 2), (2, 2))),
        lambda: stein.nn.LowRank(4, 4, 0),
        lambda: stein.nn.BlockSparse(8, 8, 4, 0.0),
        lambda: stein.nn.BlockSparse(8, 8, 4, places=[(0, 2)]),
        lambda: stein.nn.Monarch(4, 4)(torch.ones(2, 5)),
    ],
)
def test_sizes_that_do_not_fit(make: Callable[[], Any]) -> None:
    with pytest.raises(stein.ShapeError):
        make()
