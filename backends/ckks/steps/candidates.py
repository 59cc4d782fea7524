"""Layouts worth trying: how a client may pack an input, and where a step may leave its result.

Values are seen through virtual axes: the axes of the tensor, cut where the index expressions of steps that read or
write it cut them (a vector read at 32*k + l has the axes k and l). A candidate orders the axes, gives spare slots to a
digit f at one place, and for an input may read skewed along f (an axis advances by a share of some extent with every
step of f) or repeat the inner rows. f takes all spare slots, or as many as there is use for: that is the family of all
winners known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import permutations
from math import prod
from typing import Any

from ..core.layout import Form, Layout
from ..lowering.problem import EncryptedProgram, Linear, Slot

MOST_AXES = 4  # small neighbours beyond these are seen as one
MOST_ORDERED = 3  # axes of which every order is tried; of more, each one on top and each one at the bottom
SPARE = "f"

Axes = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Result:
    """A layout of partial sums, and the digit that is then summed ("" for none)."""

    layout: Layout
    fold: str = ""

    def to_json(self) -> dict[str, Any]:
        """The layout and the digit as JSON."""
        return {"layout": self.layout.to_json(), "fold": self.fold}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Result:
        """The result again."""
        return Result(Layout.from_json(data["layout"]), str(data["fold"]))

    @cached_property
    def factor(self) -> int:
        """How many lanes are summed into one."""
        return dict(self.layout.digits).get(self.fold, 1)

    @cached_property
    def stride(self) -> int:
        """The distance of lanes that are summed (1 without a fold)."""
        if not self.fold:
            return 1
        place = [name for name, _ in self.layout.digits].index(self.fold)
        return prod(n for _, n in self.layout.digits[place + 1 :])

    def cyclic(self, slots: int) -> bool:
        """Whether the fold goes round, so that every lane gets the sum."""
        return not self.fold or (self.layout.digits[0][0] == self.fold and self.layout.size == slots)

    def gives(self, slots: int) -> Layout:
        """Where the result is after the fold."""
        return self.layout if self.cyclic(slots) else replace(self.layout, only=(self.fold,))


def virtual_axes(program: EncryptedProgram) -> dict[str, Axes]:
    """The virtual axes of every encrypted value, in storage order; their extents multiply to its size."""
    cuts: dict[str, dict[tuple[int, int], str]] = {name: {} for name in program.shapes}
    for step in program.steps:
        if isinstance(step, Linear):
            for term in step.terms:
                extents = dict(term.indices)
                if set(extents) <= {i for slot in term.rows for i, _ in slot.terms}:
                    continue  # nothing is summed: elements move, or are scaled, wherever they are
                for value, slots in ((step.name, term.rows), (step.argument, term.columns)):
                    for cut, index in _cuts(slots, program.shapes[value], extents):
                        cuts[value].setdefault(cut, index)
    return {name: _axes(shape, cuts[name]) for name, shape in program.shapes.items()}


def _cuts(
    slots: Sequence[Slot], shape: tuple[int, ...], extents: Mapping[str, int]
) -> Iterator[tuple[tuple[int, int], str]]:
    """((from, to), index): an index that runs over the flat distances from..to."""
    for axis, slot in enumerate(slots):
        stride = prod(shape[axis + 1 :])
        for index, c in slot.terms:
            if c > 0 and extents[index] > 1 and c * extents[index] <= shape[axis]:
                yield (c * stride, c * stride * extents[index]), index


def _axes(shape: tuple[int, ...], cuts: Mapping[tuple[int, int], str]) -> Axes:
    """Axes between cut points, each of which divides the next."""
    total = prod(shape)
    points = [1]
    for n in reversed(shape):
        points.append(points[-1] * n)
    points = sorted(set(points))
    for a, b in cuts:
        for cut in (a, b):
            if cut not in points and all(max(cut, p) % min(cut, p) == 0 for p in points):
                points = sorted([*points, cut])
    while len(points) > MOST_AXES + 1:
        inner = min(range(1, len(points) - 1), key=lambda k: points[k + 1] // points[k - 1])
        del points[inner]
    names: list[str] = []
    axes: list[tuple[str, int]] = []
    for low, high in zip(points[-2::-1], points[:0:-1], strict=True):
        name = cuts.get((low, high), "") or "abcdeghijklmnopqrstuvwxyz"[len(axes) % 25]
        while name in names or name == SPARE:
            name += "_"
        names.append(name)
        axes.append((name, high // low))
    return tuple(axes) if total > 1 else (("a", 1),)


def plain_axes(shape: tuple[int, ...]) -> Axes:
    """The axes of a shape, uncut."""
    return _axes(shape, {})


def power(n: int) -> int:
    """The least power of two that is at least n."""
    return 1 << (n - 1).bit_length()


def orders(axes: Axes) -> list[Axes]:
    """Orders of the axes, storage order first."""
    if len(axes) <= MOST_ORDERED:
        return list(permutations(axes))
    found = [axes]
    for k in range(len(axes)):
        rest = axes[:k] + axes[k + 1 :]
        found += [(axes[k], *rest), (*rest, axes[k])]
    return list(dict.fromkeys(found))


def results(axes: Axes, slots: int, terms: int) -> Iterator[Result]:
    """Layouts for a result of which every element is a sum of at most `terms` products.

    Partial sums take no spare slots, all of them, or as many as there are products.
    """
    for sizes in _sizes(axes):
        for order in orders(axes):
            for base in _split(axes, order, sizes, slots):
                yield Result(base)
                for factor in _factors(slots // base.size, terms):
                    for place in _places(len(base.digits)):
                        digits = (*base.digits[:place], (SPARE, factor), *base.digits[place:])
                        yield Result(replace(base, digits=digits), SPARE)


def sources(axes: Axes, others: Sequence[int], slots: int, copies: int) -> Iterator[Layout]:
    """Layouts for an input; `others` are extents of the step that reads it, by shares of which it may be skewed, and
    `copies` how often an element is read at most.
    """
    for sizes in _sizes(axes):
        for order in orders(axes):
            for base in _split(axes, order, sizes, slots):
                yield from _packed(base, others, slots, copies)
            inner, extent = order[-1]
            doubled = {**sizes, inner: 2 * sizes[inner]}
            if prod(doubled.values()) <= slots and extent > 1:
                base = Layout(axes, tuple((n, doubled[n]) for n, _ in order))
                base = replace(base, forms=((inner, Form(((inner, 1),), modulus=extent)),))
                yield from _packed(base, others, slots, copies)
    if len(axes) == 1 and 2 * axes[0][1] <= slots:  # the whole ciphertext, period n, where n need not divide it
        name, extent = axes[0]
        yield Layout(axes, ((name, slots),), forms=((name, Form(((name, 1),), modulus=extent)),))


def _packed(base: Layout, others: Sequence[int], slots: int, copies: int) -> Iterator[Layout]:
    """The layout without and with its spare slots used, straight or skewed."""
    yield base
    forms = dict(base.forms)
    for factor in _factors(slots // base.size, copies):
        for place in _places(len(base.digits)):
            digits = (*base.digits[:place], (SPARE, factor), *base.digits[place:])
            spread = replace(base, digits=digits)
            yield spread
            for name, extent in base.axes:
                for step in sorted({-(-x // factor) for x in (extent, *others) if factor <= x <= extent}):
                    was = forms.get(name, Form(((name, 1),), modulus=extent))
                    skewed = Form((*was.terms, (SPARE, step)), was.offset, was.modulus or extent)
                    kept = tuple((n, f) for n, f in base.forms if n != name)
                    yield replace(spread, forms=(*kept, (name, skewed)))


def _sizes(axes: Axes) -> list[dict[str, int]]:
    """Room for each axis: powers of two, and exactly what it needs."""
    found = [{n: power(x) for n, x in axes}, dict(axes)]
    return found if found[0] != found[1] and len(axes) <= MOST_ORDERED else found[:1]


def _places(digits: int) -> list[int]:
    """Where spare slots go: anywhere; on top, below the top digit or at the bottom where there are many digits."""
    return list(range(digits + 1)) if digits <= MOST_ORDERED else [0, 1, digits]


def _factors(spare: int, useful: int) -> list[int]:
    """Powers of two of spare slots that are put to use: all, or no more than are useful."""
    most = 1 << (spare.bit_length() - 1)
    return sorted({most, min(most, power(useful))} - {1}, reverse=True)


def _split(axes: Axes, order: Axes, sizes: Mapping[str, int], slots: int) -> Iterator[Layout]:
    """The axes in this order, cut into ciphertexts from the top where they take more than one."""
    digits: list[tuple[str, int]] = []
    room = slots
    for place in range(len(order) - 1, -1, -1):
        name, extent = order[place]
        if sizes[name] <= room:
            digits.insert(0, (name, sizes[name]))
            room //= sizes[name]
            continue
        most = room  # of this axis in one ciphertext
        above = [(n, x) for n, x in order[:place]]
        for lane in sorted({most, -(-extent // -(-extent // most))}, reverse=True):
            count = -(-extent // lane)
            piece = name + "'"
            form = Form(((name, 1), (piece, lane))) if lane > 1 else Form(((piece, 1),))
            inner = ((name, lane),) if lane > 1 else ()
            yield Layout(axes, (*inner, *digits), (*above, (piece, count)), ((name, form),))
        return
    yield Layout(axes, tuple(digits))
