"""Where each axis of a kernel stands at a point of the text: at one position, in a block, or there as a whole."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod

from .nodes import Group, Kernel, Number, Tensor


def ceil_pow2(n: int) -> int:
    """The least power of two that is at least `n`.

    >>> [ceil_pow2(n) for n in (0, 1, 5, 64)]
    [1, 1, 8, 64]
    """
    return 1 << max(0, n - 1).bit_length()


@dataclass(frozen=True)
class Place:
    """`width` positions (a power of two) from `origin` on (a text, "" for 0). A `scalar` is no dimension of a tile."""

    origin: str
    width: int
    scalar: bool = False


@dataclass
class Frame:
    """The axes of a kernel with their sizes, and the places that the nodes above have given them."""

    sizes: dict[str, Number]
    wide: bool = False
    places: dict[str, Place] = field(default_factory=dict)

    @staticmethod
    def of(kernel: Kernel) -> Frame:
        """The frame at the top of a kernel."""
        return Frame(dict(kernel.sizes), kernel.wide)

    def place(self, axis: str) -> Place:
        """Where an axis stands."""
        found = self.places.get(axis)
        if found is not None:
            return found
        size = self.sizes[axis]
        assert isinstance(size, int), f"axis {axis} has a size of run time and stands in no block"
        return Place("", ceil_pow2(size))

    def scalar(self, axis: str) -> bool:
        """Whether an axis stands at one position."""
        return self.place(axis).scalar

    def vectors(self, axes: Iterable[str]) -> tuple[str, ...]:
        """Those of `axes` that are dimensions of a tile."""
        return tuple(a for a in axes if not self.scalar(a))

    def width(self, group: Group) -> int:
        """How many positions a group of axes has in a tile."""
        return prod(self.place(a).width for a in group)

    def shape(self, groups: Iterable[Group]) -> list[int]:
        """The dimensions of a tile."""
        return [self.width(g) for g in groups]

    def strides(self, tensor: Tensor) -> dict[str, Number]:
        """The stride of each axis of a tensor, in elements."""
        if tensor.strides or not tensor.axes:
            return dict(zip(tensor.axes, tensor.strides, strict=True))
        found: dict[str, Number] = {}
        step = 1
        for axis in reversed(tensor.axes):
            found[axis] = step
            size = self.sizes[axis]
            if axis != tensor.axes[0]:
                assert isinstance(size, int), f"{tensor.name} has inner axes of sizes of run time: give its strides"
                step *= size
        return found

    def is_whole(self, axis: str) -> bool:
        """Whether a tile has all positions of an axis and no others."""
        place = self.place(axis)
        return place.origin == "" and not place.scalar and self.sizes[axis] == place.width

    def fits(self, axis: str) -> bool:
        """Whether no block of the axis goes beyond its end."""
        size, place = self.sizes[axis], self.place(axis)
        return place.scalar or (isinstance(size, int) and size % place.width == 0)
