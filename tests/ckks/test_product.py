"""Products of encrypted operands: any einsum, in every way that is offered, equals NumPy's."""

from __future__ import annotations

import json
from math import prod

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stein.backends.ckks.core.circuit import Builder
from stein.backends.ckks.core.layout import Layout, Packing
from stein.backends.ckks.core.simulator import Slots, simulate
from stein.backends.ckks.lowering.problem import Product
from stein.backends.ckks.products import product
from stein.backends.ckks.steps.context import Context, Free
from stein.backends.ckks.steps.option import Option, Placed
from stein.tests.ckks.product_cases import Array, context_for, free, product_of, run, shapes_of, uploads_of, written

Nodes = tuple[int, ...]
RING = 256  # 128 slots: small tensors take several ciphertexts already


@st.composite
def einsums(draw: st.DrawFn) -> tuple[Product, dict[str, Array]]:
    """A product of one to four operands, perhaps with a clear factor, and a clear tensor for it."""
    names = "ijkl"[: draw(st.integers(1, 4))]
    extents = {i: draw(st.sampled_from([1, 2, 3, 4, 5, 7, 8, 13, 40])) for i in names}
    count = draw(st.integers(1, 4))
    terms = []
    for _ in range(count):
        term = "".join(draw(st.permutations(names)))[: draw(st.integers(1, min(3, len(names))))]
        while prod(extents[i] for i in term) > 600:
            term = term[:-1]
        terms.append(term)
    used = sorted(set("".join(terms)))
    output = "".join(i for i in draw(st.permutations(used)) if draw(st.booleans()))
    while prod(extents[i] for i in output) > 600:
        output = output[:-1]
    fields, clear = {}, {}
    if draw(st.booleans()) and count > 1:
        term = "".join(i for i in used if draw(st.booleans()))[:2]
        fields = {"clear": "w", "clear_indices": tuple(term)}
        clear["w"] = np.random.default_rng(5).uniform(0.5, 1, tuple(extents[i] for i in term))
    factor = draw(st.sampled_from([1.0, -1.0, 0.5]))
    shapes = [tuple(extents[i] for i in t) for t in terms]
    same = ["x0" if t == terms[0] and draw(st.booleans()) else f"x{k}" for k, t in enumerate(terms)]
    step = product_of(",".join(terms) + "->" + output, shapes, same, factor=factor, **fields)
    return step, clear


def arrays_for(step: Product) -> dict[str, Array]:
    """Values of the operands."""
    rng = np.random.default_rng(3)
    shapes = shapes_of(step)
    return {name: rng.uniform(-1, 1, shapes[name]) for name in dict.fromkeys(step.operands)}


def value_of(step: Product, arrays: dict[str, Array], clear: dict[str, Array]) -> Array:
    """The einsum by NumPy."""
    operands = [arrays[n] for n in step.operands]
    terms = ["".join(i) for i in step.inputs]
    if step.clear is not None:
        operands.append(clear[step.clear])
        terms.append("".join(step.clear_indices))
    found: Array = step.factor * np.einsum(",".join(terms) + "->" + "".join(step.output), *operands)
    return found


def same_again(step: Product, context: Context, arguments: tuple[Placed | Free, ...], option: Option) -> None:
    """A saved decision makes the same operations again."""
    again = product.restore(step, context, arguments, json.loads(json.dumps(option.decision())))
    assert written(step, again, context.slots).text() == written(step, option, context.slots).text()
    assert again.gives.packing.key == option.gives.packing.key


@given(einsums())
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_any_einsum(case: tuple[Product, dict[str, Array]]) -> None:
    """The best option, the last one and one in between give the einsum's value, also when they are made again."""
    step, clear = case
    arrays = arrays_for(step)
    wanted = value_of(step, arrays, clear)
    context = context_for(step, shapes_of(step), RING, 5)
    found = list(product.options(step, context, free(step)))
    assert found
    for option in {id(o): o for o in (found[0], found[len(found) // 2], found[-1])}.values():
        _, got = run(step, option, RING // 2, arrays, wanted.shape, clear)
        np.testing.assert_allclose(got.outputs["y"], wanted, rtol=1e-10, atol=1e-10)
        same_again(step, context, free(step), option)


def chained(
    steps: tuple[Product, Product], options: tuple[Option, Option], slots: int, arrays: dict[str, Array]
) -> Array:
    """The value of the second step, whose first operand is the result of the first step."""
    first, second = options
    builder, uploads = Builder(slots), {}

    def send(name: str, placed: Placed) -> tuple[int, ...]:
        uploads[name] = placed.packing
        return tuple(builder.input(name, c) for c in range(placed.packing.ciphertexts))

    nodes = first.emit(builder, tuple(send(f"1 {k}", t) for k, t in enumerate(first.takes)))
    rest = [send(f"2 {k}", t) for k, t in enumerate(second.takes) if k]
    result = second.emit(builder, (nodes, *rest))
    given = {f"1 {k}": arrays[n] for k, n in enumerate(steps[0].operands)}
    given |= {f"2 {k}": arrays[n] for k, n in enumerate(steps[1].operands) if k}
    shape = tuple(steps[1].extents[i] for i in steps[1].output)
    circuit = builder.circuit(uploads, {"z": (second.gives.packing, result)})
    assert circuit.levels <= second.gives.level
    return simulate(circuit, given, {}, {"z": shape}).outputs["z"]


CHAINS = [
    # (first, shapes, second with the result of the first as its first operand, shape of the other operand)
    ("ij,jk->ik", [(8, 8), (8, 8)], "ik,kl->il", (8, 8)),
    ("ij,jk->ik", [(5, 6), (6, 7)], "ik,kl->il", (7, 3)),
    ("ij,ij->ij", [(6, 6), (6, 6)], "ij,ij->", (6, 6)),
    ("ij,ij->i", [(6, 6), (6, 6)], "i,i->i", (6,)),
    ("ik,jk->ij", [(6, 16), (5, 16)], "ij,jk->ik", (5, 16)),
    ("ij,ij->ij", [(4, 40), (4, 40)], "ij,j->i", (40,)),
    ("i,j->ij", [(20,), (20,)], "ij,ji->ij", (20, 20)),
    ("ij,jk->ik", [(3, 3), (3, 3)], "ii,ij->j", (3, 3)),
    ("i,i->", [(50,), (50,)], ",j->j", (9,)),
]


@pytest.mark.parametrize(("one", "shapes", "two", "other"), CHAINS)
def test_products_of_products(one: str, shapes: list[tuple[int, ...]], two: str, other: tuple[int, ...]) -> None:
    """Operands that were computed are used where they are, or moved; whichever way, the value is right."""
    first = product_of(one, shapes)
    context = context_for(first, {**shapes_of(first), "b": other}, RING, 4, final=False)
    made = list(product.options(first, context, free(first)))
    arrays = {**arrays_for(first), "b": np.random.default_rng(9).uniform(-1, 1, other)}
    wanted = np.einsum(two, value_of(first, arrays, {}), arrays["b"])
    second = product_of(two, [tuple(first.extents[i] for i in first.output), other], ["y", "b"])
    second = Product("z", second.operands, second.inputs, second.output, second.extents)
    context = context_for(second, {**context.shapes, "z": wanted.shape}, RING, 4)
    tried = 0
    for before in made[::4]:
        arguments = (before.gives, Free("b", other))
        found = list(product.options(second, context, arguments))
        for after in found[:2] + found[-1:]:
            got = chained((first, second), (before, after), RING // 2, arrays)
            np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-10)
            same_again(second, context, arguments, after)
            tried += 1
    assert tried


@st.composite
def two_steps(draw: st.DrawFn) -> tuple[Product, Product, int]:
    """A product, and one that takes its result, perhaps twice, with another operand; and a number to choose by."""
    extents = {i: draw(st.sampled_from([1, 2, 3, 4, 5, 7, 8, 13])) for i in "ijkl"}

    def term(letters: str, least: int) -> str:
        found = "".join(draw(st.permutations(letters)))[: draw(st.integers(least, 3))]
        while prod(extents[i] for i in found) > 400:
            found = found[:-1]
        return found

    one, two = term("ijkl", 1), term("ijkl", 1)
    out, other = term("".join(sorted({*one, *two})), 0), term("ijkl", 1)
    last = term("".join(sorted({*out, *other})), 0)
    shapes = [tuple(extents[i] for i in t) for t in (one, two)]
    first = product_of(f"{one},{two}->{out}", shapes)
    names = ("y", "b", "y") if draw(st.booleans()) else ("y", "b")
    inputs = tuple(tuple(out if n == "y" else other) for n in names)
    return (
        first,
        Product("z", names, inputs, tuple(last), {i: extents[i] for i in out + other}),
        draw(st.integers(0, 999)),
    )


@given(two_steps())
@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_any_two_products(case: tuple[Product, Product, int]) -> None:
    """Whatever the first product leaves, the second one can be computed, and slots that are called clean are 0."""
    first, second, pick = case
    context = context_for(second, {**shapes_of(first), **shapes_of(second)}, RING, 6)
    made = list(product.options(first, context, free(first)))
    before = made[pick % len(made)]
    arguments = tuple(before.gives if n == "y" else Free(n, context.shapes[n]) for n in second.operands)
    found = list(product.options(second, context, arguments))
    arrays = {**arrays_for(first), "b": np.random.default_rng(9).uniform(-1, 1, context.shapes["b"])}
    wanted = value_of(second, {**arrays, "y": value_of(first, arrays, {})}, {})
    for after in {id(o): o for o in (found[0], found[pick % len(found)])}.values():
        builder, uploads = Builder(RING // 2), {}

        def send(name: str, placed: Placed, builder: Builder = builder, uploads: dict[str, Packing] = uploads) -> Nodes:
            uploads[name] = placed.packing
            return tuple(builder.input(name, c) for c in range(placed.packing.ciphertexts))

        taken = zip(first.operands, before.takes, strict=True)
        nodes = before.emit(builder, tuple(send(f"{n} {k}", t) for k, (n, t) in enumerate(taken)))
        rest = zip(second.operands, after.takes, strict=True)
        results = after.emit(builder, tuple(nodes if n == "y" else send(n, t) for n, t in rest))
        circuit = builder.circuit(uploads, {"z": (after.gives.packing, results)})
        assert circuit.levels <= after.gives.level
        values = {name: arrays[name.split()[0]] for name in uploads}
        got = simulate(circuit, values, {}, {"z": wanted.shape}).outputs["z"]
        np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-10)
        if after.gives.packing.clean:
            slots = Slots(circuit, values, {}).run()
            for at, node in zip(after.gives.packing.at, circuit.downloads["z"][1], strict=True):
                assert np.abs(slots[node][at < 0]).max(initial=0) <= 1e-12
        same_again(second, context, arguments, after)


def test_matrix_products_follow_each_other_without_a_move() -> None:
    """A B C with 16^3 products: the second product takes the result of the first as it is, in two levels."""
    first = product_of("ij,jk->ik", [(16, 16), (16, 16)])
    context = context_for(first, {**shapes_of(first), "b": (16, 16)}, 1024, 2, final=False)
    second = Product("z", ("y", "b"), (("i", "k"), ("k", "l")), ("i", "l"), {"i": 16, "k": 16, "l": 16})
    context_z = context_for(second, {**context.shapes, "z": (16, 16)}, 1024, 2)
    arrays = {**arrays_for(first), "b": np.random.default_rng(9).uniform(-1, 1, (16, 16))}
    wanted = arrays["x0"] @ arrays["x1"] @ arrays["b"]
    ways = 0
    for before in product.options(first, context, free(first)):
        if "three-way" not in before.describe():
            continue
        for after in product.options(second, context_z, (before.gives, Free("b", (16, 16)))):
            if after.describe().startswith("three-way"):
                got = chained((first, second), (before, after), 512, arrays)
                np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-10)
                ways += 1
    assert ways


def test_elementwise_in_any_packing() -> None:
    """Without a contraction a skewed packing is as good as any: the other operand follows it."""
    layout = Layout((("i", 8),), (("f", 2), ("i", 8)))
    skewed = Packing(np.roll(layout.packing(16).at, 3, axis=1))
    step = product_of("i,i->i", [(8,), (8,)])
    context = context_for(step, shapes_of(step), 32, 1)
    arguments = (Placed(skewed, 0), Free("x1", (8,)))
    found = list(product.options(step, context, arguments))
    arrays = arrays_for(step)
    assert found[0].work.rotations == 0
    for option in found:
        _, got = run(step, option, 16, arrays, (8,))
        np.testing.assert_allclose(got.outputs["y"], arrays["x0"] * arrays["x1"])


def test_a_clear_factor_takes_no_level_where_there_is_one_to_spare() -> None:
    """x y z w with w clear: x y z need two levels, and w goes to the operand that waits for the second."""
    step = product_of("i,i,i->i", [(9,)] * 3, clear="w", clear_indices=("i",))
    context = context_for(step, {**shapes_of(step), "w": (9,)}, RING, 4)
    best = min(product.options(step, context, free(step)), key=lambda o: o.gives.level)
    assert best.gives.level == 2
    arrays, clear = arrays_for(step), {"w": np.arange(1.0, 10.0)}
    _, got = run(step, best, RING // 2, arrays, (9,), clear)
    np.testing.assert_allclose(got.outputs["y"], value_of(step, arrays, clear))


def test_squares_are_products_of_one_upload() -> None:
    """x[i] x[i] sends x once; powers share their squares."""
    step = product_of("i,i,i,i->", [(30,)] * 4, ["x0"] * 4)
    context = context_for(step, shapes_of(step), RING, 2)
    option = next(product.options(step, context, free(step)))
    assert len({t.packing.key for t in option.takes}) == 1
    assert option.work.cipher_products == 2 * option.takes[0].packing.ciphertexts


def test_options_are_a_front() -> None:
    """No option of a final product is beaten by another in time, uploads, keys and level."""
    step = product_of("ik,kj->ij", [(16, 32), (32, 32)])
    context = context_for(step, shapes_of(step), 8192, 1)
    found = list(product.options(step, context, free(step)))
    upload = context.prices.upload(context.primes(0))
    figures = [
        (o.work.milliseconds + uploads_of(o) * upload, uploads_of(o), len(o.steps), o.gives.level) for o in found
    ]
    assert figures == sorted(figures, key=lambda f: f[0])
    for n, later in enumerate(figures):
        assert not any(all(a <= b for a, b in zip(earlier, later, strict=True)) for earlier in figures[:n])


def test_too_few_levels_give_no_option() -> None:
    """A product of three is not offered on a chain of one level."""
    step = product_of("i,i,i->i", [(4,)] * 3)
    assert not list(product.options(step, context_for(step, shapes_of(step), RING, 1), free(step)))
