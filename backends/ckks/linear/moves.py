"""Values moved to where a step wants them: copies of elements from one packing to another, one level for the masks.

`linear` gathers an element to one slot; here every slot that is wanted gets its element, replicas and all. Steps whose
operands do not lie as they should are offered with such moves in front (`Rearranged`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import numpy as np

from ..core.circuit import Builder
from ..core.distinct import distinct
from ..core.layout import SLOTS, Packing
from ..lowering.problem import Linear, Product, Slot, Sum, Term
from ..steps.context import Argument, Context
from ..steps.option import Option, Placed, Work
from ..steps.placements import Awaited
from . import babysteps
from .cover import Cover, sites
from .linear_map import Map
from .matrix import Matrix

Array = np.ndarray[Any, Any]
Options: TypeAlias = "Callable[[Any, Context, tuple[Argument, ...]], Iterator[Movable]]"
Restore: TypeAlias = "Callable[[Any, Context, tuple[Argument, ...], Mapping[str, Any]], Movable]"

MOST_OFFSETS = 2048  # a move that takes more is no way to compute anything
MOST_TARGETS = 3  # options for whose sake moves are worked out, of each choice of operands
MOST_FILLED = 32  # ciphertexts that moves for one step fill
ROTATIONS = 40  # that filling a ciphertext takes, at a guess


def moved(context: Context, shape: tuple[int, ...], source: Placed, wanted: Packing, text: str = "") -> Map | None:
    """A value of this shape copied to every slot where `wanted` has one of its elements; 0 in the others."""
    key = ("moves", shape, source.packing.key, source.level, wanted.key)
    if key not in context.memory:
        context.memory[key] = _moved(context, shape, source, wanted, text)
    found: Map | None = context.memory[key]
    return found


def _moved(context: Context, shape: tuple[int, ...], source: Placed, wanted: Packing, text: str) -> Map | None:
    packing, slots = source.packing, context.slots
    if source.level >= context.levels or packing.kind != SLOTS or wanted.kind != SLOTS:
        return None
    found = cover(packing, wanted, int(np.prod(shape, dtype=int)), slots)
    if found is None:
        return None
    indices = tuple((f"i{k}", n) for k, n in enumerate(shape))
    at = tuple(Slot(((name, 1),)) for name, _ in indices)
    matrix = Matrix(Linear("to", "from", (Term(indices, at, at),)), {"to": shape, "from": shape})
    bare = _bare(packing, wanted, found, slots)
    split = babysteps.split(found.places, slots, context.prices, context.primes(source.level), bare)
    given = Placed(Packing(wanted.at), source.level + (not bare), text)
    return Map(matrix, context, source, None, wanted, given, slots, found, split, (), bare)


def cover(source: Packing, wanted: Packing, size: int, slots: int) -> Cover | None:
    """The rotations that bring an element to every slot that is wanted: again and again the one that serves most."""
    where = sites(source, size, slots).where
    targets = np.flatnonzero(wanted.at.ravel() >= 0)
    spots = where[wanted.at.ravel()[targets]]
    if not len(targets) or (spots[:, 0] < 0).any():
        return None
    held = spots >= 0
    ciphertext, offset = spots // slots, (spots - targets[:, None]) % slots
    codes = ((targets // slots)[:, None] * source.ciphertexts + ciphertext) * slots + offset
    served, spot = np.nonzero(held)
    taken = codes[served, spot]
    order_of_codes = np.argsort(taken, kind="stable")
    taken, served = taken[order_of_codes], served[order_of_codes]
    counts = np.bincount(taken)
    ends = np.cumsum(counts)
    starts = ends - counts
    waiting, left = np.ones(len(targets), dtype=bool), len(targets)
    chosen: dict[int, Array] = {}
    while left:
        best = int(np.argmax(counts))
        if left > (MOST_OFFSETS - len(chosen)) * counts[best]:  # none that follows serves more
            return None
        rows = distinct(served[starts[best] : ends[best]])
        rows = rows[waiting[rows]]
        waiting[rows] = False
        left -= len(rows)
        chosen[best] = targets[rows] % slots
        counts = counts - np.bincount(codes[rows][held[rows]], minlength=len(counts))
    order = sorted(chosen)
    masks = np.zeros((len(order), slots), dtype=bool)
    for number, code in enumerate(order):
        masks[number, chosen[code]] = True
    pair, step = np.divmod(np.array(order, dtype=np.int64), slots)
    places = np.stack([pair // source.ciphertexts, pair % source.ciphertexts, step], axis=1)
    return Cover(places, np.packbits(masks, axis=1), slots)


def _bare(source: Packing, wanted: Packing, found: Cover, slots: int) -> bool:
    """Whether the rotated operands can be added as they are: they are 0 wherever they should not be read."""
    if not source.clean:
        return False
    for number, (_, c, k) in enumerate(found.places.tolist()):
        read = np.roll(source.at[c] >= 0, -k)
        if np.count_nonzero(read) != len(found.served(number)):
            return False
    return len(distinct(found.places[:, 0])) == wanted.ciphertexts


# ------------------------------------------------------------------------------------------- steps with moves in front


class Movable(Option, Protocol):
    """An option whose level and uploads are known before its packings are worked out."""

    @property
    def level(self) -> int:
        """The level of the result."""
        ...

    @property
    def uploads(self) -> int:
        """Ciphertexts that the client packs for this step."""
        ...


@dataclass(frozen=True, eq=False)
class Rearranged:
    """A way to compute a step once some of its operands were moved: `moves` by the number of the operand."""

    inner: Movable
    moves: Mapping[int, Map]

    @cached_property
    def takes(self) -> tuple[Placed, ...]:
        """The operands where they are before."""
        return tuple(self.moves[k].source if k in self.moves else t for k, t in enumerate(self.inner.takes))

    @property
    def gives(self) -> Placed:
        """The step's result."""
        return self.inner.gives

    @property
    def level(self) -> int:
        """The level of the result."""
        return self.inner.level

    @property
    def uploads(self) -> int:
        """Ciphertexts that the client packs for this step."""
        return self.inner.uploads

    @cached_property
    def work(self) -> Work:
        """The step's work and that of the moves."""
        return sum((m.work for m in self._different.values()), start=self.inner.work)

    @property
    def steps(self) -> frozenset[int]:
        """All rotations."""
        return self.inner.steps.union(*(m.steps for m in self.moves.values()))

    @property
    def _different(self) -> dict[int, Map]:
        return {id(m): m for m in self.moves.values()}

    def emit(self, builder: Builder, operands: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
        """The moves, then the step."""
        given = []
        for k, nodes in enumerate(operands):
            if k in self.moves:
                level = self.inner.takes[k].level
                nodes = tuple(builder.switch(n, level) for n in self.moves[k].emit(builder, (nodes,)))
            given.append(nodes)
        return self.inner.emit(builder, tuple(given))

    def decision(self) -> Mapping[str, Any]:
        """The step's decision, and what is moved."""
        return {"method": "moved", "inner": self.inner.decision(), "moved": sorted(self.moves)}

    def describe(self) -> str:
        """The step's way, and how many operands are moved."""
        return f"{len(self.moves)} moved, then {self.inner.describe()}"


def choices(
    step: Product | Sum, context: Context, arguments: tuple[Argument, ...], options: Options, needed: bool = True
) -> Iterator[Rearranged]:
    """A step's options for operands that lie elsewhere: one or all of the placed ones are moved. Fewer are looked at if
    there are ways without (not `needed`).
    """
    placed = [k for k, a in enumerate(arguments) if isinstance(a, Placed)]
    names = operands_of(step)
    groups = {tuple(k for k in placed if names[k] == names[first]) for first in placed} | {tuple(placed)}
    for group in sorted(g for g in groups if g):
        found = list(options(step, context, awaiting(step, context, arguments, group)))
        found.sort(key=lambda o: o.work.milliseconds + _guess(o, group, context))
        few = [o for o in found if sum(o.takes[k].packing.ciphertexts for k in group) <= MOST_FILLED]
        tried = few[:MOST_TARGETS] if needed else few[:1]
        made = (_rearranged(step, context, arguments, group, option) for option in tried)
        yield from (m for m in made if m is not None)


def _guess(option: Movable, group: tuple[int, ...], context: Context) -> float:
    """What it may take to fill the ciphertexts that an option awaits: rotations for each of them."""
    taken = [option.takes[k] for k in group]
    return sum(ROTATIONS * t.packing.ciphertexts * context.prices.rotate(context.primes(t.level)) for t in taken)


def restored(
    step: Product | Sum,
    context: Context,
    arguments: tuple[Argument, ...],
    decision: Mapping[str, Any],
    restore: Restore,
) -> Rearranged:
    """The option of a saved plan."""
    group = tuple(decision["moved"])
    inner = restore(step, context, awaiting(step, context, arguments, group), decision["inner"])
    found = _rearranged(step, context, arguments, group, inner)
    assert found is not None, "a decision that does not fit its step"
    return found


def awaiting(
    step: Product | Sum, context: Context, arguments: tuple[Argument, ...], group: tuple[int, ...]
) -> tuple[Argument, ...]:
    """The arguments with those of a group open again, one level lower."""
    given = list(arguments)
    for k in group:
        argument, name = arguments[k], operands_of(step)[k]
        assert isinstance(argument, Placed)
        given[k] = Awaited(name, context.shapes[name], argument.level + 1)
    return tuple(given)


def operands_of(step: Product | Sum) -> tuple[str, ...]:
    """The names of a step's operands."""
    return step.operands if isinstance(step, Product) else tuple(name for name, _ in step.operands)


def _rearranged(
    step: Product | Sum, context: Context, arguments: tuple[Argument, ...], group: tuple[int, ...], option: Movable
) -> Rearranged | None:
    """An option that awaits a group of operands, with their moves."""
    found: dict[int, Map] = {}
    for k in group:
        argument, wanted = arguments[k], option.takes[k]
        assert isinstance(argument, Placed)
        move = moved(context, context.shapes[operands_of(step)[k]], argument, wanted.packing, wanted.text)
        if move is None:
            return None
        found[k] = move
    return Rearranged(option, found)
