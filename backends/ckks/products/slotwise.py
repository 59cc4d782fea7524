"""Products without a contraction, slot by slot, in whatever packing the operands have.

Nothing is assumed of the packing: the largest operand dictates it, digits or not, and the others follow element by
element. So a product can be computed between two linear maps in the layout that suits these.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from ..core.circuit import Builder, Plain
from ..core.distinct import distinct
from ..core.layout import NOTHING, SLOTS, Packing
from ..lowering.problem import Product
from ..steps import placements
from ..steps.context import Argument, Context, Free
from ..steps.digits import positions
from ..steps.option import Placed, Work
from ..steps.placements import Common, level_of
from ..steps.trees import Network, Tree, has_clear, orders, tally
from ..steps.vectors import Constant, Entries

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Slotwise:
    """A product in the packing `place.meeting` of its result, in the order of `tree`. `uploads` counts ciphertexts that
    the client packs for it.
    """

    step: Product
    context: Context
    place: Common
    tree: Tree
    uploads: int = 0

    @property
    def takes(self) -> tuple[Placed, ...]:
        """The operands."""
        return self.place.operands

    @cached_property
    def network(self) -> Network:
        """The operands as leaves that all have the ciphertexts of the result."""
        found = Network.of(self.step, tuple(p.level for p in self.takes))
        return Network(tuple(frozenset("*") for _ in found.indices), found.levels, found.names, frozenset("*"))

    @cached_property
    def gives(self) -> Placed:
        """The same packing."""
        return Placed(self.place.meeting, self.level, self.place.text)

    @cached_property
    def level(self) -> int:
        """The level of the result."""
        return self.network.level(self.tree) or 0

    @cached_property
    def work(self) -> Work:
        """Products of each ciphertext."""
        found = tally(self.tree, self.network, {"*": np.array([self.place.meeting.ciphertexts])}, self.context)
        figures = {name: value[0].item() for name, value in vars(found).items()}
        return Work(**figures)

    @property
    def steps(self) -> frozenset[int]:
        """No rotation."""
        return frozenset()

    def emit(self, builder: Builder, operands: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
        """The product of each ciphertext."""
        step, found = self.step, []
        for row, at in enumerate(self.place.meeting.at):
            node = self._emit(builder, self.tree, [nodes[row] for nodes in operands], at)
            assert isinstance(node, int)
            found.append(builder.negate(node, step.span) if step.factor < 0 and not has_clear(step) else node)
        return tuple(found)

    def decision(self) -> Mapping[str, Any]:
        """The layout of inputs and the order."""
        return {"method": "slotwise", "tree": self.tree, **placements.saved(self.place)}

    def describe(self) -> str:
        """Where the operands meet."""
        return f"slot by slot in {self.place.text}"

    def _emit(self, builder: Builder, tree: Tree, nodes: list[int], at: Array) -> int | Plain:
        step, span = self.step, self.step.span
        if isinstance(tree, int):
            if tree < len(nodes):
                return nodes[tree]
            if step.clear is None:
                return Constant(step.factor, builder.slots)
            return Entries(step.clear, seen(at, step.output, step.clear_indices, step.extents), step.factor)
        left, right = (self._emit(builder, t, nodes, at) for t in tree)
        if not isinstance(left, int):
            left, right = right, left
        assert isinstance(left, int)
        if not isinstance(right, int):
            return builder.rescale(builder.multiply_plain(left, right, span), span)
        return builder.relinearise(builder.rescale(builder.multiply(left, right, span), span), span)


def seen(at: Array, indices: tuple[str, ...], wanted: tuple[str, ...], extents: Mapping[str, int]) -> Array:
    """Element numbers of a tensor with the indices `wanted`, where a tensor with `indices` has the numbers `at`.

    >>> seen(np.array([0, 1, 2, -1]), ("i", "j"), ("j",), {"i": 2, "j": 2})
    array([ 0,  1,  0, -1], dtype=int32)
    """
    places = dict(zip(indices, positions(at, tuple(extents[i] for i in indices)), strict=True))
    flat = np.zeros(at.shape, dtype=np.int64)
    for i in wanted:
        flat = flat * extents[i] + places[i]
    return np.where(at >= 0, flat, NOTHING).astype(np.int32)


def choices(step: Product, context: Context, arguments: tuple[Argument, ...]) -> Iterator[Slotwise]:
    """The product in each packing in which all operands can meet."""
    if not applies(step):
        return
    for place in _places(step, context, arguments):
        packed = {
            (a.name, taken.packing.key): taken.packing.ciphertexts
            for a, taken in zip(arguments, place.operands, strict=True)
            if placements.packed_for_this(a)
        }
        option = ordered(step, context, place)
        if option is not None:
            yield replace(option, uploads=sum(packed.values()))


def applies(step: Product) -> bool:
    """Whether nothing is summed."""
    every = {i for indices in (*step.inputs, step.clear_indices) for i in indices}
    return every == set(step.output)


def ordered(step: Product, context: Context, place: Common) -> Slotwise | None:
    """The product in the cheapest order, among those that take fewest levels."""
    network = Slotwise(step, context, place, 0).network
    found = [Slotwise(step, context, place, tree) for tree in orders(network, context.levels)]
    return min(found, key=lambda o: (o.level, o.work.milliseconds), default=None)


def restored(
    step: Product, context: Context, arguments: tuple[Argument, ...], decision: Mapping[str, Any], tree: Tree
) -> Slotwise:
    """The product of a saved plan."""
    if any(isinstance(a, Placed) for a in arguments):
        place = next(_places(step, context, arguments))
    else:
        found = placements.restored(context, (), tuple(step.extents[i] for i in step.output), decision)
        place = _following(step, arguments, found)
    return Slotwise(step, context, place, tree)


def _places(step: Product, context: Context, arguments: tuple[Argument, ...]) -> Iterator[Common]:
    """Packings of the result in which the operands can meet."""
    shape = tuple(step.extents[i] for i in step.output)
    placed = [(a, indices) for a, indices in zip(arguments, step.inputs, strict=True) if isinstance(a, Placed)]
    if not placed:
        if step.name not in context.final:
            for found in placements.common(shape, step.name, context, ()):
                yield _following(step, arguments, found)
        return
    whole = [(a, i) for a, i in placed if len(i) == len(step.output) and set(i) == set(step.output)]
    if not whole:
        return
    packings = [
        Packing(seen(a.packing.at, i, step.output, step.extents), a.packing.clean, a.packing.kind) for a, i in whole
    ]
    meeting = placements.meet(packings, prod(shape))
    if meeting is None or meeting.kind != SLOTS:
        return
    at = meeting.at
    for a, i in placed:
        if a.packing.at.shape != at.shape:
            return
        at = np.where(a.packing.at == seen(at, step.output, i, step.extents), at, NOTHING)
    if len(distinct(at[at >= 0])) != prod(shape):
        return
    yield _following(step, arguments, Common((), Packing(at, meeting.clean), whole[0][0].text))


def _following(step: Product, arguments: tuple[Argument, ...], found: Common) -> Common:
    """Every input packed element by element as the result; which is clean if some whole factor is."""
    at, operands, clean = found.meeting.at, [], step.clear is not None
    for argument, indices in zip(arguments, step.inputs, strict=True):
        if isinstance(argument, Free):
            packed = Packing(seen(at, step.output, indices, step.extents))
            argument = Placed(packed, level_of(argument), f"as {found.text}")
        mine = np.array_equal(argument.packing.at >= 0, at >= 0)
        clean = clean or (argument.packing.clean and mine)
        operands.append(argument)
    return Common(tuple(operands), Packing(at, clean=bool(clean)), found.text, found.packed)
