"""Matrix products in three moving parts: every frame, every cut of the offsets, wrapping or not."""

from __future__ import annotations

import json

import numpy as np
import pytest

from stein.backends.ckks.core.layout import Form
from stein.backends.ckks.core.simulator import Slots
from stein.backends.ckks.lowering.problem import Product
from stein.backends.ckks.products import matmul3_choices, product
from stein.backends.ckks.products.lanes import Grid
from stein.backends.ckks.products.matmul3 import Matmul3
from stein.backends.ckks.products.matmul3_plan import FRAMES, Plan
from stein.tests.ckks.product_cases import context_for, free, product_of, run, shapes_of, uploads_of, written

NONE = Grid((), (), tuple((i, Form(())) for i in "ikj"))


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize(("size", "ring"), [(4, 64), (8, 256), (8, 1024), (6, 512)])
def test_every_frame_and_cut(frame: str, size: int, ring: int) -> None:
    """Any t p q = d, with and without chained rotations: the counts of the theory, and the product."""
    step = product_of("ik,kj->ij", [(size, size), (size, size)])
    context = context_for(step, shapes_of(step), ring, 1)
    rng = np.random.default_rng(0)
    arrays = {n: rng.uniform(-1, 1, (size, size)) for n in step.operands}
    wraps = size & (size - 1) == 0
    height, width = (ring // (4 * size), 2 * size) if wraps else (2 * size - 1, 2 * size - 1)
    for parts in matmul3_choices.parts_of(size):
        for chained in (False, True):
            plan = Plan(("i", "k", "j"), frame, size, parts, height, width, wraps, 1, NONE, chained)
            option = Matmul3(step, context, free(step), plan)
            circuit, got = run(step, option, ring // 2, arrays, (size, size))
            np.testing.assert_allclose(got.outputs["y"], arrays["x0"] @ arrays["x1"], atol=1e-12)
            t, p, q = parts
            assert option.work.rotations == t * p + t * q + p * q - 3
            assert (option.work.cipher_products, option.work.relinearisations) == (size, p * q)
            assert circuit.levels == 1 and uploads_of(option) == 2
            assert Plan.decoded(json.loads(json.dumps(plan.encoded()))) == plan


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize(("size", "ring"), [(4, 64), (5, 256)])
def test_results_that_are_called_clean_are(frame: str, size: int, ring: int) -> None:
    """Slots that hold no element of the result hold 0, where the option says so."""
    step = product_of("ik,kj->ij", [(size, size), (size, size)])
    wraps = size == 4
    height, width = (ring // (4 * size), 2 * size) if wraps else (2 * size - 1, 2 * size - 1)
    plan = Plan(("i", "k", "j"), frame, size, (size, 1, 1), height, width, wraps, 1, NONE)
    option = Matmul3(step, context_for(step, shapes_of(step), ring, 1), free(step), plan)
    circuit = written(step, option, ring // 2)
    arrays = {n: np.ones((size, size)) for n in step.operands}
    values = Slots(circuit, arrays, {}).run()
    (node,) = circuit.downloads["y"][1]
    outside = option.gives.packing.at[0] < 0
    if option.gives.packing.clean:
        assert not values[node][outside].any()
    assert option.gives.packing.clean or frame not in ("xy", "yx")


@pytest.mark.parametrize(
    ("spec", "shapes"),
    [
        ("ij,jk->ik", [(13, 30), (30, 17)]),
        ("ij,jk->ik", [(20, 20), (20, 20)]),
        ("ij,jk->ki", [(9, 5), (5, 21)]),
        ("bij,bjk->bik", [(3, 10, 8), (3, 8, 9)]),
        ("bthd,bThd->bhtT", [(2, 6, 2, 16), (2, 7, 2, 16)]),
        ("aij,jkc->ikac", [(2, 5, 6), (6, 4, 3)]),
        ("sij,sjk->ik", [(3, 8, 8), (3, 8, 8)]),
    ],
)
def test_rectangles_batches_and_blocks(spec: str, shapes: list[tuple[int, ...]]) -> None:
    """Every plan that is offered, in a ring that is far too small for one ciphertext."""
    step = product_of(spec, shapes)
    context = context_for(step, shapes_of(step), 1024, 1)
    rng = np.random.default_rng(2)
    arrays = {n: rng.uniform(-1, 1, s) for n, s in zip(step.operands, shapes, strict=True)}
    wanted = np.einsum(spec, *arrays.values())
    found = list(matmul3_choices.choices(step, context, free(step)))
    assert found
    for option in found:
        _, got = run(step, option, 512, arrays, wanted.shape)
        np.testing.assert_allclose(got.outputs["y"], wanted, rtol=1e-11, atol=1e-11)


def test_what_is_no_matrix_product_is_not_offered() -> None:
    """Outer products, dots, three operands, a clear factor."""
    cases = [
        product_of("i,j->ij", [(8,), (8,)]),
        product_of("i,i->", [(8,), (8,)]),
        product_of("ij,jk,kl->il", [(8, 8)] * 3),
        product_of("ij,jk->ik", [(8, 8)] * 2, factor=0.5),
    ]
    for step in cases:
        context = context_for(step, shapes_of(step), 1024, 3)
        assert not list(matmul3_choices.choices(step, context, free(step)))


def test_an_operand_twice() -> None:
    """A A: two packings of one input."""
    step = Product("y", ("a", "a"), (("i", "k"), ("k", "j")), ("i", "j"), {"i": 8, "k": 8, "j": 8})
    context = context_for(step, {"a": (8, 8), "y": (8, 8)}, 512, 1)
    a = np.random.default_rng(0).uniform(-1, 1, (8, 8))
    for option in product.options(step, context, free(step)):
        _, got = run(step, option, 256, {"a": a}, (8, 8))
        np.testing.assert_allclose(got.outputs["y"], a @ a, atol=1e-12)
