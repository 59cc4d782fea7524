"""The layers of `stein.nn` on the machine that is here: results, gradients, autocast, torch.compile(fullgraph=True).

Outside the compiler. Weights are formed by torch from the parameters, by definition and in double precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from gpu_check import Outcome, Wrong, finite, outcome, worst_gradient
from gpu_machine import Machine
from gpu_rows import UNIT, Scale

import stein


@dataclass(frozen=True)
class Layer:
    """A layer of order n, and its weight by definition."""

    name: str
    make: Callable[..., Any]
    weight: Callable[[Any, dict[str, Any]], Any]


def _block_sparse(torch: Any, p: dict[str, Any]) -> Any:
    grid, side = int(p["rows"].max()) + 1, p["W"].shape[-1]
    full = torch.zeros((grid, grid, side, side), dtype=p["W"].dtype, device=p["W"].device)
    full = full.index_put((p["rows"], p["columns"]), p["W"])
    return full.permute(0, 2, 1, 3).reshape(grid * side, grid * side)


def _toeplitz(torch: Any, p: dict[str, Any]) -> Any:
    n = (p["t"].shape[0] + 1) // 2
    at = torch.arange(n, device=p["t"].device)
    return p["t"][at[:, None] - at + n - 1]


LAYERS = (
    Layer("Kronecker", lambda n, **k: stein.nn.Kronecker(n, n, **k), lambda torch, p: torch.kron(p["A0"], p["A1"])),
    Layer(
        "Monarch",
        lambda n, **k: stein.nn.Monarch(n, n, **k),
        lambda torch, p: torch.einsum("jlk,kji->ljki", p["L"], p["R"]).flatten(2).flatten(0, 1),
    ),
    Layer(
        "BlockSparse",  # every block row has a block, the last one too
        lambda n, **k: stein.nn.BlockSparse(n, n, max(16, n // 32), 0.25, **k),
        _block_sparse,
    ),
    Layer("LowRank", lambda n, **k: stein.nn.LowRank(n, n, n // 16, **k), lambda torch, p: p["U"] @ p["V"]),
    Layer("LoRA", lambda n, **k: stein.nn.LoRA(n, n, 8, alpha=16, **k), lambda torch, p: p["W"] + 2 * p["U"] @ p["V"]),
    Layer("Toeplitz", lambda n, **k: stein.nn.Toeplitz(n, n, **k), _toeplitz),
)


def layer_checks(machine: Machine, scale: Scale) -> Iterator[Outcome]:
    """Every layer by itself, then a model of all of them."""
    for layer in LAYERS:
        name = f"nn.{layer.name}"
        yield outcome(name, "gradients", partial(forward_and_backward, machine, layer, scale))
        yield outcome(name, "autocast", partial(autocast, machine, layer, scale))
    yield outcome("nn.all in one model", "fullgraph", lambda: compiled_model(machine, scale))


def _made(machine: Machine, layer: Layer, scale: Scale) -> tuple[Any, Any]:
    """A layer in single precision, and what it is applied to."""
    torch = machine.torch
    torch.manual_seed(0)
    made = layer.make(scale.n, device=machine.device, dtype=torch.float32)
    if layer.name == "LoRA":  # it starts with zeros
        torch.nn.init.normal_(made.U, std=0.1)
    return made, torch.randn((scale.batch, scale.n), device=machine.device)


def _exact(torch: Any, layer: Layer, made: Any, x: Any) -> tuple[Any, dict[str, Any]]:
    """The result in double precision, and the tensors that it was made of."""
    leaves = {n: t.detach() for n, t in made.tensors().items()} | {"x": x.detach(), "b": made.bias.detach()}
    wide = {n: t.double().requires_grad_() if t.is_floating_point() else t for n, t in leaves.items()}
    return wide["x"] @ layer.weight(torch, wide).t() + wide["b"], wide


def forward_and_backward(machine: Machine, layer: Layer, scale: Scale) -> tuple[float, float]:
    """The result, and derivatives of a random sum of it by x and by every parameter that is trained."""
    torch = machine.torch
    made, x = _made(machine, layer, scale)
    exact, wide = _exact(torch, layer, made, x)
    weights = torch.randn(exact.shape, device=machine.device)
    exact.backward(weights.double())
    x.requires_grad_()
    y = made(x)
    y.backward(weights)
    trained = made.tensors() | {"x": x, "b": made.bias}
    pairs = [(t.grad, wide[n].grad) for n, t in trained.items() if t.requires_grad]
    return worst_gradient([(y.detach(), exact.detach()), *pairs], scale), 0.0


def autocast(machine: Machine, layer: Layer, scale: Scale) -> tuple[float, float]:
    """Under autocast the result is of the narrow type, and right to its precision: parameters, x and three values."""
    torch = machine.torch
    made, x = _made(machine, layer, scale)
    with torch.no_grad(), torch.autocast(machine.device.type, dtype=torch.bfloat16):
        y = made(x)
    if y.dtype != torch.bfloat16:
        raise Wrong(f"the result under autocast is {y.dtype}")
    exact = _exact(torch, layer, made, x)[0].detach()
    off = float((y.double() - exact).norm() / exact.norm())
    return finite(off / (6 * UNIT["bfloat16"])), 0.0


def compiled_model(machine: Machine, scale: Scale) -> tuple[float, float]:
    """A model of all layers gives the same through torch.compile, forward and backward."""
    torch = machine.torch
    layers = [_made(machine, layer, scale)[0] for layer in LAYERS]
    model = torch.nn.Sequential(*(part for layer in layers for part in (layer, torch.nn.Tanh())))
    faster = torch.compile(model, fullgraph=True, backend=machine.compiler)
    x = torch.randn((scale.batch, scale.n), device=machine.device)
    exact = model.double()(x.double())
    exact.sum().backward()
    wide = [(p, p.grad) for p in model.parameters() if p.requires_grad]
    model.zero_grad()
    model.float()
    y = faster(x)
    y.sum().backward()
    pairs = [(p.grad, gradient) for p, gradient in wide]
    return worst_gradient([(y.detach(), exact.detach()), *pairs], scale), 0.0
