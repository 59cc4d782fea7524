"""Addresses: where the elements of a tile of a tensor lie in memory, and which of them are there at all.

Part of the printer. A dimension of a tile is one flat range, its axes are quotients and remainders of it; digits that
lie one after the other in the tensor stay merged. The origins of blocks form a 64-bit base, offsets inside of a tile
have 32 bits (64 in `wide` kernels). Slots that are no strides (moduli, pads, tables) are computed as positions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .emit import Code, indexed, plus, times
from .frame import Frame
from .nodes import Group, Number, Slot, Tensor
from .values import Value

Table = Callable[[str, tuple[Group, ...]], Value]  # the value of a tensor of integers, in given dimensions


@dataclass(frozen=True)
class Address:
    """A pointer text and the texts of conditions: `beyond` for positions past the end of an axis, `outside` for
    positions that a slot leaves out.
    """

    pointer: str
    beyond: tuple[str, ...]
    outside: tuple[str, ...]

    @property
    def mask(self) -> str:
        """All conditions in one, "" if there are none."""
        return " & ".join((*self.beyond, *self.outside))


@dataclass(frozen=True)
class _Digit:
    axes: tuple[str, ...]
    divisor: int
    extent: int
    stride: Number | None


def _digits(frame: Frame, group: Group, strides: dict[str, Number]) -> list[_Digit]:
    """The digits of a flat range over `group`, neighbours merged where the tensor has them in one stretch."""
    left, digits = frame.width(group), list[_Digit]()
    for axis in group:
        extent = frame.place(axis).width
        left //= extent
        digit = _Digit((axis,), left, extent, strides.get(axis))
        before = digits[-1] if digits else None
        if (
            before is not None
            and isinstance(before.stride, int)
            and isinstance(digit.stride, int)
            and before.stride == digit.stride * extent
            and frame.is_whole(axis)
            and all(map(frame.is_whole, before.axes))
        ):
            digits[-1] = _Digit((*before.axes, axis), left, before.extent * extent, digit.stride)
        else:
            digits.append(digit)
    return digits


def _digit_name(code: Code, frame: Frame, group: Group, digit: _Digit) -> str:
    """The name of the vector of values of a digit."""
    width = frame.width(group)
    flat = code.range(width)
    text = flat if digit.divisor == 1 else f"{flat} // {digit.divisor}"
    if digit.divisor * digit.extent < width:
        text = f"({text}) % {digit.extent}" if digit.divisor > 1 else f"{text} % {digit.extent}"
    return flat if text == flat else code.let("_".join(digit.axes), text)


def digit(code: Code, frame: Frame, axis: str, groups: tuple[Group, ...]) -> str:
    """The step from the origin of an axis, a vector on the dimension of its group."""
    position = next(k for k, g in enumerate(groups) if axis in g)
    left = frame.width(groups[position])
    for other in groups[position]:
        left //= frame.place(other).width
        if other == axis:
            break
    found = _Digit((axis,), left, frame.place(axis).width, 1)
    return _digit_name(code, frame, groups[position], found) + indexed(position, len(groups))


def coordinate(code: Code, frame: Frame, axis: str, groups: tuple[Group, ...]) -> str:
    """The position on an axis."""
    place = frame.place(axis)
    if place.scalar:
        return place.origin or "0"
    step = digit(code, frame, axis, groups)
    return f"({place.origin} + {step})" if place.origin else step


def beyond(code: Code, frame: Frame, axis: str, groups: tuple[Group, ...]) -> str:
    """The condition that positions of an axis are not past its end, "" where none is."""
    if frame.fits(axis):
        return ""
    origin = frame.place(axis).origin
    position = next(k for k, g in enumerate(groups) if axis in g)
    step = digit(code, frame, axis, (groups[position],))
    text = f"{step} < {frame.sizes[axis]}" + (f" - {origin}" if origin else "")
    return code.let(f"{axis}_in", text) + indexed(position, len(groups))


def linear(
    code: Code, frame: Frame, terms: tuple[tuple[str, Number], ...], offset: Number, groups: tuple[Group, ...]
) -> str:
    """offset + the sum of factor x position, in parentheses if it is more than a name."""
    parts = [times(coordinate(code, frame, a, groups), f) for a, f in terms if f != 0]
    text = plus((*parts, offset))
    return text if text.isidentifier() or text.isdigit() else f"({text})"


def modulo(text: str, modulus: Number, positive: bool) -> str:
    """The remainder from 0 up; Triton's has the sign of the dividend."""
    return f"({text} % {modulus})" if positive else f"(({text} % {modulus} + {modulus}) % {modulus})"


def is_positive(terms: tuple[tuple[str, Number], ...], offset: Number) -> bool:
    """Whether a linear expression of positions is known to be no less than 0."""
    return all(isinstance(n, int) and n >= 0 for n in (offset, *(f for _, f in terms)))


def _slot(
    code: Code, frame: Frame, tensor: Tensor, slot: Slot, groups: tuple[Group, ...], table: Table
) -> tuple[str, list[str]]:
    """The offset of a slot, and the conditions under which its position is there."""
    conditions: list[str] = []
    if slot.table:
        text = table(slot.table, groups).code
        text = f"{text}.to(tl.int64)"
    else:
        text = linear(code, frame, slot.terms, slot.offset, groups)
        if slot.modulus is not None:
            text = modulo(text, slot.modulus, is_positive(slot.terms, slot.offset))
        if not frame.vectors(a for a, _ in slot.terms):
            text = f"tl.cast({text}, tl.int32)"  # loops count in Python integers where kernels are interpreted
    if slot.extent is not None:
        text = code.let(f"{tensor.name}_position", text)
        if slot.clamp:
            text = code.let(f"{tensor.name}_position", f"tl.minimum(tl.maximum({text}, 0), {slot.extent} - 1)")
        else:
            conditions = [f"({text} >= 0)", f"({text} < {slot.extent})"]
    if frame.wide and not slot.table:
        text = f"tl.cast({text}, tl.int64)"
    return times(text, slot.stride), conditions


def address(code: Code, frame: Frame, tensor: Tensor, groups: tuple[Group, ...], table: Table) -> Address:
    """The address of a tile of `tensor` with these dimensions.

    Axes of the tensor that stand at one position are in none of the groups; groups may have axes that it lacks.
    """
    strides, rank = frame.strides(tensor), len(groups)
    base: list[str] = [tensor.argument]
    if tensor.offset != 0:
        base.append(f"tl.cast({tensor.offset}, tl.int64)" if isinstance(tensor.offset, str) else str(tensor.offset))
    for axis in tensor.axes:
        origin = frame.place(axis).origin
        if origin and strides[axis] != 0:
            base.append(times(f"tl.cast({origin}, tl.int64)", strides[axis]))
    moved = {a for s in tensor.slots for a, _ in s.terms}  # their slots give the address its dimensions
    tabled = any(s.table for s in tensor.slots)
    offsets: list[str] = []
    masks: list[str] = []
    for position, group in enumerate(groups):
        for found in _digits(frame, group, strides) if group else ():
            if found.stride is None:
                continue
            if found.stride != 0 or not (tabled or found.axes[0] in moved):
                name = _digit_name(code, frame, group, found)
                name = f"{name}.to(tl.int64)" if frame.wide else name
                offsets.append(times(name + indexed(position, rank), found.stride))
            if len(found.axes) == 1:
                masks.append(beyond(code, frame, found.axes[0], groups))
    outside: list[str] = []
    for slot in tensor.slots:
        offset, conditions = _slot(code, frame, tensor, slot, groups, table)
        offsets.append(offset)
        outside += conditions
    pointer = plus((*base, *offsets))
    return Address(pointer, tuple(dict.fromkeys(m for m in masks if m)), tuple(outside))
