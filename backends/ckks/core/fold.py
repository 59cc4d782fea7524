"""Folds: sums over a digit of the slots by rotate-and-add, and what a digit needs around it for one.

A fold of extent n and stride s leaves in every slot the sum of the n slots at distances 0, s, 2s, ...: the logarithm of
n rotations. Slots whose sum leaves the digit hold something of no use, except where the digit is the top one and fills
the ciphertext: then the sum is cyclic, and lies in every position.
"""

from __future__ import annotations

from .circuit import Builder


def rotations(extent: int) -> int:
    """How many rotations the sum of exactly `extent` positions takes: doublings, and one for each further binary digit.

    >>> [rotations(n) for n in (1, 2, 3, 4, 5, 7, 8, 4096)]
    [0, 1, 2, 2, 3, 4, 3, 12]
    """
    return extent.bit_length() - 1 + extent.bit_count() - 1


def room(extent: int) -> int:
    """The positions to keep for a digit that is folded: its extent, or a power of two where that saves rotations.

    Positions beyond the extent must hold 0.

    >>> [room(n) for n in (1, 4, 5, 6, 7, 200)]
    [1, 4, 5, 6, 8, 256]
    """
    wide = 1 << (extent - 1).bit_length()
    return extent if rotations(extent) <= rotations(wide) else wide


def steps(extent: int, stride: int) -> tuple[int, ...]:
    """The rotations themselves, in order.

    >>> steps(4, 3), steps(5, 1)
    ((3, 6), (1, 2, 4))
    """
    top = extent.bit_length() - 1
    found, reached = [stride << b for b in range(top)], 1 << top
    for b in range(top - 1, -1, -1):
        if extent >> b & 1:
            found.append(reached * stride)
            reached += 1 << b
    return tuple(found)


def emit(builder: Builder, value: int, extent: int, stride: int) -> int:
    """Writes a fold: the node that holds the sums."""
    top = extent.bit_length() - 1
    powers = [value]  # sums over 1, 2, 4, ... positions
    for b in range(top):
        powers.append(builder.add(powers[b], builder.rotate(powers[b], stride << b)))
    total, reached = powers[top], 1 << top
    for b in range(top - 1, -1, -1):
        if extent >> b & 1:
            total = builder.add(total, builder.rotate(powers[b], reached * stride))
            reached += 1 << b
    return total
