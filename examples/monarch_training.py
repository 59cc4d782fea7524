"""A network with Monarch layers learns handwritten digits as well as a dense one, with fewer operations.

Dao et al., "Monarch: Expressive Structured Matrices for Efficient and Accurate Training" (2022), in small: two hidden
layers of 256, the same training for both. Each seed learns from four fifths of the samples and is tested on another
fifth. Forward and backward run through stein; the layers are `stein.nn.Monarch` where torch.nn.Linear stood. The loss
curves go to out/monarch_training.png.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import stein

HIDDEN, BATCH, RATE, FOLDS = 256, 64, 2e-3, 5


def main(seeds: int = 5, epochs: int = 30, picture: bool = True) -> None:
    """Train both networks from `seeds` starts each, print a table, and draw the loss curves."""
    try:
        import torch
        from sklearn.datasets import load_digits
    except ImportError as error:
        print(f"{error.name} is not installed: pip install torch scikit-learn matplotlib")
        return
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    x = torch.tensor(digits.data, dtype=torch.float32)[order] / 16
    labels = torch.tensor(digits.target)[order]
    layers: dict[str, Callable[[int, int], Any]] = {"dense": torch.nn.Linear, "Monarch": stein.nn.Monarch}
    table = Table("layers", "test accuracy", "each seed", "parameters", "flops of a sample", title="8x8 digits")
    curves = {}
    for name, layer in layers.items():
        runs = [train(layer, x, labels, seed, epochs) for seed in range(seeds)]
        curves[name] = torch.tensor([losses for _, _, losses in runs]).mean(0).tolist()
        accuracy = [score for _, score, _ in runs]
        model = runs[0][0]
        table.add_row(
            name,
            f"{100 * sum(accuracy) / seeds:.1f} %",
            " ".join(f"{100 * a:.1f}" for a in accuracy),
            f"{sum(p.numel() for p in model.parameters()):,}",
            f"{flops(model):,.0f}",
        )
    spread = 100 * (0.98 * 0.02 / (len(x) * min(1, seeds / FOLDS))) ** 0.5
    table.caption = f"the standard error of a mean accuracy near 98 % is {spread:.1f} %"
    Console().print(table)
    if picture:
        draw(curves)


def network(layer: Callable[[int, int], Any]) -> Any:
    """Two hidden layers of the given kind; the last layer has ten outputs and stays dense."""
    from torch import nn

    return nn.Sequential(layer(64, HIDDEN), nn.ReLU(), layer(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 10))


def train(layer: Callable[[int, int], Any], x: Any, labels: Any, seed: int, epochs: int) -> tuple[Any, float, Any]:
    """(the network, its accuracy on the fifth of the samples that it did not see, the loss after each epoch)."""
    import torch
    from torch.nn.functional import cross_entropy

    torch.manual_seed(seed)
    model = network(layer)
    optimiser = torch.optim.Adam(model.parameters(), lr=RATE)
    tested = torch.arange(len(x)) % FOLDS == seed % FOLDS
    x_seen, labels_seen, losses = x[~tested], labels[~tested], []
    steps = len(x_seen) // BATCH
    for _ in range(epochs):
        total = 0.0
        for part in torch.randperm(len(x_seen))[: steps * BATCH].reshape(-1, BATCH):
            optimiser.zero_grad()
            loss: Any = cross_entropy(model(x_seen[part]), labels_seen[part])
            loss.backward()
            optimiser.step()
            total += loss.item()
        losses.append(total / steps)
    with torch.no_grad():
        right = model(x[tested]).argmax(1) == labels[tested]
    return model, right.float().mean().item(), losses


def flops(model: Any) -> float:
    """Operations of one forward pass for each sample of a batch: of stein's plans, and of products for dense layers."""
    import torch

    total = 0.0
    for layer in model:
        if isinstance(layer, torch.nn.Linear):
            total += 2 * layer.in_features * layer.out_features
        elif isinstance(layer, stein.nn.StructuredLinear):
            total += layer.flops(BATCH) / BATCH
    return total


def draw(curves: dict[str, list[float]]) -> None:
    """Write the loss curves to out/monarch_training.png."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no picture: matplotlib is not installed")
        return
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="epoch", ylabel="training loss (mean over seeds)", yscale="log")
    for name, losses in curves.items():
        axes.plot(range(1, len(losses) + 1), losses, label=name)
    axes.legend()
    path = Path("out") / "monarch_training.png"
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=150)
    print(f"loss curves: {path}")


if __name__ == "__main__":
    main()
