"""Reads a packing back as digits: which axis each digit of a slot number and of a ciphertext number counts.

The values inside a program come with packings alone. A step that multiplies one with something of its own packing, or
that sums over one of its axes, has to know the strides: they are found here from the array, and believed only if the
layout that they give is that very array.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ..core.layout import SLOTS, Form, Layout, Packing

Array = np.ndarray[Any, Any]

REPLICA, ONLY = -1, -2


@dataclass(frozen=True)
class Digit:
    """`size` values of a digit, each `step` further on `axis`; the same data for all of them if `axis` is REPLICA;
    data for the value 0 alone if it is ONLY.
    """

    size: int
    axis: int
    step: int = 0


@dataclass(frozen=True)
class Digits:
    """The digits of slots and of ciphertexts, high to low."""

    slots: tuple[Digit, ...]
    ciphertexts: tuple[Digit, ...]

    def layout(self, shape: tuple[int, ...]) -> Layout:
        """The same as a layout, with axes "0", "1", ... and digits "s0", ..., "c0", ..."""
        named = [(f"c{n}", d) for n, d in enumerate(self.ciphertexts)] + [
            (f"s{n}", d) for n, d in enumerate(self.slots)
        ]
        forms = tuple(
            (str(axis), Form(tuple((name, d.step) for name, d in named if d.axis == axis)))
            for axis in range(len(shape))
        )
        return Layout(
            axes=tuple((str(axis), n) for axis, n in enumerate(shape)),
            digits=tuple((f"s{n}", d.size) for n, d in enumerate(self.slots)),
            ciphertexts=tuple((f"c{n}", d.size) for n, d in enumerate(self.ciphertexts)),
            forms=forms,
            only=tuple(name for name, d in named if d.axis == ONLY),
        )


def read_digits(packing: Packing, shape: tuple[int, ...]) -> Digits | None:
    """The digits of a packing of a tensor of this shape, or None where it has no such form (skewed, doubled rows).

    >>> digits = read_digits(Layout((("i", 3),), (("f", 2), ("i", 4))).packing(16), (3,))
    >>> digits.slots
    (Digit(size=2, axis=-1, step=0), Digit(size=4, axis=0, step=1))
    """
    if packing.kind != SLOTS:
        return None
    slots = _split(packing.at[0], shape)
    ciphertexts = _split(packing.at[:, 0], shape)
    if slots is None or ciphertexts is None or prod(d.size for d in ciphertexts) != packing.ciphertexts:
        return None
    found = Digits(slots, ciphertexts)
    layout = found.layout(shape)
    if layout.size > packing.at.shape[1] or not np.array_equal(layout.packing(packing.at.shape[1]).at, packing.at):
        return None
    return found


def positions(numbers: Array, shape: tuple[int, ...]) -> Array:
    """The position on each axis of elements with these flat numbers (0 for those that are none).

    >>> positions(np.array([5, -1]), (2, 3)).tolist()
    [[1, 0], [2, 0]]
    """
    if not shape:
        return np.zeros((0, *numbers.shape), dtype=np.int64)
    return np.array(np.unravel_index(np.maximum(numbers, 0), shape), dtype=np.int64)


def _split(flat: Array, shape: tuple[int, ...]) -> tuple[Digit, ...] | None:
    """The digits, high to low, of a sequence of element numbers."""
    digits: list[Digit] = []
    while len(flat) > 1:
        if flat[0] < 0:
            return None
        digit = _lowest(flat, shape)
        if digit is None:
            break
        digits.append(digit)
        if (flat[digit.size :] < 0).all():
            break
        flat = flat[: len(flat) // digit.size * digit.size : digit.size]  # digits need not fill a ciphertext
    return tuple(reversed(digits))


def _lowest(flat: Array, shape: tuple[int, ...]) -> Digit | None:
    """The lowest digit, or None where nothing but the first position holds data."""
    held = np.flatnonzero(flat >= 0)
    if len(held) == 1:
        return None
    if held[1] != 1:
        return Digit(int(held[1]), ONLY)
    places = positions(flat, shape)
    move = places[:, 1] - places[:, 0]
    axes = np.flatnonzero(move)
    if len(axes) > 1:
        return Digit(len(flat), REPLICA)  # skewed: the layout will not be that array
    expected = places[:, :1] + move[:, None] * np.arange(len(flat))
    straight = (flat >= 0) & (places == expected).all(axis=0)
    run = int(np.argmin(straight)) if not straight.all() else len(flat)
    beyond = held[held >= run]
    size = int(beyond[0]) if len(beyond) else run
    return Digit(size, int(axes[0]), int(move[axes[0]])) if len(axes) else Digit(size, REPLICA)
