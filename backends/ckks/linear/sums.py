"""Sums of encrypted values, each times a number, plus a clear tensor.

Values at the level of the result are added as they are where their numbers are small integers; all others are
multiplied by plain numbers one level higher, which brings their scales together exactly, and rescaled once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..core.circuit import Builder
from ..core.numbers import is_whole, times
from ..lowering.problem import Sum
from ..steps.context import Argument, Context
from ..steps.option import Option, Placed, Work
from ..steps.placements import Common, common, packed_for_this, restored, saved
from ..steps.tallied import work_of
from ..steps.vectors import Constant, Entries
from . import moves


@dataclass(frozen=True)
class Addition:
    """A sum of values that lie alike. `uploads` counts ciphertexts that the client packs for it."""

    step: Sum
    context: Context
    place: Common
    uploads: int = 0

    @cached_property
    def terms(self) -> tuple[tuple[int, float], ...]:
        """(operand, number) of each value that is added, the same value once; zeros are left out."""
        first: dict[str, int] = {}
        numbers: dict[str, float] = {}
        for k, (name, number) in enumerate(self.step.operands):
            first.setdefault(name, k)
            numbers[name] = numbers.get(name, 0.0) + number
        return tuple((first[name], number) for name, number in numbers.items() if number)

    @cached_property
    def level(self) -> int:
        """The level of the sum."""
        return max(self.place.operands[k].level + (not is_whole(f)) for k, f in self.terms)

    @property
    def takes(self) -> tuple[Placed, ...]:
        """The operands, all in one packing."""
        return self.place.operands

    @cached_property
    def gives(self) -> Placed:
        """The same packing."""
        return Placed(self.place.meeting, self.level, self.place.text)

    @cached_property
    def work(self) -> Work:
        """Counted on one ciphertext: all are alike."""
        builder = Builder(self.context.slots)
        starts = [builder.switch(builder.input("", k), p.level) for k, p in enumerate(self.place.operands)]
        first = len(builder.nodes)
        node = self._sum(builder, starts)
        if self.step.bias is not None:
            builder.add_plain(node, Constant(0.0, 0))
        one = work_of(builder.nodes[first:], self.context)
        count = self.place.meeting.ciphertexts
        return Work(**{name: value * count for name, value in vars(one).items()})

    @property
    def steps(self) -> frozenset[int]:
        """No rotation."""
        return frozenset()

    def emit(self, builder: Builder, operands: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
        """The sum of each ciphertext."""
        packing = self.place.meeting
        found = []
        for number, row in enumerate(packing.at):
            node = self._sum(builder, [nodes[number] for nodes in operands])
            if self.step.bias is not None:
                node = builder.add_plain(node, Entries(self.step.bias, row), self.step.span)
            found.append(node)
        return tuple(found)

    def decision(self) -> Mapping[str, Any]:
        """The layout of inputs."""
        return {"method": "sum", **saved(self.place)}

    def describe(self) -> str:
        """How many values."""
        return f"sum of {len(self.terms)} values in {self.place.text}"

    def _sum(self, builder: Builder, nodes: list[int]) -> int:
        pending, settled, span = [], [], self.step.span
        for k, number in self.terms:
            if is_whole(number) and self.place.operands[k].level == self.level:
                settled.append((nodes[k], number))
            else:
                node = builder.switch(nodes[k], self.level - 1)
                pending.append(builder.multiply_plain(node, Constant(number, builder.slots), span))
        total = builder.rescale(builder.total(pending), span) if pending else None
        for node, number in sorted(settled, key=lambda s: s[1] < 0):  # those that are added first
            if total is None:
                total = times(builder, node, number, span)
            elif number < 0:
                total = builder.subtract(total, times(builder, node, -number, span), span)
            else:
                total = builder.add(total, times(builder, node, number, span), span)
        assert total is not None
        return total


def options(step: Sum, context: Context, arguments: tuple[Argument, ...]) -> Iterator[Option]:
    """The sum in each packing that all operands can have; else with operands moved to where another one is."""
    found: list[moves.Movable] = list(_in_place(step, context, arguments))
    if not found:
        found.extend(moves.choices(step, context, arguments, _in_place))
        found.sort(key=lambda o: o.work.milliseconds)
    for option in found:
        if option.work.milliseconds <= context.limit:
            yield option


def restore(step: Sum, context: Context, arguments: tuple[Argument, ...], decision: Mapping[str, Any]) -> moves.Movable:
    """The sum of a saved plan."""
    if decision["method"] == "moved":
        return moves.restored(step, context, arguments, decision, restore)
    return Addition(step, context, restored(context, arguments, context.shapes[step.name], decision))


def _in_place(step: Sum, context: Context, arguments: tuple[Argument, ...]) -> Iterator[Addition]:
    """The sums of operands that are not moved."""
    for place in common(context.shapes[step.name], step.name, context, arguments):
        packed = {a.name for a in arguments if packed_for_this(a)}
        found = Addition(step, context, place, len(packed) * place.meeting.ciphertexts)
        if found.terms and found.level <= context.levels:
            yield found
