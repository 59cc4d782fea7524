"""Products of encrypted operands reach the counts that are known to be possible; values are checked against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from stein.backends.ckks.core.layout import Form
from stein.backends.ckks.lowering.problem import Product
from stein.backends.ckks.products import product
from stein.backends.ckks.products.lanes import Grid
from stein.backends.ckks.products.matmul3 import Matmul3
from stein.backends.ckks.products.matmul3_plan import Plan
from stein.tests.ckks.product_cases import context_for, free, product_of, run, shapes_of, uploads_of

# (spec, shapes, rotations / products of ciphertexts / relinearisations / uploads), ring 8192
LANES = [
    ("ij->ji", [(128, 128)], (0, 0, 0, 4)),
    ("ij->", [(128, 128)], (12, 0, 0, 4)),
    ("ij->j", [(128, 128)], (5, 0, 0, 4)),
    ("ij->i", [(128, 128)], (5, 0, 0, 4)),
    ("ik,k->i", [(128, 128), (128,)], (5, 4, 1, 8)),
    ("ik,kj->ij", [(16, 32), (32, 32)], (3, 4, 1, 8)),
    ("i,i->", [(16384,), (16384,)], (12, 4, 1, 8)),
    ("i,i->", [(20000,), (20000,)], (12, 5, 1, 10)),
    ("ij,ij->", [(128, 128), (128, 128)], (12, 4, 1, 8)),
    ("ij,ij->ij", [(128, 128), (128, 128)], (0, 4, 4, 8)),
    ("ij,ij,ij->ij", [(128, 128)] * 3, (0, 8, 8, 12)),
    ("i,j->ij", [(128,), (128,)], (0, 4, 4, 4)),
    ("ijk,ikl->ijl", [(16, 8, 8), (16, 8, 8)], (2, 2, 1, 4)),
    ("ij,jk,kl->il", [(16, 8), (8, 8), (8, 16)], (4, 5, 2, 9)),
    ("ik,jkl,il->ij", [(8, 16), (8, 16, 16), (8, 16)], (6, 5, 2, 9)),
    ("pqrs,tuqvr->pstuv", [(2, 4, 8, 8), (1, 4, 4, 2, 8)], (5, 1, 1, 2)),
    ("bthd,bThd->bhtT", [(2, 5, 8, 16), (2, 5, 8, 16)], (3, 2, 1, 4)),
    ("ij,jk->ik", [(64, 64), (64, 64)], (8, 64, 4, 64)),
    ("ij,jk->ik", [(64, 64), (64, 64)], (0, 64, 1, 128)),
    ("ii->i", [(100, 100)], (0, 0, 0, 1)),
]


@pytest.mark.parametrize(("spec", "shapes", "counts"), LANES, ids=[f"{s} {n}" for s, n, _ in LANES])
def test_lanes(spec: str, shapes: list[tuple[int, ...]], counts: tuple[int, int, int, int]) -> None:
    """The known counts are among the options, and right."""
    step = product_of(spec, shapes)
    levels = max(1, (len(shapes) - 1).bit_length())
    context = context_for(step, shapes_of(step), 8192, levels)
    found = list(product.front(step, context, free(step)))
    option = next(
        o for o in found if (o.work.rotations, o.work.cipher_products, o.work.relinearisations, uploads_of(o)) == counts
    )
    rng = np.random.default_rng(7)
    arrays = {n: rng.uniform(-1, 1, s) for n, s in zip(step.operands, shapes, strict=True)}
    wanted = np.einsum(spec, *arrays.values())
    circuit, got = run(step, option, 4096, arrays, wanted.shape)
    assert circuit.levels == (0 if len(shapes) == 1 else levels)
    np.testing.assert_allclose(got.outputs["y"], wanted, rtol=1e-12, atol=1e-12 * abs(wanted).max())


@pytest.mark.parametrize(
    ("parts", "counts"), [((8, 2, 4), (53, 64, 8)), ((4, 4, 4), (45, 64, 16)), ((64, 1, 1), (126, 64, 1))]
)
@pytest.mark.parametrize("chained", [False, True])
def test_three_way_64(parts: tuple[int, int, int], counts: tuple[int, int, int], chained: bool) -> None:
    """64^3 in one ciphertext each at ring 16384: two uploads, one level; with chained rotations, six keys at most."""
    step = product_of("ij,jk->ik", [(64, 64), (64, 64)])
    none = Grid((), (), tuple((i, Form(())) for i in "ijk"))
    plan = Plan(("i", "j", "k"), "xy", 64, parts, 64, 128, True, 1, none, chained)
    option = Matmul3(step, context_for(step, shapes_of(step), 16384, 1), free(step), plan)
    rng = np.random.default_rng(1)
    arrays = {n: rng.uniform(-1, 1, (64, 64)) for n in step.operands}
    circuit, got = run(step, option, 8192, arrays, (64, 64))
    np.testing.assert_allclose(got.outputs["y"], arrays["x0"] @ arrays["x1"], atol=1e-12)
    work = option.work
    assert (work.rotations, work.cipher_products, work.relinearisations) == counts
    assert uploads_of(option) == 2 and circuit.levels == 1 and option.gives.packing.clean
    t, p, q = parts
    assert len(option.steps) <= (6 if chained else 2 * (t + p + q - 3))


def test_three_way_200() -> None:
    """200^3 as 64-blocks: 720 rotations, 4096 products, 256 relinearisations, 32 uploads; and a cheaper way."""
    step = product_of("ij,jk->ik", [(200, 200), (200, 200)])
    blocks = Grid(
        (),
        tuple((f"{i}'", 4) for i in "ijk"),
        tuple((i, Form(((f"{i}'", 1),))) for i in "ijk"),
    )
    plan = Plan(("i", "j", "k"), "xy", 64, (4, 4, 4), 64, 128, True, 1, blocks)
    option = Matmul3(step, context_for(step, shapes_of(step), 16384, 1), free(step), plan)
    work = option.work
    assert (work.rotations, work.cipher_products, work.relinearisations) == (720, 4096, 256)
    assert uploads_of(option) == 32
    offered = list(product.front(step, context_for(step, shapes_of(step), 16384, 1), free(step)))
    best = min((o for o in offered if uploads_of(o) <= 56), key=lambda o: o.work.milliseconds)
    assert best.work.milliseconds < work.milliseconds


def test_blocks_of_100() -> None:
    """100^3 in blocks, at ring 8192: every way is right."""
    step = product_of("ij,jk->ik", [(100, 100), (100, 100)])
    context = context_for(step, shapes_of(step), 8192, 1)
    rng = np.random.default_rng(1)
    arrays = {n: rng.uniform(-1, 1, (100, 100)) for n in step.operands}
    for option in list(product.front(step, context, free(step)))[::3]:
        _, got = run(step, option, 4096, arrays, (100, 100))
        np.testing.assert_allclose(got.outputs["y"], arrays["x0"] @ arrays["x1"], atol=1e-12)


def test_small_rings_multiply_64() -> None:
    """64^3 fits ring 8192 too, as blocks: at most 4 uploads, 16 relinearisations and 76 rotations."""
    step = product_of("ij,jk->ik", [(64, 64), (64, 64)])
    context = context_for(step, shapes_of(step), 8192, 1)
    few = [o for o in product.front(step, context, free(step)) if uploads_of(o) <= 4]
    assert min(o.work.rotations for o in few) <= 76
    assert min(o.work.relinearisations for o in few if o.work.rotations <= 76) <= 16


def test_long_products_are_quick_to_enumerate() -> None:
    """Many indices are thinned out, not enumerated: the number of splits stays bounded."""
    from stein.backends.ckks.products import lane_choices

    step: Product = product_of("abcdefgh,defghijk->abcijk", [(9,) * 8, (9,) * 8])
    context = context_for(step, shapes_of(step), 8192, 1)
    splits = lane_choices.splits_of(step, context, lane_choices.Frame())
    assert splits is not None and len(splits.rotations) <= lane_choices.MOST_CHOICES
