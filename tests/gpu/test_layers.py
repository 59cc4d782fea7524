"""Layers of `stein.nn` on a GPU: with a bias as without, a layer and its gradient by x are the fused kernels of their
structure, and no step moves more than it must.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch")

import stein  # noqa: E402
from stein.backends.gpu.program import Bound, bind  # noqa: E402
from stein.backends.gpu.steps import Launch  # noqa: E402
from stein.ir.text import parse_ir  # noqa: E402
from stein.runtime.autograd import derived_options, gradient_text, program_of  # noqa: E402
from stein.runtime.gpu import _expression_of, _Known  # noqa: E402
from stein.tests.gpu.fused_cases import goal_of, layouts_of  # noqa: E402

BATCH = 16384
Make = Callable[..., Any]

# the layer, its plan, that of its gradient by x (the same ones, where a factor changes places with the other)
LAYERS: dict[str, tuple[Make, str, str]] = {
    "Kronecker": (lambda **k: stein.nn.Kronecker(4096, 4096, **k), "kronecker", "kronecker"),
    "Monarch 64": (lambda **k: stein.nn.Monarch(4096, 4096, **k), "monarch", "monarch"),
    "Monarch 32": (lambda **k: stein.nn.Monarch(1024, 1024, **k), "monarch", "monarch"),
    "BlockTensorTrain": (
        lambda **k: stein.nn.BlockTensorTrain(1024, 1024, **k), "block_tensor_train", "block_tensor_train"
    ),
    "LowRank": (lambda **k: stein.nn.LowRank(4096, 4096, 64, **k), "low_rank", "low_rank"),
    "LoRA": (lambda **k: stein.nn.LoRA(4096, 4096, 16, **k), "dense_and_low_rank", "low_rank"),
    "BlockSparse": (lambda **k: stein.nn.BlockSparse(4096, 4096, 128, 0.1, **k), "block_sparse", "block_sparse"),
    "Toeplitz": (lambda **k: stein.nn.Toeplitz(4096, 4096, **k), "toeplitz", "toeplitz"),
}  # fmt: skip


def steps_of(text: str, options: str, shapes: list[tuple[int, ...]]) -> Bound:
    """The steps of a program for dense operands, as an H200 would run them."""
    expression = _expression_of(_Known(program_of(text, options), options))
    return expression.dense_steps(expression.sizes_of(shapes))


@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_meets_its_kernel(name: str, bias: bool) -> None:
    make, forward, backward = LAYERS[name]
    layer = make(bias=bias, dtype=torch.bfloat16)
    names, text, options = layer._texts[torch.bfloat16]
    given = {n: tuple(t.shape) for n, t in layer.tensors().items()}
    given |= {"x": (BATCH, *layer._columns), "b": layer._rows}
    shapes = [given[n] for n in names]
    bound = steps_of(text, options, shapes)
    assert [p.structure for p in bound.plans] == [forward]
    floor = 2 * (sum(prod(s) for n, s in given.items() if n in names) + BATCH * layer.out_features)
    assert bound.plans[0].moved_bytes <= 1.05 * floor

    wanted = (names.index("x"),)
    found = gradient_text(text, options, wanted, (0,))
    results = (BATCH, *layer._rows)
    shapes = [results if kind == "seed" else shapes[k] for kind, k in found.inputs]
    bound = steps_of(found.text, derived_options(text, options), shapes)
    assert [p.structure for p in bound.plans] == [backward]


def test_the_lists_of_a_block_sparse_layer_are_integers_that_never_change() -> None:
    layer = stein.nn.BlockSparse(4096, 4096, 128, 0.1)
    names, text, options = layer._texts[torch.bfloat16]
    program = program_of(text, options)
    assert {i.name: i.dtype.name for i in program.inputs if i.name in ("rows", "columns")} == {
        "rows": "i64",
        "columns": "i64",
    }
    number = len(layer.rows)
    shapes = {"rows": (number,), "columns": (number,), "W": (number, 128, 128), "x": (64, 32, 128), "b": (32, 128)}
    bound = steps_of(text, options, [shapes[n] for n in names])
    assert all(made.constant for made in bound.plans[0].lists)


def test_a_bias_gradient_keeps_every_processor_busy() -> None:
    """The sum over the batch of what comes back: few results, many terms."""
    sums = "b[i]: bf16[4096] = einsum[plustimes, f32](n; g[n, i]):bf16 over i<4096, n<16384"
    program = parse_ir(f"input g: bf16[16384, 4096]\n{sums}\nreturn b")
    bound = bind(program, {}, layouts_of(program), goal=goal_of("sm_90"))
    first = next(s for s in bound.steps if isinstance(s, Launch))
    assert first.chosen.programs >= 132
