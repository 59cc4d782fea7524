"""Products of encrypted operands: lanes, slot by slot, or matrix products in three moving parts; whatever is best.

Operands that do not lie as any of these wants them are moved first (`moves`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..linear import moves
from ..linear.moves import Movable
from ..lowering.problem import Product
from ..steps.context import Argument, Context
from ..steps.option import Option, Placed
from ..steps.trees import Tree
from . import lane_choices, matmul3_choices, slotwise
from .lanes import Grid, Lanes
from .matmul3 import Matmul3
from .matmul3_plan import Plan

MOST_LAYOUTS = 48  # ways to compute a product that later steps read
PRICES = (1 / 16, 1 / 4, 1.0, 4.0, 16.0, 64.0)  # of an upload, times what the context says


def options(step: Product, context: Context, arguments: tuple[Argument, ...]) -> Iterator[Option]:
    """The ways that some price of an upload makes the best, or that take the fewest keys or levels; best first."""
    key = ("product", step.name, *((a.packing.key, a.level) if isinstance(a, Placed) else a for a in arguments))
    if key not in context.memory:
        context.memory[key] = tuple(_chosen(step, context, list(front(step, context, arguments))))
    for option in context.memory[key]:
        if option.work.milliseconds <= context.limit:
            yield option


def restore(step: Product, context: Context, arguments: tuple[Argument, ...], decision: Mapping[str, Any]) -> Movable:
    """The option of a saved plan."""
    method = decision["method"]
    if method == "lanes":
        return Lanes(step, context, arguments, Grid.decoded(decision["grid"]), _tree(decision["tree"]))
    if method == "matmul3":
        return Matmul3(step, context, arguments, Plan.decoded(decision["plan"]))
    if method == "slotwise":
        return slotwise.restored(step, context, arguments, decision, _tree(decision["tree"]))
    return moves.restored(step, context, arguments, decision, restore)


def front(step: Product, context: Context, arguments: tuple[Argument, ...]) -> Iterator[Movable]:
    """Every way that no other beats in time, uploads, keys and levels (one that gives the same packing, if later steps
    read the result); best first, where uploads count as `Pricing.upload` says.
    """
    found: list[Movable] = list(_in_place(step, context, arguments))
    found += moves.choices(step, context, arguments, _in_place, needed=not found)
    price = context.prices.upload(context.primes(0))
    found.sort(key=lambda o: o.work.milliseconds + o.uploads * price)
    kept: list[Movable] = []
    for option in found:
        same = kept
        if step.name not in context.final:
            same = [k for k in kept if k.gives.packing.key == option.gives.packing.key]
        keys = len(option.steps)
        if all(option.uploads < k.uploads or keys < len(k.steps) or option.level < k.level for k in same):
            kept.append(option)
            yield option


def _in_place(step: Product, context: Context, arguments: tuple[Argument, ...]) -> Iterator[Movable]:
    """The ways in which placed operands stay where they are."""
    yield from lane_choices.choices(step, context, arguments)
    yield from slotwise.choices(step, context, arguments)
    yield from matmul3_choices.choices(step, context, arguments)


def _chosen(step: Product, context: Context, found: list[Movable]) -> Iterator[Movable]:
    """Of a final product, those that are best at some price; of others the first ones, for their layouts."""
    if step.name not in context.final:
        yield from found[:MOST_LAYOUTS]
        return
    price = context.prices.upload(context.primes(0))
    best = {
        id(min(group, key=lambda o: o.work.milliseconds + o.uploads * price * times))
        for level in {o.level for o in found}
        for group in [[o for o in found if o.level <= level]]
        for times in PRICES
    }
    if found:
        best.add(id(min(found, key=lambda o: len(o.steps))))
    yield from (o for o in found if id(o) in best)


def _tree(data: Any) -> Tree:
    """A tree from JSON, where pairs are lists."""
    return data if isinstance(data, int) else (_tree(data[0]), _tree(data[1]))
