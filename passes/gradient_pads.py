"""Gradients of reads that leave the range of their tensor: where a contribution lands, and how it is folded back.

A read with `pad=wrap` is undone by writing at the slot modulo the extent. For other pads the contributions go to a
tensor over the whole span of the slots; of that, the part inside is the gradient, and with `pad=edge` the parts outside
belong to the first and the last position.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..ir.expr import Einsum, Equation, Expr, Map, Position, Read
from ..ir.index import Affine, Index
from ..ir.semiring import PLUS_TIMES
from ..ir.size import ZERO, Size
from ..ir.types import BOOL, I64, DType
from .derivatives import call
from .tools import Names, cast, definition


@dataclass(frozen=True)
class Landing:
    """Slots and shape of what contributions of a read are written to.

    `lows` tells for each axis which position of the tensor its first element is; None: the axis is the tensor's own.
    All None: it is the tensor itself.
    """

    slots: tuple[Affine, ...]
    shape: tuple[Size, ...]
    lows: tuple[Size | None, ...]

    @property
    def inside(self) -> bool:
        """Whether contributions go to the tensor itself."""
        return all(low is None for low in self.lows)


def landing(read: Read, shape: tuple[Size, ...], extents: Mapping[str, Size]) -> Landing:
    """Where the contributions of a read of a tensor of `shape` go."""
    slots, sizes, lows = [], [], list[Size | None]()
    for slot, size in zip(read.slots, shape, strict=True):
        low, high = slot.bounds(extents)
        if read.pad is None or (low.at_least(0) and (size - 1 - high).at_least(0)):
            slots.append(slot)
            sizes.append(size)
            lows.append(None)
        elif read.pad == "wrap":
            assert slot.modulus is None, "a slot with a modulus stays in its range"
            slots.append(slot.mod(size))
            sizes.append(size)
            lows.append(None)
        elif slot.modulus is not None:
            slots.append(slot)
            sizes.append(slot.modulus)
            lows.append(ZERO)
        else:
            slots.append(slot - low)
            sizes.append(high - low + 1)
            lows.append(low)
    return Landing(tuple(slots), tuple(sizes), tuple(lows))


def folded(
    span: Landing, read: Read, shape: tuple[Size, ...], source: str, dtype: DType, names: Names
) -> tuple[list[Equation], Equation]:
    """(equations that go before, a nameless equation whose value is the gradient) for contributions in `source`."""
    axes = tuple(f"p{k}" for k in range(len(shape)))
    extents = dict(zip(axes, shape, strict=True))
    slots, bound, factors = [], list[str](), list[Expr]()
    before: list[Equation] = []
    for k, (axis, low, size) in enumerate(zip(axes, span.lows, shape, strict=True)):
        if low is None:
            slots.append(Affine.of(axis))
        elif read.pad == "edge":
            place = f"e{k}"
            extents[place] = span.shape[k]
            last = Position(Affine.constant(size - 1))
            nearest = call("clip", Position(Affine.of(place) + low), Position(Affine.constant(0)), last)
            table = definition(names.numbered(f"{source}.place"), (place,), nearest, extents, I64, PLUS_TIMES)
            before.append(table)
            factors.append(Map("eq", (Position(Affine.of(axis)), Read(table.name, table.slots, I64)), BOOL))
            bound.append(place)
            slots.append(Affine.of(place))
        else:
            slots.append(Affine.of(axis) - low)
    part = Read(source, tuple(slots), dtype, None if bound else 0.0)
    value: Expr = Einsum(tuple(bound), (*factors, part), dtype, dtype) if bound else part
    indices = tuple(Index(n, e) for n, e in extents.items())
    return before, Equation("", tuple(map(Affine.of, axes)), shape, indices, cast(value, dtype), dtype)
